"""Measures of predicted probabilities against outcomes. N predictions p in [0, 1], N outcomes y in {0, 1}."""

import numpy as np
from jaxtyping import Bool, Float, Int

SMALLEST = 1e-6
"""Probabilities are clipped to [SMALLEST, 1 - SMALLEST] before logarithms."""


def negative_log_likelihood(p: Float[np.ndarray, " N"], y: Bool[np.ndarray, " N"]) -> float:
    """-mean[ y log p + (1 - y) log(1 - p) ], in nats."""
    p_N = np.clip(np.asarray(p, np.float64), SMALLEST, 1 - SMALLEST)
    return float(-np.mean(np.where(np.asarray(y, bool), np.log(p_N), np.log1p(-p_N))))


def brier(p: Float[np.ndarray, " N"], y: Bool[np.ndarray, " N"]) -> float:
    """mean (p - y)^2 (Brier 1950)."""
    return float(np.mean(np.square(np.asarray(p, np.float64) - np.asarray(y, np.float64))))


def auroc(score: Float[np.ndarray, " N"], y: Bool[np.ndarray, " N"]) -> float:
    """The probability that a positive scores higher than a negative, ties counted as one half (Mann-Whitney U / (positives x
    negatives)). NaN without positives or without negatives."""
    score_N, y_N = np.asarray(score, np.float64), np.asarray(y, bool)
    positives, negatives = int(y_N.sum()), int((~y_N).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[inverse][y_N].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def reliability(
    p: Float[np.ndarray, " N"], y: Bool[np.ndarray, " N"] | Float[np.ndarray, " N"], bins: int = 10
) -> list[tuple[float, float, int]]:
    """(mean of p, mean of y, count) of each non-empty bin of equal width."""
    p_N, y_N = np.asarray(p, np.float64), np.asarray(y, np.float64)
    bin_N = np.minimum((p_N * bins).astype(int), bins - 1)
    found = ((bin_N == number) for number in range(bins))
    return [(float(p_N[inside].mean()), float(y_N[inside].mean()), int(inside.sum())) for inside in found if inside.any()]


def leave_one_out(y: Bool[np.ndarray, " N"], group: Int[np.ndarray, " N"], unit: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """A baseline: the mean outcome of the other units of the same group, with one success and one failure added (Laplace).

    Args:
        y: equal within a unit, for example the outcome of an episode's task at each of its steps.
        group: for example the template.
        unit: the unit to leave out, for example the task.
    """
    y_N, group_N, unit_N = np.asarray(y, np.float64), np.asarray(group), np.asarray(unit)
    _, of_group = np.unique(group_N, return_inverse=True)
    _, of_unit = np.unique(unit_N, return_inverse=True)
    sums, counts = np.bincount(of_group, y_N), np.bincount(of_group)
    own_sums, own_counts = np.bincount(of_unit, y_N), np.bincount(of_unit)
    return (sums[of_group] - own_sums[of_unit] + 1) / (counts[of_group] - own_counts[of_unit] + 2)
