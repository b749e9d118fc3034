"""Charts of the report, as inline SVG. Every axis has a name with its unit. Series differ in colour and in marker shape."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from mira_jax.trajectories.summary import Rate
from rollouts.pages import svg

MOST = 34
"""Maximum characters of a row's label."""

Point = tuple[float, float]


def headline(title: str, rows: Sequence[tuple[int, str, Rate]], width: int = 660) -> Markup:
    """Success of each method as a dot with its interval, from 0 to 100 %. `rows`: (series, method, rate)."""
    left, right, top, row = 1.25 * svg.label_width([name for _, name, _ in rows], MOST), 148, 10, 46
    bottom = top + row * len(rows)
    x = svg.Scale(0, 100, left, width - right)
    parts = [svg.x_axis(x, range(0, 101, 20), bottom, "Tasks solved (%)", grid_top=top)]
    for place, (series, name, rate) in enumerate(rows):
        y = top + (place + 0.5) * row
        parts.append(svg.text(left - 14, y + 5, name, "label strong", anchor="end", most=MOST))
        parts.append(_interval(series, name, rate, x, y, 7))
        parts.append(svg.text(width - right + 16, y + 5, f"{100 * rate.mean:.1f} %", "value"))
        parts.append(svg.text(width - 4, y + 5, f"{100 * rate.low:.0f}\u2013{100 * rate.high:.0f}", "note", anchor="end"))
    return svg.canvas(width, bottom + 46, title, parts)


def templates(title: str, rows: Sequence[tuple[str, Sequence[tuple[int, str, Rate]]]], width: int = 1100) -> Markup:
    """Success per template, a dot with its interval for each method. `rows`: (template, [(series, method, rate)])."""
    left, right, top, row, gap = svg.label_width([template for template, _ in rows], MOST), 74, 8, 11, 12
    heights = [row * max(1, len(marks)) + gap for _, marks in rows]
    bottom = top + sum(heights)
    x = svg.Scale(0, 100, left, width - right)
    parts = [svg.x_axis(x, range(0, 101, 10), bottom, "Tasks solved (%)", grid_top=top)]
    y = float(top)
    for index, ((template, marks), height) in enumerate(zip(rows, heights, strict=True)):
        if index % 2 == 0:
            parts.insert(0, svg.rectangle(0, y, width, height, "stripe", radius=3))
        parts.append(svg.text(left - 14, y + height / 2 + 4, template, "label", anchor="end", most=MOST))
        for place, (series, name, rate) in enumerate(marks):
            parts.append(_interval(series, f"{name}, {template}", rate, x, y + gap / 2 + (place + 0.5) * row, 4.2))
        most = max((rate.tasks for _, _, rate in marks), default=0)
        parts.append(svg.text(width - 12, y + height / 2 + 4, f"n = {most}", "note", anchor="end"))
        y += height
    return svg.canvas(width, bottom + 46, title, parts)


def lines(
    title: str,
    series: Sequence[tuple[int, str, Sequence[Point]]],
    x_name: str,
    y_name: str,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
    y_range: tuple[float, float] | None = None,
    width: int = 540,
    height: int = 300,
    dots: bool = False,
    from_zero: bool = False,
    named: bool = False,
) -> Markup:
    """Draws one line for each (series, name, points).

    Args:
        bands: name to (x, low, high), drawn behind the lines.
        y_range: range of the y axis. Default: the range of the data.
        dots: marks every point instead of only the last.
        from_zero: starts the y axis at 0.
        named: writes the names at the ends of the lines, for charts without a legend.
    """
    bands = bands or {}
    xs = [x for _, _, points in series for x, _ in points]
    ys = [y for _, _, points in series for _, y in points] + [y for band in bands.values() for _, low, high in band for y in (low, high)]
    ys += [0.0] if from_zero else []
    if not xs:
        return svg.canvas(width, height, title, [svg.text(width / 2, height / 2, "nothing recorded", "note", anchor="middle")])
    y_ticks = svg.round_ticks(*(y_range or (min(ys), max(ys))), count=5 if height > 250 else 4)
    left, top, bottom = 34 + 7.4 * max(len(svg.number(tick)) for tick in y_ticks), 12, height - 46
    right = svg.label_width([name for _, name, _ in series], MOST) if named else 18
    low, high = y_range or (y_ticks[0], y_ticks[-1])
    x = svg.Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, left, width - right)
    y = svg.Scale(low, high, bottom, top)
    x_ticks = svg.round_ticks(min(xs), max(xs), count=7 if width > 400 else 5)
    if all(float(x).is_integer() for x in xs) and max(xs) > 1:
        x_ticks = [tick for tick in x_ticks if float(tick).is_integer()]
    parts = [svg.upright(12, (top + bottom) / 2, y_name, "axis")]
    for tick in y_ticks:
        if low <= tick <= high:
            parts.append(svg.line(left, y(tick), width - right, y(tick), "grid"))
            parts.append(svg.text(left - 8, y(tick) + 4, svg.number(tick), "tick", anchor="end"))
    parts.append(svg.x_axis(x, x_ticks, bottom, x_name))
    for place, name, _ in series:
        if band := bands.get(name):
            outline = [(x(at), y(top_value)) for at, _, top_value in band] + [(x(at), y(base)) for at, base, _ in reversed(band)]
            parts.append(svg.polygon(outline, f"s{place % svg.SERIES} band"))
    for place, name, points in series:
        parts.append(svg.curve(place, [(x(a), y(b)) for a, b in points], tip=name))
        for a, b in points if dots else points[-1:]:
            parts.append(svg.mark(place, svg.marker(place, x(a), y(b), 3.4), tip=f"{name}: {svg.number(b)} at {svg.number(a)}"))
    if named:
        parts += _names([(y(points[-1][1]), name) for _, name, points in series if points], width - right + 10)
    return svg.canvas(width, height, title, parts)


