"""The quality of subgoals and of their checker: whether the share done predicts success, and agreement with the true milestones.

An episode has K subgoals, of which some are done at its end. Episodes lost to infrastructure errors, without an outcome, or without
milestones are left out. Intervals are percentiles of a bootstrap that resamples tasks, with all episodes of a task together.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Status, Trajectory
from mira_jax.trajectories.summary import Rate
from rollouts.analysis import statistics
from rollouts.analysis.bootstrap import Bootstrap, Figure
from rollouts.analysis.grades import auroc, kendall_tau, ratio, spearman

PAPER = {"auroc": 0.84, "tau": 0.4585, "f1": 0.685, "precision": 0.79, "recall": 0.60}
"""MiRA (arXiv 2603.19685), for the subgoals of its teacher and its checker."""
SHARES = ("none", "to 1/4", "to 1/2", "to 3/4", "more", "all")
"""Names of the ranges of the share done, in rising order."""
INTERVAL = "percentile bootstrap over tasks"
MATCHING = "subgoal j of an episode is compared with its true milestone j, at the end of the episode, where both are equally many"


@dataclasses.dataclass(frozen=True)
class Ending:
    """What is done at the end of an episode."""

    id: str
    task: str
    """Task and seed: equal for all attempts."""
    success: bool
    done: tuple[bool, ...]
    """Of each subgoal."""

    @property
    def share(self) -> float:
        return sum(self.done) / len(self.done)


@dataclasses.dataclass(frozen=True)
class Findings:
    episodes: int
    """Episodes with an outcome and milestones."""
    tasks: int
    without: int
    """Episodes with an outcome and no milestones."""
    success: float
    """Share of successes."""
    level: float
    figures: dict[str, Figure]
    """auroc and tau of the share done against success. With the truth also precision, recall and f1 over `matched` subgoals, and over all
    episodes spearman and mae of the share done against the true share."""
    by_done: dict[int, Rate]
    """Number of subgoals done to the success rate."""
    by_share: dict[str, Rate]
    """The same by the share done, for tasks with different numbers of subgoals."""
    matched: int
    """Pairs of a subgoal and a true milestone that precision, recall and F1 are about."""
    matched_episodes: int


def endings(episodes: Iterable[Trajectory]) -> tuple[list[Ending], int]:
    """What is done at the end of each episode, and the number of judged episodes without milestones."""
    found, without = [], 0
    for one in episodes:
        if one.status is Status.INFRA_ERROR or one.outcome is None or not one.steps:
            continue
        if not one.subgoals:
            without += 1
            continue
        done = tuple(map(any, zip(*(step.milestones for step in one.steps), strict=True)))
        if len(done) != len(one.subgoals):
            raise UserError(f"{one.id}: {len(done)} milestones for {len(one.subgoals)} subgoals; label these episodes again (`mira label`)")
        found.append(Ending(one.id, f"{one.task.id}|{one.task.seed}", one.success, done))
    return found, without


def analyse(labelled: Sequence[Ending], without: int, truth: Sequence[Ending] | None, level: float, resamples: int, seed: int) -> Findings:
    """Computes all figures.

    Args:
        truth: the same episodes with their true milestones. Episodes that are not in both are left out of the comparison with it.

    Raises:
        UserError: no episode has milestones, or no episode of the truth is among them.
    """
    if not labelled:
        raise UserError("folder: no episode has an outcome and milestones; label them with subgoals (`mira label`)")
    tasks = {name: number for number, name in enumerate(dict.fromkeys(one.task for one in labelled))}
    bootstrap = Bootstrap(len(tasks), level, resamples, seed)
    task_E = np.array([tasks[one.task] for one in labelled])
    levels, share_E = np.unique([one.share for one in labelled], return_inverse=True)
    outcomes = bootstrap.tables(task_E, share_E, np.array([one.success for one in labelled], int), (len(levels), 2))
    figures = {"auroc": bootstrap.figure(auroc(outcomes)), "tau": bootstrap.figure(kendall_tau(outcomes))}
    matched = matched_episodes = 0
    if truth is not None:
        pairs = _pairs(labelled, truth)
        task_P = np.array([tasks[one.task] for one, _ in pairs])
        figures |= _against_truth(pairs, task_P, bootstrap)
        matched = sum(len(one.done) for one, other in pairs if len(one.done) == len(other.done))
        matched_episodes = sum(len(one.done) == len(other.done) for one, other in pairs)
    return Findings(
        episodes=len(labelled),
        tasks=len(tasks),
        without=without,
        success=sum(one.success for one in labelled) / len(labelled),
        level=level,
        figures=figures,
        by_done=_rates(labelled, lambda one: sum(one.done), level),
        by_share={
            SHARES[place]: rate for place, rate in _rates(labelled, lambda one: math.ceil(one.share * 4) + (one.share == 1), level).items()
        },
        matched=matched,
        matched_episodes=matched_episodes,
    )


def to_tree(findings: Findings) -> dict[str, Any]:
    """For JSON, with the figures of the paper."""
    rates = {name: {str(key): _rate_tree(rate) for key, rate in getattr(findings, name).items()} for name in ("by_done", "by_share")}
    return {**dataclasses.asdict(findings), **rates, "interval": INTERVAL, "matching": MATCHING, "paper": PAPER}


def _rate_tree(rate: Rate) -> dict[str, float]:
    return {"mean": rate.mean, "low": rate.low, "high": rate.high, "tasks": rate.tasks, "episodes": rate.attempts}


def table(findings: Findings, usages: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as text. `usages`: what models used, by what for."""
    lines = [
        f"{findings.episodes} episodes of {findings.tasks} tasks, {findings.success:.1%} successes; "
        f"{findings.without} more without milestones",
        f"{'':<12}{'value':>8}   {100 * findings.level:g} % interval      paper",
    ]
    for name, figure in findings.figures.items():
        paper = f"{PAPER[name]:.4g}" if name in PAPER else ""
        lines.append(f"{name:<12}{figure.value:>8.3f}   {figure.low:>6.3f} - {figure.high:>6.3f}   {paper:>8}")
    if "f1" in findings.figures:
        lines.append(f"precision, recall and F1 are over {findings.matched} subgoals of {findings.matched_episodes} episodes: {MATCHING}")
    for title, rates in (("number", findings.by_done), ("share", findings.by_share)):
        lines.append(f"success by {title} of subgoals done:")
        lines += [
            f"{key:>8}    {rate.mean:>8.1%}   {rate.low:>6.1%} - {rate.high:>6.1%}   {rate.attempts:>5} episodes"
            for key, rate in rates.items()
        ]
    for what, usage in usages.items():
        tokens = f"{usage.get('prompt_tokens', 0):,.0f} + {usage.get('response_tokens', 0):,.0f} tokens, {usage.get('cost', 0):.4f} USD"
        lines.append(f"{what}: {usage.get('requests', 0):,.0f} requests, {tokens}, {usage.get('invalid', 0):,.0f} without a valid answer")
    return "\n".join(lines)


