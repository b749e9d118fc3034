"""The acceptance of a rubric: whether a model that grades by it agrees with a yardstick, and tells right plans from wrong ones.

The yardstick are grades by the suite's rules or by people, matched by the id of the episode. Plans without a grade are counted and are in
no figure. Intervals are percentiles of a bootstrap over tasks, with all episodes of a task together.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mira_jax.config import Fraction, NonNegative
from mira_jax.errors import UserError
from mira_jax.trajectories.plan_grades import DIMENSIONS, HIGHEST, is_right
from mira_jax.trajectories.records import Status, Trajectory
from rollouts.analysis.bootstrap import Bootstrap, Figure
from rollouts.analysis.grades import auroc, ratio, spearman, weighted_kappa

INTERVAL = "percentile bootstrap over tasks"
SEPARATION = {"auroc_right": "R_plan against right plans, by the yardstick", "auroc_success": "R_plan against success"}


@dataclasses.dataclass(frozen=True)
class AcceptanceConfig:
    """Bounds. The unfavourable end of each interval has to keep them. A figure that is not defined does not keep its bound, except kappa in
    dimensions that the yardstick grades all alike."""

    kappa: Fraction = 0.4
    """Least quadratic weighted kappa of a dimension."""
    error: NonNegative = 1.0
    """Largest mean absolute error of a dimension's grades, in 0 to 5."""
    auroc_right: Fraction = 0.8
    """Least AUROC of R_plan for right plans, by the yardstick."""
    auroc_success: Fraction = 0.5
    """Least AUROC of R_plan for success."""


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """Grades of one plan to compare with."""

    grades: Mapping[str, int]
    """Any of the dimensions."""
    right: bool | None
    """None: not known."""


@dataclasses.dataclass(frozen=True)
class Findings:
    grader: str
    """The model."""
    rubric: str
    """SHA-256 of the rubric's file."""
    episodes: int
    """Plans with a grade and a yardstick."""
    tasks: int
    without: int
    """Plans of the yardstick without a grade of the model."""
    unmatched: int
    """Graded plans without a yardstick."""
    level: float
    dimensions: dict[str, dict[str, Figure]]
    """Dimension to kappa, spearman and error."""
    separation: dict[str, Figure]
    """auroc_right and auroc_success."""
    refused: tuple[str, ...]
    """Why the rubric is not accepted. Empty: it is."""


@dataclasses.dataclass(frozen=True)
class _Pair:
    task: str
    score: float
    grades: Mapping[str, int]
    yardstick: Yardstick
    success: bool | None


def by_rules(episodes: Iterable[Trajectory]) -> dict[str, Yardstick]:
    """Grades by the suite's rules as yardstick, by the id of the episode."""
    grades = {one.id: one.plan_grade for one in episodes if one.plan_grade is not None}
    if not grades or any(grade.source != "rule" for grade in grades.values()):
        raise UserError("truth: has no plans graded by rules; label the same episodes with plan.kind=suite")
    return {name: Yardstick(grade.dimensions, is_right(grade)) for name, grade in grades.items()}


