"""Supervised fine-tuning: the mean negative log-likelihood of responses, and optionally of prompts."""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from mira_jax.config import NonNegative
from mira_jax.data.steps import step_examples
from mira_jax.recipes.base import Prepared
from mira_jax.training.log_probs import response_log_probs, token_log_probs
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.shards import StepIndex


@dataclasses.dataclass(frozen=True)
class SFT:
    """loss = -sum log pi(a_t | s_t) / N + prompt_weight * nll_per_prompt_token, where N is the number of response tokens or steps."""

    normalize: Literal["token", "step"] = "token"
    """Normalisation of the loss. token: long responses have more weight. step: each step's log-probability has the same weight."""
    prompt_weight: NonNegative = 0.0
    """Weight of the loss on prompts, per prompt token. A model trained from scratch learns from pages and earlier responses how
    to repeat names; a pretrained model already knows this."""

    name: ClassVar[str] = "sft"
    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True
    examples = staticmethod(step_examples)

    def prepare(self, reader, tables) -> Prepared:
        return Prepared(keep=np.ones(len(StepIndex(reader.steps_per_record)), bool))

    def loss(self, model, batch):
        tokens, steps = batch["response_mask"].sum(), batch["step_mask"].sum()
        count = tokens if self.normalize == "token" else steps
        if not self.prompt_weight:
            total = -response_log_probs(model, batch).sum()
            return Mean(total, count), {"nll_per_token": Mean(total, tokens), "nll_per_step": Mean(total, steps)}
        hidden_BxTxD = model(batch["tokens"], batch["positions"], batch["segment_ids"])
        hidden_BxRxD = jnp.take_along_axis(hidden_BxTxD, batch["response_index"][..., None], axis=1)
        total = -(token_log_probs(model, hidden_BxRxD, batch["response_targets"]) * batch["response_mask"]).sum()
        mask_BxT = prompt_targets(batch)
        prompt_total = -(token_log_probs(model, hidden_BxTxD[:, :-1], batch["tokens"][:, 1:]) * mask_BxT).sum()
        # Both terms share one weight. With optimizer.accumulate, the prompt term is therefore the mean of the means of the parts.
        loss = Mean(total + self.prompt_weight * prompt_total * count / jnp.maximum(mask_BxT.sum(), 1), count)
        return loss, {
            "nll_per_token": Mean(total, tokens),
            "nll_per_step": Mean(total, steps),
            "nll_per_prompt_token": Mean(prompt_total, mask_BxT.sum()),
        }


def prompt_targets(batch):
    """float32 Bx(T-1): 1 where tokens t and t + 1 are in the same prompt, so that token t predicts token t + 1."""
    segment_ids = batch["segment_ids"]
    same = (segment_ids[:, 1:] == segment_ids[:, :-1]) & (segment_ids[:, 1:] > 0)
    rows = jnp.arange(segment_ids.shape[0])[:, None]
    of_response = jnp.zeros(segment_ids.shape, jnp.float32).at[rows, batch["response_index"]].max(batch["response_mask"])
    return same * (1 - of_response[:, :-1])
