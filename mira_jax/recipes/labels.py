"""Per-step data from the labels of episodes and from side tables. N is the number of steps in a reader."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mira_jax.errors import UserError
from mira_jax.rl.progress import before_last_milestone, completion_times, done_before, ordered_shares, progress_labels
from mira_jax.trajectories.records import Status, Task, Trajectory
from mira_jax.trajectories.side_tables import MissingRow, SideTable, tokens_of
from mira_jax.trajectories.token_columns import TokenColumn

ALTERNATIVES, ALTERNATIVE_LOG_PROBS = "alternatives", "alternative_log_probs"
"""Token columns of `mira score`: the likeliest tokens in place of each response token."""


@dataclasses.dataclass(frozen=True)
class StepLabels:
    """One entry per step, in the order of the reader's step index."""

    ids: list[str]
    """The trajectory id of each step."""
    tasks: list[str]
    """The key of each task, id and seed, by its number in `task`."""
    templates: list[str]
    """The template of each task, by the same number."""
    numbers: np.ndarray
    """int32 [N]: the index of the step in its trajectory."""
    task: np.ndarray
    """int32 [N]: equal for attempts at the same task (id and seed). These are the groups of a group-relative advantage."""
    last: np.ndarray
    """bool [N]: whether the step is the last of its trajectory."""
    sound: np.ndarray
    """bool [N]: false for trajectories that ended in an infrastructure error, which are no evidence about the policy."""
    success: np.ndarray
    """bool [N]: the outcome of the step's trajectory."""
    by_rule: np.ndarray
    """bool [N]: whether a rule decided that outcome."""
    progress: np.ndarray
    """float32 [N]: p* of the state before the step; NaN where the trajectory has no milestones."""
    ordered: np.ndarray
    """float32 [N]: share of the subgoals that are done in order, before the step; NaN where the trajectory has no milestones."""
    before_last_milestone: np.ndarray
    """bool [N]: whether a subgoal is done in order by this step or a later one; true in successes."""
    done: np.ndarray
    """bool [N, K]: which subgoals are done before the step, in any order. K is the largest number of subgoals of a trajectory."""
    reached: np.ndarray
    """bool [N, K]: which subgoals are done at the end of the step's trajectory."""
    subgoals: np.ndarray
    """int32 [N]: number of subgoals of the step's trajectory; 0 where it has no milestones."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def episodes(self) -> int:
        return int((self.last & self.sound).sum())

    def folds(self, folds: int) -> np.ndarray:
        """int32 [N]: the fold of each step's task, by `fold_of`."""
        return np.array([fold_of(task, folds) for task in self.tasks], np.int32)[self.task]

    @property
    def count(self) -> np.ndarray:
        """float32 [N]: share of the subgoals that are done before the step, in any order; NaN without milestones."""
        return _share(self.done, self.subgoals)

    @property
    def final_count(self) -> np.ndarray:
        """float32 [N]: share of the subgoals that are done at the end of the step's trajectory; NaN without milestones."""
        return _share(self.reached, self.subgoals)


def read_labels(reader: Iterable[Trajectory]) -> StepLabels:
    """Reads every trajectory once.

    Raises:
        UserError: a trajectory has no outcome, or only some of its steps are labelled with milestones.
    """
    ids: list[str] = []
    tasks: dict[str, int] = {}
    templates: list[str] = []
    numbers, task, last, sound, success, by_rule = [], [], [], [], [], []
    milestones: list[_Milestones] = []
    for trajectory in reader:
        count = len(trajectory.steps)
        if not count:
            continue
        is_sound = trajectory.status is not Status.INFRA_ERROR
        if is_sound and trajectory.outcome is None:
            raise UserError(f"trajectory {trajectory.id} has no outcome; label these episodes first (`mira label`)")
        ids += [trajectory.id] * count
        numbers += range(count)
        key = task_key(trajectory.task)
        if key not in tasks:
            tasks[key] = len(tasks)
            templates.append(trajectory.task.template)
        task += [tasks[key]] * count
        last += [False] * (count - 1) + [True]
        sound += [is_sound] * count
        success += [trajectory.success] * count
        by_rule += [trajectory.outcome is not None and trajectory.outcome.source == "rule"] * count
        milestones.append(_milestones(trajectory if is_sound else None, count))
    most = max((part.done.shape[1] for part in milestones), default=0)
    return StepLabels(
        ids=ids,
        tasks=list(tasks),
        templates=templates,
        numbers=np.array(numbers, np.int32),
        task=np.array(task, np.int32),
        last=np.array(last, bool),
        sound=np.array(sound, bool),
        success=np.array(success, bool),
        by_rule=np.array(by_rule, bool),
        progress=_joined([part.progress for part in milestones], np.float32),
        ordered=_joined([part.ordered for part in milestones], np.float32),
        before_last_milestone=_joined([part.before_last for part in milestones], bool),
        done=_joined([_widened(part.done, most) for part in milestones], bool, most),
        reached=_joined([_widened(np.broadcast_to(part.reached, part.done.shape), most) for part in milestones], bool, most),
        subgoals=_joined([np.full(len(part.done), part.done.shape[1], np.int32) for part in milestones], np.int32),
    )


def milestone_head(j: int) -> str:
    """The critic's head, and the column of side tables, of subgoal j, counted from 0."""
    return f"milestone_{j + 1}"


def task_key(task: Task) -> str:
    """Identifies a task: its id and its seed."""
    return f"{task.id} {task.seed}"


def fold_of(task: str, folds: int) -> int:
    """The fold in [0, folds) of a task, by the hash of its key. It does not depend on the other tasks."""
    return int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "big") % folds


