"""The checker: a policy that learns to answer whether a subgoal is done after a step.

It is an ORM for subgoals: the same prompt with the subgoal, the same loss. `mira label` asks it through a server, with
`milestones.checker.kind=trained`. It learns from milestones that are known, such as those of the arena's rules.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mira_jax.data.answers import subgoal_examples, subgoal_of_step
from mira_jax.errors import UserError
from mira_jax.recipes.answers import AnswerRecipe
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import mean, read_labels
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class Checker(AnswerRecipe):
    """YES is right where the subgoal that the step's example asks about is done by the end of the step."""

    name: ClassVar[str] = "checker"
    examples = staticmethod(subgoal_examples)

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Keeps all steps of episodes with milestones.

        Raises:
            UserError: no episode has milestones, or the answer is the same for all steps.
        """
        labels = read_labels(reader)
        keep = labels.sound & (labels.subgoals > 0)
        if not keep.any():
            raise UserError("no episode has milestones; label the episodes with those of their suite (`mira label`)")
        # What is done after a step is done before the next one.
        after_NxK = np.where(labels.last[:, None], labels.reached, np.roll(labels.done, -1, axis=0))
        answer = np.zeros(len(labels), bool)
        for n in np.flatnonzero(keep):
            answer[n] = after_NxK[n, subgoal_of_step(labels.ids[n], int(labels.numbers[n]), int(labels.subgoals[n]))]
        if answer[keep].all() or not answer.any():
            raise UserError(
                f"the subgoals asked about are {'all' if answer.any() else 'never'} done, after all {keep.sum()} steps; a checker needs "
                "both, so add episodes"
            )
        return self.prepared(labels, keep, answer, {"questions": int(keep.sum()), "share_done": mean(answer[keep])})
