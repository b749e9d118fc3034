"""When an episode is stuck: it ends in one action repeated, or in a short cycle of actions.

The engine ends a running episode by this rule (`limits.stuck_after` equal actions), and the failure classes apply it to a
finished one, with cycles and fewer repetitions.
"""

import dataclasses
from collections.abc import Sequence

from mira_jax.trajectories.records import Step


@dataclasses.dataclass(frozen=True)
class StuckRule:
    identical: int = 3
    """Equal actions at the end from which an episode is stuck."""
    longest_cycle: int = 4
    """The most actions of a cycle; 1: only equal actions count."""
    repeats: int = 3
    """Repetitions at the end from which a cycle of 2 or more actions counts."""


def loop_start(steps: Sequence[Step], rule: StuckRule = StuckRule()) -> int | None:
    """The index of the first step of the loop that the episode ends in; None if it ends in none. The longest loop counts."""
    moves = [move(step) for step in steps]
    starts = []
    for length in range(1, rule.longest_cycle + 1):
        needed = rule.identical if length == 1 else rule.repeats
        start = len(moves)
        while start > 0 and (start + length > len(moves) or moves[start - 1] == moves[start - 1 + length]):
            start -= 1
        if len(moves) - start >= needed * length:
            starts.append(start)
    return min(starts, default=None)


def move(step: Step) -> tuple[str | None, ...]:
    """What two equal steps have in common: the parsed action, or the text where it did not parse."""
    if step.action is None:
        return (None, step.response)
    return (step.action.name, step.action.argument, step.action.element)
