"""The HTML page of `mira analyze plans`: success given right and wrong plans."""

import math

from mira_jax.trajectories.summary import Rate
from rollouts.analysis.bootstrap import Figure
from rollouts.analysis.plans import INTERVALS, Anchor, Findings, grader, published
from rollouts.pages import charts, frame

MARKER = "made by rollouts.analyze"
NAMES = {
    "successes": "Mean R_plan of successes",
    "failures": "Mean R_plan of failures",
    "auroc": "AUROC of R_plan for success",
}


def render(findings: Findings, title: str) -> str:
    rows = [(place, f"plan {kind}", rate) for place, (kind, rate) in enumerate(_kinds(findings.overall)) if rate]
    rows += [(place, f"plan given: {kind}", rate) for place, (kind, rate) in enumerate(_kinds(findings.forced)) if rate]
    values = {
        "marker": MARKER,
        "title": title,
        "lead": f"{findings.episodes} episodes of {findings.tasks} tasks; {findings.without} more have no outcome or no grade of the plan. "
        f"Plans were graded by {grader(findings)}.",
        "sections": [("success", "Success by the plan"), ("figures", "R_plan"), ("templates", "Templates")],
        "level": f"{100 * findings.level:g}",
        "intervals": INTERVALS,
        "published": published(),
        "dots": charts.headline("Success given a right and a wrong plan", rows) if rows else "",
        "overall": [("All", *_cells(findings.overall))],
        "forced": [(f"Plans given, {findings.forced_tasks} tasks", *_cells(findings.forced))] if findings.forced else [],
        "figures": [(NAMES[name], *_figure(one)) for name, one in findings.figures.items()],
        "templates": [(name, *_cells(one)) for name, one in findings.by_template.items()],
    }
    return frame.render("plans.html", values)


def _kinds(one: Anchor | None) -> list[tuple[str, Rate | None]]:
    return [("right", one.right), ("wrong", one.wrong)] if one else []


def _cells(one: Anchor) -> list[str]:
    """Success and episodes with a right and a wrong plan, and the difference with its interval in points."""
    cells = []
    for rate in (one.right, one.wrong):
        cells += [f"{100 * rate.mean:.1f} % ({100 * rate.low:.1f} – {100 * rate.high:.1f})", str(rate.attempts)] if rate else ["–", "0"]
    value = one.difference
    return [*cells, f"{100 * value.value:.1f} ({100 * value.low:.1f} – {100 * value.high:.1f})" if math.isfinite(value.value) else "–"]


def _figure(figure: Figure) -> tuple[str, str]:
    if not math.isfinite(figure.value):
        return "–", "–"
    return f"{figure.value:.3f}", f"{figure.low:.3f} – {figure.high:.3f}" if math.isfinite(figure.low) else "–"
