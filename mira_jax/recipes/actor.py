"""The actor: offline RL on scored episodes, by MiRA's objective or one of those it is compared with.

    objective      loss per step, A the advantage                                      reads from side tables
    mira           ( beta (log pi - log pi_ref) - A )^2, A doubly robust               log_prob, value, potential
                   with alpha: 0 it is WebRL's; lambda_: 1 the one-step advantage,
                   lambda_: 0 the Monte-Carlo one
    kl             -min( exp(A / beta), max_weight ) log pi, the same A                value, potential
    awr            -min( exp((G - V) / beta), max_weight ) log pi                      value
    filtered_bc    -log pi per token, on the best episodes alone                       nothing
    webrl_code     what WebRL's released code does; its n counts the tokens of what     log_prob, value
                   is computed at once, which optimizer.accumulate makes less

log pi(a|s) sums the response's tokens, its end token included. The equations are in `mira_jax.rl`. Advantages are
used as they are: never centred, scaled or clipped.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.errors import UserError
from mira_jax.recipes import Prepared
from mira_jax.recipes.labels import StepLabels, column, read_labels
from mira_jax.rl import advantages, objectives
from mira_jax.rl.shaping import AtEnd, shaped_rewards
from mira_jax.training.log_probs import response_log_probs, sum_by_step
from mira_jax.training.metrics import Mean
from mira_jax.training.reference import SQUARES
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable

MOVED = 0.01
"""Nats by which a step's log-probability must differ from the reference to count as moved."""


@dataclasses.dataclass(frozen=True)
class Actor:
    objective: Literal["mira", "kl", "awr", "filtered_bc", "webrl_code"] = "mira"
    beta: float = 0.1
    """mira: a step moves log pi by about A / beta nats; small models need less, for example 0.02. kl, awr: the
    temperature of the weights."""
    alpha: float = 0.3
    """How much the potential shapes the reward (mira, kl). 0 is WebRL, and needs no potential."""
    lambda_: float = 0.5
    """Of the one-step advantage; the Monte-Carlo advantage has the rest (mira, kl)."""
    gamma: float = 1.0
    """Discount of the true reward and of V."""
    shaping_discount: float = 1.0
    """Discount of P(s_{t+1}) in the shaped reward; equal to gamma for potential-based shaping in the strict sense."""
    at_end: AtEnd = "hold"
    """hold: the last step is not shaped. zero: the potential after the end is 0."""
    max_weight: float | None = 20.0
    """Bound of the weights of kl and awr; null for none."""
    percentile: float = 70.0
    """filtered_bc keeps the episodes at or above this percentile of return; of binary outcomes, the successes."""

    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise UserError(f"recipe.beta: {self.beta}; it must be above 0")
        for name in ("lambda_", "gamma", "shaping_discount"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"recipe.{name}: {getattr(self, name)}; it must be in [0, 1]")
        if self.max_weight is not None and not self.max_weight > 0:
            raise UserError(f"recipe.max_weight: {self.max_weight}; it must be above 0, or null")

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Columns: `advantage`, and `reference_log_prob` where the side tables have it."""
        labels = read_labels(reader)
        summary = {"episodes": labels.episodes, "success_rate": _mean(labels.success[labels.last & labels.sound])}
        columns = {}
        keep = labels.sound.copy()
        if self.objective in ("mira", "webrl_code") or any("log_prob" in table.columns for table in tables):
            columns["reference_log_prob"] = column(labels, tables, "log_prob")
        if self.objective == "filtered_bc":
            keep = self._best(labels)
            summary["kept_share"] = _mean(keep[labels.sound])
        else:
            columns["advantage"] = np.where(labels.sound, self.advantages(labels, tables), 0).astype(np.float32)
            advantage = columns["advantage"][keep]
            summary |= {
                "advantage_mean": _mean(advantage),
                "advantage_std": float(advantage.std()) if len(advantage) else 0.0,
                "advantage_positive": _mean(advantage > 0),
                "advantage_of_successes": _mean(advantage[labels.success[keep]]),
                "advantage_of_failures": _mean(advantage[~labels.success[keep]]),
            }
        return Prepared(keep, columns, summary)

    def advantages(self, labels: StepLabels, tables: Sequence[SideTable]) -> np.ndarray:
        """float32 [N]: A of each step, by this recipe's objective."""
        values = column(labels, tables, "value")
        if self.objective == "webrl_code":
            return advantages.webrl_code(labels.success, values, labels.last)
        rewards = advantages.outcome_rewards(labels.success, labels.last)
        if self.objective == "awr":
            return advantages.returns(rewards, labels.last, self.gamma) - values
        shaped = rewards
        if self.alpha:
            potentials = column(labels, tables, "potential")
            shaped = shaped_rewards(rewards, potentials, labels.last, self.alpha, self.shaping_discount, self.at_end)
        return advantages.doubly_robust(rewards, shaped, values, labels.last, self.lambda_, self.gamma)

    def _best(self, labels: StepLabels) -> np.ndarray:
        """bool [N]: the steps of the episodes worth imitating. An episode's return is its outcome."""
        ends = labels.last & labels.sound
        best = advantages.worth_imitating(labels.success[ends].astype(np.float32), self.percentile)
        if not best.any():
            raise UserError(f"filtered_bc: none of the {len(best)} episodes succeeded; there is nothing to imitate")
        ids = np.array(labels.ids, object)
        return labels.sound & np.isin(ids, ids[ends][best])

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        mask = batch["step_mask"]
        steps = jnp.sum(mask)
        tokens = jnp.sum(batch["response_mask"])
        log_prob = sum_by_step(response_log_probs(model, batch), batch)
        metrics = {"nll_per_token": Mean(-jnp.sum(log_prob * mask), tokens)}
        if "reference_log_prob" in batch:
            metrics |= _moves(log_prob - batch["reference_log_prob"], batch.get("advantage"), mask)
        if self.objective == "filtered_bc":
            return Mean(-jnp.sum(log_prob * mask), tokens), metrics

        advantage = batch["advantage"]
        if self.objective == "mira":
            loss = objectives.squared_log_ratio(log_prob, batch["reference_log_prob"], advantage, self.beta)
        elif self.objective == "webrl_code":
            counts = sum_by_step(batch["response_mask"], batch)
            loss = objectives.webrl_code(log_prob, batch["reference_log_prob"], advantage, counts, mask)
        else:
            loss = objectives.weighted_likelihood(log_prob, advantage, self.beta, self.max_weight or math.inf)
        return Mean(jnp.sum(loss * mask), steps), metrics


def _moves(log_ratio: jax.Array, advantage: jax.Array | None, mask: jax.Array) -> dict[str, Mean]:
    """How far the policy is from its reference: log pi - log pi_ref in nats, and the shares of steps moved either way."""
    steps = jnp.sum(mask)
    metrics = {
        "log_ratio": Mean(jnp.sum(log_ratio * mask), steps),
        SQUARES: Mean(jnp.sum(jnp.square(log_ratio) * mask), steps),
        "moved_up": Mean(jnp.sum((log_ratio > MOVED) * mask), steps),
        "moved_down": Mean(jnp.sum((log_ratio < -MOVED) * mask), steps),
    }
    if advantage is not None:
        good, bad = mask * (advantage > 0), mask * (advantage < 0)
        metrics |= {
            "advantage": Mean(jnp.sum(advantage * mask), steps),
            "log_ratio_where_positive": Mean(jnp.sum(log_ratio * good), jnp.sum(good)),
            "log_ratio_where_negative": Mean(jnp.sum(log_ratio * bad), jnp.sum(bad)),
        }
    return metrics


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
