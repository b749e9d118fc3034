"""Draws the map as an SVG picture."""

from collections.abc import Sequence
from html import escape

from mira_arena.sites.atlas.content import HEIGHT, WIDTH, AtlasContent
from mira_arena.sites.atlas.roads import Point, Route

_CLOSE = 600
"""Width of the section shown around one place."""
_SHAPE = WIDTH / HEIGHT
_LAND = {"standard": "#eef0e4", "cycling": "#e9f1ea", "hiking": "#f1ece0", "transport": "#eceef2"}
_ROADS = {
    # Layer to the colour and width of each kind of road. The widest is drawn first, below the others.
    "standard": {"path": ("#a9bf94", 2), "street": ("#c9c6bd", 3), "road": ("#e8c069", 4), "motorway": ("#dd8265", 5)},
    "cycling": {"path": ("#3f74c9", 4), "street": ("#9db6dd", 3), "road": ("#7f9ed2", 3), "motorway": ("#d9d5cc", 4)},
    "hiking": {"path": ("#b3472f", 4), "street": ("#d8cdb8", 3), "road": ("#d8cdb8", 4), "motorway": ("#d8cdb8", 4)},
    "transport": {"path": ("#dcdad6", 2), "street": ("#cfcdd6", 3), "road": ("#8c6bb1", 4), "motorway": ("#88848f", 5)},
}
_WATER, _INK, _WAY, _PIN = "#9cc4dd", "#3a4039", "#2b62d9", "#cf3b2e"


def draw(content: AtlasContent, layer: str, here: str = "", route: Route | None = None, found: Sequence[str] = ()) -> str:
    """Draws the country, the surroundings of the place `here` with the names `found` marked, or the surroundings of a route."""
    roads, places = content.roads, content.by_name
    left, top, width = _frame(content, here, route, found)
    height, unit = width / _SHAPE, width / 600
    # The land and the rivers extend beyond the frame, since a window with another aspect ratio shows more.
    drawn = [
        f'<rect x="{left - width:.0f}" y="{top - height:.0f}" width="{3 * width:.0f}" height="{3 * height:.0f}" fill="{_LAND[layer]}"/>'
    ]
    for river in content.rivers:
        (_, source), (_, mouth) = river.course[0], river.course[-1]
        course = _curve([(-WIDTH, source), *river.course, (2 * WIDTH, mouth)])
        drawn.append(f'<path d="{course}" fill="none" stroke="{_WATER}" stroke-width="{max(7 * unit, 14):.1f}"/>')
    for kind, (colour, wide) in _ROADS[layer].items():
        ends = [[roads.points[node] for node in edge.ends] for edge in roads.edges if edge.kind == kind]
        way = "".join(f"M{x} {y}L{to_x} {to_y}" for (x, y), (to_x, to_y) in ends)
        drawn.append(f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="{wide * unit:.1f}" stroke-linecap="round"/>')
    if route:
        drawn.append(_line([roads.points[node] for node in route.nodes], _WAY, 5 * unit))
    if width < WIDTH / 2:
        drawn += [_dot(place.point, 3 * unit, _INK) for place in content.places if place.kind != "town"]
    towns = content.places[: len(content.towns)]
    drawn += [_dot(town.point, 5 * unit, _INK) for town in towns]
    pins = [places[name].point for name in (*found, here) if name]
    pins += [roads.points[node] for node in (route.nodes[0], route.nodes[-1])] if route else []
    drawn += [_pin(point, unit) for point in pins]
    drawn += [_label(town.name, town.point, unit, left, left + width) for town in towns if left < town.point[0] < left + width]
    box = f"{left:.0f} {top:.0f} {width:.0f} {height:.0f}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{"".join(drawn)}</svg>'


def _frame(content: AtlasContent, here: str, route: Route | None, found: Sequence[str]) -> tuple[float, float, float]:
    """Left, top and width of the visible section."""
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


def _curve(points: Sequence[Point]) -> str:
    """SVG path of a smooth line through all points: a Catmull-Rom spline, converted to Bezier curves."""
    ends = [points[0], *points, points[-1]]
    path = f"M{points[0][0]} {points[0][1]}"
    for (ax, ay), (bx, by), (cx, cy), (dx, dy) in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        path += f"C{bx + (cx - ax) / 6:.0f} {by + (cy - ay) / 6:.0f} {cx - (dx - bx) / 6:.0f} {cy - (dy - by) / 6:.0f} {cx} {cy}"
    return path


def _label(name: str, point: Point, unit: float, left: float, right: float) -> str:
    """Places the label below the point, and keeps it within the frame."""
    size = 17 * unit
    half = 0.3 * size * len(name) + 4 * unit
    x = min(max(point[0], left + half), right - half)
    return (
        f'<text x="{x:.0f}" y="{point[1] + 22 * unit:.0f}" text-anchor="middle" font-size="{size:.0f}" font-family="sans-serif" '
        f'fill="{_INK}" stroke="#fff" stroke-width="{3 * unit:.1f}" paint-order="stroke">{escape(name)}</text>'
    )


def _pin(point: Point, unit: float) -> str:
    """A marker whose tip is at the point."""
    x, y = point
    return (
        f'<path transform="translate({x} {y}) scale({unit:.2f})" d="M0 0C-3-7-9-11-9-18a9 9 0 1 1 18 0C9-11 3-7 0 0z" fill="{_PIN}" '
        f'stroke="#fff" stroke-width="1.5"/><circle cx="{x}" cy="{y - 18 * unit:.0f}" r="{3.4 * unit:.1f}" fill="#fff"/>'
    )


def _dot(point: Point, radius: float, colour: str) -> str:
    return f'<circle cx="{point[0]}" cy="{point[1]}" r="{radius:.1f}" fill="{colour}" stroke="#fff" stroke-width="{radius / 4:.1f}"/>'
