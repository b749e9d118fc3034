"""The KL form, an ablation of MiRA (arXiv 2603.19685): its advantages, in a weighted likelihood.

    L_t = -min( exp(A_t / beta), max_weight ) log pi(a_t|s_t),   A_t as in `mira.py`

Without the bound this is the projection of pi_ref exp(A / beta) onto the policies, estimated from data of pi_ref. The loss
only raises probabilities of responses; those of others fall because probabilities sum to 1. The loss is the mean over steps.

Reads the columns value and, unless alpha is 0, potential.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
from flax import nnx

from mira_jax.config import Positive
from mira_jax.errors import UserError
from mira_jax.recipes import policies
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import read_labels
from mira_jax.recipes.objectives.mira import Mira
from mira_jax.rl.objectives import weighted_likelihood
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class KL(Mira):
    beta: Positive = 0.1
    """Temperature of the weights."""
    max_weight: Positive | None = 20.0
    """Upper bound of the weights. null: no bound."""

    objective: ClassVar[str] = "kl"

    def __post_init__(self) -> None:
        super().__post_init__()
        unused = {"per_token": self.per_token, "negative_weight": self.negative_weight != 1.0, "max_drop": self.max_drop is not None}
        unused["support_weight"] = self.support_weight > 0
        for key, given in unused.items():
            if given:
                raise UserError(f"recipe.{key}: the objective kl does not use it; leave it out")

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Columns: `advantage`, and `reference_log_prob` if the side tables contain it."""
        labels = read_labels(reader)
        keep, advantages = self.kept(labels, tables)
        return policies.prepare(labels, reference=policies.reference_if_scored(labels, tables), advantages=advantages, keep=keep)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        log_prob = policies.step_log_probs(model, batch)
        loss = weighted_likelihood(log_prob, batch["advantage"], self.beta, self.max_weight or math.inf)
        return policies.mean_over_steps(loss, batch), policies.metrics(log_prob, batch)
