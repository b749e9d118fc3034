"""Common parts of the objectives of a policy: log pi of each step, columns, and metrics of the change from the reference.

Shapes: B rows, S steps in a row, N steps in the reader.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.recipes.base import Prepared
from mira_jax.recipes.labels import ALTERNATIVE_LOG_PROBS, ALTERNATIVES, StepLabels, column, mean, token_column
from mira_jax.training.log_probs import log_probs_and_support, response_hidden, response_log_probs, sum_by_step
from mira_jax.training.metrics import Mean
from mira_jax.training.reference import SQUARES
from mira_jax.trajectories.side_tables import SideTable
from mira_jax.trajectories.token_columns import TokenColumn

SUPPORT = "support"
"""The token column of `supported`."""
MOVED = 0.01
"""Minimum change of a step's log-probability from the reference, in nats, to count as moved."""


def step_log_probs(model: nnx.Module, batch: dict[str, jax.Array]) -> jax.Array:
    """log pi(a_t | s_t) of each step, BxS: the sum over the response's tokens, its end token included."""
    return sum_by_step(response_log_probs(model, batch), batch)


def step_log_probs_and_support(model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """`step_log_probs`, and for each step -log pi(support) summed over the response's tokens, BxS each. The support of a token is the token
    itself and those of the column SUPPORT."""
    log_probs, support = log_probs_and_support(model, response_hidden(model, batch), batch["response_targets"], batch[SUPPORT])
    return sum_by_step(log_probs, batch), sum_by_step(-support, batch)


def supported(labels: StepLabels, tables: Sequence[SideTable], least: float, most: int) -> TokenColumn:
    """int32 [tokens, most]: the tokens that pi_ref gives at least the probability `least`, the `most` likeliest of them; -1 is none.

    Raises:
        UserError: no side table has that many alternatives of each response token.
    """
    ids, log_probs = (token_column(labels, tables, name, most) for name in (ALTERNATIVES, ALTERNATIVE_LOG_PROBS))
    return TokenColumn(np.where(np.exp(log_probs.values) >= least, ids.values, -1).astype(np.int32), ids.starts)


def mean_over_steps(values_BxS: jax.Array, batch: dict[str, jax.Array]) -> Mean:
    return Mean(jnp.sum(values_BxS * batch["step_mask"]), jnp.sum(batch["step_mask"]))


def reference_if_scored(labels: StepLabels, tables: Sequence[SideTable]) -> np.ndarray | None:
    """float32 [N]: log pi_ref if a side table contains it, for the metrics of an objective that does not use it."""
    return column(labels, tables, "log_prob") if any("log_prob" in table.columns for table in tables) else None


def prepare(
    labels: StepLabels,
    *,
    reference: np.ndarray | None,
    advantages: np.ndarray | None = None,
    keep: np.ndarray | None = None,
) -> Prepared:
    """Columns `reference_log_prob` and `advantage`, each if given, with a summary.

    Args:
        keep: bool [N]. Default: every step of an episode without an infrastructure error.
    """
    columns = {}
    summary = {"episodes": labels.episodes, "success_rate": mean(labels.success[labels.last & labels.sound])}
    if reference is not None:
        columns["reference_log_prob"] = reference
    if keep is None:
        keep = labels.sound.copy()
    else:
        summary["kept_share"] = mean(keep[labels.sound])
    if advantages is not None:
        columns["advantage"] = np.where(labels.sound, advantages, 0).astype(np.float32)
        advantage = columns["advantage"][keep]
        summary |= {
            "advantage_mean": mean(advantage),
            "advantage_std": float(advantage.std()) if len(advantage) else 0.0,
            "advantage_positive": mean(advantage > 0),
            "advantage_of_successes": mean(advantage[labels.success[keep]]),
            "advantage_of_failures": mean(advantage[~labels.success[keep]]),
        }
    return Prepared(keep, columns, summary)


def metrics(log_prob_BxS: jax.Array, batch: dict[str, jax.Array]) -> dict[str, Mean]:
    """nll_per_token. With a reference, also the distance from it in nats and the shares of steps moved up and down."""
    mask, advantage = batch["step_mask"], batch.get("advantage")
    metrics = {"nll_per_token": Mean(-jnp.sum(log_prob_BxS * mask), jnp.sum(batch["response_mask"]))}
    if "reference_log_prob" not in batch:
        return metrics
    log_ratio = log_prob_BxS - batch["reference_log_prob"]
    metrics |= {
        "log_ratio": mean_over_steps(log_ratio, batch),
        SQUARES: mean_over_steps(jnp.square(log_ratio), batch),
        "moved_up": mean_over_steps(log_ratio > MOVED, batch),
        "moved_down": mean_over_steps(log_ratio < -MOVED, batch),
    }
    if advantage is not None:
        good, bad = mask * (advantage > 0), mask * (advantage < 0)
        metrics |= {
            "advantage": mean_over_steps(advantage, batch),
            "log_ratio_where_positive": Mean(jnp.sum(log_ratio * good), jnp.sum(good)),
            "log_ratio_where_negative": Mean(jnp.sum(log_ratio * bad), jnp.sum(bad)),
        }
    return metrics
