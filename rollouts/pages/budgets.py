"""The HTML page of evaluations at several thinking budgets: success against the budget, and against the seconds of a step."""

import dataclasses
from collections.abc import Mapping, Sequence

from mira_jax.trajectories.summary import Method, Rate, Summary
from rollouts.pages import charts, frame
from rollouts.pages.episodes import visible

PUBLISHED = ((256, 24.3, 6.5), (1024, 27.0, 8.0), (4096, 30.0, 13.0), (8192, 32.5, 19.0), (16384, 26.0, 20.0))
"""(tokens, success in %, seconds per step) of Gemini-2.5-pro with dynamic milestoning on WebArena-Lite, read off a figure of MiRA's paper
(arXiv 2603.19685). All but the first pair and 32.5 are rounded; the last seconds are a lower limit."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """One evaluation."""

    tokens: int
    rate: Rate
    seconds: float
    """Seconds of policy and planner per step."""
    used: float
    """Tokens that policy and planner wrote per step."""
    unanswered: int
    """Steps without a valid answer of the planner."""


def budgets(summaries: Mapping[int, Summary]) -> list[Budget]:
    """The evaluations by budget, in its order. Each summary has one method."""
    return [_budget(tokens, next(iter(summaries[tokens].methods.values()))) for tokens in sorted(summaries)]


def render(found: Sequence[Budget], key: str, suite: str) -> str:
    """Renders the page. `key`: the setting that was varied."""
    by_budget = [(float(one.tokens), 100 * one.rate.mean) for one in found]
    band = [(float(one.tokens), 100 * one.rate.low, 100 * one.rate.high) for one in found]
    by_seconds = sorted((one.seconds, 100 * one.rate.mean) for one in found)
    values = {
        "marker": "made by benchmarks/planner.py",
        "title": "Success by thinking budget",
        "sections": [("budgets", "By budget"), ("published", "Published, for reference")],
        "key": visible(key),
        "suite": visible(suite),
        "by_budget": charts.lines(
            "Success by budget", [(0, "success", by_budget)], "Budget (tokens)", "Tasks solved (%)", {"success": band}, (0, 100), dots=True
        ),
        "by_seconds": charts.lines(
            "Success by time", [(0, "success", by_seconds)], "Seconds per step", "Tasks solved (%)", None, (0, 100), dots=True
        ),
        "found": found,
        "published": PUBLISHED,
    }
    return frame.render("budgets.html", values, "report.css")


def _budget(tokens: int, method: Method) -> Budget:
    seconds = sum(spent.per_step or 0.0 for role, spent in method.seconds.items() if role != "browser")
    used = sum(spent.per_step or 0.0 for kind, spent in method.tokens.items() if kind.endswith("response"))
    return Budget(tokens, method.success_rate, seconds, used, method.planned.unanswered if method.planned else 0)
