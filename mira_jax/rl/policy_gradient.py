"""The policy gradient of GRPO, one number per response token. The recipe averages them.

    rho = exp(log pi - log pi_old)          the ratio to the policy at the start of the updates, both computed by the trainer
    w   = min(exp(log pi_old - log mu), C)  the truncated importance weight of the sampler mu, without gradient
    L   = -w min(rho A, clip(rho, 1 - low, 1 + high) A) + beta KL(pi || pi_ref)

Shao et al. 2024 (arXiv 2402.03300, eq. 3) for w = 1 and low = high. A larger `high` (Yu et al. 2025, arXiv 2503.14476, eq. 10) lets
unlikely tokens grow. The sampler is another program than the trainer and computes slightly other probabilities, which w corrects
(Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").

Log-probabilities are of single tokens, at temperature 1, in nats.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

KL = Literal["k1", "k2", "k3"]


def clipped_surrogate(
    log_prob: Float[Array, "*T"], old_log_prob: Float[Array, "*T"], advantage: Float[Array, "*T"], low: float, high: float
) -> Float[Array, "*T"]:
    """min(rho A, clip(rho, 1 - low, 1 + high) A), to be maximised (PPO: arXiv 1707.06347, eq. 7).

    The gradient is zero where A > 0 and rho > 1 + high, and where A < 0 and rho < 1 - low.
    """
    ratio = jnp.exp(log_prob - old_log_prob)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - low, 1 + high) * advantage)


def is_clipped(
    log_prob: Float[Array, "*T"], old_log_prob: Float[Array, "*T"], advantage: Float[Array, "*T"], low: float, high: float
) -> Array:
    """bool: where the gradient of `clipped_surrogate` is zero because of the clip."""
    ratio = jnp.exp(log_prob - old_log_prob)
    return ((advantage > 0) & (ratio > 1 + high)) | ((advantage < 0) & (ratio < 1 - low))


def truncated_importance(old_log_prob: Float[Array, "*T"], sampler_log_prob: Float[Array, "*T"], most: float) -> Float[Array, "*T"]:
    """w = min(exp(log pi_old - log mu), most), without gradient."""
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(old_log_prob - sampler_log_prob), most))


def kl_estimate(log_prob: Float[Array, "*T"], reference: Float[Array, "*T"], kind: KL) -> Float[Array, "*T"]:
    """An estimate of KL(pi || pi_ref) from tokens drawn from pi (Schulman 2020, "Approximating KL divergence"). With
    d = log pi - log pi_ref:

        k1 = d              unbiased, may be negative
        k2 = d^2 / 2        biased; its gradient is that of KL(pi || pi_ref)
        k3 = exp(-d) - 1 + d  unbiased, never negative; GRPO's
    """
    difference = log_prob - reference
    if kind == "k1":
        return difference
    if kind == "k2":
        return 0.5 * jnp.square(difference)
    return jnp.exp(-difference) - 1 + difference


def entropy_shaping(entropy: Float[Array, "*T"], advantage: Float[Array, "*T"], weight: float, kappa: float) -> Float[Array, "*T"]:
    """min(weight H, |A| / kappa), to be added to A, without gradient (Cheng et al. 2025, arXiv 2506.14758, eq. 5), as DeepPlanner
    (arXiv 2510.12979) does for plans. With kappa > 1 it never changes the sign of A."""
    return jax.lax.stop_gradient(jnp.minimum(weight * entropy, jnp.abs(advantage) / kappa))
