import numpy as np

from mira_jax.rl import replay


def test_perplexity_is_the_inverse_of_the_mean_token_probability():
    np.testing.assert_allclose(replay.perplexity(np.log([0.5**4, 1.0, 0.25]), np.array([4, 3, 1])), [2, 1, 4], rtol=1e-6)


def test_the_filter_keeps_successes_neither_too_easy_nor_too_strange():
    probabilities = np.array([0.99, 0.94, 0.7, 0.51, 0.4, 0.7])
    success = np.array([1, 1, 1, 1, 1, 0], bool)
    kept = replay.keep_by_perplexity(success, 1 / probabilities)
    assert kept.tolist() == [False, True, True, True, False, False]


def test_replay_is_at_most_twice_the_current_data():
    kept = np.array([True] * 9 + [False])
    limited = replay.limit(kept, current=3, seed=1)
    assert limited.sum() == 6 and not limited[9]
    np.testing.assert_array_equal(limited, replay.limit(kept, current=3, seed=1))
    np.testing.assert_array_equal(replay.limit(kept, current=5), kept)
