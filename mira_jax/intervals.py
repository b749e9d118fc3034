"""Wilson's interval of a probability, for training and rollouts. Needs neither JAX nor a browser."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike


def wilson(successes: ArrayLike, n: ArrayLike, level: float = 0.95, effective: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a success probability, (low, high) in [0, 1].

    With p = successes / n, z the normal quantile at (1 + level) / 2 and m = `effective` (n if None):
    (p + z^2/2m +- z sqrt(p (1 - p) / m + z^2 / 4m^2)) / (1 + z^2/m)    (Wilson 1927).
    """
    p, m = np.asarray(successes, float) / n, np.asarray(n if effective is None else effective, float)
    z = normal_quantile(level)
    centre, scale = p + z * z / (2 * m), 1 + z * z / m
    half = z * np.sqrt(p * (1 - p) / m + z * z / (4 * m * m))
    return np.where(p == 0, 0.0, (centre - half) / scale), np.where(p == 1, 1.0, (centre + half) / scale)


def share_interval(hits: ArrayLike, groups: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of the share of `hits`, (low, high), where items of the same group may be correlated.

    The number of items n is divided by the design effect: the variance of the share over groups, k / (k - 1) sum_g (sum of hits - p
    over g)^2 / n^2, relative to p (1 - p) / n. The effective number is at most n. It is n if every group has one item, and the number
    of groups k if all hits are equal. (0, 1) without items.

    Args:
        hits: bool [N].
        groups: [N], for example the task of each episode.
    """
    hits_N = np.asarray(hits, bool)
    n = len(hits_N)
    if not n:
        return 0.0, 1.0
    _, of_group = np.unique(np.asarray(groups), return_inverse=True)
    k, p = int(of_group.max()) + 1, float(hits_N.mean())
    effective = float(k)
    if k < n and 0 < p < 1 and k > 1:
        variance = k / (k - 1) * float(np.square(np.bincount(of_group, hits_N - p)).sum()) / n**2
        effective = min(float(n), p * (1 - p) / variance) if variance > 0 else float(n)
    low, high = wilson(int(hits_N.sum()), n, level, effective)
    return float(low), float(high)


def normal_quantile(level: float) -> float:
    """z with P(|Z| <= z) = level, Z standard normal."""
    return NormalDist().inv_cdf((1 + level) / 2)
