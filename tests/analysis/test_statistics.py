"""Statistics against scipy and values worked out by hand."""

import itertools

import numpy
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rollouts.analysis import statistics


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(successes, failures, level):
    n = successes + failures
    if n == 0:
        assert statistics.wilson(0, 0, level) == (0.0, 1.0)
        return
    expected = scipy.stats.binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    assert statistics.wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_a_known_case():
    low, high = statistics.wilson(71, 165)  # 43.0 % of WebArena-Lite
    assert (round(low, 4), round(high, 4)) == (0.3572, 0.5066)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_paired_tests_equal_scipy(wins, losses):
    if wins + losses == 0:
        assert statistics.sign_test(0, 0) == statistics.mcnemar_exact(0, 0) == 1.0
        return
    one_sided = scipy.stats.binomtest(wins, wins + losses, alternative="greater").pvalue
    two_sided = scipy.stats.binomtest(wins, wins + losses).pvalue
    assert statistics.sign_test(wins, losses) == pytest.approx(one_sided, rel=1e-9)
    assert statistics.mcnemar_exact(wins, losses) == pytest.approx(two_sided, rel=1e-9)


def test_sign_test_by_hand():
    assert statistics.sign_test(5, 0) == 1 / 32
    assert statistics.sign_test(4, 1) == 6 / 32
    assert statistics.sign_test(0, 5) == 1.0
    assert statistics.mcnemar_exact(5, 0) == 2 / 32
    assert statistics.mcnemar_exact(3, 3) == 1.0


def test_compare_pairs_by_key_and_leaves_out_the_unpaired():
    baseline = {"a": False, "b": True, "c": True, "d": False, "only here": True}
    treatment = {"a": True, "b": False, "c": True, "d": False, "only there": True}
    assert statistics.compare(baseline, treatment) == statistics.Comparison(wins=1, losses=1, ties=2, p_value=0.75)


@pytest.mark.parametrize(
    ("attempts", "successes", "k"), [(n, c, k) for n in range(1, 7) for c in range(n + 1) for k in range(1, n + 1)] + [(9, 4, 3)]
)
def test_pass_at_k_equals_enumeration(attempts, successes, k):
    outcomes = [index < successes for index in range(attempts)]
    draws = list(itertools.combinations(outcomes, k))
    assert statistics.pass_at_k(attempts, successes, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_by_hand():
    assert statistics.pass_at_k(5, 2, 3) == pytest.approx(9 / 10)  # one of the ten triples has none of the two
    assert statistics.pass_at_k(10, 3, 5) == pytest.approx(11 / 12)  # 1 - 21 / 252
    assert statistics.pass_at_k(4, 1, 1) == 0.25
    assert statistics.pass_at_k(4, 1, 4) == 1.0


def test_pass_at_is_the_mean_over_tasks_that_have_the_attempts():
    rates = statistics.pass_at([(4, 1), (4, 0), (2, 2)])
    assert {k: (rate.mean, rate.n) for k, rate in rates.items()} == {1: (pytest.approx(5 / 12), 3), 2: (0.5, 3), 4: (0.5, 2)}
    assert all(0 <= rate.low <= rate.mean <= rate.high <= 1 for rate in rates.values())
    assert list(statistics.pass_at([(7, 1)])) == [1, 2, 4, 7]
    assert list(statistics.pass_at([(1, 1)])) == [1]
    assert statistics.pass_at([]) == {}


def test_the_bootstrap_of_a_share_is_binomial():
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 20, 0.3) / 20
    assert statistics.bootstrap_mean([1] * 6 + [0] * 14) == pytest.approx((low, high)) == (0.1, 0.5)
    assert statistics.bootstrap_mean([0, 1]) == (0, 1)  # the means 0, 1/2 and 1 have the chances 1/4, 1/2 and 1/4
    assert statistics.bootstrap_mean([0, 1], level=0.4) == (0.5, 0.5)


def test_the_bootstrap_equals_scipy_and_is_the_same_again():
    values = [0.0, 0.25, 0.25, 0.5, 1.0, 1.0, 0.75, 0.0, 0.0, 1.0, 0.5, 0.25]
    expected = scipy.stats.bootstrap((values,), numpy.mean, n_resamples=20_000, method="percentile", random_state=1).confidence_interval
    assert statistics.bootstrap_mean(values) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert statistics.bootstrap_mean(values) == statistics.bootstrap_mean(values[::-1])
    assert statistics.bootstrap_mean([0.5] * 9) == (0.5, 0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.wilson(3, 2),
        lambda: statistics.wilson(-1, 2),
        lambda: statistics.wilson(1, 2, level=1.0),
        lambda: statistics.sign_test(-1, 2),
        lambda: statistics.pass_at_k(3, 1, 4),
        lambda: statistics.pass_at_k(3, 4, 1),
        lambda: statistics.bootstrap_mean([]),
        lambda: statistics.bootstrap_mean([1.0], level=1.0),
    ],
)
def test_impossible_counts_are_refused(call):
    with pytest.raises(ValueError):
        call()