def _pairs(labelled: Sequence[Ending], truth: Sequence[Ending]) -> list[tuple[Ending, Ending]]:
    known = {one.id: one for one in truth}
    pairs = [(one, known[one.id]) for one in labelled if one.id in known]
    if not pairs:
        raise UserError("truth: none of its episodes is in folder; label the same episodes with milestones.kind=suite")
    return pairs


def _against_truth(pairs: Sequence[tuple[Ending, Ending]], task_P: np.ndarray, bootstrap: Bootstrap) -> dict[str, Figure]:
    matched = [
        (task, decided, true)
        for task, (one, other) in zip(task_P.tolist(), pairs, strict=True)
        if len(one.done) == len(other.done)
        for decided, true in zip(one.done, other.done, strict=True)
    ]
    tasks = np.array([task for task, _, _ in matched], int)
    counts = bootstrap.confusion(tasks, *(np.array([row[column] for row in matched], bool) for column in (1, 2)))
    shares, share_P = np.unique([one.share for one, _ in pairs], return_inverse=True)
    truths, true_P = np.unique([other.share for _, other in pairs], return_inverse=True)
    tables = bootstrap.tables(task_P, share_P, true_P, (len(shares), len(truths)))
    errors = np.array([abs(one.share - other.share) for one, other in pairs])
    return {
        **{name: bootstrap.figure(getattr(counts, name)) for name in ("precision", "recall", "f1")},
        "spearman": bootstrap.figure(spearman(tables)),
        "mae": bootstrap.figure(ratio(bootstrap.sums(task_P, errors), bootstrap.sums(task_P, np.ones(len(pairs))))),
    }


def _rates(labelled: Sequence[Ending], key: Callable[[Ending], int], level: float) -> dict[int, Rate]:
    """Success rates by a key, in its order. Tasks are the sample."""
    groups: dict[int, dict[str, list[bool]]] = {}
    for one in labelled:
        groups.setdefault(key(one), {}).setdefault(one.task, []).append(one.success)
    return {found: statistics.task_rate(list(groups[found].values()), level) for found in sorted(groups)}
