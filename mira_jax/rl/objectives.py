"""Losses of the actor and the critics, one number per step. The recipe averages them.

log pi(a|s) is the sum over the response's tokens, its end token included, in nats.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def squared_log_ratio(
    log_prob: Float[Array, "*S"],
    reference_log_prob: Float[Array, "*S"],
    advantage: Float[Array, "*S"],
    beta: float,
    max_drop: float = math.inf,
) -> Float[Array, "*S"]:
    """MiRA's and WebRL's actor loss (arXiv 2603.19685; 2411.02337, eq. 6):

        L = ( beta (log pi(a|s) - log pi_ref(a|s)) - A )^2

    The minimum is pi = pi_ref exp(A / beta), which changes the log pi of a step by A / beta nats. At pi = pi_ref the gradient
    is -2 beta A grad log pi: a positive advantage raises the response's probability, a negative one lowers it.

    Args:
        max_drop: nats. A response with A < 0 has no gradient once its log odds, log pi / (1 - pi), are this much below those of pi_ref,
            as beyond the clip of PPO (arXiv 1707.06347, eq. 7). A / beta asks for more than that, without end if beta is small. Log odds
            bound the rise of all other responses too: one that pi_ref gives with certainty has no alternative, and stays likely.
    """
    ratio = log_prob - reference_log_prob
    if max_drop < math.inf:
        ratio = jnp.where(advantage < 0, jnp.maximum(ratio, _lowered(reference_log_prob, max_drop) - reference_log_prob), ratio)
    return jnp.square(beta * ratio - advantage)


def _lowered(log_prob: Float[Array, "*S"], nats: float) -> Float[Array, "*S"]:
    """The log-probability whose log odds are lower by so many nats. Log odds above 14 count as 14: float32 sums are no more exact."""
    below_one = jnp.minimum(log_prob, -1e-6)
    return jax.nn.log_sigmoid(below_one - jnp.log(-jnp.expm1(below_one)) - nats)


def exponential_weights(advantage: Float[Array, "*S"], beta: float, most: float = math.inf) -> Float[Array, "*S"]:
    """min( exp(A / beta), most )."""
    return jnp.exp(jnp.minimum(advantage / beta, math.log(most)))


def weighted_likelihood(
    log_prob: Float[Array, "*S"], advantage: Float[Array, "*S"], beta: float, most: float = math.inf
) -> Float[Array, "*S"]:
    """L = -min( exp(A / beta), most ) log pi(a|s).

    With A as in `doubly_robust` and no bound it is the KL form, MiRA's ablation: the projection of pi_ref exp(A / beta) onto
    the policies, estimated from data of pi_ref. With A = G - V it is AWR (Peng et al. 2019). Both lower the probability of a
    response only by raising others.
    """
    return -exponential_weights(advantage, beta, most) * log_prob


def webrl_code(
    log_prob: Float[Array, "*S"],
    reference_log_prob: Float[Array, "*S"],
    advantage: Float[Array, "*S"],
    tokens: Float[Array, "*S"],
    mask: Float[Array, "*S"],
) -> Float[Array, "*S"]:
    """The actor loss of WebRL's released code (`webrl/algorithms/webrl/trainer.py`), which differs from its paper.

        ratio = (log pi - log pi_ref) / n,         n = tokens of all steps with A > 0 in the batch
        p_ref = exp(log pi_ref / tokens)
        beta  = 5 where (A >= 0 and p_ref >= 0.8) or (A < 0 and p_ref < 0.9), else 1; then at most |A / ratio|
        L     = smooth_l1(beta ratio - A) / beta   where A > 0, else 0

    No gradient flows through beta, and steps with A < 0 have no loss. The code averages L over all steps.

    Args:
        advantage: +1 or -0.6, by `advantages.webrl_code`.
        tokens: response tokens of each step.
        mask: 1 for a step, 0 for padding.
    """
    positive = (advantage > 0) & (mask > 0)
    count = jnp.maximum(jnp.sum(jnp.where(positive, tokens, 0.0)), 1.0)
    ratio = (log_prob - reference_log_prob) / count
    p_ref = jnp.exp(reference_log_prob / jnp.maximum(tokens, 1.0))
    strong = ((advantage >= 0) & (p_ref >= 0.8)) | ((advantage < 0) & (p_ref < 0.9))
    bound = jnp.abs(advantage) / jnp.maximum(jnp.abs(ratio), 1e-30)
    beta = jax.lax.stop_gradient(jnp.minimum(jnp.where(strong, 5.0, 1.0), bound))
    difference = jnp.abs(beta * ratio - advantage)
    smooth = jnp.where(difference < 1, 0.5 * jnp.square(difference), difference - 0.5)
    return jnp.where(positive, smooth / jnp.where(positive, beta, 1.0), 0.0)


def outcome_cross_entropy(logits: Float[Array, "*S"], success: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """L_V = -[ r_T log V(s) + (1 - r_T) log(1 - V(s)) ], V = sigmoid(logits) (MiRA; WebRL eq. 8).

    The expected loss is minimal where V(s) is the probability that an episode that passes through s succeeds.
    """
    return jax.nn.softplus(logits) - success * logits


def expectile_cross_entropy(logits: Float[Array, "*S"], target: Float[Array, "*S"], expectile: float = 0.5) -> Float[Array, "*S"]:
    """The loss of a V that is an expectile e of its target, a probability in [0, 1], as in IQL (Kostrikov et al. 2021,
    arXiv 2110.06169, eq. 5), with the cross-entropy in place of the squared error:

        L = 2 |e - 1(target < V)| [ H(target, V) - H(target) ],   H(target, V) = -target log V - (1 - target) log(1 - V)

    The minimum is where the mean of |e - 1(target < V)| (target - V) is 0, as for the squared error. For outcomes 0 and 1 with a mean of
    p it is e p / (e p + (1 - e) (1 - p)). With e = 0.5 this is H(target, V), the constant H(target) left in.
    """
    loss = outcome_cross_entropy(logits, target)
    if expectile == 0.5:
        return loss
    entropy = jax.scipy.special.entr(target) + jax.scipy.special.entr(1 - target)
    above = jax.lax.stop_gradient(target > jax.nn.sigmoid(logits))
    return 2 * jnp.where(above, expectile, 1 - expectile) * (loss - entropy)


def progress_squared_error(logits: Float[Array, "*S"], progress: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """L_P = ( P(s) - p* )^2, P = sigmoid(logits) (MiRA)."""
    return jnp.square(jax.nn.sigmoid(logits) - progress)
