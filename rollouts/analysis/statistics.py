"""Statistics of success: intervals over tasks, the paired test, pass@k, and intervals over seeds.

Tasks are the sample. Attempts at the same task are correlated, so every interval uses one number per task, the mean over its
attempts. More attempts make that number more precise but do not make the sample larger. `benchmarks/coverage.py` simulates the
coverage.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from mira_jax.intervals import normal_quantile, wilson
from mira_jax.trajectories.summary import Rate

RATE_INTERVAL = "Wilson's score interval, with the effective number of tasks"
"""Method of `rate_interval`."""
DIFFERENCE_INTERVAL = "Tango's score interval for paired tasks, with the effective number of tasks"
"""Method of `difference_interval`."""
SEED_INTERVAL = "Student's t over seeds"
"""Method of `t_interval`."""
SIDED = "two-sided"
"""All tests are two-sided."""

PRIOR_TASKS = 0.125
"""Weight of the pseudo-observations in the variance of `rate_interval`: this weight each of a task solved at every attempt and of
one never solved. With few successes the observed variance is more often too small than too large."""
GRID = 20_000
"""Grid points per unit of difference, used if the exact differences have no smaller common denominator."""


def rate_interval(values: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean over tasks of a share in [0, 1], (low, high).

    Wilson's score interval (Wilson 1927) of `mean` with an effective number of tasks n* instead of n, as for cluster
    samples (Korn and Graubard 1998; Dean and Pagano 2015): n* = n v / s^2, where s^2 is the variance of the values,
    v = mean (1 - mean) is the largest variance that values in [0, 1] with this mean can have, and `PRIOR_TASKS` tasks of
    1 and of 0 are added to both. As s^2 is an estimate, n* is multiplied by (z / t)^2 with Student's t of n - 1 degrees.
    Where every value is 0 or 1, as with one attempt per task, s^2 = v is known and the interval is Wilson's.

    Args:
        values: shape (..., tasks), for example the share of solved attempts. Leading axes are independent samples.

    Raises:
        ValueError: no task, a value outside [0, 1] or not finite, or a level outside (0, 1).
    """
    x = _sample(values, 0.0, level)
    n, mean = x.shape[-1], x.mean(-1)
    total = n + 2 * PRIOR_TASKS
    prior_mean = (x.sum(-1) + PRIOR_TASKS) / total
    variance = ((x * x).sum(-1) + PRIOR_TASKS) / total - prior_mean**2
    effective = _effective(n, prior_mean * (1 - prior_mean), variance, level)
    return wilson(mean * n, n, level, np.where(((x == 0) | (x == 1)).all(-1), n, effective))


def task_rate(tasks: Sequence[Sequence[bool]], level: float = 0.95) -> Rate:
    """The success rate over tasks with its interval (`rate_interval`). `tasks`: the outcomes of the attempts at each."""
    values = [sum(outcomes) / len(outcomes) for outcomes in tasks]
    low, high = rate_interval(values, level)
    mean = math.fsum(values) / len(values)
    return Rate(method="", mean=mean, low=float(low), high=float(high), tasks=len(values), attempts=sum(map(len, tasks)))


