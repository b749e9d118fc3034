"""Statistics against scipy, published examples, enumeration and simulation."""

import itertools
import math
from fractions import Fraction

import numpy
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rollouts.analysis import statistics
from rollouts.analysis.statistics import difference_interval, holm, rate_interval, sign_flip


def whole(wins, losses, ties):
    return [1] * wins + [-1] * losses + [0] * ties


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_with_one_attempt_per_task_a_rate_has_wilsons_interval(successes, failures, level):
    if successes + failures == 0:
        return
    expected = scipy.stats.binomtest(successes, successes + failures).proportion_ci(confidence_level=level, method="wilson")
    assert rate_interval([1] * successes + [0] * failures, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_a_known_case():
    low, high = rate_interval([1] * 71 + [0] * 94)  # 43.0 % of WebArena-Lite
    assert (round(float(low), 4), round(float(high), 4)) == (0.3572, 0.5066)


@pytest.mark.parametrize(
    ("table", "expected"),
    # Airway hyper-responsiveness before and after stem cell transplantation (Bentur et al. 2009), by Fagerland, Lydersen and
    # Laake (2014): Tango's interval from -0.517 to -0.026.
    [(whole(1, 7, 13), (-0.517, -0.026))],
)
def test_with_one_attempt_per_task_a_difference_has_tangos_interval(table, expected):
    assert tuple(round(float(end), 3) for end in difference_interval(table)) == expected


def likeliest(wins, losses, n, delta):
    """The greatest log-likelihood over the share of losses q, where wins have the share q + delta: without the closed form."""

    def minus(q):
        parts = ((wins, q + delta), (losses, q), (n - wins - losses, 1 - 2 * q - delta))
        return -sum(count * math.log(share) for count, share in parts if count)

    low, high = max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12
    return scipy.optimize.minimize_scalar(minus, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x


@pytest.mark.parametrize(("wins", "losses", "ties"), [(13, 3, 134), (27, 1, 122), (2, 18, 130), (5, 5, 30), (9, 2, 4)])
def test_the_ends_of_the_difference_solve_tangos_equation(wins, losses, ties):
    n = wins + losses + ties
    for delta in map(float, difference_interval(whole(wins, losses, ties))):
        q = likeliest(wins, losses, n, delta)
        score = (wins - losses - n * delta) / math.sqrt(n * (2 * q + delta - delta**2))
        assert abs(score) == pytest.approx(1.959964, abs=1e-3)


@pytest.mark.parametrize("n", [40, 150, 300])
def test_nothing_and_everything_still_have_a_width(n):
    """At least as wide as what no success in n tasks leaves possible at the same level, 1 - 0.05^(1/n) one-sided."""
    at_most = 1 - 0.05 ** (1 / n)
    for values in ([0.0] * n, [1.0] * n):
        low, high = rate_interval(values)
        assert at_most < high - low < 2 * at_most
    low, high = difference_interval([0.0] * n)
    assert -2 * at_most < low < -at_most and at_most < high < 2 * at_most
    low, high = difference_interval([0.5] * n)
    assert high - low > 0.05


def draw(rng, tasks, attempts, rate, correlation, repeats):
    """(successes of [repeats, tasks], the tasks' probabilities): beta-binomial with this correlation within a task."""
    if correlation:
        size = 1 / correlation - 1
        chances = rng.beta(rate * size, (1 - rate) * size, size=(repeats, tasks))
    else:
        chances = numpy.full((repeats, tasks), rate)
    return rng.binomial(attempts, chances), chances


def covered(interval, truth):
    low, high = interval
    return numpy.mean((low <= truth) & (truth <= high))


RATES = (0.03, 0.1, 0.5, 0.9)


@pytest.mark.parametrize("tasks", [40, 150, 300])
@pytest.mark.parametrize(("attempts", "correlation"), [(1, 0.0), (4, 0.1), (4, 0.5), (8, 0.1), (8, 0.5)])
def test_the_interval_of_a_rate_covers_it(tasks, attempts, correlation):
    """93 to 97 % wherever three solved and three unsolved tasks or more are expected. With 0.03 of 40 tasks, where few
    counts are possible, it may cover more, but not less. benchmarks/coverage.py has the whole grid."""
    rng = numpy.random.default_rng(tasks + attempts)
    for rate in RATES:
        successes, _ = draw(rng, tasks, attempts, rate, correlation, repeats=4000)
        share = covered(rate_interval(successes / attempts), rate)
        scarce = tasks * min(rate, 1 - rate) < 3
        assert 0.93 <= share <= (0.99 if scarce else 0.97), (rate, share)


@pytest.mark.parametrize("correlation", [0.1, 0.5])
def test_intervals_that_take_attempts_for_independent_do_not(correlation):
    """What this module replaces: Wilson's interval over episodes."""
    successes, _ = draw(numpy.random.default_rng(0), 150, 8, 0.5, correlation, repeats=2000)
    assert covered(statistics.wilson(successes.sum(-1), 150 * 8), 0.5) < 0.9


@pytest.mark.parametrize("k", [2, 4, 8])
def test_the_interval_of_pass_at_k_covers_it(k):
    table = numpy.array([statistics.pass_at_k(8, count, k) for count in range(9)])
    successes, _ = draw(numpy.random.default_rng(k), 100, 8, 0.3, 0.4, repeats=4000)
    size = 1 / 0.4 - 1
    beta = scipy.stats.beta(0.3 * size, 0.7 * size)
    truth = 1 - beta.expect(lambda chance: (1 - chance) ** k)
    assert 0.93 <= covered(rate_interval(table[successes]), truth) <= 0.97


@pytest.mark.parametrize(("attempts", "correlation"), [(1, 0.5), (4, 0.1), (4, 0.5), (8, 0.1), (8, 0.5)])
@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_the_interval_of_a_paired_difference_covers_it(attempts, correlation, gain):
    rng = numpy.random.default_rng(attempts)
    for rate in (0.3, 0.6, 0.85):
        first, chances = draw(rng, 100, attempts, rate, correlation, repeats=3000)
        second = rng.binomial(attempts, chances + gain / (1 - rate) * (1 - chances))
        share = covered(difference_interval((second - first) / attempts), gain)
        assert 0.93 <= share <= 0.975, (rate, share)


@pytest.mark.parametrize(("attempts", "least"), [(1, 0.0), (4, 0.02), (8, 0.02)])
def test_the_paired_test_keeps_its_level(attempts, least):
    """Tasks differ, methods do not: p < 0.05 at most in 5 % of comparisons (plus the noise of 800). One attempt has few
    discordant tasks, and an exact test of few is conservative."""
    rng = numpy.random.default_rng(attempts)
    first, chances = draw(rng, 60, attempts, 0.4, 0.3, repeats=800)
    second = rng.binomial(attempts, chances)
    values = [sign_flip([Fraction(int(one), attempts) for one in row]) for row in second - first]
    assert least <= numpy.mean(numpy.array(values) < 0.05) <= 0.07


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 20))
def test_with_one_attempt_per_task_the_test_is_mcnemars(wins, losses, ties):
    if wins + losses + ties == 0:
        return
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_flip([Fraction(one) for one in whole(wins, losses, ties)]) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.fractions(-1, 1, max_denominator=8), min_size=1, max_size=7))
def test_the_sign_flip_test_equals_enumeration(differences):
    observed = abs(sum(differences))
    flips = itertools.product((1, -1), repeat=len(differences))
    extreme = sum(abs(sum(sign * one for sign, one in zip(signs, differences, strict=True))) >= observed for signs in flips)
    assert sign_flip(differences) == pytest.approx(extreme / 2 ** len(differences), rel=1e-9)


