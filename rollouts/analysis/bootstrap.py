"""The bootstrap over tasks: all episodes of a task are drawn together. Intervals are percentiles."""

import dataclasses
import math

import numpy as np

from mira_jax.classification import Confusion


@dataclasses.dataclass(frozen=True)
class Figure:
    """A value with its interval. NaN if it is not defined, for example precision if nothing is called a success."""

    value: float
    low: float = math.nan
    high: float = math.nan


class Bootstrap:
    """Weights of tasks: a row of ones, then one row for each resample."""

    def __init__(self, tasks: int, level: float, resamples: int, seed: int):
        self.level = level
        shares = np.full(tasks, 1 / max(tasks, 1))
        drawn = np.random.default_rng(seed).multinomial(tasks, shares, resamples) if tasks else np.zeros((resamples, 0))
        self.weights_RxT = np.concatenate([np.ones((1, tasks)), drawn])

    def sums(self, task_E: np.ndarray, values_E: np.ndarray) -> np.ndarray:
        """Weighted sums of a value of each episode, [R]."""
        return self.weights_RxT @ np.bincount(task_E, values_E, self.weights_RxT.shape[1])

    def tables(self, task_E: np.ndarray, row_E: np.ndarray, column_E: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Weighted numbers of episodes by row and column, [R, rows, columns]."""
        counts = np.zeros((self.weights_RxT.shape[1], *shape))
        np.add.at(counts, (task_E, row_E, column_E), 1)
        return (self.weights_RxT @ counts.reshape(len(counts), -1)).reshape(-1, *shape)

    def confusion(self, task_N: np.ndarray, decided_N: np.ndarray, truth_N: np.ndarray) -> Confusion:
        """Weighted counts of decisions by their truth, [R] each."""
        cells = ((decided_N, truth_N), (decided_N, ~truth_N), (~decided_N, truth_N), (~decided_N, ~truth_N))
        return Confusion(*(self.sums(task_N, one & other) for one, other in cells))

    def figure(self, values_R: np.ndarray) -> Figure:
        """The value of the first row, and the percentiles of the others. Resamples for which it is not defined are left out."""
        values_R = np.asarray(values_R, float)
        resampled = values_R[1:][np.isfinite(values_R[1:])]
        if not len(resampled) or not math.isfinite(values_R[0]):
            return Figure(float(values_R[0]))
        low, high = np.quantile(resampled, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Figure(float(values_R[0]), float(low), float(high))
