"""The types of entities, and the relations between them: what a page can state, and on which page of an entity it is stated."""

import dataclasses

PERSON, WORK, ORGANISATION, TOWN, EVENT = "person", "work", "organisation", "town", "event"
YEAR, NUMBER = "year", "number"
"""What a relation leads to if not to an entity."""

REGISTER = "register"
"""The first page of every entity. Its title is the entity's name."""
SECOND = {PERSON: "biography", WORK: "review", ORGANISATION: "report", TOWN: "chronicle", EVENT: "programme"}
"""Type to the kind of its second page."""


@dataclasses.dataclass(frozen=True)
class Relation:
    name: str
    """As in "the NAME of X"."""
    subject: str
    """Type of the entities that have it."""
    object: str
    """Type of the entities that it leads to, YEAR or NUMBER."""
    page: str
    """Kind of the page that states it."""
    sentence: str
    """How the page states it, with `{subject}` and `{object}`."""
    optional: bool = False
    """Whether some entities lack it."""
    inverse: str = ""
    """Name of the relation that leads back. Both are stated, on the pages of either entity."""
    many: bool = False
    """Whether it leads to several entities. All others lead to one."""

    @property
    def literal(self) -> bool:
        return self.object in (YEAR, NUMBER)


RELATIONS = {
    relation.name: relation
    for relation in (
        Relation("birthplace", PERSON, TOWN, REGISTER, "{subject} was born in {object}."),
        Relation("birth year", PERSON, YEAR, REGISTER, "{subject} has the birth year {object}."),
        Relation("employer", PERSON, ORGANISATION, "biography", "{subject} works for {object}."),
        Relation("teacher", PERSON, PERSON, "biography", "{subject} was taught by {object}.", optional=True),
        Relation("guardian", PERSON, PERSON, "biography", "{subject} was raised by {object}.", optional=True),
        Relation("works", PERSON, WORK, "biography", "{subject} created {object}.", inverse="author", many=True),
        Relation("author", WORK, PERSON, REGISTER, "{subject} is by {object}.", inverse="works"),
        Relation("publisher", WORK, ORGANISATION, REGISTER, "{subject} was published by {object}."),
        Relation("publication year", WORK, YEAR, REGISTER, "{subject} appeared in the year {object}."),
        Relation("setting", WORK, TOWN, "review", "{subject} is set in {object}."),
        Relation("dedicatee", WORK, PERSON, "review", "{subject} is dedicated to {object}.", optional=True),
        Relation("price", WORK, NUMBER, "review", "{subject} costs {object}."),
        Relation("seat", ORGANISATION, TOWN, REGISTER, "{subject} has its seat in {object}."),
        Relation("founder", ORGANISATION, PERSON, REGISTER, "{subject} was founded by {object}."),
        Relation("founding year", ORGANISATION, YEAR, REGISTER, "{subject} was founded in the year {object}."),
        Relation("director", ORGANISATION, PERSON, "report", "{subject} is led by {object}."),
        Relation("patron", ORGANISATION, PERSON, "report", "{subject} is supported by {object}.", optional=True),
        Relation("staff", ORGANISATION, NUMBER, "report", "{subject} has a staff of {object}."),
        Relation("mother town", TOWN, TOWN, REGISTER, "{subject} was settled from {object}."),
        Relation("charter year", TOWN, YEAR, REGISTER, "{subject} got its charter in the year {object}."),
        Relation("mayor", TOWN, PERSON, "chronicle", "{subject} has a mayor, {object}."),
        Relation("population", TOWN, NUMBER, "chronicle", "{subject} has a population of {object}."),
        Relation("events", TOWN, EVENT, "chronicle", "{subject} was the place of {object}.", inverse="place", many=True),
        Relation("place", EVENT, TOWN, REGISTER, "{subject} was held in {object}.", inverse="events"),
        Relation("year", EVENT, YEAR, REGISTER, "{subject} took place in the year {object}."),
        Relation("host", EVENT, ORGANISATION, "programme", "{subject} was hosted by {object}."),
        Relation("winner", EVENT, PERSON, "programme", "{subject} was won by {object}.", optional=True),
        Relation("attendance", EVENT, NUMBER, "programme", "{subject} had an attendance of {object}."),
    )
}
"""Relations by name."""


def relations_of(kind: str) -> list[Relation]:
    """The relations of the entities of a type."""
    return [relation for relation in RELATIONS.values() if relation.subject == kind]
