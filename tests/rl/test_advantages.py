import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_jax.rl.advantages import clip_impossible, doubly_robust, outcome_rewards, returns, room_to_rise, webrl_code, worth_imitating
from mira_jax.rl.shaping import following, shaped_rewards

# Two episodes side by side: three steps that succeed, two that fail.
LAST = np.array([0, 0, 1, 0, 1], bool)
SUCCESS = np.array([1, 1, 1, 0, 0], bool)
VALUES = np.array([0.5, 0.6, 0.9, 0.4, 0.2], np.float32)
POTENTIALS = np.array([0.0, 0.3, 0.7, 0.1, 0.4], np.float32)


def test_the_reward_is_the_outcome_at_the_last_step():
    assert outcome_rewards(SUCCESS, LAST).tolist() == [0, 0, 1, 0, 0]


def test_nothing_follows_across_the_end_of_an_episode():
    np.testing.assert_allclose(following(VALUES, LAST), [0.6, 0.9, 0, 0.2, 0])


def test_returns_by_hand():
    np.testing.assert_allclose(returns(outcome_rewards(SUCCESS, LAST), LAST), [1, 1, 1, 0, 0])
    np.testing.assert_allclose(returns(outcome_rewards(SUCCESS, LAST), LAST, gamma=0.9), [0.81, 0.9, 1, 0, 0], rtol=1e-6)


def test_shaping_by_hand():
    rewards = outcome_rewards(SUCCESS, LAST)
    np.testing.assert_allclose(shaped_rewards(rewards, POTENTIALS, LAST, alpha=0.3), [0.09, 0.12, 1, 0.09, 0], atol=1e-6)
    np.testing.assert_allclose(
        shaped_rewards(rewards, POTENTIALS, LAST, alpha=0.3, at_end="zero"), [0.09, 0.12, 1 - 0.21, 0.09, -0.12], atol=1e-6
    )
    np.testing.assert_allclose(shaped_rewards(rewards, POTENTIALS, LAST, alpha=1.0, discount=0.5), [0.15, 0.05, 1, 0.1, 0], atol=1e-6)
    with pytest.raises(ValueError, match="at_end"):
        shaped_rewards(rewards, POTENTIALS, LAST, alpha=0.3, at_end="stop")


def test_no_shaping_leaves_the_reward():
    rewards = outcome_rewards(SUCCESS, LAST)
    for at_end in ("hold", "zero"):
        np.testing.assert_array_equal(shaped_rewards(rewards, POTENTIALS, LAST, alpha=0.0, at_end=at_end), rewards)


def test_strict_shaping_adds_the_same_to_every_way_from_a_state():
    gamma = 0.9
    rewards = np.zeros(5, np.float32)
    shaped = shaped_rewards(rewards, POTENTIALS, LAST, alpha=0.7, discount=gamma, at_end="zero")
    np.testing.assert_allclose(returns(shaped, LAST, gamma), -0.7 * POTENTIALS, atol=1e-6)


def test_the_advantage_by_hand():
    rewards = outcome_rewards(SUCCESS, LAST)
    shaped = shaped_rewards(rewards, POTENTIALS, LAST, alpha=0.3)
    # one step: r' + V' - V = [.09+.6-.5, .12+.9-.6, 1-.9, .09+.2-.4, -.2]; Monte Carlo: G - V = [.5, .4, .1, -.4, -.2]
    np.testing.assert_allclose(doubly_robust(rewards, shaped, VALUES, LAST, lambda_=1), [0.19, 0.42, 0.1, -0.11, -0.2], atol=1e-6)
    np.testing.assert_allclose(doubly_robust(rewards, shaped, VALUES, LAST, lambda_=0), [0.5, 0.4, 0.1, -0.4, -0.2], atol=1e-6)
    np.testing.assert_allclose(doubly_robust(rewards, shaped, VALUES, LAST), [0.345, 0.41, 0.1, -0.255, -0.2], atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.9, 1.0]), st.sampled_from(["hold", "zero"]))
