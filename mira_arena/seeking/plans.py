"""The plan of a question: the relations to look up, in order, and the pages that state what they lead to."""

import dataclasses

from mira_arena.seeking.forms import Base, Count, Earliest, Follow, Form, Named, OfTwo, Total, solve, words
from mira_arena.seeking.pages import stating
from mira_arena.seeking.world import World


@dataclasses.dataclass(frozen=True)
class Hop:
    """One relation to look up."""

    relation: str
    of: str
    """What it starts from: the name of an entity, or the number of an earlier hop, from 1."""
    looked_for: str
    """Noun phrase in the words of the question: the goal of the visit."""
    start: Base
    """The entities that it starts from."""
    tools: tuple[str, ...] = ("search", "visit")
    """The tools that it needs, in order: a search for the name, then a visit of the page that states the relation."""

    @property
    def text(self) -> str:
        """As it is written in a plan."""
        return f"{self.relation} of {self.of}"

    def pages(self, world: World) -> tuple[tuple[str, ...], ...]:
        """Groups of slugs. The hop is done when one page of each group was visited."""
        return tuple(stating(world, name, self.relation) for name in sorted(solve(world, self.start)))


def make_plan(form: Form) -> tuple[Hop, ...]:
    """The hops to the answer of a question."""
    hops: list[Hop] = []
    if isinstance(form, OfTwo):
        for part in (form.first, form.second):
            of = _add(part, hops)
            hops.append(Hop(form.by, of, f"the {form.by} of {words(part)}", part))
    elif isinstance(form, Count | Total | Earliest):
        of = _add(Follow(form.base, form.many), hops)
        hops.append(Hop(form.by, of, f"the {form.by} of each of the {form.many}", Follow(form.base, form.many)))
    else:
        _add(form, hops)
    return tuple(hops)


def plan_text(form: Form) -> str:
    """The plan in one line: `1 publisher of song of the red bell, 2 seat of 1`."""
    return ", ".join(f"{place} {hop.text}" for place, hop in enumerate(make_plan(form), 1))


def _add(form: Base, hops: list[Hop]) -> str:
    """Adds the hops of the form. Returns what the next hop starts from."""
    if isinstance(form, Named):
        return words(form)
    if isinstance(form, Follow):
        of = _add(form.base, hops)
        hops.append(Hop(form.relation, of, f"the {form.relation} of {words(form.base)}", form.base))
    else:
        of = _add(Follow(form.base, form.many), hops)
        hops.append(Hop(form.by, of, f"the one of the {form.many} whose {form.by} is {form.value}", form))
    return str(len(hops))
