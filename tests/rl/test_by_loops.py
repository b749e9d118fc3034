"""Functions of `mira_jax.rl` against plain loops that follow the definitions, on random episodes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_jax.rl import advantages, calibration, progress, replay
from mira_jax.rl.shaping import following, shaped_rewards

SEEDS = st.integers(0, 10_000)


def episodes(seed):
    """Up to four episodes of up to six steps: a list of (success, values, potentials, final potential)."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, size=rng.integers(1, 5))
    return [(bool(rng.random() < 0.5), rng.random(length), rng.random(length), float(rng.random())) for length in lengths]


def flat(parts):
    """(success, values, potentials, final, last), one entry per step."""
    columns = [[], [], [], [], []]
    for success, values, potentials, final in parts:
        for t in range(len(values)):
            entries = success, values[t], potentials[t], final, t == len(values) - 1
            for column, entry in zip(columns, entries, strict=True):
                column.append(entry)
    return tuple(map(np.array, columns))


@settings(deadline=None)
@given(SEEDS, st.sampled_from([1.0, 0.9, 0.0]))
def test_returns_and_what_follows(seed, gamma):
    parts = episodes(seed)
    success, values, _, _, last = flat(parts)
    rewards = advantages.outcome_rewards(success, last)
    after, expected = [], []
    for won, own, _, _ in parts:
        length = len(own)
        after += [*own[1:], 0.5]
        expected += [sum(gamma ** (i - t) * float(won and i == length - 1) for i in range(t, length)) for t in range(length)]
    np.testing.assert_allclose(following(values, last, 0.5), after)
    np.testing.assert_allclose(advantages.returns(rewards, last, gamma), expected, atol=1e-6)


@settings(deadline=None)
@given(SEEDS, st.sampled_from([1.0, 0.7, 0.0]), st.sampled_from([1.0, 0.9]))
def test_td_returns(seed, lambda_, gamma):
    """The definition: the n-step returns, with the weights (1 - lambda) lambda^(n-1), and the rest of the weight on the whole return."""
    parts = episodes(seed)
    success, values, _, _, last = flat(parts)
    rewards = advantages.outcome_rewards(success, last)
    expected = []
    for won, own, _, _ in parts:
        length = len(own)
        for t in range(length):
            bootstrapped = [gamma**n * own[t + n] for n in range(1, length - t)]  # the true reward comes with the last step only
            weights = [(1 - lambda_) * lambda_ ** (n - 1) for n in range(1, length - t)]
            whole = gamma ** (length - 1 - t) * float(won)
            expected.append(np.dot(weights, bootstrapped) + (1 - sum(weights)) * whole)
    np.testing.assert_allclose(advantages.td_returns(rewards, values, last, lambda_, gamma), expected, atol=1e-6)


@settings(deadline=None)
@given(SEEDS, st.sampled_from([1.0, 0.9]), st.sampled_from(["hold", "zero", "reached"]))
def test_shaped_rewards(seed, discount, at_end):
    parts = episodes(seed)
    success, _, potentials, final, last = flat(parts)
    expected = []
    for won, _, own, end in parts:
        for t in range(len(own)):
            if t < len(own) - 1:
                bracket = discount * own[t + 1] - own[t]
            else:
                bracket = {"hold": 0.0, "zero": -own[t], "reached": discount * end - own[t]}[at_end]
            expected.append(float(won and t == len(own) - 1) + 0.3 * bracket)
    rewards = advantages.outcome_rewards(success, last)
    found = shaped_rewards(rewards, potentials, last, 0.3, discount, at_end, final if at_end == "reached" else None)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_shaping_by_the_potential_reached_by_hand():
    """Two steps, P = 0.2, 0.5, and 0.75 at the end of a failure: alpha (0.3) and alpha (0.25)."""
    found = shaped_rewards(np.zeros(2), np.array([0.2, 0.5]), np.array([False, True]), 0.4, 1.0, "reached", np.array([0.75, 0.75]))
    np.testing.assert_allclose(found, [0.12, 0.1], atol=1e-7)


