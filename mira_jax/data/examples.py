"""Examples: the token sequences that rows are packed from, each with one turn or several.

An example is packed as one segment: its tokens attend to each other and to nothing else. A turn is one step of an
episode within it: a response, and the state before it. By default each step is an example (`mira_jax.data.steps`);
a recipe may choose others, for example whole episodes (`Recipe.examples`). Whatever the examples are, labels and
columns are per step.

Shapes: N steps of the reader, E examples, M turns of all examples.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.tokenizer import Tokenizer


class Turn(NamedTuple):
    """One step in an example."""

    step: int
    """The step's place in its episode."""
    start: int
    """The response is tokens[start:stop] of the example. A critic reads the state at token start - 1."""
    stop: int


class Example(NamedTuple):
    tokens: Sequence[int]
    """Up to the end of the last turn's response."""
    turns: Sequence[Turn]
    """In the order of their places, which do not overlap; at least one."""


class ExamplesOf(Protocol):
    """The examples of one episode, deterministically."""

    def __call__(self, trajectory: Trajectory, prompt: PromptConfig, tokenizer: Tokenizer, /) -> Iterable[Example]: ...


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of all episodes of a reader."""

    tokens: np.ndarray
    """int32: those of example 0, of example 1, ..."""
    starts: np.ndarray
    """int64 [E + 1]: where in `tokens` each example begins."""
    first_turn: np.ndarray
    """int64 [E + 1]: where in the three arrays below the turns of each example begin."""
    turn_step: np.ndarray
    """int64 [M]: the step of each turn, by its number in the reader's `StepIndex`."""
    turn_start: np.ndarray
    """int32 [M]: where the response of each turn begins, counted from its example's first token."""
    turn_stop: np.ndarray
    """int32 [M]: where it ends."""
    usable: np.ndarray
    """bool [N]: false for steps of episodes that ended in an infrastructure error, whose examples are empty."""
    successful: np.ndarray
    """bool [N]: the step's episode succeeded."""
    episode: np.ndarray
    """int32 [N]: the record each step is of."""
    task: np.ndarray
    """int32 [N]: equal for episodes of one task, by its id and seed; the first record of the task."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def steps(self) -> int:
        """N."""
        return len(self.usable)

    @property
    def prompt_lengths(self) -> np.ndarray:
        """int32 [E]: tokens before the last response. 0, like the response's, for steps that are never trained on."""
        return self.turn_start[self.first_turn[1:] - 1]

    @property
    def response_lengths(self) -> np.ndarray:
        """int32 [E]: tokens of the last response, end token included where there is one."""
        return (self.turn_stop - self.turn_start)[self.first_turn[1:] - 1]

    def prompt(self, example: int) -> np.ndarray:
        """The tokens before the last response."""
        start = self.starts[example]
        return self.tokens[start : start + self.turn_start[self.first_turn[example + 1] - 1]]

    def response(self, example: int) -> np.ndarray:
        """The tokens of the last response."""
        return self.tokens[self.starts[example] + self.turn_start[self.first_turn[example + 1] - 1] : self.starts[example + 1]]

    def sum_turns(self, values_M: np.ndarray) -> np.ndarray:
        """Sums a number per turn over each example, [E]."""
        return np.add.reduceat(values_M, self.first_turn[:-1]) if len(self) else np.zeros(0, values_M.dtype)

    def fingerprint(self, more: Iterable[np.ndarray] = ()) -> str:
        """Two sets of examples with one fingerprint have the same tokens in the same order, and the same arrays `more`."""
        # Where every step is an example the rest follows from these; runs have recorded the digest of these three.
        turns = (self.turn_start,)
        if len(self) != self.steps:
            turns += (self.turn_stop, self.turn_step, self.first_turn)
        digest = hashlib.sha256()
        for array in (self.tokens, self.starts, *turns, *more):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


def one_per_step(
    tokens: np.ndarray,
    starts: np.ndarray,
    prompt_lengths: np.ndarray,
    *,
    usable: np.ndarray | None = None,
    successful: np.ndarray | None = None,
    episode: np.ndarray | None = None,
    task: np.ndarray | None = None,
) -> Examples:
    """Each step as an example of one turn: E = M = N.

    Args:
        tokens, starts: as in `Examples`.
        prompt_lengths: int32 [N].
        usable, successful, episode, task: as in `Examples`; by default true, and an episode and a task of its own for each.
    """
    count = len(prompt_lengths)
    every = np.arange(count + 1, dtype=np.int64)
    true, own = np.ones(count, bool), every[:-1].astype(np.int32)
    return Examples(
        tokens=tokens,
        starts=starts,
        first_turn=every,
        turn_step=every[:-1],
        turn_start=prompt_lengths,
        turn_stop=np.diff(starts).astype(np.int32),
        usable=true if usable is None else usable,
        successful=true if successful is None else successful,
        episode=own if episode is None else episode,
        task=own if task is None else task,
    )
