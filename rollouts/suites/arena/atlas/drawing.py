"""The map as an SVG picture."""

from collections.abc import Sequence
from html import escape

from rollouts.suites.arena.atlas.content import HEIGHT, WIDTH, Content
from rollouts.suites.arena.atlas.roads import Point, Route

_CLOSE = 600
"""Width of the part that is shown around one place."""
_SHAPE = WIDTH / HEIGHT
_LAND = {"standard": "#eef0e4", "cycling": "#e9f1ea", "hiking": "#f1ece0", "transport": "#eceef2"}
_ROADS = {
    # Layer to the colour and width of each kind of road, widest below.
    "standard": {"path": ("#a9bf94", 2), "street": ("#c9c6bd", 3), "road": ("#e8c069", 4), "motorway": ("#dd8265", 5)},
    "cycling": {"path": ("#3f74c9", 4), "street": ("#9db6dd", 3), "road": ("#7f9ed2", 3), "motorway": ("#d9d5cc", 4)},
    "hiking": {"path": ("#b3472f", 4), "street": ("#d8cdb8", 3), "road": ("#d8cdb8", 4), "motorway": ("#d8cdb8", 4)},
    "transport": {"path": ("#dcdad6", 2), "street": ("#cfcdd6", 3), "road": ("#8c6bb1", 4), "motorway": ("#88848f", 5)},
}
_WATER, _INK, _WAY, _PIN = "#9cc4dd", "#3a4039", "#2b62d9", "#cf3b2e"


def draw(content: Content, layer: str, here: str = "", route: Route | None = None, found: Sequence[str] = ()) -> str:
    """The country; or the surroundings of the place `here`, the names `found` marked on it; or those of a route."""
    roads, places = content.roads, content.by_name
    left, top, width = _frame(content, here, route, found)
    height, unit = width / _SHAPE, width / 600
    drawn = [f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" fill="{_LAND[layer]}"/>']
    for river in content.rivers:
        drawn.append(_line(river.course, _WATER, max(8 * unit, 24)))
    for kind, (colour, wide) in _ROADS[layer].items():
        ends = [[roads.points[node] for node in edge.ends] for edge in roads.edges if edge.kind == kind]
        way = "".join(f"M{x} {y}L{to_x} {to_y}" for (x, y), (to_x, to_y) in ends)
        drawn.append(f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="{wide * unit:.1f}" stroke-linecap="round"/>')
    if route:
        drawn.append(_line([roads.points[node] for node in route.nodes], _WAY, 5 * unit))
    if width < WIDTH / 2:
        drawn += [_dot(place.point, 3 * unit, _INK) for place in content.places if place.kind != "town"]
    for place in content.places[: len(content.towns)]:
        x, y = place.point
        drawn.append(_dot(place.point, 5 * unit, _INK))
        drawn.append(
            f'<text x="{x + 10 * unit:.0f}" y="{y - 6 * unit:.0f}" font-size="{18 * unit:.0f}" font-family="sans-serif" fill="{_INK}" '
            f'stroke="#fff" stroke-width="{3 * unit:.1f}" paint-order="stroke">{escape(place.name)}</text>'
        )
    pins = [places[name].point for name in (*found, here) if name]
    pins += [roads.points[node] for node in (route.nodes[0], route.nodes[-1])] if route else []
    drawn += [_dot(point, 8 * unit, _PIN) for point in pins]
    box = f"{left:.0f} {top:.0f} {width:.0f} {height:.0f}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{"".join(drawn)}</svg>'


def _frame(content: Content, here: str, route: Route | None, found: Sequence[str]) -> tuple[float, float, float]:
    """The left, top and width of what is shown."""
    points = [content.by_name[name].point for name in (*found, here) if name]
    if route:
        points = [content.roads.points[node] for node in route.nodes]
    if not points:
        return 0, 0, WIDTH
    (left, right), (top, bottom) = ((min(values), max(values)) for values in zip(*points, strict=True))
    width = max(_CLOSE, 1.3 * (right - left), 1.3 * _SHAPE * (bottom - top))
    return (left + right - width) / 2, (top + bottom - width / _SHAPE) / 2, width


def _line(points: Sequence[Point], colour: str, width: float) -> str:
    course = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{course}" fill="none" stroke="{colour}" stroke-width="{width:.1f}" stroke-linejoin="round"/>'


def _dot(point: Point, radius: float, colour: str) -> str:
    return f'<circle cx="{point[0]}" cy="{point[1]}" r="{radius:.1f}" fill="{colour}" stroke="#fff" stroke-width="{radius / 4:.1f}"/>'
