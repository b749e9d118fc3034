"""Random draws shared by templates of the map and the encyclopedia."""

import dataclasses
from random import Random

from mira_arena.sites.atlas import vocabulary
from mira_arena.sites.atlas.content import AtlasContent, Place
from mira_arena.sites.atlas.roads import kilometres


def pick(random: Random, content: AtlasContent, count: int, kind: str = "") -> list[Place]:
    """Distinct places other than towns, optionally of one kind."""
    return random.sample([place for place in content.places if place.kind != "town" and kind in ("", place.kind)], count)


def nearest(content: AtlasContent, name: str, kind: str) -> Place | None:
    """The nearest place of that kind. None if another is shown with the same distance."""
    (first, metres), (_, other), *_ = content.near(name, kind)
    return first if kilometres(metres) != kilometres(other) else None


def labels(random: Random, count: int) -> list[str]:
    return random.sample(vocabulary.NEW_LABELS, count)


def saved_before(content: AtlasContent) -> list[tuple[str, str, str]]:
    return [dataclasses.astuple(row) for row in content.saved]