def test_the_sign_flip_test_equals_scipy():
    differences = [Fraction(2, 15), Fraction(26, 150), Fraction(28, 150), Fraction(-1, 150), Fraction(1, 10)]
    expected = scipy.stats.permutation_test(
        ([float(one) for one in differences],), numpy.sum, permutation_type="samples", n_resamples=numpy.inf
    ).pvalue
    assert sign_flip(differences) == pytest.approx(expected)


def test_differences_without_a_small_common_denominator_never_give_too_small_a_p():
    chance = numpy.random.default_rng(3)
    differences = [Fraction(int(chance.integers(-d, d + 1)), d) for d in (97, 89, 83, 79, 73, 71, 67, 61, 59, 53)]
    signs = numpy.array(list(itertools.product((1, -1), repeat=10)))
    sums = numpy.abs(signs @ numpy.array([float(one) for one in differences]))
    exact = numpy.mean(sums >= abs(float(sum(differences))) - 1e-12)
    assert exact <= sign_flip(differences) <= exact + 0.01


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_students_quantile_equals_scipy(level):
    for degrees in (1, 2, 3, 4, 5, 10, 39, 40, 149, 300, 811):
        assert statistics.t_quantile(level, degrees) == pytest.approx(scipy.stats.t.ppf((1 + level) / 2, degrees), rel=1e-9)


def test_the_interval_over_seeds_equals_scipy():
    values = [10 / 150, 26 / 150, 28 / 150]
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert statistics.t_interval(values) == pytest.approx((expected.low, expected.high))
    assert statistics.t_interval([0.1]) is None and statistics.t_interval([0.1, 0.1]) is None


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


@pytest.mark.parametrize(
    "call",
    [
        lambda: rate_interval([]),
        lambda: rate_interval([1.5]),
        lambda: rate_interval([-0.1]),
        lambda: rate_interval([0.5, math.nan]),
        lambda: rate_interval([0.5], level=1.0),
        lambda: difference_interval([-1.5]),
        lambda: difference_interval([math.inf]),
        lambda: sign_flip([]),
        lambda: statistics.pass_at_k(3, 1, 4),
        lambda: statistics.pass_at_k(3, 4, 1),
    ],
)
def test_impossible_numbers_are_refused(call):
    with pytest.raises(ValueError):
        call()


def test_holm_of_a_worked_case():
    """4 x .005, 3 x .01, then 2 x .03 = .06, and 1 x .04, which must not be below the .06 before it."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
