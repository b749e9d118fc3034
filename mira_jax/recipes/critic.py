"""The critics: V(s), the probability of success, and P(s), the progress along the subgoals.

Both are computed at the last prompt token. The paper uses a separate network for each: train twice, with heads: [value] and
with heads: [potential]. With both heads in one run, they share one trunk, at half the cost.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.config import Fraction, Natural, OpenFraction
from mira_jax.data.steps import step_examples
from mira_jax.errors import UserError
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import StepLabels, column, mean, milestone_head, read_labels
from mira_jax.rl import objectives
from mira_jax.rl.advantages import outcome_rewards, td_returns
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable

HEADS = ("value", "second_value", "potential")
DEFAULT_HEADS = ("value", "potential")


@dataclasses.dataclass(frozen=True)
class CriticRecipe:
    """L = mean over steps of L_V + potential_weight * mean over labelled steps of L_P (`rl.objectives`)."""

    heads: tuple[str, ...] = DEFAULT_HEADS
    """Heads to train, on one trunk: value, potential, or both. With second_value, V has two heads, which the objective webrl_code
    needs."""
    potential_from: Literal["successes", "all"] = "successes"
    """Trajectories that give progress labels: only the successes, as in the paper, or also failures, whose label rises to the
    last subgoal reached and then stays constant."""
    potential_weight: float = 1.0
    """Weight of the potential's loss when both heads share a trunk."""
    milestones: Natural = 0
    """Number of additional heads milestone_1, milestone_2, ..., for tasks with at most this number of subgoals. Head j predicts the
    probability that subgoal j will be done at the end of the episode. They learn from all episodes."""
    milestones_weight: float = 1.0
    """Weight of the milestone heads' loss, which is the mean over a task's subgoals."""

    td_lambda: Fraction = 1.0
    """Target of V. 1: the outcome. Below 1: the TD(lambda) return, from the column value of `data.side_tables`, a V that was trained
    before. Steps of the held-out fold keep the outcome as their target."""
    expectile: OpenFraction = 0.5
    """V is this expectile of its target, as in IQL. 0.5: the mean. Where success has the probability p, the expectile e is
    e p / (e p + (1 - e) (1 - p))."""

    folds: Natural = 0
    """Number of folds for cross-fitting. The tasks are divided into this number of folds, and the run holds out one of them. Train
    one critic for each fold; `mira score` then scores each step by the critic that has not seen its task. 0: no folds."""
    fold: Natural = 0
    """The fold that this run holds out, from 0."""

    name: ClassVar[str] = "critic"
    reads_responses: ClassVar[bool] = False
    examples = staticmethod(step_examples)

    def __post_init__(self) -> None:
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise UserError(f"recipe.fold: {self.fold} of {self.folds} folds; expected at least two folds, and a fold below their number")
        added = tuple(milestone_head(j) for j in range(self.milestones))
        own = tuple(head for head in self.heads if head not in added)
        object.__setattr__(self, "heads", (*own, *added))
        if not self.heads or set(own) - set(HEADS) or len(set(own)) < len(own):
            raise UserError(f"recipe.heads: {list(self.heads)}; expected one or more of {', '.join(HEADS)}")
        if "value" not in self.heads:
            unused = {"heads": "second_value" in self.heads, "td_lambda": self.td_lambda < 1, "expectile": self.expectile != 0.5}
            for key in (key for key, given in unused.items() if given):
                raise UserError(f"recipe.{key}: {getattr(self, key)} needs the head value; add it to recipe.heads")

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Columns: `success`, `value_target`, and `progress` with `progress_weight`, which is 0 where there is no label.

        The weights average 1 over the kept steps, so a weighted sum over steps, divided by their number, is a mean over
        labels.
        """
        labels = read_labels(reader)
        keep = labels.sound.copy()
        held_out = labels.folds(self.folds) == self.fold if self.folds else None
        columns = {"success": labels.success.astype(np.float32)}
        if "value" in self.heads:
            columns["value_target"] = self._value_targets(labels, tables, held_out)
        summary = {"episodes": labels.episodes, "success_rate": mean(labels.success[labels.last & labels.sound])}
        if "potential" in self.heads:
            labelled = labels.sound & np.isfinite(labels.progress)
            if self.potential_from == "successes":
                labelled &= labels.success
            if not labelled.any():
                raise UserError(
                    "no step has a progress label: "
                    + ("no episode succeeded; " if not labels.success.any() else "the episodes have no milestones; ")
                    + "label more episodes, or set recipe.potential_from=all"
                )
            if "value" not in self.heads:
                keep = labelled
            columns["progress"] = np.where(labelled, labels.progress, 0).astype(np.float32)
            columns["progress_weight"] = (labelled * (keep.sum() / labelled.sum())).astype(np.float32)
            summary |= {"progress_labels": int(labelled.sum()), "progress_mean": mean(labels.progress[labelled])}
        if self.milestones:
            most = labels.reached.shape[1]
            if not most or most > self.milestones:
                raise UserError(f"recipe.milestones: {self.milestones} heads for tasks of up to {most} subgoals; set it to {most}")
            columns["subgoals"] = labels.subgoals.astype(np.float32)
            reached = np.pad(labels.reached, [(0, 0), (0, self.milestones - most)])
            columns |= {f"reached_{j + 1}": reached[:, j].astype(np.float32) for j in range(self.milestones)}
        return Prepared(keep, columns, summary, held_out)

    def _value_targets(self, labels: StepLabels, tables: Sequence[SideTable], held_out: np.ndarray | None) -> np.ndarray:
        outcomes = labels.success.astype(np.float32)
        if self.td_lambda == 1:
            return outcomes
        rewards = outcome_rewards(labels.success, labels.last)
        targets = td_returns(rewards, column(labels, tables, "value"), labels.last, self.td_lambda)
        return targets if held_out is None else np.where(held_out, outcomes, targets)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        logits = model(batch["tokens"], batch["positions"], batch["segment_ids"], batch["last_prompt_index"])
        mask = batch["step_mask"]
        steps = jnp.sum(mask)
        total = jnp.zeros(())
        metrics = {}
        if "value" in self.heads:
            heads = [head for head in ("value", "second_value") if head in self.heads]
            losses = [objectives.expectile_cross_entropy(logits[head], batch["value_target"], self.expectile) for head in heads]
            loss = jnp.sum(mask * sum(losses)) / len(heads)
            total += loss
            value = jax.nn.sigmoid(logits["value"])
            won, lost = mask * batch["success"], mask * (1 - batch["success"])
            metrics |= {
                "value_loss": Mean(loss, steps),
                "value_of_successes": Mean(jnp.sum(won * value), jnp.sum(won)),
                "value_of_failures": Mean(jnp.sum(lost * value), jnp.sum(lost)),
            }
        if "potential" in self.heads:
            weight = mask * batch["progress_weight"]
            loss = jnp.sum(weight * objectives.progress_squared_error(logits["potential"], batch["progress"]))
            total += (self.potential_weight if "value" in self.heads else 1.0) * loss
            potential = jax.nn.sigmoid(logits["potential"])
            metrics |= {
                "potential_loss": Mean(loss, jnp.sum(weight)),
                "potential": Mean(jnp.sum(weight * potential), jnp.sum(weight)),
            }
        if self.milestones:
            subgoals = batch["subgoals"]
            loss = jnp.zeros_like(mask)
            for j in range(self.milestones):
                head = objectives.outcome_cross_entropy(logits[milestone_head(j)], batch[f"reached_{j + 1}"])
                loss += jnp.where(j < subgoals, head, 0) / jnp.maximum(subgoals, 1)
            loss = jnp.sum(mask * loss)
            total += self.milestones_weight * loss
            metrics["milestones_loss"] = Mean(loss, steps)
        return Mean(total, steps), metrics
