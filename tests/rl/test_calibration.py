import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from mira_jax.rl.calibration import auroc, brier, leave_one_out, negative_log_likelihood, reliability

P = np.array([0.9, 0.8, 0.3, 0.1])
Y = np.array([True, False, True, False])


def test_by_hand():
    assert negative_log_likelihood(P, Y) == pytest.approx(-np.log([0.9, 0.2, 0.3, 0.9]).mean())
    assert brier(P, Y) == pytest.approx((0.01 + 0.64 + 0.49 + 0.01) / 4)
    assert auroc(P, Y) == pytest.approx(3 / 4)  # of the pairs (.9, .8), (.9, .1), (.3, .8), (.3, .1) one is the wrong way round
    assert auroc(np.full(4, 0.5), Y) == 0.5
    assert np.isnan(auroc(P, np.ones(4, bool)))


def test_certain_predictions_have_a_finite_likelihood():
    assert negative_log_likelihood(np.array([0.0, 1.0]), np.array([True, False])) == pytest.approx(-np.log(1e-6))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=60))
def test_auroc_is_scipy_s(pairs):
    score, y = np.array([pair[0] / 8 for pair in pairs]), np.array([pair[1] for pair in pairs])
    if y.all() or not y.any():
        assert np.isnan(auroc(score, y))
    else:
        assert auroc(score, y) == pytest.approx(mannwhitneyu(score[y], score[~y]).statistic / (y.sum() * (~y).sum()))


def test_a_calibrated_predictor_is_on_the_diagonal():
    draw = np.random.default_rng(0)
    p = draw.random(40_000)
    bins = reliability(p, draw.random(40_000) < p, bins=5)
    assert [count for _, _, count in bins] == np.histogram(p, 5, (0, 1))[0].tolist()
    for predicted, observed, _ in bins:
        assert observed == pytest.approx(predicted, abs=0.02)
    assert reliability(np.array([1.0, 0.05]), np.array([True, False])) == [(0.05, 0.0, 1), (1.0, 1.0, 1)]


def test_leave_one_out_leaves_the_whole_unit_out():
    # Two templates. Tasks 0, 1, 2 of the first: 2 steps of a success, 1 of a failure, 1 of a success. Task 3 alone in the second.
    y = np.array([1, 1, 0, 1, 1], bool)
    p = leave_one_out(y, np.array([0, 0, 0, 0, 1]), np.array([0, 0, 1, 2, 3]))
    np.testing.assert_allclose(p, [(1 + 1) / (2 + 2), (1 + 1) / (2 + 2), (3 + 1) / (3 + 2), (2 + 1) / (3 + 2), 1 / 2])
