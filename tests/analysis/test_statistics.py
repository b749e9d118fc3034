"""Statistics against scipy and values worked out by hand."""

import itertools

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rollouts.analysis import statistics


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


@pytest.mark.parametrize(("attempts", "successes", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 4), (7, 5, 3)])
def test_pass_at_k_equals_enumeration(attempts, successes, k):
    outcomes = [index < successes for index in range(attempts)]
    draws = list(itertools.combinations(outcomes, k))
    assert statistics.pass_at_k(attempts, successes, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.wilson(3, 2),
        lambda: statistics.wilson(-1, 2),
        lambda: statistics.wilson(1, 2, level=1.0),
        lambda: statistics.sign_test(-1, 2),
        lambda: statistics.pass_at_k(3, 1, 4),
        lambda: statistics.pass_at_k(3, 4, 1),
    ],
)
def test_impossible_counts_are_refused(call):
    with pytest.raises(ValueError):
        call()
