"""MiRA (arXiv 2603.19685): offline RL with rewards that a potential critic shapes by progress along subgoals.

The complete method, in order of computation:

    1  milestones       t_j = first time that subgoals 1..j are done                               `rl.progress`
    2  progress labels  for t in [t_j, t_{j+1}], w = (t - t_j) / (t_{j+1} - t_j):
                        p*_t = (1 - w) j/K + w (j+1)/K,  t_0 = 0, t_K = T                          `rl.progress`
    3  value critic     L_V = -[ r_T log V(s_t) + (1 - r_T) log(1 - V(s_t)) ]                      `recipes.critic`
    4  potential critic L_P = ( P(s_t) - p*_t )^2                                                  `recipes.critic`
    5  shaped reward    r'_t = r_t + alpha [ P(s_{t+1}) - P(s_t) ]                                 `rl.shaping`
    6  advantage        A_t = lambda [ r'_t + gamma V(s_{t+1}) - V(s_t) ]
                              + (1 - lambda) [ G_t - V(s_t) ],  V = 0 after the last step          `rl.advantages`
    7  actor            L_t = ( beta (log pi(a_t|s_t) - log pi_ref(a_t|s_t)) - A_t )^2             `rl.objectives`

Steps 1 to 4 train the critics. `mira_jax.score` then writes V, P and log pi_ref of every step to side tables. This module
implements 5 to 7. r_t is 1 at the last step of a success and 0 elsewhere; G_t is its return; log pi sums over the response's
tokens, its end token included. The loss is the mean of L_t over the steps of a batch.

With `support_weight` w, the loss of a step also has - w sum_i log sum_{v in S_i} pi(v | s_t, a_t,<i), where S_i is the support of
pi_ref at token i. This term is ours.

Reads the columns log_prob, value, unless alpha is 0 potential, and with `support_weight` the alternatives of each token.

WebRL's objective (arXiv 2411.02337: the actor's loss is its eq. 6, the advantage its eq. 9) is this one with alpha: 0.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.config import Count, Fraction, NonNegative, Positive
from mira_jax.data.steps import step_examples
from mira_jax.errors import UserError
from mira_jax.recipes import policies
from mira_jax.recipes.base import Prepared, TokenShape
from mira_jax.recipes.labels import StepLabels, column, mean_of_milestones, milestone_head, read_labels, require_milestones
from mira_jax.recipes.policies import SUPPORT
from mira_jax.rl.advantages import clip_impossible, doubly_robust, outcome_rewards, returns
from mira_jax.rl.objectives import squared_log_ratio
from mira_jax.rl.shaping import AtEnd, shaped_rewards
from mira_jax.training.log_probs import sum_by_step
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class Mira:
    beta: Positive = 0.1
    """Temperature: a step changes log pi by about A / beta nats. Small models need a smaller value, for example 0.02."""
    alpha: float = 0.3
    """Weight of the potential in the shaped reward. 0 gives WebRL's objective, which needs no potential."""
    lambda_: Fraction = 0.5
    """Weight of the one-step advantage. The Monte-Carlo advantage has weight 1 - lambda_."""
    gamma: Fraction = 1.0
    """Discount factor of the true reward and of V."""
    shaping_discount: Fraction = 1.0
    """Discount factor of P(s_{t+1}) in the shaped reward. Set it to gamma for potential-based shaping in the strict sense."""
    at_end: AtEnd = "hold"
    """Shaping of the last step. hold: the last step is not shaped. zero: the potential after the end is 0. reached: it is the
    share of the subgoals that were done."""
    potential: Literal["critic", "milestones", "ordered", "count"] = "critic"
    """P(s). critic: the column potential, as in the paper. milestones: the mean of the columns milestone_1, milestone_2, ..., that is
    the expected share of subgoals done at the end. ordered, count: from the labels, the share of subgoals that are done in order,
    or in any order."""
    shaped_returns: bool = False
    """Whether the Monte-Carlo part counts the shaping too: G_t - V(s_t) + alpha [ P(s_T) - P(s_t) ], with P(s_T) as in `at_end`."""
    normalize: bool = False
    """Divide the advantages by their root mean square over the steps trained on."""
    per_token: bool = False
    """Divide the log ratio by the number of response tokens."""
    support_weight: NonNegative = 0.0
    """Weight of a term that keeps the policy within the support of pi_ref. It adds to the loss of a step
    -log pi(support) of each response token, where the support is the response's token and those that pi_ref gives at least
    `support_least`. Without it, steps with a negative advantage can raise tokens that pi_ref never writes. Needs the table of
    `mira score` with `alternatives` of at least `support_tokens`."""
    support_least: Fraction = 0.001
    """The least probability under pi_ref of a token of the support."""
    support_tokens: Count = 32
    """The largest number of tokens in the support, the likeliest ones."""
    clip_impossible: bool = False
    """Clip the advantages to what a response can have under pi_ref: (1 - pi_ref)(1 + |alpha|) at most, nothing for a response without
    an alternative."""
    only_useful: bool = False
    """Leave out the steps of a failure after its last subgoal in order."""
    negative_weight: NonNegative = 1.0
    """Weight of the loss of steps with a negative advantage."""
    max_drop: NonNegative | None = None
    """Nats by which the log odds of a response with a negative advantage may fall, log pi / (1 - pi) (with `per_token`, pi is the
    geometric mean over the tokens). null: no bound."""

    name: ClassVar[str] = "actor"
    objective: ClassVar[str] = "mira"
    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True
    examples = staticmethod(step_examples)

    @property
    def token_columns(self) -> dict[str, TokenShape]:
        """The token columns that the loss reads."""
        return {SUPPORT: TokenShape((self.support_tokens,), "int32")} if self.support_weight else {}

    def __post_init__(self) -> None:
        if self.potential == "ordered" and self.at_end == "reached":
            raise UserError("recipe.at_end: reached counts subgoals in any order; set recipe.potential=count, or another at_end")

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Columns: `reference_log_prob` and `advantage`."""
        labels = read_labels(reader)
        keep, advantages = self.kept(labels, tables)
        prepared = policies.prepare(labels, reference=column(labels, tables, "log_prob"), advantages=advantages, keep=keep)
        if self.support_weight:
            support = policies.supported(labels, tables, self.support_least, self.support_tokens)
            return dataclasses.replace(prepared, token_columns={SUPPORT: support})
        return prepared

    def kept(self, labels: StepLabels, tables: Sequence[SideTable]) -> tuple[np.ndarray, np.ndarray]:
        """The steps to train on, bool [N], and the advantages, float32 [N], by `only_useful`, `clip_impossible` and `normalize`."""
        if self.only_useful:
            require_milestones(labels, "recipe.only_useful")
        keep = labels.sound & (labels.before_last_milestone | (not self.only_useful))
        advantages = self.advantages(labels, tables)
        if self.clip_impossible:
            advantages = clip_impossible(advantages, column(labels, tables, "log_prob"), 1 + abs(self.alpha))
        if self.normalize:
            advantages = advantages / max(float(np.sqrt(np.mean(np.square(advantages[keep])))), 1e-8)
        return keep, advantages

    def advantages(self, labels: StepLabels, tables: Sequence[SideTable]) -> np.ndarray:
        """float32 [N]: A_t of each step, by 5 and 6 in the module docstring."""
        values = column(labels, tables, "value")
        rewards = shaped = outcome_rewards(labels.success, labels.last)
        if self.alpha:
            if self.potential != "critic" or self.at_end == "reached":
                require_milestones(labels, "recipe.potential" if self.potential != "critic" else "recipe.at_end")
            potentials = self.potentials(labels, tables)
            final = np.nan_to_num(labels.final_count)
            shaped = shaped_rewards(rewards, potentials, labels.last, self.alpha, self.shaping_discount, self.at_end, final)
        advantages = doubly_robust(rewards, shaped, values, labels.last, self.lambda_, self.gamma)
        if self.alpha and self.shaped_returns:
            advantages = advantages + (1 - self.lambda_) * returns(shaped - rewards, labels.last)
        return advantages

    def potentials(self, labels: StepLabels, tables: Sequence[SideTable]) -> np.ndarray:
        """float32 [N]: P(s_t) by the source that `potential` names."""
        if self.potential == "critic":
            return column(labels, tables, "potential")
        if self.potential == "milestones":
            heads = [milestone_head(j) for j in range(labels.reached.shape[1])]
            return mean_of_milestones(labels, {head: column(labels, tables, head) for head in heads})
        return np.nan_to_num(labels.ordered if self.potential == "ordered" else labels.count)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        outside = 0.0
        if self.support_weight:
            log_prob, outside = policies.step_log_probs_and_support(model, batch)
        else:
            log_prob = policies.step_log_probs(model, batch)
        scale = response_tokens(batch) if self.per_token else 1.0
        bound = math.inf if self.max_drop is None else self.max_drop
        loss = squared_log_ratio(log_prob / scale, batch["reference_log_prob"] / scale, batch["advantage"], self.beta, bound)
        loss = jnp.where(batch["advantage"] < 0, self.negative_weight, 1.0) * loss + self.support_weight * outside
        metrics = policies.metrics(log_prob, batch)
        if self.support_weight:
            metrics["outside_support"] = Mean(jnp.sum(outside * batch["step_mask"]), jnp.sum(batch["response_mask"]))
        return policies.mean_over_steps(loss, batch), metrics


def response_tokens(batch: dict[str, jax.Array]) -> jax.Array:
    """BxS: the number of response tokens of each step, at least 1."""
    return jnp.maximum(sum_by_step(batch["response_mask"], batch), 1.0)
