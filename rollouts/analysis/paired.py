"""Two evaluations of the same tasks, task by task."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Task
from rollouts.analysis import statistics
from rollouts.analysis.evaluation import Episode, Evaluation
from rollouts.analysis.statistics import Rate


@dataclasses.dataclass(frozen=True)
class PairedTask:
    task: str
    template: str
    domain: str
    attempts: int
    """Attempts that both judged."""
    baseline: int
    """Attempts solved."""
    treatment: int


@dataclasses.dataclass(frozen=True)
class Paired:
    """The treatment against the baseline. A win is a task that the treatment solved at more attempts than the baseline."""

    baseline: str
    treatment: str
    baseline_rate: Rate
    """Over the attempts that both judged, as `treatment_rate`."""
    treatment_rate: Rate
    wins: list[PairedTask]
    losses: list[PairedTask]
    ties: list[PairedTask]
    p_value: float
    """Exact, two-sided, over wins and losses: with one attempt per task McNemar's test, with several the sign test."""
    difference: float
    """Mean over tasks of the treatment's share of solved attempts less the baseline's, in [-1, 1]."""
    low: float
    """Of its bootstrap interval over tasks."""
    high: float
    level: float
    left_out: list[str]
    """Tasks without an attempt that both judged: infrastructure errors."""

    @property
    def tasks(self) -> int:
        return len(self.wins) + len(self.losses) + len(self.ties)


def compare_tasks(
    baseline: Evaluation, treatment: Evaluation, lost: tuple[Sequence[Episode], Sequence[Episode]] = ((), ()), level: float = 0.95
) -> Paired:
    """Pairs by task, seed and attempt; attempts that only one of the two judged are left out.

    Args:
        lost: what each gave up after infrastructure errors. These tasks were wanted too.

    Raises:
        UserError: the two are of different tasks or attempts, or nothing is left to pair.
    """
    names = baseline.name, treatment.name
    wanted = [
        {one.key: one for one in (*evaluation.episodes, *given_up)}
        for evaluation, given_up in zip((baseline, treatment), lost, strict=True)
    ]
    _refuse_other_tasks(names, [{one.task: one.spec for one in episodes.values()} for episodes in wanted])
    _refuse_other_attempts(names, wanted)
    left, right = ({one.key: one for one in evaluation.judged} for evaluation in (baseline, treatment))
    keys: dict[str, list[str]] = collections.defaultdict(list)
    for key, one in sorted(left.items()):
        if key in right:
            keys[one.task].append(key)
    if not keys:
        raise UserError(f"{names[0]} and {names[1]}: no task has an outcome in both; run both evaluations again")
    pairs = [_pair([left[key] for key in of_task], [right[key] for key in of_task]) for of_task in keys.values()]
    wins = [pair for pair in pairs if pair.treatment > pair.baseline]
    losses = [pair for pair in pairs if pair.treatment < pair.baseline]
    differences = [(pair.treatment - pair.baseline) / pair.attempts for pair in pairs]
    low, high = statistics.bootstrap_mean(differences, level)
    attempts = sum(pair.attempts for pair in pairs)
    return Paired(
        baseline=names[0],
        treatment=names[1],
        baseline_rate=statistics.rate(sum(pair.baseline for pair in pairs), attempts, level),
        treatment_rate=statistics.rate(sum(pair.treatment for pair in pairs), attempts, level),
        wins=wins,
        losses=losses,
        ties=[pair for pair in pairs if pair.treatment == pair.baseline],
        p_value=statistics.mcnemar_exact(len(wins), len(losses)),
        difference=math.fsum(differences) / len(differences),
        low=low,
        high=high,
        level=level,
        left_out=sorted({one.spec.id for one in wanted[0].values() if one.task not in keys}),
    )


def _pair(baseline: Sequence[Episode], treatment: Sequence[Episode]) -> PairedTask:
    one = baseline[0]
    solved = (sum(episode.success for episode in of_method) for of_method in (baseline, treatment))
    return PairedTask(one.spec.id, one.template, one.domain, len(baseline), *solved)


def _refuse_other_tasks(names: tuple[str, str], tasks: Sequence[Mapping[str, Task]]) -> None:
    parts = []
    for name, mine, theirs in ((names[0], *tasks), (names[1], *reversed(tasks))):
        if only := sorted(mine.keys() - theirs.keys()):
            parts.append(f"{len(only)} only in {name} ({_example(mine[key].id for key in only)})")
    if not parts:
        changed = [task for key, task in tasks[0].items() if task != tasks[1][key]]
        parts = [f"{len(changed)} have the same name and another content ({_example(task.id for task in changed)})"] if changed else []
    if parts:
        raise UserError(
            f"not the same tasks: {'; '.join(parts)}; compare evaluations with the same suite, split, templates, episodes and seed"
        )


def _refuse_other_attempts(names: tuple[str, str], wanted: Sequence[Mapping[str, Episode]]) -> None:
    if wanted[0].keys() != wanted[1].keys():
        most = [max(one.attempt for one in episodes.values()) + 1 for episodes in wanted]
        raise UserError(
            f"not the same attempts: {names[0]} has {len(wanted[0])} episodes, at most {most[0]} a task, "
            f"{names[1]} {len(wanted[1])}, at most {most[1]}; evaluate both with the same attempts"
        )


def _example(ids: Iterable[str]) -> str:
    return f"such as {min(ids)}"
