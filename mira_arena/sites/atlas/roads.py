"""The road network as a graph of towns, streets and roads, with a shortest-time search."""

import dataclasses
import functools
import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from random import Random

Point = tuple[int, int]
"""Offset east and south of the country's corner, in units of 10 m."""

METRES = 10
"""Metres per coordinate unit."""
SPEEDS = {
    "car": {"motorway": 110, "road": 70, "street": 30},
    "bike": {"road": 16, "path": 16, "street": 16},
    "foot": {"road": 5, "path": 5, "street": 5},
}
"""Mode of travel to the kinds of roads that it may use, with its speed there in km/h. The first mode is the default."""
PATHS = 2
MOTORWAYS = 2
"""Number of motorways. The roads connect all towns without them."""


@dataclasses.dataclass(frozen=True)
class Edge:
    """A section of road between two nodes, usable in both directions."""

    ends: tuple[int, int]
    road: str
    kind: str
    """motorway, road, path or street."""
    metres: int


@dataclasses.dataclass(frozen=True)
class Leg:
    """The part of a route that follows one road."""

    road: str
    metres: int


@dataclasses.dataclass(frozen=True)
class Route:
    legs: tuple[Leg, ...]
    nodes: tuple[int, ...]
    minutes: int

    @property
    def kilometres(self) -> str:
        return kilometres(sum(leg.metres for leg in self.legs))


@dataclasses.dataclass(frozen=True)
class Roads:
    points: tuple[Point, ...]
    """Position of each node."""
    edges: tuple[Edge, ...]

    @functools.cached_property
    def _from(self) -> Mapping[int, Sequence[tuple[int, Edge]]]:
        """Node to its neighbours, each with the connecting edge."""
        found: dict[int, list[tuple[int, Edge]]] = {node: [] for node in range(len(self.points))}
        for edge in self.edges:
            one, other = edge.ends
            found[one].append((other, edge))
            found[other].append((one, edge))
        return found

    def route(self, start: int, end: int, by: str) -> Route:
        """Finds the fastest route (Dijkstra's algorithm). Every node is reachable by every mode of travel."""
        speeds, order = SPEEDS[by], itertools.count()
        arrived: dict[int, tuple[int, Edge] | None] = {}
        waiting: list[tuple[float, int, int, tuple[int, Edge] | None]] = [(0.0, next(order), start, None)]
        hours = 0.0
        while end not in arrived:
            hours, _, node, last = heapq.heappop(waiting)
            if node in arrived:
                continue
            arrived[node] = last
            for neighbour, edge in self._from[node]:
                if edge.kind in speeds and neighbour not in arrived:
                    then = hours + edge.metres / 1000 / speeds[edge.kind]
                    heapq.heappush(waiting, (then, next(order), neighbour, (node, edge)))
        nodes, edges = [end], []
        while (step := arrived[nodes[-1]]) is not None:
            nodes.append(step[0])
            edges.append(step[1])
        return Route(_legs(edges[::-1]), tuple(nodes[::-1]), max(1, round(hours * 60)))


def _legs(edges: Sequence[Edge]) -> tuple[Leg, ...]:
    """Merges consecutive edges of the same road into one leg."""
    legs: list[Leg] = []
    for edge in edges:
        if legs and legs[-1].road == edge.road:
            legs[-1] = Leg(edge.road, legs[-1].metres + edge.metres)
        else:
            legs.append(Leg(edge.road, edge.metres))
    return tuple(legs)


def kilometres(metres: float) -> str:
    """Formats kilometres with one decimal: `12.3`."""
    return f"{metres / 1000:.1f}"


def distance(one: Point, other: Point) -> int:
    """Straight-line distance in metres."""
    return round(math.hypot(one[0] - other[0], one[1] - other[1])) * METRES


class Builder:
    """Collects nodes and edges."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.edges: list[Edge] = []

    def node(self, point: Point) -> int:
        self.points.append(point)
        return len(self.points) - 1

    def join(self, one: int, other: int, road: str, kind: str) -> None:
        self.edges.append(Edge((one, other), road, kind, distance(self.points[one], self.points[other])))

    def done(self) -> Roads:
        return Roads(tuple(self.points), tuple(self.edges))


def join_towns(random: Random, builder: Builder, towns: Sequence[int]) -> None:
    """Adds roads along a minimum spanning tree of the towns, then a few paths and motorways between other pairs, shortest first."""
    pairs = sorted(
        ((one, other) for place, one in enumerate(towns) for other in towns[place + 1 :]),
        key=lambda pair: distance(builder.points[pair[0]], builder.points[pair[1]]),
    )
    group = {town: town for town in towns}
    numbers = iter(random.sample(range(2, 90), len(towns) - 1 + PATHS + MOTORWAYS))
    others = []
    for one, other in pairs:
        if group[one] == group[other]:
            others.append((one, other))
            continue
        joined = group[other]
        group = {town: group[one] if name == joined else name for town, name in group.items()}
        _bend(random, builder, one, other, f"road {next(numbers)}", "road")
    for kind, found in (("path", others[:PATHS]), ("motorway", others[PATHS : PATHS + MOTORWAYS])):
        for one, other in found:
            _bend(random, builder, one, other, f"{kind} {next(numbers)}", kind)


def _bend(random: Random, builder: Builder, one: int, other: int, road: str, kind: str) -> None:
    """Adds a road with one bend, displaced by at most a tenth of its length."""
    (x, y), (to_x, to_y) = builder.points[one], builder.points[other]
    aside = random.choice((-1, 1)) * random.uniform(0.04, 0.1)
    middle = builder.node((round((x + to_x) / 2 - (to_y - y) * aside), round((y + to_y) / 2 + (to_x - x) * aside)))
    builder.join(one, middle, road, kind)
    builder.join(middle, other, road, kind)
