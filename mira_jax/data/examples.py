"""Examples: the token sequences that are packed into rows. An example has one or more turns.

An example is packed as one segment: its tokens attend to each other and to nothing else. A turn is one step of an episode:
the state and then the response. By default each step is an example (`mira_jax.data.steps`); a recipe may define other
examples, for example whole episodes (`Recipe.examples`). Labels and columns are always per step.

Shapes: N steps in the reader, E examples, M turns in all examples.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.tokenizer import Tokenizer

TOKEN_DTYPE = "<i4"
"""On disk."""


class Turn(NamedTuple):
    """A step within an example."""

    step: int
    """The index of the step in its episode."""
    start: int
    """The response is tokens[start:stop] of the example. A critic reads the hidden state at token start - 1."""
    stop: int


class Example(NamedTuple):
    tokens: Sequence[int]
    """All tokens up to the end of the last response."""
    turns: Sequence[Turn]
    """At least one, in order of position, without overlap."""


class ExamplesOf(Protocol):
    """Makes the examples of one episode, deterministically."""

    def __call__(self, trajectory: Trajectory, prompt: PromptConfig, tokenizer: Tokenizer, /) -> Iterable[Example]: ...


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of all episodes in a reader."""

    tokens: np.ndarray
    """int32: the tokens of all examples, concatenated."""
    starts: np.ndarray
    """int64 [E + 1]: the offset in `tokens` at which each example begins."""
    first_turn: np.ndarray
    """int64 [E + 1]: the offset in the three arrays below at which the turns of each example begin."""
    turn_step: np.ndarray
    """int64 [M]: the step of each turn, as an index of the reader's `StepIndex`."""
    turn_start: np.ndarray
    """int32 [M]: the start of each turn's response, relative to the first token of its example."""
    turn_stop: np.ndarray
    """int32 [M]: the end of each turn's response, relative to the same token."""
    usable: np.ndarray
    """bool [N]: false for steps of episodes that ended in an infrastructure error. Their examples are empty."""
    successful: np.ndarray
    """bool [N]: whether the step's episode succeeded."""
    episode: np.ndarray
    """int32 [N]: the record that each step belongs to."""
    task: np.ndarray
    """int32 [N]: the first record of the step's task. Equal for episodes of the same task (id and seed)."""
    file: Path | None = None
    """The file that `tokens` is mapped from (see `map_tokens`), None if `tokens` is in memory. Pickled, mapped examples contain
    the path in place of the tokens."""

    def __getstate__(self) -> dict[str, Any]:
        state = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return state if self.file is None else state | {"tokens": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tokens = state["tokens"] if state["file"] is None else map_tokens(state["file"])
        self.__dict__.update(state, tokens=tokens)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def steps(self) -> int:
        """N."""
        return len(self.usable)

    @property
    def prompt_lengths(self) -> np.ndarray:
        """int32 [E]: tokens before the last response. Both this and the response length are 0 for unusable steps."""
        return self.turn_start[self.first_turn[1:] - 1]

    @property
    def response_lengths(self) -> np.ndarray:
        """int32 [E]: tokens of the last response, including the end token if there is one."""
        return (self.turn_stop - self.turn_start)[self.first_turn[1:] - 1]

    def prompt(self, example: int) -> np.ndarray:
        """The tokens before the last response."""
        start = self.starts[example]
        return self.tokens[start : start + self.turn_start[self.first_turn[example + 1] - 1]]

    def response(self, example: int) -> np.ndarray:
        """The tokens of the last response."""
        return self.tokens[self.starts[example] + self.turn_start[self.first_turn[example + 1] - 1] : self.starts[example + 1]]

    def sum_turns(self, values_M: np.ndarray) -> np.ndarray:
        """Sums a per-turn quantity over the turns of each example, [E]."""
        return np.add.reduceat(values_M, self.first_turn[:-1]) if len(self) else np.zeros(0, values_M.dtype)

    def fingerprint(self, more: Iterable[np.ndarray] = ()) -> str:
        """A digest of the tokens, their order and the arrays `more`. Sets of examples with equal digests are equal."""
        # If every step is an example, these three arrays determine the rest. Existing runs have recorded their digest.
        turns = (self.turn_start,)
        if len(self) != self.steps:
            turns += (self.turn_stop, self.turn_step, self.first_turn)
        digest = self._tokens_hash.copy()
        for array in (self.starts, *turns, *more):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    @property
    def tokens_sha256(self) -> str:
        """SHA-256 of the tokens as little-endian int32."""
        return self._tokens_hash.hexdigest()

    @functools.cached_property
    def _tokens_hash(self) -> Any:
        if self.file is None:
            return hashlib.sha256(np.ascontiguousarray(self.tokens).data)
        # Reading the file does not add its pages to the memory of this process, as reading the map would.
        with open(self.file, "rb") as file:
            return hashlib.file_digest(file, "sha256")


def map_tokens(path: Path) -> np.ndarray:
    """int32: the tokens of a file of the token cache. Pages are read when they are accessed. Raises OSError."""
    # An empty file cannot be mapped.
    return np.memmap(path, TOKEN_DTYPE, "r").view(np.ndarray) if path.stat().st_size else np.zeros(0, np.int32)


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
    """Examples of one turn, one for each step: E = M = N.

    Args:
        tokens, starts: as in `Examples`.
        prompt_lengths: int32 [N].
        usable, successful, episode, task: as in `Examples`. By default, every step is usable and successful, and has its own
            episode and task.
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
