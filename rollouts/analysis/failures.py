"""Failure analysis: assigns each failed episode a class, and finds the step where it went wrong.

The classes are those of MiRA's failure analyser (arXiv 2603.19685). They are tried in order, and the first match is used. The
paper gives no thresholds; those below are our choice.
"""

import dataclasses
import enum
from collections.abc import Sequence

from mira_jax.trajectories.records import Status, Trajectory
from rollouts.stuck import StuckRule, loop_start, move


class Failure(enum.StrEnum):
    """Failure classes, in the order in which they are tried."""

    WRONG_TERMINATION = "wrong_termination"
    """The policy called exit(), but the task was not done or the answer was wrong."""
    STUCK_MIDWAY = "stuck_midway"
    """The episode ended in one repeated action, or in a short cycle of actions."""
    NO_REASONABLE_ATTEMPT = "no_reasonable_attempt"
    """All milestones were reached but exit() was not called, or the episode ended within the first steps, or it reached no milestone."""
    OTHER = "other"


@dataclasses.dataclass(frozen=True)
class Thresholds:
    stuck: StuckRule = dataclasses.field(default_factory=StuckRule)
    early_steps: int = 2
    """An episode of at most this number of steps is no reasonable attempt."""


def classify(trajectory: Trajectory, thresholds: Thresholds = Thresholds()) -> Failure | None:
    """Returns the class of a failed episode. None if it succeeded or has no outcome."""
    if trajectory.status is Status.INFRA_ERROR or trajectory.outcome is None or trajectory.success:
        return None
    if trajectory.status is Status.FINISHED:
        return Failure.WRONG_TERMINATION
    if trajectory.status is Status.STUCK or loop_start(trajectory.steps, thresholds.stuck) is not None:
        return Failure.STUCK_MIDWAY
    if len(trajectory.steps) <= thresholds.early_steps or _never_started(trajectory) or _all_but_exit(trajectory):
        return Failure.NO_REASONABLE_ATTEMPT
    return Failure.OTHER


def key_step(trajectory: Trajectory, successes: Sequence[Trajectory]) -> int | None:
    """Finds the key decision step of a failed episode: the start of its final loop, else the first step that differs from every
    successful episode of the same task.

    Args:
        successes: successful episodes of the same task, by any policy.

    Returns:
        An index into `trajectory.steps`. None if the episode succeeded, has no outcome, or no such step is found.
    """
    if classify(trajectory) is None or not trajectory.steps:
        return None
    start = loop_start(trajectory.steps)
    if start is not None:
        return start
    moves = [move(step) for step in trajectory.steps]
    shared = [_shared_prefix(moves, [move(step) for step in success.steps]) for success in successes]
    if not shared:
        return None
    return min(max(shared), len(moves) - 1)


def _shared_prefix(one: list[tuple[str | None, ...]], other: list[tuple[str | None, ...]]) -> int:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))


def _never_started(trajectory: Trajectory) -> bool:
    labelled = [step.milestones for step in trajectory.steps if step.milestones]
    return bool(labelled) and not any(map(any, labelled))


def _all_but_exit(trajectory: Trajectory) -> bool:
    return bool(trajectory.steps) and bool(trajectory.steps[-1].milestones) and all(trajectory.steps[-1].milestones)
