"""The HTML page of `mira analyze subgoals`: success by the number of subgoals done, and the figures with those of the paper."""

from rollouts.analysis.subgoals import INTERVAL, MATCHING, PAPER, Findings
from rollouts.pages import charts, frame

MARKER = "made by rollouts.analyze"
NAMES = {
    "auroc": "AUROC of the share done against success",
    "tau": "Kendall's tau of the share done against success",
    "precision": "Precision against the true milestones",
    "recall": "Recall against the true milestones",
    "f1": "F1 against the true milestones",
    "spearman": "Spearman's correlation with the true share",
    "mae": "Mean absolute error of the share",
}


def render(findings: Findings, title: str) -> str:
    rows = [(0, f"{words} done", rate) for words, rate in findings.by_share.items()]
    points = [(float(count), 100 * rate.mean) for count, rate in findings.by_done.items()]
    band = [(float(count), 100 * rate.low, 100 * rate.high) for count, rate in findings.by_done.items()]
    values = {
        "marker": MARKER,
        "title": title,
        "lead": f"{findings.episodes} episodes of {findings.tasks} tasks, {findings.success:.1%} of which succeeded. "
        f"{findings.without} more episodes have no milestones.",
        "sections": [("figures", "Figures"), ("success", "Success by subgoals done")],
        "level": f"{100 * findings.level:g}",
        "interval": INTERVAL,
        "figures": [(NAMES[name], _number(one.value), f"{_number(one.low)} – {_number(one.high)}", _number(PAPER.get(name)))
                    for name, one in findings.figures.items()],
        "matching": f"{MATCHING}: {findings.matched} subgoals of {findings.matched_episodes} episodes" if findings.matched else "",
        "dots": charts.headline("Success by share of subgoals done", rows),
        "line": charts.lines("Success by number of subgoals done", [(0, "success", points)], "Subgoals done", "Success (%)",
                             bands={"success": band}, y_range=(0, 100), dots=True),
        "counts": list(findings.by_done.items()),
    }  # fmt: skip
    return frame.render("subgoals.html", values)


def _number(value: float | None) -> str:
    return f"{value:.3f}" if value is not None and value == value else "–"
