"""Group-relative advantages by hand, and against loops."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_jax.rl.groups import SPREAD, group_advantages


def test_the_advantages_of_three_groups_by_hand():
    # Group 7: rewards 1, 0, 0, 1 (one more is an infrastructure error); group 3: equal; group 5: one episode.
    rewards = np.array([1.0, 0.5, 0, 0, 0.5, 1, 1, 9])
    group = np.array([7, 3, 7, 7, 3, 5, 7, 7])
    valid = np.array([True] * 7 + [False])
    found = group_advantages(rewards, group, valid)
    np.testing.assert_allclose(found.advantages, [1, 0, -1, -1, 0, 0, 1, 0], atol=1e-5)
    assert found.used.tolist() == [True, False, True, True, False, False, True, False]
    assert (found.groups, found.without_spread, found.too_small) == (3, 1, 1)
    unscaled = group_advantages(rewards, group, valid, "none")
    np.testing.assert_allclose(unscaled.advantages, [0.5, 0, -0.5, -0.5, 0, 0, 0.5, 0], atol=1e-7)


def test_a_group_of_nothing_but_infrastructure_errors_is_too_small():
    found = group_advantages(np.array([np.nan, np.nan]), np.array([0, 0]), np.array([False, False]))
    assert found.advantages.tolist() == [0, 0] and found.too_small == 1 and not found.used.any()


def test_no_episodes():
    found = group_advantages(np.zeros(0), np.zeros(0, int), np.zeros(0, bool))
    assert len(found.advantages) == found.groups == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.25, 1.0]), st.booleans()), max_size=30))
@settings(max_examples=80, deadline=None)
def test_as_by_loops(episodes):
    group, rewards, valid = (np.array(column) for column in zip(*episodes, strict=True)) if episodes else (np.zeros(0),) * 3
    found = group_advantages(rewards, group.astype(int), valid.astype(bool))
    for i, (mine, reward, sound) in enumerate(episodes):
        others = [r for g, r, v in episodes if g == mine and v]
        spread = len(others) >= 2 and max(abs(r - np.mean(others)) for r in others) > SPREAD
        assert found.used[i] == (sound and spread)
        expected = (reward - np.mean(others)) / (np.std(others) + 1e-6) if sound and spread else 0
        np.testing.assert_allclose(found.advantages[i], expected, atol=1e-5)
    for g in set(group.tolist()):
        np.testing.assert_allclose(found.advantages[group == g].sum(), 0, atol=1e-4)
