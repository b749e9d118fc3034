"""Why an episode failed: a class for each, and the step where it went wrong.

The classes are those of the failure analyser of MiRA (arXiv 2603.19685), tried in order; the first that holds
is taken. The paper gives no thresholds: those here are ours.
"""

import dataclasses
import enum
from collections.abc import Sequence

from mira_jax.trajectories.records import Status, Trajectory
from rollouts.stuck import StuckRule, loop_start, move


class Failure(str, enum.Enum):
    """In the order in which they are tried."""

    WRONG_TERMINATION = "wrong_termination"
    """The policy said exit(), and the task was not done or the answer was wrong."""
    STUCK_MIDWAY = "stuck_midway"
    """At the end it repeated one action, or a short cycle of actions."""
    NO_REASONABLE_ATTEMPT = "no_reasonable_attempt"
    """Everything was done but exit(), or it ended within the first steps, or it reached no milestone at all."""
    OTHER = "other"


@dataclasses.dataclass(frozen=True)
class Thresholds:
    stuck: StuckRule = dataclasses.field(default_factory=StuckRule)
    early_steps: int = 2
    """No reasonable attempt: ended after at most so many steps."""


def classify(trajectory: Trajectory, thresholds: Thresholds = Thresholds()) -> Failure | None:
    """The class of a failed episode; None where it succeeded or has no outcome."""
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
    """The key decision step of a failed episode: where it entered its loop, else where it first left every success of the same task.

    Args:
        successes: successful episodes of the same task, by any policy.

    Returns:
        An index into `trajectory.steps`; None where it succeeded, has no outcome, or nothing can be said.
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
