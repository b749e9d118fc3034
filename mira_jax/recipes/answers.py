"""What the recipes of models that answer YES or NO have in common: options, columns and loss."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.config import Natural
from mira_jax.errors import UserError
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import StepLabels
from mira_jax.rl.objectives import outcome_cross_entropy
from mira_jax.training.log_probs import answer_log_probs
from mira_jax.training.metrics import Mean


@dataclasses.dataclass(frozen=True)
class AnswerRecipe:
    """L = -mean over examples of w log p(right answer), where p is the softmax over the answers YES and NO.

    p(YES) = P(YES) / (P(YES) + P(NO)) is the number that labellers use, so its own likelihood is maximised. The loss over the
    full vocabulary is larger by -log(P(YES) + P(NO)). That term teaches only to answer at all, and cannot change p. It is reported
    as the metric `answer_mass`. A server therefore has to be asked for both probabilities, not for a text.
    """

    balanced: bool = False
    """Give the two answers the same total weight w. If false, w = 1 and p(YES) is a probability at the share of YES in the data;
    balanced, it is one at a share of one half."""
    folds: Natural = 0
    """Number of folds for cross-fitting, as for critics: the tasks are divided into this number of folds, and the run holds out one
    of them. With the runs of all folds, each episode is decided by the model that has not seen its task. 0: no folds."""
    fold: Natural = 0
    """The fold that this run holds out, from 0."""

    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise UserError(f"recipe.fold: {self.fold} of {self.folds} folds; expected at least two folds, and a fold below their number")

    def prepared(self, labels: StepLabels, keep: np.ndarray, answer: np.ndarray, summary: dict[str, float]) -> Prepared:
        """Columns: `answer`, 1 if YES is right, and `weight`, which averages 1 over the kept steps.

        Args:
            keep: bool [N], the steps that have examples.
            answer: bool [N]. Both values occur among the kept steps.
        """
        weight = np.ones(len(labels), np.float32)
        if self.balanced:
            share = answer[keep].mean()
            weight[answer], weight[~answer] = 1 / (2 * share), 1 / (2 * (1 - share))
        held_out = labels.folds(self.folds) == self.fold if self.folds else None
        return Prepared(keep, {"answer": answer.astype(np.float32), "weight": weight}, summary, held_out)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        yes, no = answer_log_probs(model, batch)
        mask, answer = batch["step_mask"], batch["answer"]
        examples = jnp.sum(mask)
        loss = jnp.sum(mask * batch["weight"] * outcome_cross_entropy(yes - no, answer))
        p = jax.nn.sigmoid(yes - no)
        is_yes, is_no = mask * answer, mask * (1 - answer)
        return Mean(loss, examples), {
            "accuracy": Mean(jnp.sum(mask * ((p >= 0.5) == (answer > 0.5))), examples),
            "p_where_yes": Mean(jnp.sum(is_yes * p), jnp.sum(is_yes)),
            "p_where_no": Mean(jnp.sum(is_no * p), jnp.sum(is_no)),
            "answer_mass": Mean(jnp.sum(mask * (jnp.exp(yes) + jnp.exp(no))), examples),
        }
