"""Evaluation of tasks on the admin panel: the expected list of changes. Also the addresses of its pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from mira_arena.sites.facts import change
from mira_arena.sites.paths import slug
from mira_arena.tasks.evaluations import html_target


def admin_targets(changes: Sequence[str]) -> list[dict[str, Any]]:
    """The expected list of changes of the admin panel, in its order: `NAME price 5`, `NAME stock 7`, then `order 104 packed`."""
    return [html_target("__SHOP_ADMIN__/changes", "#changes", " ".join(changes) or "none yet")]


def panel_changes(changes: Sequence[str] = (), facts: Mapping[str, str] | None = None) -> list[str]:
    """The complete list of changes of the admin panel.

    Args:
        changes: the lines of `ShopState.changes`, in order.
        facts: all other differences from the initial state, by name (see `AdminState.facts`).
    """
    return [*changes, *(change(key, value) for key, value in sorted((facts or {}).items()))]


def panel_page(section: str, *names: object) -> str:
    """Address of a page of the admin panel: `panel_page("orders", 104)`."""
    return "/".join(["__SHOP_ADMIN__", section, *(slug(str(name)) for name in names)])
