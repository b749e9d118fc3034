"""Evaluation of tasks on the map and the encyclopedia: the expected list of changes."""

from collections.abc import Sequence
from typing import Any

from mira_arena.sites.atlas.content import AtlasContent
from mira_arena.tasks.evaluations import html_target


def targets(
    content: AtlasContent,
    saved: Sequence[tuple[str, str, str]] | None = None,
    notes: Sequence[tuple[str, str]] = (),
    corrections: Sequence[tuple[str, str, str]] = (),
    layer: str = "",
    edits: Sequence[tuple[str, str, str, str]] = (),
    watched: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """The expected differences from the initial state on both sites. Any other difference is a failure.

    Args:
        saved: label, place and note of every saved place, in order.
        notes: place and text of each new note on the map.
        corrections: place, opening hours and comment.
        layer: selected layer of the map.
        edits: title, heading, text and summary.
        watched: the complete watchlist.
    """
    lines = [f"saved {label} is {place}" + (f", {note}" if note else "") for label, place, note in saved or ()]
    lines += [f"note at {place}: {text}" for place, text in sorted(notes)]
    lines += [f"hours of {place} {hours}: {comment}" for place, hours, comment in sorted(corrections)]
    lines += [f"layer {layer}"] if layer else []
    lines += [f"{heading} of {title}: {text}: {summary}" for title, heading, text, summary in edits]
    lines += [f"watching {', '.join(sorted(watched))}"] if watched else []
    return [html_target("__MAP__/changes", "#changes", " ".join(lines) or "none yet")]
