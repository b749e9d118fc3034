"""The outcome reward model (ORM): a policy that learns to answer whether an episode did its task.

WebRL (arXiv 2411.02337): the model reads the instruction, the responses and the last page, and P(YES) is compared with P(NO).
`mira_jax.trajectories.outcome_prompts` builds the prompt. It is scored by `mira score --orm`, and served to `mira label` as any
policy.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.config import Natural
from mira_jax.data.outcomes import outcome_examples
from mira_jax.errors import UserError
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import mean, read_labels
from mira_jax.rl.objectives import outcome_cross_entropy
from mira_jax.training.log_probs import answer_log_probs
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class ORM:
    """L = -mean over episodes of w log p(answer), where p is the softmax over the answers YES and NO.

    p(YES) = P(YES) / (P(YES) + P(NO)) is the number that the judge uses, so its own likelihood is maximised. The loss over the
    full vocabulary is larger by -log(P(YES) + P(NO)). That term teaches only to answer at all, and cannot change p. It is reported
    as the metric `answer_mass`. A server therefore has to be asked for both probabilities, not for a text.
    """

    balanced: bool = False
    """Give successes and failures the same total weight w. If false, w = 1 and p(YES) is a probability at the success rate of the
    data; balanced, it is one at a success rate of one half."""
    folds: Natural = 0
    """Number of folds for cross-fitting, as for critics: the tasks are divided into this number of folds, and the run holds out one
    of them. `mira score --orm` with the runs of all folds judges each episode by the model that has not seen its task. 0: no folds."""
    fold: Natural = 0
    """The fold that this run holds out, from 0."""

    name: ClassVar[str] = "orm"
    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True
    examples = staticmethod(outcome_examples)

    def __post_init__(self) -> None:
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise UserError(f"recipe.fold: {self.fold} of {self.folds} folds; expected at least two folds, and a fold below their number")

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Keeps the last step of each episode whose outcome was decided by rule. Columns: `success`, and `weight`, which averages 1.

        Raises:
            UserError: the episodes have no outcomes by rule, or all the same.
        """
        labels = read_labels(reader)
        keep = labels.last & labels.sound & labels.by_rule
        success = labels.success[keep]
        if not len(success):
            raise UserError("no episode has an outcome by rule; label the episodes with the rules of their suite (`mira label`)")
        if success.all() or not success.any():
            outcome = "successes" if success.all() else "failures"
            raise UserError(f"all {len(success)} outcomes by rule are {outcome}; an ORM needs both, so add episodes of another policy")
        weight = np.ones(len(labels), np.float32)
        if self.balanced:
            weight[labels.success], weight[~labels.success] = 1 / (2 * success.mean()), 1 / (2 * (~success).mean())
        held_out = labels.folds(self.folds) == self.fold if self.folds else None
        summary = {"episodes": len(success), "success_rate": mean(success)}
        return Prepared(keep, {"success": labels.success.astype(np.float32), "weight": weight}, summary, held_out)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        yes, no = answer_log_probs(model, batch)
        mask, success = batch["step_mask"], batch["success"]
        episodes = jnp.sum(mask)
        loss = jnp.sum(mask * batch["weight"] * outcome_cross_entropy(yes - no, success))
        p = jax.nn.sigmoid(yes - no)
        won, lost = mask * success, mask * (1 - success)
        return Mean(loss, episodes), {
            "accuracy": Mean(jnp.sum(mask * ((p >= 0.5) == (success > 0.5))), episodes),
            "p_of_successes": Mean(jnp.sum(won * p), jnp.sum(won)),
            "p_of_failures": Mean(jnp.sum(lost * p), jnp.sum(lost)),
            "answer_mass": Mean(jnp.sum(mask * (jnp.exp(yes) + jnp.exp(no))), episodes),
        }
