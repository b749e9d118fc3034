import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_jax.rl.progress import before_last_milestone, completion_times, done_before, ordered_shares, progress_labels

NEVER = np.inf


def milestones(first_steps, steps):
    """z after each step, each subgoal done from the given step on (None: never)."""
    return np.array([[first is not None and step >= first for first in first_steps] for step in range(steps)])


def test_the_paper_s_example():
    labels = progress_labels(np.array([2, 4, 9]), steps=9, success=True)
    np.testing.assert_allclose(labels, [0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 11 / 15, 12 / 15, 13 / 15, 14 / 15, 1], atol=1e-6)


def test_a_subgoal_done_after_step_i_is_done_in_the_state_that_follows():
    # Step 0 searches (nothing done), step 1 reaches the product (subgoal 1), step 2 puts it in the cart (subgoal 2),
    # step 3 buys (subgoal 3). The policy acted in s_0 ... s_3; s_4 is where the episode ended.
    z_TxK = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], bool)
    times_K = completion_times(z_TxK)
    assert times_K.tolist() == [2, 3, 4]
    np.testing.assert_allclose(progress_labels(times_K, 4, success=True), [0, 1 / 6, 1 / 3, 2 / 3, 1], atol=1e-6)


def test_subgoals_count_in_order_and_stay_done():
    z_TxK = np.array([[0, 1], [0, 1], [1, 0], [0, 0]], bool)  # the second was seen first, and both are lost later
    assert completion_times(z_TxK).tolist() == [3, 3]
    assert completion_times(milestones([None, 0], 3)).tolist() == [NEVER, NEVER]
    assert completion_times(np.zeros((0, 2), bool)).tolist() == [NEVER, NEVER]


def test_the_last_subgoal_of_a_success_is_anchored_to_the_end():
    early = progress_labels(np.array([2.0, 3.0]), steps=6, success=True)
    unseen = progress_labels(np.array([2.0, NEVER]), steps=6, success=True)
    np.testing.assert_allclose(early, [0, 1 / 4, 1 / 2, 5 / 8, 6 / 8, 7 / 8, 1], atol=1e-6)
    np.testing.assert_array_equal(early, unseen)


def test_a_subgoal_that_a_success_was_never_seen_to_reach_is_passed_over():
    labels = progress_labels(np.array([2.0, NEVER, NEVER, NEVER]), steps=5, success=True)
    np.testing.assert_allclose(labels, [0, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1], atol=1e-6)


def test_several_subgoals_at_once_give_the_highest():
    labels = progress_labels(np.array([2.0, 2.0, 4.0]), steps=4, success=True)
    np.testing.assert_allclose(labels, [0, 1 / 6, 2 / 3, 5 / 6, 1], atol=1e-6)


def test_a_failure_rises_to_its_last_subgoal_and_stays():
    labels = progress_labels(np.array([2.0, 4.0, NEVER]), steps=7, success=False)
    np.testing.assert_allclose(labels, [0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 2 / 3, 2 / 3, 2 / 3], atol=1e-6)
    np.testing.assert_array_equal(progress_labels(np.array([NEVER, NEVER]), 3, success=False), np.zeros(4))


def test_one_subgoal_is_a_straight_line():
    np.testing.assert_allclose(progress_labels(np.array([NEVER]), 4, success=True), [0, 0.25, 0.5, 0.75, 1])


def test_no_subgoals_have_no_progress():
    with pytest.raises(ValueError, match="subgoal"):
        progress_labels(np.zeros(0), 3, success=True)


def by_the_formula(times, steps, success):
    count = len(times)
    points = [(0, 0.0)] + [(time, j / count) for j, time in enumerate(times, 1) if time < NEVER and not (success and j == count)]
    points += [(steps, 1.0)] if success else []
    labels = []
    for t in range(steps + 1):
        j = max(index for index, (time, _) in enumerate(points) if time <= t)
        (t_j, p_j), (t_next, p_next) = points[j], points[min(j + 1, len(points) - 1)]
        w = (t - t_j) / (t_next - t_j) if t_next > t_j else 0.0
        labels.append((1 - w) * p_j + w * p_next)
    return labels


@settings(deadline=None)
@given(st.integers(1, 12), st.lists(st.one_of(st.none(), st.integers(0, 11)), min_size=1, max_size=5), st.booleans())
def test_labels_never_fall_and_agree_with_a_plain_loop(steps, first_steps, success):
    z_TxK = milestones(first_steps, steps)
    times = completion_times(z_TxK)
    labels = progress_labels(times, steps, success)

    seen_by = [next((t for t in range(1, steps + 1) if z_TxK[:t, : j + 1].any(axis=0).all()), NEVER) for j in range(len(first_steps))]
    assert times.tolist() == seen_by
    np.testing.assert_allclose(labels, by_the_formula(seen_by, steps, success), atol=1e-6)
    assert labels[0] == 0 and np.all(np.diff(labels) >= -1e-6) and labels.max() <= 1
    assert not success or labels[-1] == 1


def test_shares_in_order_and_in_any_order_by_hand():
    """Three subgoals; the first is passed over until the end: the second is done after step 1, the third after step 2."""
    z_TxK = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    times_K = completion_times(z_TxK)
    assert done_before(z_TxK).tolist() == [[False] * 3, [False] * 3, [False, True, False], [False, True, True]]
    np.testing.assert_allclose(ordered_shares(times_K, 4), [0, 0, 0, 0, 0])
    assert not before_last_milestone(times_K, 4, success=False).any()
    assert before_last_milestone(times_K, 4, success=True).all()
    z_TxK[3, 0] = True
    np.testing.assert_allclose(ordered_shares(completion_times(z_TxK), 4), [0, 0, 0, 0, 1])
    assert before_last_milestone(completion_times(z_TxK), 4, success=False).all()


def test_the_steps_after_the_last_subgoal_in_order_are_left_out():
    times_K = np.array([2.0, 3.0, NEVER])
    assert before_last_milestone(times_K, 5, success=False).tolist() == [True, True, True, False, False]
    np.testing.assert_allclose(ordered_shares(times_K, 5), [0, 0, 1 / 3, 2 / 3, 2 / 3, 2 / 3], atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 7)), min_size=1, max_size=5), st.integers(1, 8))
def test_ordered_shares_are_progress_labels_at_the_milestones(first_steps, steps):
    """At each completion time of a failure the label is the share; between them it is never below."""
    times_K = completion_times(milestones(first_steps, steps))
    shares, labels = ordered_shares(times_K, steps), progress_labels(times_K, steps, success=False)
    at = np.unique(times_K[np.isfinite(times_K)]).astype(int)
    np.testing.assert_allclose(shares[at], labels[at], atol=1e-6)
    assert (labels >= shares - 1e-6).all()
