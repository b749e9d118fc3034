"""Numbers per response token of each step."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class TokenColumn:
    """Numbers per response token of each step, for example its log-probability under the policy that drew it."""

    values: np.ndarray
    """float32 or int32 [tokens, ...]: those of all steps, concatenated."""
    starts: np.ndarray
    """int64 [N + 1]: where each step begins in `values`. A step without numbers is empty."""

    def __post_init__(self) -> None:
        if self.starts[0] or self.starts[-1] != len(self.values) or (np.diff(self.starts) < 0).any():
            raise ValueError(f"the starts of the steps do not divide {len(self.values)} tokens")

    @classmethod
    def of(cls, parts: Sequence[Sequence[float]]) -> "TokenColumn":
        """From one number per token, for each step."""
        starts = starts_of([len(part) for part in parts])
        return cls(np.fromiter(itertools.chain.from_iterable(parts), np.float32, int(starts[-1])), starts)

    def __getitem__(self, step: int) -> np.ndarray:
        return self.values[self.starts[step] : self.starts[step + 1]]

    def take(self, steps: np.ndarray) -> "TokenColumn":
        """The numbers of the steps with these indices, in their order. -1: a step without numbers."""
        lengths = np.append(np.diff(self.starts), 0)[steps]
        starts = starts_of(lengths)
        tokens = np.arange(starts[-1]) + np.repeat(self.starts[steps] - starts[:-1], lengths)
        return TokenColumn(self.values[tokens], starts)

    def fill(self, batch: Mapping[str, np.ndarray], values: np.ndarray) -> None:
        """Stores the numbers of the response tokens of a packed batch (`mira_jax.data.packing`), BxRx..., at their places."""
        for b, row in enumerate(batch["response_mask"] > 0):
            segment = batch["response_segment"][b, row]
            counts = np.bincount(segment, minlength=batch["step_id"].shape[1])
            place = np.arange(len(segment)) - starts_of(counts)[segment]
            self.values[self.starts[batch["step_id"][b, segment]] + place] = values[b, row]


def starts_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """int64 [N + 1]: the sum of the lengths before each, and of all."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
