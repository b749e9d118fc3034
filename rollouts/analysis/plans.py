"""The plan as anchor: success given that the plan was right or wrong, and how well R_plan tells successes from failures.

Episodes need an outcome and a grade of their plan. Those lost to infrastructure errors are left out. Tasks are the sample: rates are means
over tasks. Episodes whose plan was forced (`policy.forced_plan`) show the cause: the same policy, tasks and seeds, with a right plan given
and with a wrong one. They are compared task by task, and are in no other figure.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mira_jax.errors import UserError
from mira_jax.trajectories.plan_grades import is_right
from mira_jax.trajectories.records import Status, Trajectory
from mira_jax.trajectories.summary import Rate
from rollouts.analysis import statistics
from rollouts.analysis.bootstrap import Bootstrap, Figure
from rollouts.analysis.grades import auroc, ratio

PUBLISHED = {"BrowseComp": 0.309, "BrowseComp-ZH": 0.288, "GAIA": 0.236}
"""Drop of success if the first step is wrong, in WebAnchor (arXiv 2601.03164)."""
INTERVALS = {
    "rates": statistics.RATE_INTERVAL,
    "difference": "Newcombe's, from the intervals of both rates, as if they were independent",
    "forced_difference": statistics.DIFFERENCE_INTERVAL,
    "others": "percentile bootstrap over tasks",
}


@dataclasses.dataclass(frozen=True)
class Graded:
    """An episode with the grade of its plan."""

    id: str
    task: str
    """Task and seed: equal for all attempts."""
    template: str
    success: bool
    score: float
    """R_plan."""
    right: bool | None
    """Whether the plan is right. None if it was graded as a whole."""
    forced: str
    """right or wrong if the plan was given. Empty: it is the policy's own."""


@dataclasses.dataclass(frozen=True)
class Anchor:
    """Success by the plan. None where there is no such episode."""

    right: Rate | None
    wrong: Rate | None
    difference: Figure
    """Right less wrong."""


@dataclasses.dataclass(frozen=True)
class Findings:
    grader: str
    """rule, or the name of the model."""
    rubric: str
    episodes: int
    """Episodes with an outcome and a grade, and with the policy's own plan."""
    tasks: int
    without: int
    """Episodes without an outcome or without a grade."""
    level: float
    figures: dict[str, Figure]
    """Mean R_plan of `successes` and of `failures`, and `auroc` of R_plan for success."""
    overall: Anchor
    by_template: dict[str, Anchor]
    forced: Anchor | None
    """Over the tasks with both kinds of forced plans. None: there are none."""
    forced_tasks: int


def graded(episodes: Iterable[Trajectory]) -> tuple[list[Graded], tuple[str, str], int]:
    """Returns the episodes with an outcome and a grade, the grader and its rubric, and the number of episodes without.

    Raises:
        UserError: no episode has both, or their grades are by several graders or rubrics.
    """
    found, graders, without = [], set(), 0
    for one in episodes:
        if one.status is Status.INFRA_ERROR:
            continue
        if one.outcome is None or one.plan_grade is None:
            without += 1
            continue
        grade = one.plan_grade
        graders.add((grade.source, grade.rubric))
        task, forced = f"{one.task.id}|{one.task.seed}", one.policy.forced_plan
        found.append(Graded(one.id, task, one.task.template, one.success, grade.score, is_right(grade), forced))
    if not found:
        raise UserError("folder: no episode has an outcome and a grade of its plan; label it with a plan.kind (`mira label`)")
    if len(graders) > 1:
        named = ", ".join(f"{source} by {rubric[:12] or 'no rubric'}" for source, rubric in sorted(graders))
        raise UserError(f"folder: its plans were graded in several ways ({named}); label all of them with one")
    return found, next(iter(graders)), without


