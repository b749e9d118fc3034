"""Advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177, algorithm 1), a baseline of MiRA.

    L_t = -min( exp((G_t - V(s_t)) / beta), max_weight ) log pi(a_t|s_t)

G_t is the discounted return of the true reward, V the value critic. The loss is the mean over steps.

Reads the column value.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
from flax import nnx

from mira_jax.config import Fraction, Positive
from mira_jax.data.steps import step_examples
from mira_jax.recipes import policies
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import column, read_labels
from mira_jax.rl.advantages import outcome_rewards, returns
from mira_jax.rl.objectives import weighted_likelihood
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class AWR:
    beta: Positive = 0.1
    """Temperature of the weights."""
    gamma: Fraction = 1.0
    """Discount factor of the reward."""
    max_weight: Positive | None = 20.0
    """Upper bound of the weights. null: no bound."""

    name: ClassVar[str] = "actor"
    objective: ClassVar[str] = "awr"
    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True
    examples = staticmethod(step_examples)

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Columns: `advantage`, and `reference_log_prob` if the side tables contain it."""
        labels = read_labels(reader)
        reference = policies.reference_if_scored(labels, tables)
        values = column(labels, tables, "value")
        rewards = outcome_rewards(labels.success, labels.last)
        return policies.prepare(labels, reference=reference, advantages=returns(rewards, labels.last, self.gamma) - values)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        log_prob = policies.step_log_probs(model, batch)
        loss = weighted_likelihood(log_prob, batch["advantage"], self.beta, self.max_weight or math.inf)
        return policies.mean_over_steps(loss, batch), policies.metrics(log_prob, batch)
