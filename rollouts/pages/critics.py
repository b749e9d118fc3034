"""Charts of what critics are worth."""

from collections.abc import Sequence

from markupsafe import Markup

from rollouts.analysis.critics import CriticQuality, Curve
from rollouts.pages import charts

PERFECT = "perfect"
DIAGONAL = [(0.0, 0.0), (1.0, 1.0)]


def reliability(curve: Curve) -> Markup:
    """The share of successes over V."""
    return _against_truth("Reliability of V", [("V", curve)], "V", "Share of successes")


def progress(curves: Sequence[tuple[str, Curve]], named: bool = False) -> Markup:
    """P over the share of subgoals done, at the last states of failures. `named`: writes the names at the lines."""
    return _against_truth("P at the last states of failures", curves, "Share of subgoals done", "P, mean", named)


def figures(quality: CriticQuality) -> list[tuple[str, list[str], Markup]]:
    """Name of each chart, the names of its lines in the order of the series, and the chart."""
    found = []
    if quality.value and quality.value.reliability:
        found.append(("Reliability of V", ["V", PERFECT], reliability(quality.value.reliability)))
    sources = (("P learned from successes", quality.potential), ("P of the milestone heads", quality.milestones))
    curves = [(name, measured.by_share) for name, measured in sources if measured and measured.by_share]
    if curves:
        found.append(("P at the last states of failures", [*(name for name, _ in curves), PERFECT], progress(curves)))
    return found


def _against_truth(title: str, curves: Sequence[tuple[str, Curve]], x_name: str, y_name: str, named: bool = False) -> Markup:
    series = [(place, name, [(x, y) for x, y, _ in curve]) for place, (name, curve) in enumerate(curves)]
    return charts.lines(
        title,
        [*series, (len(series), PERFECT, DIAGONAL)],
        x_name,
        y_name,
        y_range=(0, 1),
        width=600 if named else 420,
        dots=True,
        named=named,
    )
