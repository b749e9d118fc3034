import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mira_jax.rl import objectives


def policy(theta):
    """Log-probs of three responses by a softmax."""
    return jax.nn.log_softmax(theta)


THETA = jnp.array([0.2, -0.1, 0.4])
REFERENCE = policy(THETA)


def after_one_step(loss, rate=0.1):
    """How the log-prob of response 0 moves when `loss(log_prob of response 0)` goes down its gradient."""
    gradient = jax.grad(lambda theta: loss(policy(theta)[0]))(THETA)
    return float(policy(THETA - rate * gradient)[0] - policy(THETA)[0])


@pytest.mark.parametrize("advantage", [0.7, 0.05, -0.05, -0.7])
def test_the_sign_of_the_advantage_is_the_way_the_probability_moves(advantage):
    moved = after_one_step(lambda log_prob: objectives.squared_log_ratio(log_prob, REFERENCE[0], advantage, beta=0.5))
    assert np.sign(moved) == np.sign(advantage)


@pytest.mark.parametrize("advantage", [0.7, -0.7])
def test_weighted_likelihood_can_only_raise(advantage):
    assert after_one_step(lambda log_prob: objectives.weighted_likelihood(log_prob, advantage, beta=0.5)) > 0


def test_the_gradient_of_the_squared_log_ratio_is_webrl_s_equation_7():
    beta, advantage, log_prob, reference = 0.3, 0.4, -1.0, -1.5
    gradient = jax.grad(lambda x: objectives.squared_log_ratio(x, reference, advantage, beta))(log_prob)
    assert float(gradient) == pytest.approx(-2 * beta * (advantage - beta * (log_prob - reference)), rel=1e-6)


def test_the_squared_log_ratio_is_least_where_the_step_is_advantage_over_beta():
    beta, advantage = 0.02, 0.5
    assert float(objectives.squared_log_ratio(jnp.array(-3.0 + advantage / beta), jnp.array(-3.0), advantage, beta)) == pytest.approx(
        0, abs=1e-10
    )


def test_a_response_that_has_dropped_far_enough_is_left_alone():
    """Odds of 1/4 may fall by a factor of 9, to 1/36. Probabilities of .02, .1 and .02 with advantages of -1, -1 and 1."""
    probability, advantage = jnp.array([0.02, 0.1, 0.02]), jnp.array([-1.0, -1.0, 1.0])
    loss, gradient = jax.value_and_grad(
        lambda x: objectives.squared_log_ratio(x, jnp.log(jnp.full(3, 0.2)), advantage, 0.1, max_drop=float(np.log(9))).sum()
    )(jnp.log(probability))
    lowest, half, tenth = 0.1 * np.log(1 / 37 / 0.2), 0.1 * np.log(0.5), 0.1 * np.log(0.1)
    assert float(loss) == pytest.approx((lowest + 1) ** 2 + (half + 1) ** 2 + (tenth - 1) ** 2)
    np.testing.assert_allclose(gradient, [0.0, 0.2 * (half + 1), 0.2 * (tenth - 1)], rtol=1e-6)


@pytest.mark.parametrize(("reference", "lowest"), [(-1e-3, -0.0527), (-1e-5, -5.46e-4), (0.0, -5.46e-5), (-300.0, -304.0)])
def test_a_response_without_an_alternative_stays_likely(reference, lowest):
    """The odds against it rise by e^4: from .001 to .053 for the first."""

    def gradient(log_prob):
        return float(jax.grad(lambda x: objectives.squared_log_ratio(x, jnp.array(reference), -1.0, 0.02, max_drop=4.0))(log_prob))

    assert gradient(lowest * 1.01) == 0 and gradient(lowest * 0.99) > 0


def test_gradient_descent_reaches_the_tilted_policy():
    """Over all responses at once, with advantages of mean log-weight zero, the minimum is pi_ref exp(A / beta)."""
    beta = 0.5
    wanted = policy(jnp.array([1.0, -0.5, 0.3]))
    advantages = beta * (wanted - REFERENCE)
    theta = THETA
    step = jax.jit(jax.grad(lambda theta: objectives.squared_log_ratio(policy(theta), REFERENCE, advantages, beta).sum()))
    for _ in range(300):
        theta = theta - 0.5 * step(theta)
    np.testing.assert_allclose(policy(theta), wanted, atol=1e-4)


def test_exponential_weights_are_bounded_and_never_overflow():
    weights = objectives.exponential_weights(jnp.array([-0.1, 0.0, 0.1, 9.0]), beta=0.1, most=20.0)
    np.testing.assert_allclose(weights, [np.exp(-1), 1, np.e, 20], rtol=1e-6)
    assert np.isfinite(np.asarray(objectives.exponential_weights(jnp.array(100.0), beta=0.01, most=20.0)))


