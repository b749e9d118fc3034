"""Per-step data from the labels of episodes and from side tables. N is the number of steps in a reader."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mira_jax.errors import UserError
from mira_jax.rl.progress import completion_times, progress_labels
from mira_jax.trajectories.records import Status, Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class StepLabels:
    """One entry per step, in the order of the reader's step index."""

    ids: list[str]
    """The trajectory id of each step."""
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
    progress: np.ndarray
    """float32 [N]: p* of the state before the step; NaN where the trajectory has no milestones."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def episodes(self) -> int:
        return int((self.last & self.sound).sum())


def read_labels(reader: Sequence[Trajectory]) -> StepLabels:
    """Reads every trajectory once.

    Raises:
        UserError: a trajectory has no outcome, or only some of its steps are labelled with milestones.
    """
    ids: list[str] = []
    tasks: dict[tuple[str, int], int] = {}
    numbers, task, last, sound, success, progress = [], [], [], [], [], []
    for trajectory in reader:
        count = len(trajectory.steps)
        if not count:
            continue
        is_sound = trajectory.status is not Status.INFRA_ERROR
        if is_sound and trajectory.outcome is None:
            raise UserError(f"trajectory {trajectory.id} has no outcome; label these episodes first (`mira label`)")
        ids += [trajectory.id] * count
        numbers += range(count)
        task += [tasks.setdefault((trajectory.task.id, trajectory.task.seed), len(tasks))] * count
        last += [False] * (count - 1) + [True]
        sound += [is_sound] * count
        success += [trajectory.success] * count
        progress.append(_progress(trajectory) if is_sound else np.full(count, np.nan, np.float32))
    return StepLabels(
        ids=ids,
        numbers=np.array(numbers, np.int32),
        task=np.array(task, np.int32),
        last=np.array(last, bool),
        sound=np.array(sound, bool),
        success=np.array(success, bool),
        progress=np.concatenate(progress) if progress else np.zeros(0, np.float32),
    )


def _progress(trajectory: Trajectory) -> np.ndarray:
    """p* of the states in which an action was taken, s_0 ... s_{T-1}."""
    count, subgoals = len(trajectory.steps), len(trajectory.subgoals)
    if not any(step.milestones for step in trajectory.steps):
        return np.full(count, np.nan, np.float32)
    for step in trajectory.steps:
        if len(step.milestones) != subgoals:
            raise UserError(
                f"trajectory {trajectory.id}: step {step.index} has {len(step.milestones)} milestones for {subgoals} subgoals; "
                "label these episodes again (`mira label`)"
            )
    milestones_TxK = np.array([step.milestones for step in trajectory.steps], bool)
    return progress_labels(completion_times(milestones_TxK), count, trajectory.success)[:-1]


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


def mean(values: np.ndarray) -> float:
    """The mean for summaries, 0 if there are no values."""
    return float(values.mean()) if len(values) else 0.0