def difference_interval(differences: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean over paired tasks of a difference in [-1, 1], (low, high).

    Tango's score interval (Tango 1998) of b - c, the mean gain b less the mean loss c over tasks: with one attempt per
    task these are the shares of tasks that only one of two methods solved, and the interval is Tango's. Otherwise the
    number of tasks n becomes n* = n v / s^2 as in `rate_interval`, with v = b + c - (b - c)^2 the largest variance that
    differences with these b and c can have, and n* is at most n divided by the smallest difference that is not 0: about the
    number of attempts. Without any difference n* = n.

    The ends are the D with |b - c - D| = z sqrt((2 q(D) + D (1 - D)) / n*), where q(D) is the likeliest share of
    losses, (sqrt(B^2 + 8 c D (1 - D)) - B) / 4 with B = (2 - b + c) D - b - c.

    Args:
        differences: shape (..., tasks). Leading axes are independent samples.

    Raises:
        ValueError: as `rate_interval`, with values outside [-1, 1].
    """
    d = _sample(differences, -1.0, level)
    n, mean = d.shape[-1], d.mean(-1)
    gain, loss = np.maximum(d, 0).mean(-1), np.maximum(-d, 0).mean(-1)
    most, variance = gain + loss - mean**2, (d * d).mean(-1) - mean**2
    whole = ((d == 0) | (np.abs(d) == 1)).all(-1)
    finest = np.abs(d).min(-1, where=d != 0, initial=1)
    effective = np.where(whole, n, np.minimum(_effective(n, most, variance, level), n / finest))
    z = normal_quantile(level)

    def inside(delta: np.ndarray) -> np.ndarray:
        b = (2 - mean) * delta - gain - loss
        q = (np.sqrt(np.maximum(b * b + 8 * loss * delta * (1 - delta), 0)) - b) / 4
        return (mean - delta) ** 2 <= z * z * np.maximum(2 * q + delta * (1 - delta), 0) / effective

    return _bisect(inside, mean, -1.0), _bisect(inside, mean, 1.0)


def newcombe(first: Rate, second: Rate) -> tuple[float, float]:
    """Interval of the difference of two rates, first less second, (low, high), from the intervals of both:
    d - sqrt((p1 - l1)^2 + (u2 - p2)^2) and d + sqrt((u1 - p1)^2 + (p2 - l2)^2)    (Newcombe 1998, method 10, with `rate_interval`).

    The rates are taken as independent.
    """
    difference = first.mean - second.mean
    low = difference - math.hypot(first.mean - first.low, second.high - second.mean)
    return low, difference + math.hypot(first.high - first.mean, second.mean - second.low)


def sign_flip(differences: Sequence[Fraction]) -> float:
    """Exact two-sided sign-flip test: P(|sum of e_i d_i| >= |sum of d_i|) with fair independent signs e_i    (Fisher 1935).

    Exact where the two methods are equally good at every task (or every seed), for then the sign of a difference is a
    coin. With differences of -1, 0 and 1 it is McNemar's exact test. 1 where nothing differs.

    The distribution is built value by value on the multiples of the differences' common denominator; where that is
    above `GRID`, differences are rounded to multiples of 1 / GRID and the p value is rounded up accordingly.

    Raises:
        ValueError: no differences.
    """
    if not differences:
        raise ValueError("no differences to test")
    unit = math.lcm(*(Fraction(one).denominator for one in differences))
    exact = unit <= GRID
    steps = [abs(round(one * (unit if exact else GRID))) for one in differences]
    observed = abs(sum(round(one * (unit if exact else GRID)) for one in differences)) - (0 if exact else len(differences))
    chances = np.ones(1)
    for step in (step for step in steps if step):
        chances = np.concatenate([chances, np.zeros(step)]) / 2
        chances[step:] += chances[:-step].copy()
    # chances[i] is of the sum 2 i - total.
    sums = np.abs(2 * np.arange(len(chances)) - sum(steps))
    return min(1.0, float(chances[sums >= observed].sum()))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's (1979) adjusted p values of several comparisons: the i-th smallest of m is multiplied by m - i + 1, and is at least the
    one before it."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    steps = [min(1.0, (len(ordered) - rank) * p_values[name]) for rank, name in enumerate(ordered)]
    return dict(zip(ordered, np.maximum.accumulate(steps).tolist(), strict=True))


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of a mean: mean +- t s / sqrt(n), t of n - 1 degrees. None for a single value, or if all values are equal."""
    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / max(1, n - 1))
    if deviation <= 1e-12:
        return None
    half = t_quantile(level, n - 1) * deviation / math.sqrt(n)
    return mean - half, mean + half


def pass_at_k(attempts: int, successes: int, k: int) -> float:
    """The unbiased estimate of P(at least one of k attempts succeeds): 1 - C(n-c, k) / C(n, k)    (Chen et al. 2021).

    Raises:
        ValueError: k outside [1, attempts], or successes outside [0, attempts].
    """
    if not 0 <= successes <= attempts:
        raise ValueError(f"{successes} successes of {attempts} attempts")
    if not 1 <= k <= attempts:
        raise ValueError(f"k = {k}: expected 1 to the number of attempts, {attempts}")
    return 1 - math.comb(attempts - successes, k) / math.comb(attempts, k)


@functools.lru_cache(maxsize=256)
def t_quantile(level: float, degrees: int) -> float:
    """t with P(|T| <= t) = level, T Student's with `degrees` of freedom, by bisection of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        angle = (low + high) / 2
        low, high = (angle, high) if _t_within(angle, degrees) < level else (low, angle)
    return math.sqrt(degrees) * math.tan(low)


def _t_within(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle))."""
    odd, cosine, total = degrees % 2, math.cos(angle), 0.0
    term = cosine if odd else 1.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def _effective(n: int, most: np.ndarray, variance: np.ndarray, level: float) -> np.ndarray:
    """n most / variance, reduced because the variance is an estimate."""
    if n < 2:
        return np.full(np.shape(most), float(n))
    correction = (normal_quantile(level) / t_quantile(level, n - 1)) ** 2
    return n * correction * most / np.maximum(variance, 1e-12)


def _sample(values: ArrayLike, least: float, level: float) -> np.ndarray:
    sample = np.asarray(values, float)
    if not sample.shape or not sample.shape[-1]:
        raise ValueError("no tasks")
    if not ((sample >= least) & (sample <= 1)).all():
        raise ValueError(f"values outside [{least:g}, 1], or not finite")
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    return sample


def _bisect(inside: Callable[[np.ndarray], np.ndarray], start: np.ndarray, end: float) -> np.ndarray:
    """Returns the last point from `start` towards `end` that is inside."""
    good, bad = np.array(start, float), np.full(np.shape(start), end)
    for _ in range(60):
        middle = (good + bad) / 2
        within = inside(middle)
        good, bad = np.where(within, middle, good), np.where(within, bad, middle)
    return good
