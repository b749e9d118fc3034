"""Measures of a binary decision against the truth, for training and rollouts. Needs neither JAX nor a browser."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Confusion(NamedTuple):
    """Counts by decision and truth: numbers, or arrays of them, for example one of each resample. N is their sum."""

    true_positives: ArrayLike
    false_positives: ArrayLike
    false_negatives: ArrayLike
    true_negatives: ArrayLike

    @property
    def accuracy(self) -> np.ndarray:
        """(TP + TN) / N: the share of decisions that agree with the truth. NaN without decisions."""
        tp, fp, fn, tn = self._arrays()
        return _ratio(tp + tn, tp + fp + fn + tn)

    @property
    def precision(self) -> np.ndarray:
        """TP / (TP + FP): the share of positive decisions that are right. NaN without positive decisions."""
        tp, fp, _, _ = self._arrays()
        return _ratio(tp, tp + fp)

    @property
    def recall(self) -> np.ndarray:
        """TP / (TP + FN): the share of positives that are found. NaN without positives."""
        tp, _, fn, _ = self._arrays()
        return _ratio(tp, tp + fn)

    @property
    def f1(self) -> np.ndarray:
        """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall. NaN without positives and positive decisions."""
        tp, fp, fn, _ = self._arrays()
        return _ratio(2 * tp, 2 * tp + fp + fn)

    @property
    def false_positive_rate(self) -> np.ndarray:
        """FP / (FP + TN): the share of negatives that are decided to be positive. NaN without negatives."""
        _, fp, _, tn = self._arrays()
        return _ratio(fp, fp + tn)

    @property
    def kappa(self) -> np.ndarray:
        """Cohen's kappa, (p - e) / (1 - e) with p the accuracy and e = ((TP + FP) (TP + FN) + (FN + TN) (FP + TN)) / N^2 the agreement
        expected by chance (Cohen 1960). NaN if e = 1: decisions and truth are all the same."""
        tp, fp, fn, tn = self._arrays()
        n = tp + fp + fn + tn
        chance = (tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)
        return _ratio((tp + tn) * n - chance, n * n - chance)

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        tp, fp, fn, tn = (np.asarray(count, float) for count in self)
        return tp, fp, fn, tn


def confusion(decided: ArrayLike, truth: ArrayLike) -> Confusion:
    """The counts, as integers. `decided` and `truth`: bool [N]."""
    decided_N, truth_N = np.asarray(decided, bool), np.asarray(truth, bool)
    pairs = ((decided_N, truth_N), (decided_N, ~truth_N), (~decided_N, truth_N), (~decided_N, ~truth_N))
    return Confusion(*(int((one & other).sum()) for one, other in pairs))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
