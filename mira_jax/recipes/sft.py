"""Supervised fine-tuning: the mean negative log-likelihood of responses (ALGORITHMS: baselines)."""

import dataclasses
from typing import ClassVar

import numpy as np

from mira_jax.errors import UserError
from mira_jax.recipes import Prepared
from mira_jax.training.log_probs import response_log_probs
from mira_jax.training.metrics import Mean


@dataclasses.dataclass(frozen=True)
class SFT:
    """loss = -sum log pi(a_t | s_t) / N, with N the response tokens or the steps."""

    normalize: str = "token"
    """token: long responses weigh more. step: every step's whole log-probability weighs the same."""

    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.normalize not in ("token", "step"):
            raise UserError(f"recipe.normalize: {self.normalize!r} is none of token, step")

    def prepare(self, reader, tables) -> Prepared:
        return Prepared(keep=np.ones(int(reader.steps_per_record.sum()), bool))

    def loss(self, model, batch):
        log_probs_BxR = response_log_probs(model, batch)
        total, tokens, steps = -log_probs_BxR.sum(), batch["response_mask"].sum(), batch["step_mask"].sum()
        loss = Mean(total, tokens if self.normalize == "token" else steps)
        return loss, {"nll_per_token": Mean(total, tokens), "nll_per_step": Mean(total, steps)}
