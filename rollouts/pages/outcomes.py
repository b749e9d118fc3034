"""The HTML page of `mira analyze outcomes`: how a judge agrees with the rules."""

import math
from collections.abc import Mapping

from rollouts.analysis.bootstrap import Figure
from rollouts.analysis.outcomes import INTERVALS, Agreement, Findings, published
from rollouts.pages import frame

MARKER = "made by rollouts.analyze"
NAMES = {
    "agreement": "Agreement",
    "precision": "Precision",
    "recall": "Recall",
    "false_positive_rate": "False-positive rate",
    "f1": "F1",
    "kappa": "Cohen's kappa",
}


def render(findings: Findings, title: str) -> str:
    one = findings.overall
    values = {
        "marker": MARKER,
        "title": title,
        "lead": f"{one.episodes} episodes of {one.tasks} tasks. {one.no_verdict} more have no verdict of the judge, and "
        f"{findings.unmatched} are in one folder only or have no outcome by rule.",
        "sections": [("figures", "Figures"), ("templates", "Templates"), ("failures", "Failures")],
        "judge": findings.judge,
        "level": f"{100 * findings.level:g}",
        "intervals": INTERVALS,
        "published": published(),
        "figures": [(NAMES[name], *_cells(figure)) for name, figure in one.figures.items()],
        "counts": one.counts,
        "templates": _rows(findings.by_template, ("agreement", "false_positive_rate", "kappa")),
        "failures": _rows(findings.by_failure, ("false_positive_rate",)),
    }
    return frame.render("outcomes.html", values)


def _rows(groups: Mapping[str, Agreement], names: tuple[str, ...]) -> list[tuple[str, list[str], int, int]]:
    """Name, figures with their intervals, episodes, and those without a verdict."""
    return [
        (name, [cell for figure in names for cell in _cells(one.figures[figure])], one.episodes, one.no_verdict)
        for name, one in groups.items()
    ]


def _cells(figure: Figure) -> tuple[str, str]:
    if not math.isfinite(figure.value):
        return "–", "–"
    return f"{figure.value:.3f}", f"{figure.low:.3f} – {figure.high:.3f}" if math.isfinite(figure.low) else "–"