def test_critic_losses_by_hand():
    logits = jnp.array([0.0, 2.0, -3.0])
    probabilities = 1 / (1 + np.exp(-np.array([0.0, 2.0, -3.0])))
    success = np.array([1.0, 0.0, 1.0])
    np.testing.assert_allclose(
        objectives.outcome_cross_entropy(logits, jnp.array(success)),
        -(success * np.log(probabilities) + (1 - success) * np.log(1 - probabilities)),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        objectives.progress_squared_error(logits, jnp.array([0.25, 0.5, 1.0])), (probabilities - [0.25, 0.5, 1.0]) ** 2, rtol=1e-5
    )
    assert np.isfinite(np.asarray(objectives.outcome_cross_entropy(jnp.array(500.0), jnp.array(0.0))))


def webrl_code_by_loop(log_prob, reference, advantage, tokens, mask):
    """The released code, step by step, in plain Python."""
    count = sum(n for n, a, m in zip(tokens, advantage, mask, strict=True) if a > 0 and m) or 1.0
    losses = []
    for lp, ref, a, n, m in zip(log_prob, reference, advantage, tokens, mask, strict=True):
        ratio = (lp - ref) / count
        p_ref = np.exp(ref / max(n, 1))
        beta = 5.0 if (a >= 0 and p_ref >= 0.8) or (a < 0 and p_ref < 0.9) else 1.0
        if ratio != 0:
            beta = min(beta, abs(a / ratio))
        d = abs(beta * ratio - a)
        losses.append((0.5 * d * d if d < 1 else d - 0.5) / beta if a > 0 and m else 0.0)
    return losses


def test_webrl_code_agrees_with_a_plain_loop():
    log_prob = np.array([-1.0, -40.0, -3.0, -0.1, 0.0, -2.0])
    reference = np.array([-1.0, -2.0, -3.5, -0.2, 0.0, -60.0])
    advantage = np.array([1.0, 1.0, -0.6, 1.0, 1.0, 1.0])
    tokens, mask = np.array([4.0, 5, 6, 2, 0, 3]), np.array([1.0, 1, 1, 1, 0, 1])
    np.testing.assert_allclose(
        objectives.webrl_code(*map(jnp.array, (log_prob, reference, advantage, tokens, mask))),
        webrl_code_by_loop(log_prob, reference, advantage, tokens, mask),
        rtol=1e-5,
    )


def test_webrl_code_sends_no_gradient_to_negatives_and_a_finite_one_at_the_reference():
    def total(log_prob):
        return objectives.webrl_code(log_prob, jnp.array([-1.0, -2.0]), jnp.array([1.0, -0.6]), jnp.array([3.0, 3.0]), jnp.ones(2)).sum()

    gradient = np.asarray(jax.grad(total)(jnp.array([-1.0, -2.0])))
    # At the reference smooth_l1 has slope -1, and beta cancels: -1 / (3 tokens).
    np.testing.assert_allclose(gradient, [-1 / 3, 0], rtol=1e-6)


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.8])
def test_the_expectile_of_outcomes_is_the_minimum(expectile):
    """Of successes with the probability .3, the expectile by its formula, and the gradient on either side."""
    outcomes = jnp.array([1.0] * 3 + [0.0] * 7)
    best = expectile * 0.3 / (expectile * 0.3 + (1 - expectile) * 0.7)
    gradient = jax.grad(lambda logit: objectives.expectile_cross_entropy(jnp.full(10, logit), outcomes, expectile).sum())
    at = float(jax.scipy.special.logit(best))
    assert float(gradient(at)) == pytest.approx(0, abs=1e-5)
    assert float(gradient(at - 0.1)) < -1e-3 < 1e-3 < float(gradient(at + 0.1))


def test_an_expectile_of_soft_targets_balances_the_weighted_errors():
    """IQL's condition: the sum of |e - 1(target < V)| (target - V) is 0. Also, a target that is met costs nothing."""
    targets, expectile = np.array([0.1, 0.2, 0.9]), 0.8
    logits = np.linspace(-4, 4, 4001)
    values = 1 / (1 + np.exp(-logits))
    losses = [float(objectives.expectile_cross_entropy(jnp.full(3, logit), jnp.array(targets), expectile).sum()) for logit in logits[::40]]
    errors = [(np.where(targets < v, 1 - expectile, expectile) * (targets - v)).sum() for v in values[::40]]
    assert abs(int(np.argmin(losses)) - int(np.argmin(np.abs(errors)))) <= 1
    met = objectives.expectile_cross_entropy(jax.scipy.special.logit(jnp.array(targets)), jnp.array(targets), expectile)
    np.testing.assert_allclose(met, 0, atol=1e-6)
    hard = objectives.expectile_cross_entropy(jnp.array([2.0, -2.0]), jnp.array([0.0, 1.0]), expectile)
    np.testing.assert_allclose(hard, 2 * np.log1p(np.exp(2.0)) * np.array([0.2, 0.8]), rtol=1e-5)
