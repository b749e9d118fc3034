"""The logical form of a question, its words, and the solver that finds its answers in a world.

A form denotes a set of names or literals. A question is well posed if that set has exactly one member.
"""

import dataclasses

from mira_arena.seeking.relations import NUMBER, RELATIONS
from mira_arena.seeking.world import World


@dataclasses.dataclass(frozen=True)
class Named:
    """The entity with that name."""

    name: str
    called: str = ""
    """The alias that the question uses instead. Empty: none."""


@dataclasses.dataclass(frozen=True)
class Follow:
    """What a relation leads to, from the base."""

    base: "Base"
    relation: str


@dataclasses.dataclass(frozen=True)
class Select:
    """The one of the base's `many` whose `by` is `value`."""

    base: "Base"
    many: str
    by: str
    value: str


@dataclasses.dataclass(frozen=True)
class Count:
    """How many of the base's `many` have a year `by` after `after`."""

    base: "Base"
    many: str
    by: str
    after: int


@dataclasses.dataclass(frozen=True)
class Total:
    """The sum of the numbers `by` of the base's `many`."""

    base: "Base"
    many: str
    by: str


@dataclasses.dataclass(frozen=True)
class Earliest:
    """The one of the base's `many` with the lowest year `by`."""

    base: "Base"
    many: str
    by: str


@dataclasses.dataclass(frozen=True)
class Greater:
    """The one of two entities with the greater `by`."""

    first: "Base"
    second: "Base"
    by: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """By how much the `by` of two entities differ."""

    first: "Base"
    second: "Base"
    by: str


Base = Named | Follow | Select
OverMany = Count | Total | Earliest
OfTwo = Greater | Difference
Form = Base | OverMany | OfTwo


def solve(world: World, form: Form) -> frozenset[str]:
    """All answers of the form in the world."""
    if isinstance(form, Named):
        return frozenset({form.name})
    if isinstance(form, OfTwo):
        pairs = [(one, other) for one in solve(world, form.first) for other in solve(world, form.second)]
        return frozenset(answer for pair in pairs for answer in _of_two(world, form, *pair))
    bases = solve(world, form.base)
    if isinstance(form, Follow):
        return frozenset(value for base in bases for value in world.values(base, form.relation))
    lists = [world.values(base, form.many) for base in bases]
    if isinstance(form, Select):
        return frozenset(item for items in lists for item in items if form.value in world.values(item, form.by))
    return frozenset(answer for items in lists for answer in _over_many(world, form, items))


def _over_many(world: World, form: OverMany, items: tuple[str, ...]) -> list[str]:
    numbers = {item: number(world, item, form.by) for item in items}
    if isinstance(form, Count):
        return [str(sum(year > form.after for year in numbers.values()))]
    if isinstance(form, Total):
        return [str(sum(numbers.values()))]
    return [item for item in items if numbers[item] == min(numbers.values())]


def _of_two(world: World, form: OfTwo, one: str, other: str) -> list[str]:
    first, second = number(world, one, form.by), number(world, other, form.by)
    if isinstance(form, Difference):
        return [str(abs(first - second))]
    return [name for name, value in ((one, first), (other, second)) if value == max(first, second)]


def number(world: World, name: str, relation: str) -> int:
    """The year or number that an entity has."""
    return int(world.values(name, relation)[0])


def words(form: Base) -> str:
    """The form as a noun phrase: `the seat of the publisher of X`."""
    if isinstance(form, Named):
        return form.called or form.name
    if isinstance(form, Follow):
        return f"the {form.relation} of {words(form.base)}"
    return f"the {RELATIONS[form.many].object} of {words(form.base)} whose {form.by} is {form.value}"


def question(form: Form) -> str:
    """The form as a question."""
    if isinstance(form, Count):
        return f"How many of the {form.many} of {words(form.base)} have a {form.by} after {form.after}?"
    if isinstance(form, Total):
        return f"What is the sum of the {form.by} of all {form.many} of {words(form.base)}?"
    if isinstance(form, Earliest):
        return f"Which of the {form.many} of {words(form.base)} has the earliest {form.by}?"
    if isinstance(form, Greater):
        greater = "greater" if RELATIONS[form.by].object == NUMBER else "later"
        return f"Which has the {greater} {form.by}: {words(form.first)}, or {words(form.second)}?"
    if isinstance(form, Difference):
        return f"What is the difference between the {form.by} of {words(form.first)} and that of {words(form.second)}?"
    return f"What is {words(form)}?"
