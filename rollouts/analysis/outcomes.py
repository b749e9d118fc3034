"""The agreement of a judge with the rules of the suite, over the same episodes. A positive is a success.

Episodes are matched by id. Those without a verdict of the judge are counted and are in no figure. The intervals of shares are Wilson's,
with the effective number of episodes where a task has several (`mira_jax.intervals.share_interval`). Those of F1 and kappa are
percentiles of a bootstrap over tasks, with all episodes of a task together.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mira_jax.classification import Confusion, confusion
from mira_jax.errors import UserError
from mira_jax.intervals import share_interval
from mira_jax.trajectories.records import Status, Trajectory
from rollouts.analysis.bootstrap import Bootstrap, Figure
from rollouts.analysis.failures import Failure, classify

PUBLISHED = {"WebVoyager": 0.45, "WebJudge": 0.22}
"""At least this share of failures was judged a success by these judges, against people (arXiv 2604.06240)."""
SHARES = ("agreement", "precision", "recall", "false_positive_rate")
"""Figures that are shares of episodes."""
INTERVALS = "Wilson, with the effective number of episodes; of F1 and kappa, percentile bootstrap over tasks"


@dataclasses.dataclass(frozen=True)
class Judged:
    """An episode with the outcome by rule, and that of the judge."""

    id: str
    task: str
    """Task and seed: equal for all attempts."""
    template: str
    truth: bool
    failure: Failure | None
    """By the rules. None for a success."""
    verdict: bool | None
    """None if the judge gave none."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The figures of some episodes."""

    episodes: int
    """Episodes with a verdict."""
    tasks: int
    no_verdict: int
    counts: Confusion
    figures: dict[str, Figure]
    """agreement, precision, recall, f1, false_positive_rate, kappa."""


@dataclasses.dataclass(frozen=True)
class Findings:
    judge: str
    """Source of its outcomes: orm or judge."""
    unmatched: int
    """Episodes that are only in one of the folders, or have no outcome by rule."""
    level: float
    overall: Agreement
    by_template: dict[str, Agreement]
    by_failure: dict[str, Agreement]
    """Failures by their class. All are negatives, so only the false-positive rate says something."""


def match(judged: Iterable[Trajectory], truth: Iterable[Trajectory]) -> tuple[list[Judged], str, int]:
    """Returns the episodes that both have, the source of the judge's outcomes, and the number of other episodes.

    Episodes lost to infrastructure errors have no outcome and are ignored. Each episode is read once and its pages are not kept.

    Raises:
        UserError: no episode is in both, or the judge's outcomes are by rule or of several sources.
    """
    by_rule: dict[str, Judged] = {}
    others = 0
    for one in truth:
        if one.outcome is not None and one.outcome.source == "rule" and one.status is not Status.INFRA_ERROR:
            task = one.task
            by_rule[one.id] = Judged(one.id, f"{task.id}|{task.seed}", task.template, one.success, classify(one), None)
        elif one.status is not Status.INFRA_ERROR:
            others += 1
    found, sources = [], set()
    for one in judged:
        if one.status is Status.INFRA_ERROR:
            continue
        known = by_rule.pop(one.id, None)
        if known is None:
            others += 1
            continue
        sources |= {one.outcome.source} if one.outcome else set()
        found.append(dataclasses.replace(known, verdict=one.outcome and one.outcome.success))
    if not found:
        raise UserError("truth: has no outcome by rule of an episode in folder; label the same episodes with judge.kind=rule")
    if len(sources) > 1 or sources == {"rule"}:
        raise UserError(f"folder: its outcomes are by {', '.join(sorted(sources))}; label it with one judge, judge.kind=orm or model")
    return found, next(iter(sources), "judge"), others + len(by_rule)


