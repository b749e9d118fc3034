"""How the forum's tasks are judged: what the list of changes must read."""

from collections.abc import Mapping
from typing import Any

from mira_arena.sites.forum import facts
from mira_arena.tasks.evaluations import html_target


def forum_targets(changes: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """What the list of changes must read: these facts (see `facts`) have these values now, and all others have their initial values."""
    return [html_target("__FORUM__/changes", "#changes", " ".join(facts.lines(changes or {})) or "none yet")]
