"""The pages of a world: two of each entity, notices that contradict one of them, and letters that state nothing."""

import dataclasses
import functools
from collections.abc import Iterator
from random import Random

from mira_arena.seeking.relations import ORGANISATION, PERSON, REGISTER, RELATIONS, SECOND, TOWN, Relation, relations_of
from mira_arena.seeking.world import CACHED, Entity, World, make_world

NOTICE, LETTER = "notice", "letter"
_DATES = range(1960, 1990)
"""Years in which registers and second pages are dated. Notices are dated up to ten years before or after."""
_LETTERS = 0.5
"""Share of the towns that a letter is about."""
_CALLED = 0.5
"""Share of the mentions of an entity that use its alias, if it has one."""


@dataclasses.dataclass(frozen=True)
class Page:
    slug: str
    """Its name in addresses."""
    title: str
    dated: int
    """The year of the page. Of two pages that disagree, the later one is right."""
    summary: str
    """The first sentence, which the results of a search show."""
    sentences: tuple[str, ...]


def page_title(name: str, kind: str) -> str:
    """The title of an entity's page of that kind."""
    return name if kind == REGISTER else f"{name} {kind}"


def page_slug(name: str, kind: str) -> str:
    return page_title(name, kind).replace(" ", "-")


@functools.lru_cache(maxsize=CACHED)
def make_pages(split: str, number: int) -> dict[str, Page]:
    """The pages of a world by slug. Deterministic."""
    return {page.slug: page for page in _Writer(make_world(split, number)).pages()}


def stating(world: World, name: str, relation: str) -> tuple[str, ...]:
    """The slugs of the pages that state what the relation leads to, and are right. If the entity lacks it: of the page that would."""
    entity, kind = world.entities[name], RELATIONS[relation]
    if entity.dispute and entity.dispute.relation == relation and entity.dispute.corrected:
        return (page_slug(name, NOTICE),)
    slugs = [page_slug(name, kind.page)]
    if kind.inverse and not kind.many:
        slugs += [page_slug(value, RELATIONS[kind.inverse].page) for value in world.values(name, relation)]
    return tuple(slugs)


class _Writer:
    def __init__(self, world: World):
        self._world, self._random = world, Random(f"pages {world.key}")

    def pages(self) -> Iterator[Page]:
        for entity in self._world.entities.values():
            yield from self._entity(entity)
        for town in self._world.by_kind[TOWN]:
            if self._random.random() < _LETTERS:
                yield self._letter(town)

    def _entity(self, entity: Entity) -> Iterator[Page]:
        for kind in (REGISTER, SECOND[entity.kind]):
            dated = self._random.choice(_DATES)
            called = f", also called {entity.alias}" if entity.alias else ""
            article = "an" if entity.kind[0] in "aeiou" else "a"
            summary = f"{entity.name} is {article} {entity.kind}{called}." if kind == REGISTER else f"the {kind} of {entity.name}."
            stated = [relation for relation in relations_of(entity.kind) if relation.page == kind]
            yield self._page(entity, kind, dated, summary, [line for relation in stated for line in self._sentences(entity, relation)])
            if entity.dispute and RELATIONS[entity.dispute.relation].page == kind:
                yield self._notice(entity, dated)

    def _sentences(self, entity: Entity, relation: Relation) -> list[str]:
        values = self._world.values(entity.name, relation.name)
        if entity.dispute and entity.dispute.relation == relation.name and entity.dispute.corrected:
            values = (entity.dispute.wrong,)
        return [self._sentence(entity, relation, value) for value in values]

    def _sentence(self, entity: Entity, relation: Relation, value: str) -> str:
        mentioned = None if relation.literal else self._world.entities[value]
        if mentioned and mentioned.alias and self._random.random() < _CALLED:
            value = mentioned.alias
        return relation.sentence.format(subject=entity.name, object=value)

    def _notice(self, entity: Entity, dated: int) -> Page:
        dispute = entity.dispute
        assert dispute is not None
        relation = RELATIONS[dispute.relation]
        value = self._world.values(entity.name, relation.name)[0] if dispute.corrected else dispute.wrong
        years = self._random.randint(1, 10)
        summary = f"a notice on the {relation.name} of {entity.name}."
        return self._page(
            entity, NOTICE, dated + years if dispute.corrected else dated - years, summary, [self._sentence(entity, relation, value)]
        )

    def _page(self, entity: Entity, kind: str, dated: int, summary: str, sentences: list[str]) -> Page:
        return Page(page_slug(entity.name, kind), page_title(entity.name, kind), dated, summary, tuple(sentences))

    def _letter(self, town: Entity) -> Page:
        person, other = self._random.sample(self._world.by_kind[PERSON], 2)
        body = self._random.choice(self._world.by_kind[ORGANISATION])
        title = f"letter from {town.name}"
        sentences = (
            f"we met {person.name} and asked who the mayor is.",
            f"{other.name} spoke of {body.name} and its seat.",
        )
        return Page(title.replace(" ", "-"), title, self._random.choice(_DATES), f"a letter about {town.name}.", sentences)