def _joined(parts: list[np.ndarray], dtype: type, *shape: int) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, *shape), dtype)


def _widened(array_TxK: np.ndarray, most: int) -> np.ndarray:
    return np.pad(array_TxK, [(0, 0), (0, most - array_TxK.shape[1])])


def _share(done_NxK: np.ndarray, subgoals_N: np.ndarray) -> np.ndarray:
    counts_N = done_NxK.sum(axis=1).astype(np.float32)
    return np.divide(counts_N, subgoals_N, out=np.full(len(counts_N), np.nan, np.float32), where=subgoals_N > 0)


class _Milestones(NamedTuple):
    """What the milestones of one trajectory of T steps and K subgoals say of the states s_0 ... s_{T-1}, in which actions were taken."""

    progress: np.ndarray
    ordered: np.ndarray
    before_last: np.ndarray
    done: np.ndarray
    reached: np.ndarray


def _milestones(trajectory: Trajectory | None, count: int) -> _Milestones:
    """None: a trajectory without labels."""
    if trajectory is None or not any(step.milestones for step in trajectory.steps):
        nothing = np.full(count, np.nan, np.float32)
        before_last = np.full(count, trajectory is not None and trajectory.success)
        return _Milestones(nothing, nothing, before_last, np.zeros((count, 0), bool), np.zeros(0, bool))
    subgoals = len(trajectory.subgoals)
    for step in trajectory.steps:
        if len(step.milestones) != subgoals:
            raise UserError(
                f"trajectory {trajectory.id}: step {step.index} has {len(step.milestones)} milestones for {subgoals} subgoals; "
                "label these episodes again (`mira label`)"
            )
    milestones_TxK = np.array([step.milestones for step in trajectory.steps], bool)
    times = completion_times(milestones_TxK)
    return _Milestones(
        progress=progress_labels(times, count, trajectory.success)[:-1],
        ordered=ordered_shares(times, count)[:-1],
        before_last=before_last_milestone(times, count, trajectory.success),
        done=done_before(milestones_TxK),
        reached=np.asarray(milestones_TxK.any(axis=0)),
    )


def column(labels: StepLabels, tables: Sequence[SideTable], name: str) -> np.ndarray:
    """float32 [N]: a column of the side tables, 0 for steps that are not sound.

    Raises:
        UserError: no table has the column, a step has no row in any table, or a value is not finite.
    """
    having = [table for table in tables if name in table.columns]
    if not having:
        raise UserError(f"data.side_tables: none has a column {name}; make one with `mira score`")
    values: dict[tuple[str, int], float] = {}
    for table in having:
        table.used.add(name)
        values.update(zip(zip(table.ids, table.steps.tolist(), strict=True), table.columns[name].tolist(), strict=True))
    sources = ", ".join(table.source for table in having)
    result_N = np.zeros(len(labels), np.float32)
    for j in np.flatnonzero(labels.sound):
        key = labels.ids[j], int(labels.numbers[j])
        if key not in values:
            raise UserError(f"{sources}: no {name} for step {key[1]} of trajectory {key[0]}; score these episodes again (`mira score`)")
        result_N[j] = values[key]
    if not np.isfinite(result_N).all():
        j = int(np.flatnonzero(~np.isfinite(result_N))[0])
        raise UserError(f"{sources}: {name} of step {labels.numbers[j]} of trajectory {labels.ids[j]} is {result_N[j]}")
    return result_N


def token_column(labels: StepLabels, tables: Sequence[SideTable], name: str, width: int) -> TokenColumn:
    """The first `width` numbers per response token in a token column of the side tables, empty for steps that are not sound.

    Raises:
        UserError: no table has the column, it has fewer numbers per token, or a step has no row in any table.
    """
    having = [table for table in tables if name in table.token_columns]
    again = f"score the policy again with --set alternatives={width}"
    if not having:
        raise UserError(f"data.side_tables: none has {name}; {again}")
    for table in having:
        if (found := table.token_columns[name].values.shape[1]) < width:
            raise UserError(f"{table.source}: has {name} of {found} tokens, not {width}; {again}")
    keys = [(labels.ids[j], int(labels.numbers[j])) if labels.sound[j] else None for j in range(len(labels))]
    try:
        tokens = tokens_of(having, name, keys)
    except MissingRow as error:
        raise UserError(f"{', '.join(table.source for table in having)}: no {name} for {error}; {again}") from None
    return TokenColumn(tokens.values[:, :width], tokens.starts)


def require_milestones(labels: StepLabels, key: str) -> None:
    """Raises UserError if a sound episode has no milestones. `key`: the option that needs them."""
    without = np.flatnonzero(labels.sound & (labels.subgoals == 0))
    if len(without):
        raise UserError(f"{key}: needs milestones, and trajectory {labels.ids[without[0]]} has none; label its episodes (`mira label`)")


def mean_of_milestones(labels: StepLabels, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 [N]: the mean of the columns milestone_1 ... milestone_K over the K subgoals of each step's task."""
    most = labels.reached.shape[1]
    heads_NxK = np.stack([columns[milestone_head(j)] for j in range(most)], axis=1)
    heads_NxK = np.where(np.arange(most) < labels.subgoals[:, None], heads_NxK, 0)
    return (heads_NxK.sum(axis=1) / np.maximum(labels.subgoals, 1)).astype(np.float32)


def mean(values: np.ndarray) -> float:
    """The mean for summaries, 0 if there are no values."""
    return float(values.mean()) if len(values) else 0.0
