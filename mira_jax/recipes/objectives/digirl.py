"""DigiRL (arXiv 2406.11896), a baseline of MiRA: imitation of the better steps of the episodes that did better than expected.

    A_I   = r_T - V(s_0)                                          episodes with A_I above a percentile are kept
    A_h   = decay^(H-h) r_H + (1 - decay^(H-h)) [ V(s_{h+1}) + r_h - V(s_h) ]           `rl.advantages`
    L     = -sum log pi(a_h|s_h) / (response tokens),  over the kept steps with A_h > 1 / (H + 1)

DigiRL has a critic V_I of the instruction. Here V(s_0) takes its place: the first state is the instruction and the first page.
V is the value critic.

Reads the column value.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from msgspec import Meta

from mira_jax.config import Fraction
from mira_jax.data.steps import step_examples
from mira_jax.errors import UserError
from mira_jax.recipes import policies
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import column, read_labels
from mira_jax.rl import advantages
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class DigiRL:
    percentile: Annotated[float, Meta(ge=0, lt=100)] = 50.0
    """Keep the episodes above this percentile of A_I."""
    decay: Fraction = 0.5
    """DigiRL's lambda: how fast the weight of the outcome falls with the number of steps before the end."""

    name: ClassVar[str] = "actor"
    objective: ClassVar[str] = "digirl"
    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True
    examples = staticmethod(step_examples)

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Columns: `advantage`, and `reference_log_prob` if the side tables contain it. Keeps the steps to imitate."""
        labels = read_labels(reader)
        values = column(labels, tables, "value")
        first, last = np.flatnonzero(labels.numbers == 0), np.flatnonzero(labels.last)
        episode_N = np.cumsum(labels.numbers == 0) - 1
        surprise_E = labels.success[first].astype(np.float64) - values[first]
        sound_E = labels.sound[first]
        better_E = sound_E & (surprise_E > np.percentile(surprise_E[sound_E], self.percentile)) if sound_E.any() else sound_E
        steps_N = labels.numbers[last][episode_N] + 1
        advantage = advantages.digirl(advantages.outcome_rewards(labels.success, labels.last), values, labels.last, self.decay)
        keep = better_E[episode_N] & (advantage > 1 / steps_N)
        if not keep.any():
            raise UserError(f"digirl: none of the {labels.episodes} episodes has a step to imitate; lower recipe.percentile")
        return policies.prepare(labels, reference=policies.reference_if_scored(labels, tables), advantages=advantage, keep=keep)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        log_prob = policies.step_log_probs(model, batch)
        loss = Mean(-jnp.sum(log_prob * batch["step_mask"]), jnp.sum(batch["response_mask"]))
        return loss, policies.metrics(log_prob, batch)
