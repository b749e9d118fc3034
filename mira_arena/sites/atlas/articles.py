"""The encyclopedia's articles: sentences about the facts of a seed's country. `[[title]]` is a link to an article."""

import dataclasses
import functools
from random import Random

from mira_arena.sites.atlas import vocabulary
from mira_arena.sites.atlas.content import AtlasContent, Museum, Person, River, Town, make_content


@dataclasses.dataclass(frozen=True)
class Section:
    heading: str
    text: str


@dataclasses.dataclass(frozen=True)
class Revision:
    author: str
    day: int
    """Day of the content's month."""
    heading: str
    summary: str


@dataclasses.dataclass(frozen=True)
class Article:
    title: str
    category: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    """Infobox entries: name and value. The value may be a link."""
    sections: tuple[Section, ...]
    revisions: tuple[Revision, ...]
    """Revisions, oldest first."""


@functools.lru_cache(maxsize=128)
def make_articles(seed: int) -> dict[str, Article]:
    """Maps title to article. Deterministic in the seed."""
    content, random = make_content(seed), Random(f"articles {seed}")
    found = [_town(random, content, town) for town in content.towns]
    found += [_mayor(random, town, mayor) for town, mayor in zip(content.towns, content.mayors, strict=True)]
    found += [_person(random, content, person) for person in content.others]
    found += [_museum(random, content, museum) for museum in content.museums]
    found += [_river(random, content, river) for river in content.rivers]
    return {article.title: article for article in found}


def _town(random: Random, content: AtlasContent, town: Town) -> Article:
    founders, building, trade = random.choice(vocabulary.FOUNDERS), random.choice(vocabulary.BUILDINGS), random.choice(vocabulary.TRADES)
    built, day, festival = town.founded + random.randrange(5, 90), random.choice(vocabulary.DAYS), random.choice(vocabulary.FESTIVALS)
    return _article(
        random, town.name, "towns",
        f"{town.name} is a town in {content.country} on the [[{town.river}]].",
        {
            "population": str(town.population), "founded": str(town.founded), "area": f"{town.area} km2",
            "mayor": f"[[{town.mayor}]]",
        },
        {
            "origins": f"the town was founded by {founders}. its oldest {building} was built in {built}.",
            "economy": f"many people live from {trade}. there is a market every {day}.",
            "culture": f"the {festival} festival is held in {random.choice(vocabulary.MONTHS)}.",
        },
    )  # fmt: skip


def _mayor(random: Random, town: Town, mayor: Person) -> Article:
    return _article(
        random, mayor.name, "people",
        f"{mayor.name} has been mayor of [[{town.name}]] since {random.randrange(2012, 2026)}.",
        {"born": str(mayor.born), "birthplace": f"[[{mayor.birthplace}]]", "occupation": f"mayor, once a {mayor.occupation}"},
        {
            "early life": f"the family lived in a {random.choice(vocabulary.HOMES)} and moved {random.choice(('once', 'twice', 'often'))}.",
            "work": (
                f"the mayor is known for a new {random.choice(vocabulary.BUILDINGS)} and the "
                f"{random.choice(vocabulary.FESTIVALS)} festival."
            ),
        },
    )  # fmt: skip


def _person(random: Random, content: AtlasContent, person: Person) -> Article:
    museum = next((museum for museum in content.museums if museum.founder == person.name), None)
    founded = f" and founded the [[{museum.name}]]" if museum else ""
    return _article(
        random, person.name, "people",
        f"{person.name} was a {person.occupation}{founded}.",
        {"born": str(person.born), "birthplace": f"[[{person.birthplace}]]", "occupation": person.occupation},
        {
            "early life": f"the family lived in a {random.choice(vocabulary.HOMES)} near {random.choice(vocabulary.WATERS)}.",
            "work": f"the first work of note is from {person.born + random.randrange(18, 30)}.",
        },
    )  # fmt: skip


def _museum(random: Random, content: AtlasContent, museum: Museum) -> Article:
    topic = museum.name.split()[0]
    return _article(
        random, museum.name, "museums",
        f"the {museum.name} is a museum in [[{museum.town}]].",
        {"founded": str(museum.founded), "founder": f"[[{museum.founder}]]", "visitors": f"{museum.visitors} a year"},
        {
            "collection": f"there are {random.randrange(200, 4000)} pieces about {topic} on {random.randrange(2, 6)} floors.",
            "visiting": f"since {content.month} it is open {museum.hours}. it is free on {random.choice(vocabulary.DAYS)}.",
        },
    )  # fmt: skip


def _river(random: Random, content: AtlasContent, river: River) -> Article:
    towns = ", ".join(f"[[{town}]]" for town in river.towns)
    return _article(
        random, river.name, "rivers",
        f"the {river.name} is a river in {content.country}.",
        {"length": f"{river.kilometres} km", "towns": towns},
        {
            "course": f"it rises in {random.choice(vocabulary.WATERS)} in the west and flows to the east.",
            "use": f"it is used for {random.choice(vocabulary.TRADES)}. a {random.choice(vocabulary.FESTIVALS)} festival is held on it.",
        },
    )  # fmt: skip


def _article(random: Random, title: str, category: str, lead: str, facts: dict[str, str], sections: dict[str, str]) -> Article:
    days = sorted(random.sample(range(1, 28), 3))
    editors = random.sample(vocabulary.EDITORS, 3)
    revisions = [
        Revision(editor, day, random.choice(list(sections)), random.choice(vocabulary.SUMMARIES))
        for editor, day in zip(editors, days, strict=True)
    ]
    parts = [Section(heading, text) for heading, text in sections.items()]
    return Article(title, category, lead, tuple(facts.items()), tuple(parts), tuple(revisions))