def _names(ends: Sequence[tuple[float, str]], x: float, apart: float = 15.0) -> list[Markup]:
    """Names at the ends of lines, moved down where they would overlap. `ends`: (y, name)."""
    parts, lowest = [], -math.inf
    for y, name in sorted(ends):
        lowest = max(y, lowest + apart)
        parts.append(svg.text(x, lowest + 4, name, "tick", most=MOST))
    return parts


def shares(
    title: str,
    rows: Sequence[tuple[str, Mapping[str, int]]],
    kinds: Sequence[tuple[str, str]],
    x_name: str,
    width: int = 540,
) -> Markup:
    """Draws a bar of 100 % for each (label, kind to count). `kinds`: (kind, style) from left to right."""
    left, right, top, row = svg.label_width([label for label, _ in rows], MOST), 22, 6, 44
    bottom = top + row * len(rows)
    x = svg.Scale(0, 100, left, width - right)
    parts = [svg.x_axis(x, range(0, 101, 20), bottom, x_name, grid_top=top)]
    for place, (label, counts) in enumerate(rows):
        y = top + place * row + 8
        parts.append(svg.text(left - 14, y + 19, label, "label", anchor="end", most=MOST))
        segments = [(kind, counts.get(kind, 0), style) for kind, style in kinds]
        parts += _segments(segments, x.start, y, x.end - x.start, 28, prefix=f"{label}: ")
    return svg.canvas(width, bottom + 46, title, parts)


def share(title: str, segments: Sequence[tuple[str, int, str]], width: int = 400) -> Markup:
    """Draws one bar of (kind, count, style) segments, without axes. Each segment shows its count."""
    return svg.canvas(width, 30, title, _segments(segments, 0, 0, width, 30))


def bars(title: str, rows: Sequence[tuple[str, float]], x_name: str, width: int = 760) -> Markup:
    """Draws horizontal bars from 0, with the value at the end of each."""
    left, right, top, row = svg.label_width([label for label, _ in rows], MOST), 60, 6, 27
    bottom = top + row * len(rows)
    ticks = svg.round_ticks(0, max([value for _, value in rows] + [0]), count=7)
    x = svg.Scale(0, ticks[-1], left, width - right)
    parts = [svg.x_axis(x, [tick for tick in ticks if tick >= 0], bottom, x_name, grid_top=top)]
    for place, (label, value) in enumerate(rows):
        y = top + place * row
        parts.append(svg.text(left - 14, y + 18, label, "label", anchor="end", most=MOST))
        parts.append(svg.rectangle(left, y + 5, x(value) - left, 17, "bar", radius=2))
        parts.append(svg.text(x(value) + 7, y + 18, f"{value:.1f}", "value small"))
    return svg.canvas(width, bottom + 46, title, parts)


