"""WebRL's released code (`webrl/algorithms/webrl/trainer.py`), which differs from its paper (arXiv 2411.02337).

    A_t   = clip( V(s_{t+1}) - V(s_t) - 0.05 + r_t + G_t, -1, 1 ),  then +1 where A_t >= 0, -0.6 elsewhere
    ratio = (log pi - log pi_ref) / n,  n the response tokens of all steps with A > 0 in the batch
    L_t   = smooth_l1(beta ratio - A_t) / beta  where A_t > 0, else 0;  beta by `rl.objectives.webrl_code`

The outcome is copied to every step as its reward r_t, and G_t is their discounted sum. V is the minimum of two heads. With
optimizer.accumulate n counts the tokens of one part, not of the whole batch. The loss is the mean over steps.

Reads the columns log_prob, value and, unless value_heads is 1, second_value.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import numpy as np
from flax import nnx

from mira_jax.config import Fraction
from mira_jax.data.steps import step_examples
from mira_jax.recipes import policies
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import column, read_labels
from mira_jax.rl import advantages, objectives
from mira_jax.training.log_probs import sum_by_step
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class WebRLCode:
    gamma: Fraction = 0.9
    """Discount factor of the copied rewards."""
    value_heads: Literal[1, 2] = 2
    """2: V is the smaller of the columns value and second_value, as in that code. 1: the column value."""

    name: ClassVar[str] = "actor"
    objective: ClassVar[str] = "webrl_code"
    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True
    examples = staticmethod(step_examples)

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Columns: `reference_log_prob` and `advantage`, which is +1 or -0.6."""
        labels = read_labels(reader)
        reference, values = column(labels, tables, "log_prob"), column(labels, tables, "value")
        if self.value_heads == 2:
            values = np.minimum(values, column(labels, tables, "second_value"))
        advantage = advantages.webrl_code(labels.success, values, labels.last, self.gamma)
        return policies.prepare(labels, reference=reference, advantages=advantage)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        log_prob = policies.step_log_probs(model, batch)
        tokens = sum_by_step(batch["response_mask"], batch)
        loss = objectives.webrl_code(log_prob, batch["reference_log_prob"], batch["advantage"], tokens, batch["step_mask"])
        return policies.mean_over_steps(loss, batch), policies.metrics(log_prob, batch)
