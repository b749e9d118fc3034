"""The outcome reward model (ORM): a policy that learns to answer whether an episode did its task.

WebRL (arXiv 2411.02337): the model reads the instruction, the responses and the last page, and P(YES) is compared with P(NO).
`mira_jax.trajectories.answer_prompts` builds the prompt. It is scored by `mira score --orm`, and served to `mira label` as any
policy.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from mira_jax.data.answers import outcome_examples
from mira_jax.errors import UserError
from mira_jax.recipes.answers import AnswerRecipe
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import mean, read_labels
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class ORM(AnswerRecipe):
    """YES is right for the last step of an episode that is a success by rule."""

    name: ClassVar[str] = "orm"
    examples = staticmethod(outcome_examples)

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Keeps the last step of each episode whose outcome was decided by rule.

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
        return self.prepared(labels, keep, labels.success, {"episodes": len(success), "success_rate": mean(success)})
