"""What the trainer of online training computes of a round: the log-probabilities of its tokens, and its position."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import Array

from mira_jax.training.log_probs import response_log_probs
from mira_jax.training.state import Params, Skeleton


class RoundPosition:
    """The position of an online run, in place of that of an iterator over the data. It is saved with each checkpoint."""

    def __init__(self) -> None:
        self.step = self.round = 0

    def get_state(self) -> dict[str, Any]:
        return {"next_index": self.step, "round": self.round}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.step, self.round = int(state["next_index"]), int(state["round"])


def make_token_log_probs(skeleton: Skeleton) -> Callable[[Params, Mapping[str, Array], Params], Array]:
    """(params, batch with one part, frozen) -> log pi of each response token, BxR, jitted."""

    def log_probs(params: Params, batch: Mapping[str, Array], frozen: Params) -> Array:
        return response_log_probs(skeleton.merge(params, frozen), {name: array[0] for name, array in batch.items()})

    return jax.jit(log_probs)