def episode(
    title: str,
    value: Sequence[float] | None,
    potential: Sequence[float] | None,
    milestones: Sequence[Sequence[bool]],
    names: Sequence[str],
    key_step: int | None,
    steps: int,
    width: int = 1090,
) -> Markup:
    """Draws the steps of one episode: V and P as lines in [0, 1], and below them a row of cells for each milestone.

    V and P at a step are computed from the policy's input before it. A filled cell means that the milestone is reached after the step.
    """
    left, right, top, cell = 320, 16, 14, 21
    plot = 92 if value or potential else 0
    pitch = (width - left - right) / max(steps, 1)
    grid = top + plot + (14 if plot else 0)
    bottom = grid + cell * len(names)
    if not names:
        grid = bottom = top + plot
    parts = []
    if key_step is not None:
        tip = f"key decision: step {key_step + 1}"
        parts.append(svg.rectangle(left + key_step * pitch, top - 8, pitch, bottom - top + 12, "key", radius=4, tip=tip))
    if plot:
        y = svg.Scale(0, 1, top + plot, top)
        for tick in (0, 0.5, 1):
            parts.append(svg.line(left, y(tick), width - right, y(tick), "grid"))
            parts.append(svg.text(left - 8, y(tick) + 4, f"{tick:g}", "tick", anchor="end"))
        drawn = [(0, "V", "V, chance of success", value or ()), (1, "P", "P, progress made", potential or ())]
        for place, (series, symbol, words, numbers) in enumerate([entry for entry in drawn if entry[3]]):
            points = [(left + (step + 0.5) * pitch, y(min(1, max(0, number)))) for step, number in enumerate(numbers)]
            parts.append(svg.curve(series, points, tip=symbol))
            for step, ((at, height), number) in enumerate(zip(points, numbers, strict=True)):
                parts.append(svg.mark(series, svg.marker(series, at, height, 3.6), tip=f"{symbol} = {number:.3f} at step {step + 1}"))
            sample = top + 22 + 24 * place
            parts.append(svg.mark(series, svg.line(10, sample, 34, sample, "stroke"), svg.marker(series, 22, sample, 4)))
            parts.append(svg.text(44, sample + 4, words, "label"))
    for place, name in enumerate(names):
        y_cell = grid + place * cell
        parts.append(svg.text(left - 14, y_cell + 15, name, "label", anchor="end", most=40))
        for step in range(steps):
            done = step < len(milestones) and place < len(milestones[step]) and milestones[step][place]
            tip = f"{name}: {'done' if done else 'not done'} after step {step + 1}"
            style = "cell done" if done else "cell"
            parts.append(svg.rectangle(left + step * pitch + 1, y_cell + 2, pitch - 2, cell - 4, style, radius=2, tip=tip))
    for step in range(0, steps, max(1, math.ceil(steps / 30))):
        parts.append(svg.text(left + (step + 0.5) * pitch, bottom + 17, str(step + 1), "tick", anchor="middle"))
    parts.append(svg.text(left - 14, bottom + 17, "step", "axis", anchor="end"))
    return svg.canvas(width, bottom + 26, title, parts)


def rate_words(name: str, rate: Rate) -> str:
    tasks = f"{rate.tasks} task{'' if rate.tasks == 1 else 's'}"
    attempts = f", {rate.attempts} attempts" if rate.attempts != rate.tasks else ""
    return f"{name}: {100 * rate.mean:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}], {tasks}{attempts}"


def thin(points: Sequence[Point], at_most: int = 240) -> list[Point]:
    """Downsamples a long curve: means over runs of equal length, each at the x of its last point."""
    size = max(1, math.ceil(len(points) / at_most))
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return [(run[-1][0], math.fsum(value for _, value in run) / len(run)) for run in runs]


def _interval(series: int, name: str, rate: Rate, x: svg.Scale, y: float, radius: float) -> Markup:
    whisker = svg.line(x(100 * rate.low), y, x(100 * rate.high), y, "whisker")
    return svg.mark(series, whisker, svg.marker(series, x(100 * rate.mean), y, radius), tip=rate_words(name, rate))


def _segments(segments: Sequence[tuple[str, int, str]], x: float, y: float, width: float, height: float, prefix: str = "") -> list[Markup]:
    total = sum(count for _, count, _ in segments)
    parts = []
    for kind, count, style in segments:
        if not count:
            continue
        length = width * count / total
        words = [svg.rectangle(x, y, length - 1.5, height)]
        if length > 8 * len(str(count)) + 8:
            words.append(svg.text(x + length / 2, y + height / 2 + 5, str(count), "inside", anchor="middle"))
        parts.append(svg.group(f"kind {style}", *words, tip=f"{prefix}{kind}, {count} of {total} ({100 * count / total:.1f} %)"))
        x += length
    return parts
