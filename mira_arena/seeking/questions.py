"""Questions: templates, and how their instances are drawn from the facts of a world, so that each has exactly one answer."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from random import Random

from mira_arena.seeking.answers import NOT_STATED
from mira_arena.seeking.forms import Base, Count, Difference, Earliest, Follow, Form, Greater, Named, Select, Total, number, question, solve
from mira_arena.seeking.plans import Hop, make_plan
from mira_arena.seeking.relations import NUMBER, RELATIONS, YEAR, Relation, relations_of
from mira_arena.seeking.world import World, make_world
from mira_jax.errors import UserError
from mira_jax.trajectories.tasks import SPLITS

RULES = " Where pages disagree, the later page is right. If no page states it, answer N/A."
"""The end of every question."""

_DRAWS = 10_000
_ALIAS = 0.2
"""Share of the questions that name an entity by its alias, if it has one."""
_NUMBER = "0|[1-9][0-9]{0,11}"
_TASK_ID = re.compile(rf"seeking\.(?P<template>[a-z]+_[0-9])\.(?P<split>[a-z]+)\.(?P<world>{_NUMBER})\.(?P<number>{_NUMBER})")


@dataclasses.dataclass(frozen=True)
class Template:
    name: str
    hops: int
    draw: Callable[[Random, World, int], Form | None]
    """Draws a form with that number of hops. None if the draw is not usable."""
    held_out: bool = False
    """Whether the template has instances only in the test split."""


@dataclasses.dataclass(frozen=True)
class Question:
    identity: str
    template: Template
    world: World
    form: Form
    text: str
    answers: tuple[str, ...]
    """The name and the alias of the one answer, or a number."""
    plan: tuple[Hop, ...]

    @property
    def guessable(self) -> bool:
        """Whether the answer is one of a few. Such an answer is right only if the pages of the plan were visited."""
        return isinstance(self.form, Count) or self.answers == (NOT_STATED,)


def task_id(template: str, split: str, world: int, number: int) -> str:
    return f"seeking.{template}.{split}.{world}.{number}"


@functools.lru_cache(maxsize=4096)
def make_question(identity: str) -> Question:
    """Returns the question of a task id. Deterministic. Raises UserError if it does not exist."""
    match = _TASK_ID.fullmatch(identity)
    if not match or match["template"] not in TEMPLATES or match["split"] not in SPLITS:
        raise UserError(f"task: no task {identity!r} in the suite seeking")
    template = TEMPLATES[match["template"]]
    if template.held_out and match["split"] != "test":
        raise UserError(f"task: {template.name} has instances only in the test split")
    world, random = make_world(match["split"], int(match["world"])), Random(identity)
    for _ in range(_DRAWS):
        form = template.draw(random, world, template.hops)
        if form is not None:
            return Question(identity, template, world, form, question(form) + RULES, _answers(world, form), make_plan(form))
    raise RuntimeError(f"{identity}: no draw of the template is usable")


def _answers(world: World, form: Form) -> tuple[str, ...]:
    found = solve(world, form)
    if not found:
        return (NOT_STATED,)
    (answer,) = found
    entity = world.entities.get(answer)
    return (answer, entity.alias) if entity and entity.alias else (answer,)


def _named(random: Random, world: World, kind: str) -> Named:
    entity = random.choice(world.by_kind[kind])
    return Named(entity.name, entity.alias if entity.alias and random.random() < _ALIAS else "")


def _path(random: Random, start: str | None, length: int, last: Callable[[Relation], bool]) -> list[Relation] | None:
    """Relations that can be followed one after the other, each with one object, the last of which passes the test."""
    single = [relation for relation in RELATIONS.values() if not relation.many]
    path: list[Relation] = []
    for place in range(length):
        usable = [
            relation
            for relation in single
            if relation.subject == (path[-1].object if path else start or relation.subject)
            and (last(relation) if place == length - 1 else not relation.literal)
        ]
        if not usable:
            return None
        path.append(random.choice(usable))
    return path


def _follow(world: World, base: Base, path: Sequence[Relation]) -> Base | None:
    """Follows the path. None if it comes to an entity twice, or to one that lacks the relation."""
    seen = set(solve(world, base))
    if isinstance(base, Select):
        seen |= solve(world, base.base)
    for relation in path:
        base = Follow(base, relation.name)
        found = solve(world, base)
        if len(found) != 1 or (found & seen and not relation.literal):
            return None
        seen |= found
    return base


def _along(random: Random, world: World, path: list[Relation] | None) -> Base | None:
    """Follows the path from any entity that it can start from. None if there is no path."""
    return _follow(world, _named(random, world, path[0].subject), path) if path else None


def _walk(random: Random, world: World, length: int, to: str) -> Base | None:
    """A named entity of any type, followed over so many relations to an entity of the type."""
    if length == 0:
        return _named(random, world, to)
    return _along(random, world, _path(random, None, length, lambda relation: relation.object == to))


def _chain(random: Random, world: World, hops: int) -> Form | None:
    return _along(random, world, _path(random, None, hops, lambda relation: True))


def _missing(random: Random, world: World, hops: int) -> Form | None:
    """A chain whose last fact does not exist."""
    path = _path(random, None, hops, lambda relation: relation.optional)
    base = _follow(world, _named(random, world, path[0].subject), path[:-1]) if path else None
    form = Follow(base, path[-1].name) if path and base else None
    return form if form and not solve(world, form) else None


def _list(random: Random, world: World, hops: int, least: int) -> tuple[Base, Relation, list[str]] | None:
    """An entity at so many hops with at least so many items, the relation to them, and the items."""
    many = random.choice([relation for relation in RELATIONS.values() if relation.many])
    base = _walk(random, world, hops, many.subject)
    if not base:
        return None
    (name,) = solve(world, base)
    items = list(world.values(name, many.name))
    return (base, many, items) if len(items) >= least else None


def _select(random: Random, world: World, hops: int) -> Form | None:
    """One of several items, told apart by one of its facts, then followed: two hops before the last one or more."""
    before = random.randint(0, hops - 3)
    found = _list(random, world, before, 2)
    if not found:
        return None
    base, many, items = found
    by = random.choice([relation for relation in relations_of(many.object) if not relation.many and not relation.inverse])
    value = next(iter(world.values(random.choice(items), by.name)), "")
    if not value or (value in world.entities and world.entities[value].alias):
        return None
    selected = Select(base, many.name, by.name, value)
    if len(solve(world, selected)) != 1 or value in solve(world, base):
        return None
    path = _path(random, many.object, hops - before - 2, lambda relation: relation.name != by.name)
    return _follow(world, selected, path) if path else None


def _over_many(random: Random, world: World, hops: int, of: str) -> tuple[Base, Relation, Relation, list[str]] | None:
    found = _list(random, world, hops - 2, 3)
    if not found:
        return None
    base, many, items = found
    return base, many, random.choice([relation for relation in relations_of(many.object) if relation.object == of]), items


def _count(random: Random, world: World, hops: int) -> Form | None:
    found = _over_many(random, world, hops, YEAR)
    if not found:
        return None
    base, many, by, items = found
    return Count(base, many.name, by.name, number(world, random.choice(items), by.name) - random.randint(0, 1))


def _total(random: Random, world: World, hops: int) -> Form | None:
    found = _over_many(random, world, hops, NUMBER)
    return found and Total(found[0], found[1].name, found[2].name)


def _earliest(random: Random, world: World, hops: int) -> Form | None:
    found = _over_many(random, world, hops, YEAR)
    form = found and Earliest(found[0], found[1].name, found[2].name)
    return form if form and len(solve(world, form)) == 1 else None


def _pair(random: Random, world: World, hops: int) -> tuple[Base, Base, str] | None:
    """Two entities of one type, neither of them named in the question, and a literal that both have."""
    by = random.choice([relation for relation in RELATIONS.values() if relation.literal])
    first, second = (_walk(random, world, hops // 2 - 1, by.subject) for _ in range(2))
    if not first or not second or solve(world, first) == solve(world, second):
        return None
    return first, second, by.name


def _greater(random: Random, world: World, hops: int) -> Form | None:
    pair = _pair(random, world, hops)
    form = pair and Greater(*pair)
    return form if form and len(solve(world, form)) == 1 else None


def _difference(random: Random, world: World, hops: int) -> Form | None:
    pair = _pair(random, world, hops)
    return pair and Difference(*pair)


TEMPLATES = {
    template.name: template
    for template in (
        *(Template(f"chain_{hops}", hops, _chain, held_out=hops == 6) for hops in (2, 3, 4, 5, 6)),
        *(Template(f"select_{hops}", hops, _select) for hops in (3, 4, 5)),
        *(Template(f"count_{hops}", hops, _count) for hops in (2, 3)),
        Template("total_3", 3, _total),
        *(Template(f"greater_{hops}", hops, _greater) for hops in (4, 6)),
        *(Template(f"missing_{hops}", hops, _missing) for hops in (2, 4)),
        Template("earliest_3", 3, _earliest, held_out=True),
        Template("difference_4", 4, _difference, held_out=True),
    )
}
"""Templates by name: the form of the question, and its number of hops."""
