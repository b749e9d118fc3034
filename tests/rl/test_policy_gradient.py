"""The policy gradient of GRPO by hand, against NumPy, and against the divergence it estimates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mira_jax.rl import policy_gradient


def test_the_clipped_surrogate_by_hand():
    ratio = np.array([1.0, 1.5, 1.5, 0.5, 0.5, 1.1, 0.9])
    advantage = np.array([2.0, 1, -1, 1, -1, 3, -3])
    old = np.full(7, -1.0)
    found = policy_gradient.clipped_surrogate(old + np.log(ratio), old, advantage, 0.2, 0.28)
    # Above 1.28 a good token gains no more; a bad one above 1 is pushed with its whole ratio, and below 0.8 no further.
    np.testing.assert_allclose(found, [2, 1.28, -1.5, 0.5, -0.8, 3.3, -2.7], rtol=1e-6)
    clipped = policy_gradient.is_clipped(old + np.log(ratio), old, advantage, 0.2, 0.28)
    assert clipped.tolist() == [False, True, False, False, True, False, False]
    gradient = jax.grad(lambda x: jnp.sum(policy_gradient.clipped_surrogate(x, old, advantage, 0.2, 0.28)))(old + np.log(ratio))
    np.testing.assert_allclose(gradient, np.where(clipped, 0, ratio * advantage), rtol=1e-6)


def test_at_the_old_policy_the_gradient_is_that_of_the_log_probability_times_the_advantage():
    at, advantage = jnp.array([-1.0, -3.0]), jnp.array([0.7, -0.4])
    gradient = jax.grad(lambda x: jnp.sum(policy_gradient.clipped_surrogate(x, at, advantage, 0.2, 0.2)))(at)
    np.testing.assert_allclose(gradient, advantage)


def test_importance_weights_are_bounded_and_have_no_gradient():
    old, sampler = jnp.array([-1.0, -1.0, -1.0]), jnp.array([-1.0, -3.0, -0.5])
    found = policy_gradient.truncated_importance(old, sampler, 2.0)
    np.testing.assert_allclose(found, [1, 2, np.exp(-0.5)], rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(policy_gradient.truncated_importance(x, sampler, 2.0)))(old)
    assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates_have_the_expected_mean(kind):
    """Over all outcomes of a distribution of four: k1 and k3 give the divergence, and k2 half the mean square."""
    p, q = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.25, 0.25, 0.3, 0.2])
    estimate = np.asarray(policy_gradient.kl_estimate(np.log(p), np.log(q), kind))
    expected = (p * np.log(p / q)).sum() if kind != "k2" else (p * np.log(p / q) ** 2).sum() / 2
    np.testing.assert_allclose((p * estimate).sum(), expected, rtol=1e-5)
    if kind == "k3":
        assert (estimate >= 0).all()


def test_the_gradient_of_k2_is_that_of_the_divergence():
    logits, reference = jnp.array([0.3, -1.0, 0.5, 0.1]), np.log(np.array([0.25, 0.25, 0.3, 0.2]))

    def divergence(x):
        log_p = jax.nn.log_softmax(x)
        return jnp.sum(jnp.exp(log_p) * (log_p - reference))

    def estimated(x):
        log_p = jax.nn.log_softmax(x)
        drawn = jax.lax.stop_gradient(jnp.exp(log_p))
        return jnp.sum(drawn * policy_gradient.kl_estimate(log_p, reference, "k2"))

    np.testing.assert_allclose(jax.grad(estimated)(logits), jax.grad(divergence)(logits), atol=1e-6)


def test_entropy_adds_at_most_a_share_of_the_advantage():
    entropy, advantage = jnp.array([0.1, 5.0, 5.0, 1.0]), jnp.array([1.0, 1.0, -1.0, 0.0])
    added = policy_gradient.entropy_shaping(entropy, advantage, 0.4, 2.0)
    np.testing.assert_allclose(added, [0.04, 0.5, 0.5, 0], atol=1e-7)
    assert (np.sign(advantage + added) == np.sign(advantage)).all()
