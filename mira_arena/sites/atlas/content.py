"""A made-up country, drawn from a seed: its towns, roads, rivers, places and people."""

import dataclasses
import functools
import itertools
import math
from random import Random

from mira_arena.sites.atlas import vocabulary
from mira_arena.sites.atlas.roads import METRES, Builder, Point, Roads, distance, join_towns

WIDTH, HEIGHT = 6000, 4000
"""Of the country, in steps of 10 m."""
TOWNS = 6
STREETS = 3
"""In each town; they meet in its centre."""
MUSEUMS = 5
PLACES_PER_KIND = 6
"""Of every other kind."""
SAVED = 5

_MARGIN = 600
_APART = 1000
"""The least between two towns."""
_NEAREST_HOUSE, _LAST_HOUSE = 10, 110
"""How far from the centre places are."""


@dataclasses.dataclass(frozen=True)
class Place:
    """What the map knows: a town, or something in one."""

    name: str
    kind: str
    """`town`, or one of `vocabulary.KINDS`."""
    town: str
    """The town that it is in; '' for a town."""
    street: str
    """With the number."""
    hours: str
    phone: str
    point: Point
    node: int
    """Of the roads."""
    importance: int
    """Larger is found earlier; no two places share one."""


@dataclasses.dataclass(frozen=True)
class Town:
    name: str
    population: int
    founded: int
    area: int
    """In square kilometres."""
    mayor: str
    river: str
    """'' if it is on none."""


@dataclasses.dataclass(frozen=True)
class Person:
    name: str
    born: int
    birthplace: str
    occupation: str
    """What a mayor did before; what another is known for."""


@dataclasses.dataclass(frozen=True)
class Museum:
    name: str
    town: str
    founded: int
    founder: str
    visitors: int
    """In a year."""
    hours: str
    """Those of now; the map still has older ones."""


@dataclasses.dataclass(frozen=True)
class River:
    name: str
    kilometres: int
    towns: tuple[str, ...]
    """From its source on."""
    course: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Saved:
    """A saved place."""

    label: str
    place: str
    note: str


@dataclasses.dataclass(frozen=True)
class Content:
    seed: int
    country: str
    user: str
    """Who is signed in."""
    password: str
    month: str
    places: tuple[Place, ...]
    """The towns first."""
    towns: tuple[Town, ...]
    mayors: tuple[Person, ...]
    """In the order of the towns."""
    others: tuple[Person, ...]
    """People of the past."""
    museums: tuple[Museum, ...]
    rivers: tuple[River, ...]
    roads: Roads
    saved: tuple[Saved, ...]
    """What the user saved before."""
    watched: tuple[str, ...]
    """Titles of articles."""

    @functools.cached_property
    def by_name(self) -> dict[str, Place]:
        return {place.name: place for place in self.places}

    @property
    def people(self) -> tuple[Person, ...]:
        return self.mayors + self.others

    @functools.cached_property
    def titles(self) -> dict[str, str]:
        """Of the articles, each with its category."""
        groups = {"towns": self.towns, "people": self.people, "museums": self.museums, "rivers": self.rivers}
        return {about.name: category for category, group in groups.items() for about in group}

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """Of everything that a search can find, on either site."""
        return frozenset(self.by_name) | frozenset(self.titles)

    def near(self, name: str, kind: str = "") -> list[tuple[Place, int]]:
        """Places that are no towns, of one kind if it is given, with their distance in metres, nearest first."""
        here = self.by_name[name]
        found = [(place, distance(here.point, place.point)) for place in self.places if place.kind != "town" and place is not here]
        return sorted(
            ((place, metres) for place, metres in found if kind in ("", place.kind)), key=lambda pair: (pair[1], -pair[0].importance)
        )


@functools.lru_cache(maxsize=128)
def make_content(seed: int) -> Content:
    """The country of that seed, always the same."""
    random = Random(f"atlas {seed}")
    names = random.sample([f"{first} {last}" for first in vocabulary.TOWN_FIRST for last in vocabulary.TOWN_LAST], TOWNS)
    builder = Builder()
    centres = {name: builder.node(point) for name, point in zip(names, _spread(random), strict=True)}
    join_towns(random, builder, list(centres.values()))
    places = _places(random, builder, centres)
    rivers = _rivers(random, {name: builder.points[node] for name, node in centres.items()})
    people = random.sample([f"{first} {last}" for first in vocabulary.FIRST_NAMES for last in vocabulary.LAST_NAMES], TOWNS + MUSEUMS + 1)
    mayors = _people(random, people[:TOWNS], names, range(1950, 1990), vocabulary.EARLIER_WORK)
    others = _people(random, people[TOWNS:-1], names, range(1780, 1920), vocabulary.OCCUPATIONS)
    museums = _museums(random, [place for place in places if place.kind == "museum"], others)
    content = Content(
        seed=seed,
        country=random.choice(vocabulary.COUNTRIES),
        user=people[-1],
        password=f"{random.choice(vocabulary.PASSWORDS)} {random.randrange(10, 100)}",
        month=random.choice(vocabulary.MONTHS),
        places=tuple(places),
        towns=_towns(random, names, mayors, rivers),
        mayors=mayors,
        others=others,
        museums=museums,
        rivers=rivers,
        roads=builder.done(),
        saved=_saved(random, places),
        watched=(),
    )
    return dataclasses.replace(content, watched=tuple(sorted(random.sample(sorted(content.titles), 2))))


