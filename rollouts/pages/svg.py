"""Building blocks of charts: inline SVG without colours, which the page's style sheet sets."""

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

SERIES = 6
"""Number of series with their own colour and marker shape. Later series reuse them."""


class Scale:
    """Maps data to pixels along one axis."""

    def __init__(self, low: float, high: float, start: float, end: float):
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def canvas(width: float, height: float, title: str, parts: Iterable[Markup]) -> Markup:
    """`title` is the text for screen readers."""
    frame = '<svg class="chart" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}" role="img" aria-label="{2}">{3}</svg>'
    return Markup(frame).format(width, height, title, join(parts))


def join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def group(style: str, *parts: Markup, tip: str = "") -> Markup:
    """`tip` is the tooltip of the group."""
    return Markup('<g class="{}">{}{}</g>').format(style, _title(tip), join(parts))


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(style, x1, y1, x2, y2)


def rectangle(x: float, y: float, width: float, height: float, style: str = "", radius: float = 0, tip: str = "") -> Markup:
    shape = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="{:.0f}">{}</rect>'
    return Markup(shape).format(style, x, y, max(0.5, width), height, radius, _title(tip))


def polygon(points: Sequence[tuple[float, float]], style: str) -> Markup:
    return Markup('<polygon class="{}" points="{}"/>').format(style, " ".join(f"{x:.1f},{y:.1f}" for x, y in points))


def curve(series: int, points: Sequence[tuple[float, float]], tip: str = "") -> Markup:
    data = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
    return Markup('<path class="s{} curve" d="{}">{}</path>').format(series % SERIES, data, _title(tip))


def text(x: float, y: float, words: str, style: str, anchor: str = "start", most: int = 0) -> Markup:
    """`most`: maximum characters shown. A longer text is shown in full in the tooltip."""
    shown = shorten(words, most) if most else words
    label = '<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}{}</text>'
    return Markup(label).format(style, x, y, anchor, shown, _title(words if shown != words else ""))


def upright(x: float, y: float, words: str, style: str) -> Markup:
    """Vertical text for a y axis, read from bottom to top, centred at (x, y)."""
    label = '<text class="{}" transform="translate({:.1f} {:.1f}) rotate(-90)" text-anchor="middle">{}</text>'
    return Markup(label).format(style, x, y, words)


def marker(series: int, x: float, y: float, radius: float) -> Markup:
    """A circle, square, diamond or triangle, filled; then a circle and a square, hollow."""
    style = "dot hollow" if series % SERIES >= 4 else "dot"
    shape, wide = series % SERIES % 4, 1.25 * radius
    if shape == 0:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>').format(style, x, y, radius)
    if shape == 1:
        return rectangle(x - 0.88 * radius, y - 0.88 * radius, 1.76 * radius, 1.76 * radius, style)
    if shape == 2:
        return polygon([(x, y - wide), (x + wide, y), (x, y + wide), (x - wide, y)], style)
    return polygon([(x, y - wide), (x + wide, y + 0.8 * wide), (x - wide, y + 0.8 * wide)], style)


def mark(series: int, *parts: Markup, tip: str = "") -> Markup:
    """A group in the colour of a series."""
    return group(f"s{series % SERIES} mark", *parts, tip=tip)


def swatch(series: int) -> Markup:
    """A legend entry: line and marker of a series."""
    sample = mark(series, line(0, 7, 24, 7, "stroke"), marker(series, 12, 7, 4.5))
    return Markup('<svg class="swatch" width="24" height="14" viewBox="0 0 24 14" aria-hidden="true">{}</svg>').format(sample)


def x_axis(scale: Scale, ticks: Sequence[float], bottom: float, name: str, grid_top: float | None = None) -> Markup:
    """Draws the base line, tick labels and name of an x axis, with grid lines up to `grid_top` if given."""
    parts = []
    for tick in ticks:
        if scale.low - 1e-9 <= tick <= scale.high + 1e-9:
            if grid_top is not None:
                parts.append(line(scale(tick), grid_top, scale(tick), bottom, "grid"))
            parts.append(text(scale(tick), bottom + 17, number(tick), "tick", anchor="middle"))
    parts.append(line(scale.start, bottom, scale.end, bottom, "base"))
    parts.append(text((scale.start + scale.end) / 2, bottom + 38, name, "axis", anchor="middle"))
    return join(parts)


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover [low, high], spaced by 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    spacing = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / spacing + 1e-9), math.ceil(high / spacing - 1e-9)
    return [round(index * spacing, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """Formats an axis label: at most four significant digits, with a thousands separator."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-4):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def rate_bar(mean: float, low: float, high: float, title: str) -> Markup:
    """Draws a fraction in [0, 1] as a bar with its interval, as wide as its container. `title` is also the text for screen readers."""
    grid = (Markup('<line class="grid" x1="{0}%" x2="{0}%" y1="0" y2="26"/>').format(at) for at in (0, 25, 50, 75, 100))
    bar = Markup('<rect class="share" x="0" y="6" width="{:.2f}%" height="14" rx="2"/>').format(100 * mean)
    whisker = Markup('<line class="whisker" x1="{:.2f}%" x2="{:.2f}%" y1="{}" y2="{}"/>')
    ends = [(low, high, 13, 13), (low, low, 9, 17), (high, high, 9, 17)]
    interval = (whisker.format(100 * x1, 100 * x2, y1, y2) for x1, x2, y1, y2 in ends)
    frame = '<svg class="chart rate" width="100%" height="26" role="img" aria-label="{}">{}</svg>'
    return Markup(frame).format(title, join([_title(title), *grid, bar, *interval]))


def label_width(labels: Iterable[str], most: int) -> float:
    """Pixels to reserve on the left for labels of at most `most` characters, in a wide font."""
    return 24 + 7.4 * max([len(shorten(label, most)) for label in labels] + [4])


def shorten(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "\u2026"


def _title(tip: str) -> Markup:
    return Markup("<title>{}</title>").format(tip) if tip else Markup("")