def analyse(
    episodes: Iterable[Trajectory],
    yardsticks: Mapping[str, Yardstick],
    bounds: AcceptanceConfig,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Findings:
    """Computes all figures.

    Raises:
        UserError: no plan has a grade by a rubric and a yardstick, or the grades are by rules or by several rubrics.
    """
    pairs, graders, without, unmatched = list[_Pair](), set[tuple[str, str]](), 0, 0
    for one in episodes:
        if one.status is Status.INFRA_ERROR:
            continue
        grade, yardstick = one.plan_grade, yardsticks.get(one.id)
        if grade is None or yardstick is None:
            without += yardstick is not None
            unmatched += grade is not None
            continue
        if grade.source == "rule" or not grade.dimensions:
            raise UserError("folder: its plans were not graded by a model with a rubric; label it with plan.kind=model")
        graders.add((grade.source, grade.rubric))
        success = one.outcome.success if one.outcome else None
        pairs.append(_Pair(f"{one.task.id}|{one.task.seed}", grade.score, grade.dimensions, yardstick, success))
    if not pairs:
        raise UserError("folder: no plan has both a grade and a yardstick; give grades of the same episodes in truth or labels")
    if len(graders) > 1:
        raise UserError("folder: its plans were graded by several models or rubrics; label all of them with one")
    ((grader, rubric),) = graders
    dimensions = {name: _agreement(pairs, name, level, resamples, seed) for name in DIMENSIONS}
    separation = {
        "auroc_right": _auroc([(one, one.yardstick.right) for one in pairs], level, resamples, seed),
        "auroc_success": _auroc([(one, one.success) for one in pairs], level, resamples, seed),
    }
    return Findings(
        grader=grader,
        rubric=rubric,
        episodes=len(pairs),
        tasks=len({one.task for one in pairs}),
        without=without,
        unmatched=unmatched,
        level=level,
        dimensions=dimensions,
        separation=separation,
        refused=tuple(_refused(pairs, dimensions, separation, bounds)),
    )


def _agreement(pairs: Sequence[_Pair], name: str, level: float, resamples: int, seed: int) -> dict[str, Figure]:
    """Of the grades of one dimension with those of the yardstick."""
    known = [one for one in pairs if name in one.yardstick.grades]
    if not known:
        return dict.fromkeys(("kappa", "spearman", "error"), Figure(math.nan))
    bootstrap, task_E = _bootstrap(known, level, resamples, seed)
    grade_E, truth_E = np.array([one.grades[name] for one in known]), np.array([one.yardstick.grades[name] for one in known])
    tables = bootstrap.tables(task_E, grade_E, truth_E, (HIGHEST + 1, HIGHEST + 1))
    error = ratio(bootstrap.sums(task_E, np.abs(grade_E - truth_E).astype(float)), bootstrap.sums(task_E, np.ones(len(known))))
    figures = {"kappa": weighted_kappa(tables), "spearman": spearman(tables), "error": error}
    return {key: bootstrap.figure(values) for key, values in figures.items()}


def _auroc(pairs: Sequence[tuple[_Pair, bool | None]], level: float, resamples: int, seed: int) -> Figure:
    known = [(one, label) for one, label in pairs if label is not None]
    if not known:
        return Figure(math.nan)
    bootstrap, task_E = _bootstrap([one for one, _ in known], level, resamples, seed)
    # Equal scores may differ in the last bit.
    levels, row_E = np.unique(np.array([one.score for one, _ in known]).round(9), return_inverse=True)
    return bootstrap.figure(auroc(bootstrap.tables(task_E, row_E, np.array([label for _, label in known], int), (len(levels), 2))))


def _bootstrap(pairs: Sequence[_Pair], level: float, resamples: int, seed: int) -> tuple[Bootstrap, np.ndarray]:
    names, task_E = np.unique([one.task for one in pairs], return_inverse=True)
    return Bootstrap(len(names), level, resamples, seed), task_E


def _refused(
    pairs: Sequence[_Pair], dimensions: Mapping[str, Mapping[str, Figure]], separation: Mapping[str, Figure], bounds: AcceptanceConfig
) -> Iterable[str]:
    """Why the rubric is not accepted."""
    for name, figures in dimensions.items():
        alike = len({one.yardstick.grades[name] for one in pairs if name in one.yardstick.grades}) == 1
        if not alike and not figures["kappa"].low >= bounds.kappa:
            yield f"{name}: kappa is not surely at least {bounds.kappa:g}"
        if not figures["error"].high <= bounds.error:
            yield f"{name}: the error is not surely at most {bounds.error:g}"
    for name, least in (("auroc_right", bounds.auroc_right), ("auroc_success", bounds.auroc_success)):
        if not separation[name].low >= least:
            yield f"{name} is not surely at least {least:g}"


def to_tree(findings: Findings, bounds: AcceptanceConfig) -> dict[str, Any]:
    """For JSON. Figures that are not defined are null."""

    def figure(one: Figure) -> dict[str, float | None]:
        return {key: value if math.isfinite(value) else None for key, value in dataclasses.asdict(one).items()}

    tree = {**dataclasses.asdict(findings), "refused": list(findings.refused), "accepted": not findings.refused}
    return tree | {
        "interval": INTERVAL,
        "bounds": dataclasses.asdict(bounds),
        "dimensions": {name: {key: figure(one) for key, one in figures.items()} for name, figures in findings.dimensions.items()},
        "separation": {name: figure(one) for name, one in findings.separation.items()},
    }


def table(findings: Findings) -> str:
    """The figures as text."""
    lines = [
        f"{findings.grader} by the rubric {findings.rubric[:12]}: {findings.episodes} plans of {findings.tasks} tasks; {findings.without} "
        f"without a grade, {findings.unmatched} without a yardstick",
        f"{100 * findings.level:g} % intervals: {INTERVAL}",
        f"{'':<22}{'kappa':>24}{'spearman':>24}{'mean absolute error':>24}",
    ]
    for name, figures in findings.dimensions.items():
        lines.append(f"{name:<22}" + "".join(f"{show(figures[key]):>24}" for key in ("kappa", "spearman", "error")))
    lines += [f"{name:<22}{show(one):>24}   {SEPARATION[name]}" for name, one in findings.separation.items()]
    verdict = [f"not accepted: {reason}" for reason in findings.refused] or ["accepted"]
    return "\n".join([*lines, *verdict])


def show(figure: Figure) -> str:
    """The value and its interval, or a dash."""
    if not math.isfinite(figure.value):
        return "-"
    return f"{figure.value:.3f}" + (f" ({figure.low:.3f} - {figure.high:.3f})" if math.isfinite(figure.low) else "")
