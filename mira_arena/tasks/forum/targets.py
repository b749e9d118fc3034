"""Evaluation of the forum's tasks: the expected list of changes."""

from collections.abc import Mapping
from typing import Any

from mira_arena.sites.forum import facts
from mira_arena.tasks.evaluations import html_target


def forum_targets(changes: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The expected list of changes: these facts (see `facts`) have these values, and all others have their initial values."""
    return [html_target("__FORUM__/changes", "#changes", " ".join(facts.lines(changes or {})) or "none yet")]
