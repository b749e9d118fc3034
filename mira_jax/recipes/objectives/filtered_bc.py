"""Filtered behaviour cloning, a baseline of WebRL and MiRA: SFT on the best episodes.

    L = -sum log pi(a_t|s_t) / (response tokens), over the episodes at or above a percentile of return

WebRL (arXiv 2411.02337, table 4) uses the 70th percentile. An episode's return is its outcome, 0 or 1.

It reads no side tables.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from msgspec import Meta

from mira_jax.data.steps import step_examples
from mira_jax.recipes import policies
from mira_jax.recipes.base import NothingToLearn, Prepared
from mira_jax.recipes.labels import StepLabels, read_labels
from mira_jax.rl.advantages import worth_imitating
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class FilteredBC:
    percentile: Annotated[float, Meta(ge=0, le=100)] = 70.0
    """Keep the episodes at or above this percentile of return. For binary outcomes, these are the successes."""

    name: ClassVar[str] = "actor"
    objective: ClassVar[str] = "filtered_bc"
    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True
    examples = staticmethod(step_examples)

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Columns: `reference_log_prob` if the side tables contain it. Keeps the steps of the best episodes."""
        labels = read_labels(reader)
        return policies.prepare(labels, reference=policies.reference_if_scored(labels, tables), keep=self._best(labels))

    def _best(self, labels: StepLabels) -> np.ndarray:
        """bool [N]: the steps of the episodes to imitate."""
        ends = labels.last & labels.sound
        best = worth_imitating(labels.success[ends].astype(np.float32), self.percentile)
        if not best.any():
            raise NothingToLearn(f"filtered_bc: none of the {len(best)} episodes succeeded; there is nothing to imitate")
        ids = np.array(labels.ids, object)
        return labels.sound & np.isin(ids, ids[ends][best])

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        log_prob = policies.step_log_probs(model, batch)
        loss = Mean(-jnp.sum(log_prob * batch["step_mask"]), jnp.sum(batch["response_mask"]))
        return loss, policies.metrics(log_prob, batch)
