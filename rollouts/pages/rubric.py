"""The HTML page of `mira analyze rubric`: whether a rubric is accepted, and the figures that decide it."""

import dataclasses

from rollouts.analysis.rubric import INTERVAL, SEPARATION, AcceptanceConfig, Findings, show
from rollouts.pages import frame

MARKER = "made by rollouts.analyze"


def render(findings: Findings, bounds: AcceptanceConfig, title: str) -> str:
    values = {
        "marker": MARKER,
        "title": title,
        "lead": f"{findings.grader} by the rubric {findings.rubric[:12]}: {findings.episodes} plans of {findings.tasks} tasks. "
        f"{findings.without} more have no grade, and {findings.unmatched} no yardstick.",
        "sections": [("verdict", "Verdict"), ("agreement", "Agreement"), ("separation", "Separation")],
        "refused": findings.refused,
        "bounds": [(name, f"{value:g}") for name, value in dataclasses.asdict(bounds).items()],
        "level": f"{100 * findings.level:g}",
        "interval": INTERVAL,
        "dimensions": [(name, [show(one[key]) for key in ("kappa", "spearman", "error")]) for name, one in findings.dimensions.items()],
        "separation": [(SEPARATION[name], show(one)) for name, one in findings.separation.items()],
    }
    return frame.render("rubric.html", values)