def _spread(random: Random) -> list[Point]:
    """Where the towns are: anywhere, but not too near to each other."""
    points: list[Point] = []
    while len(points) < TOWNS:
        point = (random.randrange(_MARGIN, WIDTH - _MARGIN), random.randrange(_MARGIN, HEIGHT - _MARGIN))
        if all(distance(point, other) >= _APART * METRES for other in points):
            points.append(point)
    return points


def _places(random: Random, builder: Builder, centres: dict[str, int]) -> list[Place]:
    """The towns, then all that is in them, along streets that start in the centre."""
    wanted: dict[str, list[tuple[str, str]]] = {town: [] for town in centres}
    for kind in vocabulary.KINDS:
        count, signs = (MUSEUMS, vocabulary.TOPICS) if kind == "museum" else (PLACES_PER_KIND, vocabulary.SIGNS)
        for sign, town in zip(random.sample(signs, count), random.sample([*centres, *centres], count), strict=True):
            wanted[town].append((f"{sign} {kind}", kind))
    total = MUSEUMS + PLACES_PER_KIND * (len(vocabulary.KINDS) - 1)
    importance = random.sample(range(100, 1000), total + TOWNS)
    phones = random.sample(range(200_000, 999_000), total)
    points = builder.points
    towns = [Place(town, "town", "", "", "", "", points[node], node, 1000 + importance.pop()) for town, node in centres.items()]
    places = []
    for town, centre in centres.items():
        streets, turn = random.sample(vocabulary.STREETS, STREETS), random.uniform(0, 2 * math.pi)
        far = random.sample(range(_NEAREST_HOUSE, _LAST_HOUSE), len(wanted[town]))
        random.shuffle(wanted[town])
        for number, street in enumerate(streets):
            angle, last = turn + 2 * math.pi * number / STREETS + random.uniform(-0.3, 0.3), centre
            for steps, (name, kind) in sorted(zip(far[number::STREETS], wanted[town][number::STREETS], strict=True)):
                last = _along(builder, street, centre, last, angle, steps)
                phone, address = phones.pop(), f"{street} {1 + steps // 4}"
                places.append(
                    Place(name, kind, town, address, _hours(random), f"{phone // 1000} {phone % 1000:03}", points[last], last,
                          importance.pop())
                )  # fmt: skip
            _along(builder, street, centre, last, angle, _LAST_HOUSE + random.randrange(10, 80))
    return [*towns, *places]


def _along(builder: Builder, street: str, centre: int, last: int, angle: float, steps: int) -> int:
    """A new node on a street, `steps` from the centre, joined to the one before it."""
    x, y = builder.points[centre]
    node = builder.node((x + round(steps * math.cos(angle)), y + round(steps * math.sin(angle))))
    builder.join(last, node, street, "street")
    return node


def _hours(random: Random) -> str:
    return f"{random.randrange(7, 11)}:{random.choice(('00', '30'))}-{random.randrange(16, 23)}:{random.choice(('00', '30'))}"


def _rivers(random: Random, centres: dict[str, Point]) -> tuple[River, ...]:
    """Two rivers, from west to east, each through three towns of its own."""
    order = random.sample(list(centres), TOWNS)
    rivers = []
    for word, towns in zip(random.sample(vocabulary.RIVERS, 2), (order[: TOWNS // 2], order[TOWNS // 2 :]), strict=True):
        towns = sorted(towns, key=lambda town: centres[town])
        course = [(0, random.randrange(HEIGHT)), *(centres[town] for town in towns), (WIDTH, random.randrange(HEIGHT))]
        length = sum(distance(one, other) for one, other in itertools.pairwise(course))
        rivers.append(River(f"{word} river", round(length / 1000), tuple(towns), tuple(course)))
    return tuple(rivers)


def _people(random: Random, names: list[str], towns: list[str], years: range, work: tuple[str, ...]) -> tuple[Person, ...]:
    born = random.sample(years, len(names))
    return tuple(Person(name, year, random.choice(towns), random.choice(work)) for name, year in zip(names, born, strict=True))


def _museums(random: Random, places: list[Place], founders: tuple[Person, ...]) -> tuple[Museum, ...]:
    """Each was founded by another person, at an age of 30 to 60."""
    visitors, museums = random.sample(range(2_000, 90_000, 10), len(places)), []
    for place, founder, count in zip(places, random.sample(founders, len(places)), visitors, strict=True):
        founded = founder.born + random.randrange(30, 60)
        museums.append(Museum(place.name, place.town, founded, founder.name, count, _hours(random)))
    return tuple(museums)


def _towns(random: Random, names: list[str], mayors: tuple[Person, ...], rivers: tuple[River, ...]) -> tuple[Town, ...]:
    populations = random.sample(range(4_000, 99_000, 10), TOWNS)
    founded, areas = random.sample(range(1050, 1700), TOWNS), random.sample(range(12, 99), TOWNS)
    river_of = {town: river.name for river in rivers for town in river.towns}
    facts = zip(names, populations, founded, areas, mayors, strict=True)
    return tuple(Town(name, people, year, area, mayor.name, river_of.get(name, "")) for name, people, year, area, mayor in facts)


def _saved(random: Random, places: list[Place]) -> tuple[Saved, ...]:
    chosen = random.sample([place for place in places if place.kind != "town"], SAVED)
    labels = random.sample(vocabulary.SAVED_LABELS, SAVED)
    return tuple(Saved(label, place.name, "") for label, place in zip(labels, chosen, strict=True))
