"""Rebuilds a world from nothing but its pages, by the rule that the later page is right."""

import re

from mira_arena.seeking.pages import make_pages
from mira_arena.seeking.relations import RELATIONS
from mira_arena.seeking.world import Entity, World

_FIRST = re.compile(r"(?P<name>.+) is an? (?P<kind>person|work|organisation|town|event)(?:, also called (?P<alias>.+))?\.")

_MIDDLES = {relation.name: relation.sentence[len("{subject}") : -len("{object}.")] for relation in RELATIONS.values()}
"""Relation to the words between subject and object."""


def read_world(split: str, number: int) -> World:
    pages = make_pages(split, number).values()
    firsts = [match for page in pages if (match := _FIRST.fullmatch(page.summary))]
    entities = {it["name"]: Entity(it["name"], it["kind"], it["alias"] or "") for it in firsts}
    names = {entity.alias: entity.name for entity in entities.values() if entity.alias}
    stated: dict[tuple[str, str], dict[int, list[str]]] = {}
    for page in pages:
        for sentence in page.sentences:
            for relation, before in _MIDDLES.items():
                if before in sentence:
                    name, value = sentence.removesuffix(".").split(before)
                    found = stated.setdefault((name, relation), {})
                    found.setdefault(page.dated, []).append(names.get(value, value))
    for (name, relation), by_date in stated.items():
        entities[name].facts[relation] = tuple(by_date[max(by_date)])
    return World(split, number, entities)
