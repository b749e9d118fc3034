"""How tasks on the map and the encyclopedia are judged, and the draws and moves that several templates share."""

import dataclasses
from collections.abc import Sequence
from random import Random
from typing import Any

from rollouts.suites.arena import milestones as done
from rollouts.suites.arena.app import page_url, slug
from rollouts.suites.arena.atlas import words
from rollouts.suites.arena.atlas.content import Content, Place
from rollouts.suites.arena.atlas.roads import SPEEDS, kilometres
from rollouts.suites.arena.milestones import Milestone
from rollouts.suites.arena.moves import Move
from rollouts.suites.arena.tasks import html_target

WAYS = tuple(SPEEDS)
LINK = r'<a id="(?:\d+">)?([^"<]+)'
"""The name of a link, whatever the handles."""


def targets(
    content: Content,
    saved: Sequence[tuple[str, str, str]] | None = None,
    notes: Sequence[tuple[str, str]] = (),
    corrections: Sequence[tuple[str, str, str]] = (),
    layer: str = "",
    edits: Sequence[tuple[str, str, str, str]] = (),
    watched: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """What must differ from the morning at the end, on both sites: nothing but what is given.

    Args:
        saved: label, place and note of every saved place, in order.
        notes: place and text of each new note on the map.
        corrections: place, opening hours and comment.
        layer: of the map.
        edits: title, heading, text and summary.
        watched: the whole watchlist.
    """
    lines = [f"saved {label} is {place}" + (f", {note}" if note else "") for label, place, note in saved or ()]
    lines += [f"note at {place}: {text}" for place, text in sorted(notes)]
    lines += [f"hours of {place} {hours}: {comment}" for place, hours, comment in sorted(corrections)]
    lines += [f"layer {layer}"] if layer else []
    lines += [f"{heading} of {title}: {text}: {summary}" for title, heading, text, summary in edits]
    lines += [f"watching {', '.join(sorted(watched))}"] if watched else []
    return [html_target("__MAP__/changes", "#changes", " ".join(lines) or "none yet")]


# Milestones.


def place_page(name: str) -> str:
    return f"__MAP__/place/{slug(name)}"


def article_page(title: str) -> str:
    return f"__WIKI__/article/{slug(title)}"


def opened(place: str) -> Milestone:
    return done.on_page(f'open "{place}"', place_page(place))


def read(title: str) -> Milestone:
    return done.on_page(f'open the article "{title}"', article_page(title))


def saved_as(label: str, place: str) -> Milestone:
    return done.in_snapshot(f'save "{place}" as "{label}"', "atlas", "saved", [label, place, ""])


def shown_way(start: str, end: str, by: str) -> Milestone:
    return done.on_query(f'get directions from "{start}" to "{end}" by {by}', "__MAP__/directions", by=by, **{"from": start, "to": end})


def directions_url(start: str, end: str, by: str) -> str:
    return page_url("__MAP__/directions", by=by, **{"from": start, "to": end})


# Moves.


def find(name: str, note: str = "", missing: str = "", careful: bool = False) -> tuple[Move, ...]:
    """A place on the map, or an article in the encyclopedia.

    Args:
        note: what this finds on the page before is written down.
        missing: what to exit with if it is not found.
        careful: has no bad habit: for what the expert looks at, but answers or acts on from what it knows.
    """
    hasty = "" if careful else "takes_first_result"
    return (Move("search", "search", name, note=note), Move("open", name, hasty=hasty, missing=missing))


def go_to_nearest(kind: str, name: str, careful: bool = False) -> tuple[Move, ...]:
    """From the page of a place to that of the nearest of a kind, which leads its list: in a hurry, whatever it is called.

    `careful` as in `find`.
    """
    return (Move("choose", "nearby", kind), Move("click", "find nearby"), Move("open", name, hasty="" if careful else "takes_first_result"))


def save_as(label: str) -> tuple[Move, ...]:
    """From the page of a place."""
    return (Move("click", "save place"), Move("type", "name", label), Move("click", "save", habit="stops_early"))


def travel(start: str, end: str, by: str, careful: bool = False) -> tuple[Move, ...]:
    """From any page of the map to the directions. The tab that is open at first needs no move. `careful` as in `find`."""
    tab = (Move("click", f"by {by}", habit="" if careful else "forgets_option"),) if by != WAYS[0] else ()
    return (
        Move("click", "directions"), *tab, Move("type", "from", start), Move("type", "to", end),
        Move("click", "get directions", habit="" if careful else "stops_early"),
    )  # fmt: skip


# Draws.


def pick(random: Random, content: Content, count: int, kind: str = "") -> list[Place]:
    """Different places that are no towns, of one kind if it is given."""
    return random.sample([place for place in content.places if place.kind != "town" and kind in ("", place.kind)], count)


def nearest(content: Content, name: str, kind: str) -> Place | None:
    """The nearest place of that kind; None if another is shown with the same distance."""
    (first, metres), (_, other), *_ = content.near(name, kind)
    return first if kilometres(metres) != kilometres(other) else None


def labels(random: Random, count: int) -> list[str]:
    return random.sample(words.NEW_LABELS, count)


def saved_before(content: Content) -> list[tuple[str, str, str]]:
    return [dataclasses.astuple(row) for row in content.saved]