def analyse(episodes: Iterable[Trajectory], level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Findings:
    """Computes all figures. Raises UserError: see `graded`."""
    found, (grader, rubric), without = graded(episodes)
    own = [one for one in found if not one.forced]
    templates: dict[str, list[Graded]] = collections.defaultdict(list)
    for one in own:
        templates[one.template].append(one)
    forced, forced_tasks = _forced([one for one in found if one.forced], level)
    return Findings(
        grader=grader,
        rubric=rubric,
        episodes=len(own),
        tasks=len({one.task for one in own}),
        without=without,
        level=level,
        figures=_figures(own, level, resamples, seed),
        overall=anchor(own, level),
        by_template={name: anchor(templates[name], level) for name in sorted(templates)},
        forced=forced,
        forced_tasks=forced_tasks,
    )


def anchor(episodes: Sequence[Graded], level: float) -> Anchor:
    """Success given a right and a wrong plan."""
    right, wrong = (_rate([one for one in episodes if one.right is kind], level) for kind in (True, False))
    difference = Figure(right.mean - wrong.mean, *statistics.newcombe(right, wrong)) if right and wrong else Figure(math.nan)
    return Anchor(right, wrong, difference)


def _figures(episodes: Sequence[Graded], level: float, resamples: int, seed: int) -> dict[str, Figure]:
    if not episodes:
        return dict.fromkeys(("successes", "failures", "auroc"), Figure(math.nan))
    names, task_E = np.unique([one.task for one in episodes], return_inverse=True)
    bootstrap = Bootstrap(len(names), level, resamples, seed)
    success_E, score_E = np.array([one.success for one in episodes]), np.array([one.score for one in episodes])
    # Equal grades may differ in the last bit.
    levels, row_E = np.unique(score_E.round(9), return_inverse=True)
    means = {
        name: ratio(bootstrap.sums(task_E, score_E * of_E), bootstrap.sums(task_E, of_E.astype(float)))
        for name, of_E in (("successes", success_E), ("failures", ~success_E))
    }
    tables = bootstrap.tables(task_E, row_E, success_E.astype(int), (len(levels), 2))
    return {**{name: bootstrap.figure(values) for name, values in means.items()}, "auroc": bootstrap.figure(auroc(tables))}


def _forced(episodes: Sequence[Graded], level: float) -> tuple[Anchor | None, int]:
    """Success with right and wrong plans given, over the tasks that have both, and their number."""
    of_kind = {kind: _by_task([one for one in episodes if one.forced == kind]) for kind in ("right", "wrong")}
    both = [task for task in of_kind["right"] if task in of_kind["wrong"]]
    if not both:
        return None, 0
    right, wrong = (statistics.task_rate([of_kind[kind][task] for task in both], level) for kind in ("right", "wrong"))
    differences = [float(np.mean(of_kind["right"][task]) - np.mean(of_kind["wrong"][task])) for task in both]
    low, high = statistics.difference_interval(differences, level)
    return Anchor(right, wrong, Figure(right.mean - wrong.mean, float(low), float(high))), len(both)


def _rate(episodes: Sequence[Graded], level: float) -> Rate | None:
    return statistics.task_rate(list(_by_task(episodes).values()), level) if episodes else None


def _by_task(episodes: Sequence[Graded]) -> dict[str, list[bool]]:
    """The outcomes of each task."""
    found: dict[str, list[bool]] = {}
    for one in episodes:
        found.setdefault(one.task, []).append(one.success)
    return found


def to_tree(findings: Findings) -> dict[str, Any]:
    """For JSON, with the published drops. Figures that are not defined are null."""

    def figure(one: Figure) -> dict[str, float | None]:
        return {key: value if math.isfinite(value) else None for key, value in dataclasses.asdict(one).items()}

    def rate(one: Rate | None) -> dict[str, float] | None:
        return one and {"mean": one.mean, "low": one.low, "high": one.high, "tasks": one.tasks, "episodes": one.attempts}

    def tree(one: Anchor | None) -> dict[str, Any] | None:
        return one and {"right": rate(one.right), "wrong": rate(one.wrong), "difference": figure(one.difference)}

    return {
        "grader": findings.grader,
        "rubric": findings.rubric,
        "episodes": findings.episodes,
        "tasks": findings.tasks,
        "without": findings.without,
        "level": findings.level,
        "intervals": INTERVALS,
        "figures": {name: figure(one) for name, one in findings.figures.items()},
        "overall": tree(findings.overall),
        "by_template": {name: tree(one) for name, one in findings.by_template.items()},
        "forced": tree(findings.forced),
        "forced_tasks": findings.forced_tasks,
        "published_drops": PUBLISHED,
    }


def table(findings: Findings) -> str:
    """The figures as text."""
    lines = [
        f"{findings.episodes} episodes of {findings.tasks} tasks; {findings.without} without an outcome or a grade; plans graded by "
        f"{grader(findings)}",
        f"{'R_plan':<22}{'value':>7}   {100 * findings.level:g} % interval",
        *(f"{name:<22}{show(one)}" for name, one in findings.figures.items()),
        f"{'success':<16}{'plan right':>30}{'plan wrong':>30}{'difference, points':>30}",
        _row("all", findings.overall),
        *(_row(name, one) for name, one in findings.by_template.items()),
    ]
    if findings.forced:
        lines.append(_row("forced plans", findings.forced) + f"   {findings.forced_tasks} tasks")
    return "\n".join([*lines, f"published drops: {published()}"])


def grader(findings: Findings) -> str:
    return findings.grader + (f" ({findings.rubric[:12]})" if findings.rubric else "")


def show(figure: Figure) -> str:
    """The value and its interval, or a dash."""
    if not math.isfinite(figure.value):
        return f"{'-':>7}"
    return f"{figure.value:7.3f}" + (f"   {figure.low:.3f} - {figure.high:.3f}" if math.isfinite(figure.low) else "")


def published() -> str:
    return ", ".join(f"{100 * drop:.1f} points on {name}" for name, drop in PUBLISHED.items()) + " (arXiv 2601.03164)"


def _row(name: str, one: Anchor) -> str:
    def rate(value: Rate | None) -> str:
        return f"{100 * value.mean:.1f} % ({100 * value.low:.1f} - {100 * value.high:.1f}) {value.attempts:5d}" if value else "-"

    value = one.difference
    difference = f"{100 * value.value:.1f} ({100 * value.low:.1f} - {100 * value.high:.1f})" if math.isfinite(value.value) else "-"
    return f"{name:<16}{rate(one.right):>30}{rate(one.wrong):>30}{difference:>30}"
