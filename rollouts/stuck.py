"""Detects stuck episodes: the last actions are one action repeated, or a short cycle of actions.

The engine ends a running episode by this rule (after `limits.stuck_after` equal actions). Failure analysis applies it to finished
episodes, with cycles and fewer repetitions.
"""

import dataclasses
from collections.abc import Sequence

from mira_jax.trajectories.records import Step


@dataclasses.dataclass(frozen=True)
class StuckRule:
    identical: int = 3
    """Number of equal actions at the end at which an episode is stuck."""
    longest_cycle: int = 4
    """Maximum number of actions in a cycle. 1: only equal actions count."""
    repeats: int = 3
    """Number of repetitions at the end at which a cycle of 2 or more actions counts."""


def loop_start(steps: Sequence[Step], rule: StuckRule = StuckRule()) -> int | None:
    """Index of the first step of the final loop, None if there is none. If several loops match, the longest is used."""
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
    """The key by which two steps are compared: the parsed action, or the response text if it could not be parsed."""
    if step.action is None:
        return (None, step.response)
    return (step.action.name, step.action.argument, step.action.element)
