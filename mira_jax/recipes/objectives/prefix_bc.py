"""Prefix behaviour cloning: imitation of each episode up to its last subgoal reached in order.

    L = -sum log pi(a_t|s_t) / (response tokens),  over t < max { t_j : t_j finite } of each episode, and over whole successes

t_j is the completion time of subgoal j (`rl.progress`). The steps after the last subgoal of a failure are left out: nothing
shows that they were of use. An episode that reached no subgoal is left out whole.

It reads no side tables.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from mira_jax.data.steps import step_examples
from mira_jax.errors import UserError
from mira_jax.recipes import policies
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import read_labels, require_milestones
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class PrefixBC:
    name: ClassVar[str] = "actor"
    objective: ClassVar[str] = "prefix_bc"
    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True
    examples = staticmethod(step_examples)

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Columns: `reference_log_prob` if the side tables contain it. Keeps the steps up to the last subgoal of each episode."""
        labels = read_labels(reader)
        require_milestones(labels, "recipe.objective: prefix_bc")
        keep = labels.sound & labels.before_last_milestone
        if not keep.any():
            raise UserError(f"prefix_bc: none of the {labels.episodes} episodes reached a subgoal; there is nothing to imitate")
        return policies.prepare(labels, reference=policies.reference_if_scored(labels, tables), keep=keep)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        log_prob = policies.step_log_probs(model, batch)
        loss = Mean(-jnp.sum(log_prob * batch["step_mask"]), jnp.sum(batch["response_mask"]))
        return loss, policies.metrics(log_prob, batch)