def analyse(
    judged: Iterable[Trajectory], truth: Iterable[Trajectory], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Findings:
    """Computes all figures.

    Args:
        judged: episodes with the outcomes of the judge.
        truth: the same episodes with their outcomes by rule.

    Raises:
        UserError: see `match`.
    """
    episodes, source, unmatched = match(judged, truth)
    templates: dict[str, list[Judged]] = collections.defaultdict(list)
    failures: dict[str, list[Judged]] = collections.defaultdict(list)
    for one in episodes:
        templates[one.template].append(one)
        if one.failure:
            failures[one.failure.value].append(one)

    def of(group: Sequence[Judged]) -> Agreement:
        return agreement(group, level, resamples, seed)

    return Findings(
        judge=source,
        unmatched=unmatched,
        level=level,
        overall=of(episodes),
        by_template={name: of(templates[name]) for name in sorted(templates)},
        by_failure={kind.value: of(failures[kind.value]) for kind in Failure if kind.value in failures},
    )


def agreement(episodes: Sequence[Judged], level: float, resamples: int, seed: int) -> Agreement:
    decided = [one for one in episodes if one.verdict is not None]
    verdict_E, truth_E = np.array([one.verdict for one in decided], bool), np.array([one.truth for one in decided], bool)
    task_E = np.unique([one.task for one in decided], return_inverse=True)[1]
    counts = confusion(verdict_E, truth_E)
    right_E = verdict_E == truth_E
    among = {"agreement": slice(None), "precision": verdict_E, "recall": truth_E, "false_positive_rate": ~truth_E}
    hits = {"agreement": right_E, "precision": right_E, "recall": right_E, "false_positive_rate": verdict_E}
    figures = {}
    for name in SHARES:
        value = float(counts.accuracy if name == "agreement" else getattr(counts, name))
        interval = share_interval(hits[name][among[name]], task_E[among[name]], level) if math.isfinite(value) else ()
        figures[name] = Figure(value, *interval)
    draw = Bootstrap(len(set(task_E.tolist())), level, resamples, seed)
    resampled = draw.confusion(task_E, verdict_E, truth_E)
    figures |= {name: draw.figure(getattr(resampled, name)) for name in ("f1", "kappa")}
    return Agreement(
        episodes=len(decided),
        tasks=len(set(task_E.tolist())),
        no_verdict=len(episodes) - len(decided),
        counts=counts,
        figures=figures,
    )


def to_tree(findings: Findings) -> dict[str, Any]:
    """For JSON, with the published rates. Figures that are not defined are null."""

    def tree(one: Agreement) -> dict[str, Any]:
        figures = {
            name: {key: value if math.isfinite(value) else None for key, value in dataclasses.asdict(figure).items()}
            for name, figure in one.figures.items()
        }
        sizes = {"episodes": one.episodes, "tasks": one.tasks, "no_verdict": one.no_verdict}
        return {**sizes, "counts": one.counts._asdict(), "figures": figures}

    return {
        "judge": findings.judge,
        "unmatched": findings.unmatched,
        "level": findings.level,
        "intervals": INTERVALS,
        "overall": tree(findings.overall),
        "by_template": {name: tree(one) for name, one in findings.by_template.items()},
        "by_failure": {name: tree(one) for name, one in findings.by_failure.items()},
        "published_false_positive_rates": PUBLISHED,
    }


def table(findings: Findings) -> str:
    """The figures as text."""
    one = findings.overall
    lines = [
        f"{findings.judge} against rules: {one.episodes} episodes of {one.tasks} tasks; {one.no_verdict} without a verdict, "
        f"{findings.unmatched} in one folder only or without an outcome by rule",
        f"{'':<22}{'value':>7}   {100 * findings.level:g} % interval",
        *(f"{name.replace('_', ' '):<22}{show(figure)}" for name, figure in one.figures.items()),
        f"published false-positive rates of other judges: {published()}",
        f"{'':<24}rule: success   rule: failure",
        f"{findings.judge + ': success':<24}{one.counts.true_positives:13}   {one.counts.false_positives:13}",
        f"{findings.judge + ': failure':<24}{one.counts.false_negatives:13}   {one.counts.true_negatives:13}",
    ]
    lines += _rows("by template", "agreement", findings.by_template)
    lines += _rows("failures by class", "false_positive_rate", findings.by_failure)
    return "\n".join(lines)


def show(figure: Figure) -> str:
    """The value and its interval, or a dash."""
    if not math.isfinite(figure.value):
        return f"{'-':>7}"
    return f"{figure.value:7.3f}" + (f"   {figure.low:.3f} - {figure.high:.3f}" if math.isfinite(figure.low) else "")


def published() -> str:
    return ", ".join(f"{name} at least {100 * rate:.0f} %" for name, rate in PUBLISHED.items()) + " (arXiv 2604.06240)"


def _rows(title: str, name: str, groups: Mapping[str, Agreement]) -> list[str]:
    head = f"{title + ':':<24}{name.replace('_', ' ')}, interval, episodes, without a verdict"
    return [head] + [f"{group:<22}{show(one.figures[name])}   {one.episodes:6d} {one.no_verdict:5d}" for group, one in groups.items()]
