"""A world: entities and the facts about them, drawn from a split and a number."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from random import Random

from mira_arena.seeking import vocabulary
from mira_arena.seeking.relations import EVENT, NUMBER, ORGANISATION, PERSON, RELATIONS, TOWN, WORK, YEAR, Relation, relations_of
from mira_jax.trajectories.tasks import split_by_hash

SIZES = {PERSON: 1000, WORK: 1000, ORGANISATION: 400, TOWN: 300, EVENT: 400}
"""Number of entities of each type."""
MAX_ITEMS = 5
"""Maximum number of entities that a relation with several leads to."""
CACHED = 8
"""Number of worlds that a process keeps."""

_ALIASED = {PERSON: 0.25, ORGANISATION: 0.25, TOWN: 0.25}
"""Share of the entities with an alias."""
_LACKING = 0.3
"""Share of the entities that lack an optional relation."""
_DISPUTED = 0.5
"""Share of the entities with a notice that contradicts another page."""
_HOLDERS = {"works": 0.35, "events": 0.45}
"""Relation with several objects to the share of the entities that have any."""
_YEARS = range(1700, 1950)
_NUMBERS = range(100, 10_000)


@dataclasses.dataclass(frozen=True)
class Dispute:
    """A contradiction between the page that states a fact and a notice. The later of the two is right."""

    relation: str
    wrong: str
    corrected: bool
    """Whether the notice is later, and right. Otherwise it is earlier, and wrong."""


@dataclasses.dataclass
class Entity:
    name: str
    kind: str
    alias: str = ""
    facts: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Relation to the names of entities, or to one literal. An entity lacks a relation that is not in it."""
    dispute: Dispute | None = None


@dataclasses.dataclass(frozen=True)
class World:
    split: str
    number: int
    entities: Mapping[str, Entity]
    """Entities by name."""

    @property
    def key(self) -> str:
        """The first part of the paths of its pages."""
        return f"{self.split}-{self.number}"

    def values(self, name: str, relation: str) -> tuple[str, ...]:
        """What the relation leads to. Empty if the entity lacks it."""
        return self.entities[name].facts.get(relation, ())

    @functools.cached_property
    def by_kind(self) -> dict[str, list[Entity]]:
        """Type to its entities."""
        return {kind: [entity for entity in self.entities.values() if entity.kind == kind] for kind in SIZES}


@functools.lru_cache(maxsize=CACHED)
def make_world(split: str, number: int) -> World:
    """Deterministic. No two splits have a name in common."""
    random = Random(f"seeking {split} {number}")
    entities = _Names(random, split).draw()
    world = World(split, number, {entity.name: entity for entity in entities})
    for relation in RELATIONS.values():
        if not relation.many:
            _state(random, relation, world.by_kind)
    for entity in entities:
        if random.random() < _DISPUTED:
            entity.dispute = _dispute(random, entity, world.by_kind)
    return world


class _Names:
    """Draws names and aliases of a split, none of them twice."""

    def __init__(self, random: Random, split: str):
        self._random, self._split, self._taken = random, split, set[str]()

    def draw(self) -> list[Entity]:
        entities = [Entity(self._new(FORMS[kind]), kind) for kind, size in SIZES.items() for _ in range(size)]
        for entity in entities:
            if self._random.random() < _ALIASED.get(entity.kind, 0):
                entity.alias = self._new(ALIASES[entity.kind])
        return entities

    def _new(self, form: Callable[[Random], str]) -> str:
        while True:
            name = form(self._random)
            if name not in self._taken and split_by_hash(name.encode()) == self._split:
                self._taken.add(name)
                return name


def _two(random: Random, first: tuple[str, ...], second: tuple[str, ...]) -> str:
    return f"{random.choice(first)} {random.choice(second)}"


FORMS: Mapping[str, Callable[[Random], str]] = {
    PERSON: lambda random: _two(random, vocabulary.FIRST_NAMES, vocabulary.LAST_NAMES),
    WORK: lambda random: f"{random.choice(vocabulary.WORKS)} of the {_two(random, vocabulary.ADJECTIVES, vocabulary.THINGS)}",
    ORGANISATION: lambda random: f"{random.choice(vocabulary.ADJECTIVES)} {_two(random, vocabulary.TRADES, vocabulary.BODIES)}",
    TOWN: lambda random: _two(random, vocabulary.ADJECTIVES, vocabulary.PLACES),
    EVENT: lambda random: f"{random.choice(vocabulary.ADJECTIVES)} {_two(random, vocabulary.THINGS, vocabulary.EVENTS)}",
}
"""Type to the form of its names."""
ALIASES: Mapping[str, Callable[[Random], str]] = {
    PERSON: lambda random: f"the {random.choice(vocabulary.ADJECTIVES)} {_two(random, vocabulary.TRADES, vocabulary.ANIMALS)}",
    ORGANISATION: lambda random: f"house of the {_two(random, vocabulary.ADJECTIVES, vocabulary.ANIMALS)}",
    TOWN: lambda random: f"town of the {_two(random, vocabulary.ADJECTIVES, vocabulary.ANIMALS)}",
}
"""Type to the form of its aliases."""


def _state(random: Random, relation: Relation, by_kind: Mapping[str, list[Entity]]) -> None:
    """States the relation of each entity that has it, and its inverse."""
    subjects = by_kind[relation.subject]
    if relation.inverse:
        objects = by_kind[relation.object]
        holders = random.sample(objects, int(len(objects) * _HOLDERS[relation.inverse]))
        for subject in subjects:
            holder = random.choice(holders)
            while len(holder.facts.get(relation.inverse, ())) >= MAX_ITEMS:
                holder = random.choice(holders)
            subject.facts[relation.name] = (holder.name,)
            holder.facts[relation.inverse] = (*holder.facts.get(relation.inverse, ()), subject.name)
        return
    for subject in subjects:
        if not (relation.optional and random.random() < _LACKING):
            subject.facts[relation.name] = (_other(random, relation, subject.name, by_kind),)


def _other(random: Random, relation: Relation, than: str, by_kind: Mapping[str, list[Entity]]) -> str:
    """An object of the relation, other than that."""
    while True:
        if relation.object == YEAR:
            found = str(random.choice(_YEARS))
        elif relation.object == NUMBER:
            found = str(random.choice(_NUMBERS))
        else:
            found = random.choice(by_kind[relation.object]).name
        if found != than:
            return found


def _dispute(random: Random, entity: Entity, by_kind: Mapping[str, list[Entity]]) -> Dispute:
    relation = random.choice([it for it in relations_of(entity.kind) if it.name in entity.facts and not it.inverse])
    wrong = entity.facts[relation.name][0]
    while wrong in (entity.name, entity.facts[relation.name][0]):
        wrong = _other(random, relation, entity.facts[relation.name][0], by_kind)
    return Dispute(relation.name, wrong, corrected=random.random() < 0.5)