@settings(deadline=None)
@given(SEEDS, st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_digirl(seed, decay):
    parts = episodes(seed)
    success, values, _, _, last = flat(parts)
    expected = []
    for won, own, _, _ in parts:
        H = len(own) - 1
        for h in range(H + 1):
            reward, next_value = (float(won), 0.0) if h == H else (0.0, own[h + 1])
            weight = math.pow(decay, H - h)
            expected.append(weight * float(won) + (1 - weight) * (next_value + reward - own[h]))
    rewards = advantages.outcome_rewards(success, last)
    np.testing.assert_allclose(advantages.digirl(rewards, values, last, decay), expected, atol=1e-6)


def test_digirl_by_hand():
    """Three steps of a success, V = 0.2, 0.4, 0.8, decay 1/2: 1/4 + 3/4 0.2, 1/2 + 1/2 0.4, 1."""
    found = advantages.digirl(np.array([0.0, 0, 1]), np.array([0.2, 0.4, 0.8]), np.array([False, False, True]), 0.5)
    np.testing.assert_allclose(found, [0.4, 0.7, 1.0], atol=1e-6)


@settings(deadline=None)
@given(SEEDS)
def test_webrl_code(seed):
    """The outcome is the reward of every step, and the state after the last step is the last state."""
    parts = episodes(seed)
    success, values, _, _, last = flat(parts)
    expected = []
    for won, own, _, _ in parts:
        for t in range(len(own)):
            after = own[t + 1] if t < len(own) - 1 else own[t]
            rest = sum(0.9**i * float(won) for i in range(len(own) - t))
            clipped = min(max(after - own[t] - 0.05 + float(won) + rest, -1.0), 1.0)
            expected.append(1.0 if clipped >= 0 else -0.6)
    np.testing.assert_allclose(advantages.webrl_code(success, values, last), expected, rtol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.sampled_from([0.0, 50.0, 70.0, 100.0]))
def test_worth_imitating(scores, percentile):
    """The percentile by sorting and linear interpolation."""
    ordered = sorted(scores)
    place = percentile / 100 * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    threshold = ordered[below] + (place - below) * (ordered[above] - ordered[below])
    if ordered[0] == ordered[-1]:
        expected = [ordered[0] > 0] * len(scores)
    else:
        expected = [score >= threshold - 1e-12 and score > ordered[0] for score in scores]
    assert advantages.worth_imitating(np.array(scores, float), percentile).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6), st.booleans())
def test_milestones_of_states(z, success):
    z_TxK = np.array(z)
    steps = len(z)
    done = [[any(z[i][j] for i in range(t)) for j in range(3)] for t in range(steps + 1)]
    assert progress.done_before(z_TxK).tolist() == done[:-1]
    in_order = [sum(all(row[: j + 1]) for j in range(3)) for row in done]
    times = progress.completion_times(z_TxK)
    np.testing.assert_allclose(progress.ordered_shares(times, steps), np.array(in_order) / 3, atol=1e-6)
    expected = [success or any(in_order[later + 1] > in_order[later] for later in range(t, steps)) for t in range(steps)]
    assert progress.before_last_milestone(times, steps, success).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=30))
def test_leave_one_out(rows):
    """A unit belongs to one group."""
    y, group, unit = ([row[0] for row in rows], [row[2] % 2 for row in rows], [row[2] for row in rows])
    expected = []
    for i in range(len(rows)):
        others = [y[j] for j in range(len(rows)) if group[j] == group[i] and unit[j] != unit[i]]
        expected.append((sum(others) + 1) / (len(others) + 2))
    np.testing.assert_allclose(calibration.leave_one_out(np.array(y), np.array(group), np.array(unit)), expected)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=30))
def test_measures_of_predictions(rows):
    p, y = [row[0] / 20 for row in rows], [row[1] for row in rows]
    clipped = [min(max(one, 1e-6), 1 - 1e-6) for one in p]
    nll = -sum(math.log(q if won else 1 - q) for q, won in zip(clipped, y, strict=True)) / len(p)
    assert calibration.negative_log_likelihood(np.array(p), np.array(y)) == pytest.approx(nll)
    assert calibration.brier(np.array(p), np.array(y)) == pytest.approx(sum((q - won) ** 2 for q, won in zip(p, y, strict=True)) / len(p))
    curve = []
    for number in range(4):
        inside = [i for i in range(len(p)) if (number / 4 <= p[i] < (number + 1) / 4) or (number == 3 and p[i] == 1)]
        if inside:
            curve.append((sum(p[i] for i in inside) / len(inside), sum(y[i] for i in inside) / len(inside), len(inside)))
    assert calibration.reliability(np.array(p), np.array(y), 4) == [pytest.approx(point) for point in curve]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-8, 0), st.integers(1, 9), st.booleans()), min_size=1, max_size=20), st.integers(0, 10), SEEDS)
def test_replay(rows, current, seed):
    log_probs, tokens, success = zip(*rows, strict=True)
    expected = [(1 / math.exp(lp)) ** (1 / n) for lp, n in zip(log_probs, tokens, strict=True)]
    found = replay.perplexity(np.array(log_probs), np.array(tokens))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    keep = [won and 1 / 0.95 <= x <= 2 for x, won in zip(found, success, strict=True)]
    kept = replay.keep_by_perplexity(np.array(success), found)
    assert kept.tolist() == keep
    limited = replay.limit(kept, current, most=0.5, seed=seed)
    assert limited.sum() == min(sum(keep), current // 2) and not (limited & ~kept).any()
