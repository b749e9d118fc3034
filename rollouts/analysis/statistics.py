"""Statistics of success counts: intervals, paired tests, pass@k. All exact, save Wilson's interval and the bootstrap's."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

RESAMPLES = 10_000
"""Of a bootstrap."""
BOOTSTRAP = f"percentile bootstrap over tasks, {RESAMPLES:,} resamples, seed 0"
"""What `bootstrap_mean` does unless told otherwise."""


@dataclasses.dataclass(frozen=True)
class Rate:
    """A share of successes with its interval, all in [0, 1]."""

    mean: float
    low: float
    high: float
    n: int
    """Episodes counted; of pass@k, tasks."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two methods on the same tasks."""

    wins: int
    """Tasks that only the treatment solved."""
    losses: int
    """Tasks that only the baseline solved."""
    ties: int
    """Tasks that both solved, or neither."""
    p_value: float
    """One-sided exact sign test, see `sign_test`."""


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success probability, (low, high) in [0, 1].

    With p = successes / n and z the normal quantile at (1 + level) / 2:
    (p + z^2/2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2/n)    (Wilson 1927).
    No trials say nothing: n = 0 gives (0, 1).

    Raises:
        ValueError: successes outside [0, n], or a level outside (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def rate(successes: int, n: int, level: float = 0.95) -> Rate:
    """The share with Wilson's interval. The share of nothing is 0, with interval (0, 1)."""
    low, high = wilson(successes, n, level)
    return Rate(successes / n if n else 0.0, low, high, n)


def sign_test(wins: int, losses: int) -> float:
    """One-sided exact sign test: P(X >= wins), X ~ Binomial(wins + losses, 1/2). 1 where there is no win and no loss.

    Small means that so many wins would be unlikely if the treatment were no better than the baseline.
    Ties are left out, as the test requires.

    Raises:
        ValueError: a negative count.
    """
    n = _discordant(wins, losses)
    return _upper_tail(wins, n)


def mcnemar_exact(wins: int, losses: int) -> float:
    """Two-sided exact McNemar test over the discordant pairs: min(1, 2 P(X >= max(wins, losses))). Raises as `sign_test`."""
    n = _discordant(wins, losses)
    return min(1.0, 2 * _upper_tail(max(wins, losses), n))


def compare(baseline: Mapping[str, bool], treatment: Mapping[str, bool]) -> Comparison:
    """Pairs two methods by key (a task, or a task and attempt); keys that only one of them has are left out."""
    wins = losses = ties = 0
    for key, solved in treatment.items():
        if key not in baseline:
            continue
        if solved == baseline[key]:
            ties += 1
        elif solved:
            wins += 1
        else:
            losses += 1
    return Comparison(wins, losses, ties, sign_test(wins, losses))


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


def pass_at(tries: Sequence[tuple[int, int]], level: float = 0.95) -> dict[int, Rate]:
    """pass@k for k = 1, 2, 4, ... and the most attempts that a task has: the mean over tasks, with its bootstrap interval.

    A task with fewer than k attempts, where some were lost, does not count for that k.

    Args:
        tries: (attempts, successes) of each task, at least one attempt each.
    """
    most = max((attempts for attempts, _ in tries), default=0)
    rates = {}
    for k in sorted({*(2**power for power in range(most.bit_length())), most} - {0}):
        estimates = [pass_at_k(attempts, successes, k) for attempts, successes in tries if attempts >= k]
        rates[k] = Rate(math.fsum(estimates) / len(estimates), *bootstrap_mean(estimates, level), len(estimates))
    return rates


def bootstrap_mean(values: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean, (low, high): the same for the same arguments.

    Each resample draws as many values as there are, with replacement; the ends are the quantiles (1 -+ level) / 2 of
    the resamples' means    (Efron 1979). Values that are all equal give an interval without width.

    Raises:
        ValueError: no values, or a level outside (0, 1).
    """
    if not len(values):
        raise ValueError("no values to resample")
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    # How often a resample draws each distinct value is multinomial: the same distribution, and less to draw.
    distinct, counts = np.unique(np.asarray(values, float), return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=resamples)
    low, high = np.quantile(draws @ distinct / len(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _discordant(wins: int, losses: int) -> int:
    if wins < 0 or losses < 0:
        raise ValueError(f"{wins} wins and {losses} losses: counts can't be negative")
    return wins + losses


def _upper_tail(at_least: int, n: int) -> float:
    """P(X >= at_least), X ~ Binomial(n, 1/2), in integers until the last division."""
    return sum(math.comb(n, count) for count in range(at_least, n + 1)) / 2**n
