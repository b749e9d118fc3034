"""A fictional country generated from a seed: its towns, roads, rivers, places and people."""

import dataclasses
import functools
import itertools
import math
from random import Random

from mira_arena.sites.atlas import vocabulary
from mira_arena.sites.atlas.roads import METRES, Builder, Point, Roads, distance, join_towns

WIDTH, HEIGHT = 6000, 4000
"""Size of the country, in units of 10 m."""
TOWNS = 6
STREETS = 3
"""Number of streets in each town. They meet in its centre."""
MUSEUMS = 5
PLACES_PER_KIND = 6
"""Number of places of every kind other than towns."""
SAVED = 5

_MARGIN = 600
_APART = 1000
"""Minimum distance between two towns."""
_NEAREST_HOUSE, _LAST_HOUSE = 10, 110
"""Range of distances of places from the centre."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A place on the map: a town, or a place in a town."""

    name: str
    kind: str
    """`town`, or one of `vocabulary.KINDS`."""
    town: str
    """The town that contains it. Empty for a town."""
    street: str
    """Street and house number."""
    hours: str
    phone: str
    point: Point
    node: int
    """Node of the road graph."""
    importance: int
    """Places of larger importance are found first. All values differ."""


@dataclasses.dataclass(frozen=True)
class Town:
    name: str
    population: int
    founded: int
    area: int
    """Area in square kilometres."""
    mayor: str
    river: str
    """Empty if it is not on a river."""


@dataclasses.dataclass(frozen=True)
class Person:
    name: str
    born: int
    birthplace: str
    occupation: str
    """Former occupation of a mayor. For other people, what they are known for."""


@dataclasses.dataclass(frozen=True)
class Museum:
    name: str
    town: str
    founded: int
    founder: str
    visitors: int
    """Visitors per year."""
    hours: str
    """Current opening hours. The map initially shows outdated ones."""


@dataclasses.dataclass(frozen=True)
class River:
    name: str
    kilometres: int
    towns: tuple[str, ...]
    """Towns from the source downwards."""
    course: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Saved:
    """A saved place."""

    label: str
    place: str
    note: str


@dataclasses.dataclass(frozen=True)
class AtlasContent:
    seed: int
    country: str
    user: str
    """Name of the signed-in user."""
    password: str
    month: str
    places: tuple[Place, ...]
    """Places, towns first."""
    towns: tuple[Town, ...]
    mayors: tuple[Person, ...]
    """Mayors, in the order of the towns."""
    others: tuple[Person, ...]
    """Historical people."""
    museums: tuple[Museum, ...]
    rivers: tuple[River, ...]
    roads: Roads
    saved: tuple[Saved, ...]
    """Initial saved places of the user."""
    watched: tuple[str, ...]
    """Titles of watched articles."""

    @functools.cached_property
    def by_name(self) -> dict[str, Place]:
        return {place.name: place for place in self.places}

    @property
    def people(self) -> tuple[Person, ...]:
        return self.mayors + self.others

    @functools.cached_property
    def titles(self) -> dict[str, str]:
        """Titles of the articles, each with its category."""
        groups = {"towns": self.towns, "people": self.people, "museums": self.museums, "rivers": self.rivers}
        return {about.name: category for category, group in groups.items() for about in group}

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """All names that a search on either site can find."""
        return frozenset(self.by_name) | frozenset(self.titles)

    def near(self, name: str, kind: str = "") -> list[tuple[Place, int]]:
        """Places other than towns, optionally of one kind, with their distance in metres, nearest first."""
        here = self.by_name[name]
        found = [(place, distance(here.point, place.point)) for place in self.places if place.kind != "town" and place is not here]
        return sorted(
            ((place, metres) for place, metres in found if kind in ("", place.kind)), key=lambda pair: (pair[1], -pair[0].importance)
        )


@functools.lru_cache(maxsize=128)
def make_content(seed: int) -> AtlasContent:
    """Creates the country of a seed. Deterministic."""
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
    content = AtlasContent(
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
    """Draws the positions of the towns, with a minimum distance between them."""
    points: list[Point] = []
    while len(points) < TOWNS:
        point = (random.randrange(_MARGIN, WIDTH - _MARGIN), random.randrange(_MARGIN, HEIGHT - _MARGIN))
        if all(distance(point, other) >= _APART * METRES for other in points):
            points.append(point)
    return points


def _places(random: Random, builder: Builder, centres: dict[str, int]) -> list[Place]:
    """Creates the towns, then the places in them, along streets that start in the centre."""
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
    """Adds a node on a street, `steps` from the centre, connected to the previous one."""
    x, y = builder.points[centre]
    node = builder.node((x + round(steps * math.cos(angle)), y + round(steps * math.sin(angle))))
    builder.join(last, node, street, "street")
    return node


def _hours(random: Random) -> str:
    return f"{random.randrange(7, 11)}:{random.choice(('00', '30'))}-{random.randrange(16, 23)}:{random.choice(('00', '30'))}"


def _rivers(random: Random, centres: dict[str, Point]) -> tuple[River, ...]:
    """Two rivers from west to east. Each passes through three towns, and no town is on both."""
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
    """Each museum has a different founder, who was 30 to 60 years old at its foundation."""
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
