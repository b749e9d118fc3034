"""Compares two evaluations of the same tasks, paired by task. Report, compare and summaries use this pairing."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Task
from mira_jax.trajectories.summary import Comparison, Rate, SeedComparison
from rollouts.analysis import statistics
from rollouts.analysis.evaluation import Episode, Evaluation
from rollouts.analysis.figures import rate

MCNEMAR = "exact McNemar test"
SIGN_FLIP = "exact sign-flip test over tasks"
SEED_SIGN_FLIP = "exact sign-flip test over seeds"


@dataclasses.dataclass(frozen=True)
class PairedTask:
    task: str
    template: str
    domain: str
    baseline: int
    """Successful attempts."""
    baseline_attempts: int
    """Attempts with an outcome."""
    treatment: int
    treatment_attempts: int

    @property
    def difference(self) -> Fraction:
        """The treatment's fraction of successful attempts minus the baseline's."""
        return Fraction(self.treatment, self.treatment_attempts) - Fraction(self.baseline, self.baseline_attempts)


@dataclasses.dataclass(frozen=True)
class Paired:
    """The treatment against the baseline. A win is a task on which the treatment's fraction of successful attempts is larger."""

    comparison: Comparison
    level: float
    baseline_rate: Rate
    """Over the tasks for which both have an outcome, as is `treatment_rate`."""
    treatment_rate: Rate
    wins: list[PairedTask]
    losses: list[PairedTask]
    ties: list[PairedTask]

    @property
    def difference(self) -> Fraction:
        tasks = [*self.wins, *self.losses, *self.ties]
        return sum((task.difference for task in tasks), Fraction()) / len(tasks)


def compare_tasks(baseline: Evaluation, treatment: Evaluation, level: float = 0.95) -> Paired:
    """Pairs two evaluations by task, identified by id and seed. A task is left out unless both have an outcome for it.

    The p value is that of `statistics.sign_flip`, which is McNemar's exact test for one attempt per task.

    Raises:
        UserError: the evaluations have different tasks or attempts, or no task can be paired.
    """
    names = baseline.name, treatment.name
    wanted = [{one.key: one for one in (*evaluation.lost, *evaluation.episodes)} for evaluation in (baseline, treatment)]
    _refuse_other_tasks(names, [{one.task: one.spec for one in episodes.values()} for episodes in wanted])
    _refuse_other_attempts(names, wanted)
    left, right = (_by_task(evaluation) for evaluation in (baseline, treatment))
    shared = sorted(left.keys() & right.keys())
    if not shared:
        raise UserError(f"{names[0]} and {names[1]}: no task has an outcome in both; run both evaluations again")
    pairs = [_pair(left[task], right[task]) for task in shared]
    wins, losses, ties = ([pair for pair in pairs if _sign(pair.difference) == sign] for sign in (1, -1, 0))
    low, high = statistics.difference_interval([float(pair.difference) for pair in pairs], level)
    attempts = max(max(pair.baseline_attempts, pair.treatment_attempts) for pair in pairs)
    comparison = Comparison(
        baseline=names[0],
        treatment=names[1],
        tasks=len(pairs),
        attempts=attempts,
        wins=len(wins),
        losses=len(losses),
        ties=len(ties),
        difference=float(sum((pair.difference for pair in pairs), Fraction()) / len(pairs)),
        low=float(low),
        high=float(high),
        p_value=statistics.sign_flip([pair.difference for pair in pairs]),
        test=MCNEMAR if attempts == 1 else SIGN_FLIP,
        sided=statistics.SIDED,
        left_out=sorted({one.spec.id for one in wanted[0].values()} - {left[task][0].spec.id for task in shared}),
    )
    baseline_rate, treatment_rate = (
        rate(name, [one for task in shared for one in of_method[task]], level) for name, of_method in zip(names, (left, right), strict=True)
    )
    return Paired(comparison, level, baseline_rate, treatment_rate, wins, losses, ties)


def over_seeds(paired: Mapping[int, Paired], names: tuple[str, str], level: float = 0.95) -> SeedComparison:
    """Compares two methods over several runs. The training seeds are the sample; the tasks are fixed.

    The interval is Student's t over the differences per seed, and the p value that of `statistics.sign_flip` over the same
    differences, which is at least 2^(1 - seeds). Pooling the tasks of all seeds would instead mistake the variation between
    seeds for a difference between the methods.
    """
    differences = [one.difference for one in paired.values()]
    interval = statistics.t_interval([float(one) for one in differences], level)
    return SeedComparison(
        baseline=names[0],
        treatment=names[1],
        seeds=list(paired),
        differences=[float(one) for one in differences],
        difference=float(sum(differences, Fraction()) / len(differences)),
        low=interval and interval[0],
        high=interval and interval[1],
        interval=statistics.SEED_INTERVAL,
        p_value=statistics.sign_flip(differences),
        smallest_p=min(1.0, math.ldexp(1.0, 1 - len(differences))),
        test=SEED_SIGN_FLIP,
        sided=statistics.SIDED,
    )


def _by_task(evaluation: Evaluation) -> dict[str, list[Episode]]:
    tasks: dict[str, list[Episode]] = {}
    for one in evaluation.judged:
        tasks.setdefault(one.task, []).append(one)
    return tasks


def _pair(baseline: Sequence[Episode], treatment: Sequence[Episode]) -> PairedTask:
    one = baseline[0]
    counts = [count for of_method in (baseline, treatment) for count in (sum(one.success for one in of_method), len(of_method))]
    return PairedTask(one.spec.id, one.template, one.domain, *counts)


def _sign(difference: Fraction) -> int:
    return (difference > 0) - (difference < 0)


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
