"""Gradients of the losses against central finite differences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mira_jax.rl import objectives, policy_gradient

LOG_PROB = np.array([-1.0, -2.5, -0.3, -4.0, -0.7, -3.0])
REFERENCE = np.array([-1.2, -2.0, -0.35, -4.5, -0.6, -3.5])
ADVANTAGE = np.array([0.6, -0.4, 0.05, 1.3, -0.9, 0.2])
TOKENS = np.array([4.0, 6.0, 2.0, 9.0, 3.0, 5.0])
MASK = np.array([1.0, 1, 1, 1, 1, 0])
OUTCOMES = np.array([1.0, 0, 1, 0, 0, 1])
PROGRESS = np.array([0.0, 0.25, 1.0, 0.5, 0.75, 1.0])

LOSSES = {
    "squared_log_ratio": (lambda x: objectives.squared_log_ratio(x, REFERENCE, ADVANTAGE, 0.3), LOG_PROB),
    "squared_log_ratio, bounded": (lambda x: objectives.squared_log_ratio(x, REFERENCE, ADVANTAGE, 0.3, 0.2), LOG_PROB),
    "weighted_likelihood": (lambda x: objectives.weighted_likelihood(x, ADVANTAGE, 0.5, 4.0), LOG_PROB),
    "exponential_weights": (lambda x: objectives.exponential_weights(x, 0.5, 4.0), ADVANTAGE),
    "outcome_cross_entropy": (lambda x: objectives.outcome_cross_entropy(x, OUTCOMES), np.linspace(-4, 4, 6)),
    "expectile_cross_entropy": (lambda x: objectives.expectile_cross_entropy(x, PROGRESS, 0.8), np.linspace(-4, 4, 6)),
    "clipped_surrogate": (lambda x: policy_gradient.clipped_surrogate(x, REFERENCE, ADVANTAGE, 0.2, 0.3), LOG_PROB),
    **{
        f"kl_estimate, {kind}": (lambda x, kind=kind: policy_gradient.kl_estimate(x, REFERENCE, kind), LOG_PROB)
        for kind in ("k1", "k2", "k3")
    },
    "progress_squared_error": (lambda x: objectives.progress_squared_error(x, PROGRESS), np.linspace(-4, 4, 6)),
}


def by_differences(loss, at, step=1e-6):
    """(loss(x + step e_i) - loss(x - step e_i)) / (2 step) for each i."""
    return [float(loss(at + step * unit) - loss(at - step * unit)) / (2 * step) for unit in np.eye(len(at))]


@pytest.mark.parametrize("name", LOSSES)
def test_a_gradient_is_the_limit_of_differences(name):
    loss, at = LOSSES[name]
    weight = np.array([1.0, 2.0, -1.0, 0.5, 3.0, 1.5])  # a different cotangent for each step
    with jax.enable_x64(True):
        total = jax.jit(lambda x: jnp.sum(weight * loss(x)))
        gradient = np.asarray(jax.grad(total)(jnp.asarray(at)))
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(gradient, by_differences(total, at), rtol=1e-6, atol=1e-8)


def test_the_gradient_of_webrl_s_code_is_that_of_the_loss_with_beta_held_fixed():
    """Beta depends on log pi, and no gradient flows through it: the differences are taken with the beta of the point.

    Where beta reaches its bound |A / ratio|, beta ratio is A or -A, so the loss is 0 or at its steep part. Both kinds are here.
    """
    advantage = np.where(ADVANTAGE > 0, 1.0, -0.6)

    def beta_at(log_prob):
        positive = (advantage > 0) & (MASK > 0)
        ratio = (log_prob - REFERENCE) / TOKENS[positive].sum()
        p_ref = np.exp(REFERENCE / TOKENS)
        strong = ((advantage >= 0) & (p_ref >= 0.8)) | ((advantage < 0) & (p_ref < 0.9))
        return np.minimum(np.where(strong, 5.0, 1.0), np.abs(advantage / ratio))

    for at in (LOG_PROB, REFERENCE + np.array([-40.0, 1.0, 10.0, -3.0, 2.0, 0.5])):
        beta = beta_at(at)

        def fixed(log_prob, beta=beta):
            positive = (advantage > 0) & (MASK > 0)
            d = np.abs(beta * (log_prob - REFERENCE) / TOKENS[positive].sum() - advantage)
            return np.where(positive, np.where(d < 1, d * d / 2, d - 0.5) / beta, 0).sum()

        with jax.enable_x64(True):
            gradient = jax.grad(lambda x: objectives.webrl_code(x, REFERENCE, advantage, TOKENS, MASK).sum())(jnp.asarray(at))
            # smooth_l1 has a continuous derivative, so differences converge also where its two parts meet.
            np.testing.assert_allclose(np.asarray(gradient), by_differences(fixed, at), rtol=1e-5, atol=1e-8)