def test_the_advantage_agrees_with_plain_loops(seed, alpha, gamma, at_end):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, size=rng.integers(1, 5))
    lambda_ = float(rng.random())
    expected, flat = [], {"success": [], "last": [], "values": [], "potentials": []}
    for length in lengths:
        success, values, potentials = bool(rng.random() < 0.5), rng.random(length), rng.random(length)
        for t in range(length):
            end = t == length - 1
            reward = float(success and end)
            next_value = 0.0 if end else values[t + 1]
            if end:
                shaping = 0.0 if at_end == "hold" else -potentials[t]
            else:
                shaping = gamma * potentials[t + 1] - potentials[t]
            one_step = reward + alpha * shaping + gamma * next_value - values[t]
            monte_carlo = gamma ** (length - 1 - t) * float(success) - values[t]
            expected.append(lambda_ * one_step + (1 - lambda_) * monte_carlo)
            for name, value in zip(flat, (success, end, values[t], potentials[t]), strict=True):
                flat[name].append(value)
    last, values = np.array(flat["last"]), np.array(flat["values"])
    rewards = outcome_rewards(np.array(flat["success"]), last)
    shaped = shaped_rewards(rewards, np.array(flat["potentials"]), last, alpha, gamma, at_end)
    np.testing.assert_allclose(doubly_robust(rewards, shaped, values, last, lambda_, gamma), expected, atol=1e-5)


def test_without_the_potential_it_is_webrl_s_advantage():
    """WebRL, eq. 9: lambda (r_t + V(s_{t+1}) - V(s_t)) + (1 - lambda) (r_T - V(s_t))."""
    rewards = outcome_rewards(SUCCESS, LAST)
    shaped = shaped_rewards(rewards, POTENTIALS, LAST, alpha=0.0)
    next_values = [0.6, 0.9, 0.0, 0.2, 0.0]
    expected = [0.5 * (rewards[t] + next_values[t] - VALUES[t]) + 0.5 * (float(SUCCESS[t]) - VALUES[t]) for t in range(5)]
    np.testing.assert_allclose(doubly_robust(rewards, shaped, VALUES, LAST, lambda_=0.5), expected, atol=1e-6)


def test_webrl_s_code_makes_every_step_of_a_success_positive():
    # A success: 1 + G - 0.05 +- 1 is never below 0. A failure: the sign of V(s') - V(s) - 0.05, no next state at the end.
    values = np.array([0.9, 0.1, 0.1, 0.2, 0.4, 0.4], np.float32)
    last = np.array([0, 0, 1, 0, 0, 1], bool)
    success = np.array([1, 1, 1, 0, 0, 0], bool)
    np.testing.assert_allclose(webrl_code(success, values, last), [1, 1, 1, 1, -0.6, -0.6])


@pytest.mark.parametrize("successes", [1, 3, 5, 9])
def test_filtered_cloning_of_binary_outcomes_keeps_the_successes(successes):
    outcomes = np.array([1.0] * successes + [0.0] * (10 - successes))
    np.testing.assert_array_equal(worth_imitating(outcomes), outcomes > 0)


def test_filtered_cloning_keeps_the_best_of_graded_returns():
    # The 70th percentile of 0 ... 10 is 7.
    np.testing.assert_array_equal(worth_imitating(np.arange(11.0)), np.arange(11) >= 7)
    assert worth_imitating(np.ones(4)).all()
    assert not worth_imitating(np.zeros(4)).any()


def test_room_to_rise_by_hand():
    """A / beta asks for 2, 1 and 4 nats; log pi_ref leaves 0.5, 3 and 1. The negative step asks for no rise."""
    room = room_to_rise(np.array([0.2, 0.1, -0.3, 0.4]), np.array([-0.5, -3.0, -2.0, -1.0]), beta=0.1)
    assert room == pytest.approx((0.5 + 1 + 1) / 7)
    assert room_to_rise(np.array([-1.0, 0.0]), np.array([-1.0, -1.0]), 0.1) == 1


def test_what_is_possible_by_hand():
    """pi_ref .5, .9, 1 and .9, and Q between 0 and 4: at most 2, .4, 0 and .4. A rounding error above 1 counts as 1."""
    found = clip_impossible(np.array([-1.5, 0.7, -0.2, -3.0]), np.array([np.log(0.5), np.log(0.9), 1e-6, np.log(0.9)]), 4.0)
    np.testing.assert_allclose(found, [-1.5, 0.4, 0, -0.4], atol=1e-6)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_true_advantages_are_possible(actions):
    """Of any policy and any Q in [0, 1], an advantage from the definition stays as it is."""
    weights, values = np.array(actions).T
    policy = weights / weights.sum()
    advantages = values - policy @ values
    np.testing.assert_allclose(clip_impossible(advantages, np.log(policy), 1.0), advantages, atol=1e-6)
