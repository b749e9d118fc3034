"""Measures of a binary decision against the truth. N decisions."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool


class Confusion(NamedTuple):
    """Counts by decision and truth."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def accuracy(self) -> float:
        """(TP + TN) / N. NaN without decisions."""
        return _ratio(self.true_positives + self.true_negatives, sum(self))

    @property
    def precision(self) -> float:
        """TP / (TP + FP): the share of positive decisions that are right. NaN without positive decisions."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """TP / (TP + FN): the share of positives that are found. NaN without positives."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall. NaN without positives and positive decisions."""
        return _ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)


def confusion(decided: Bool[np.ndarray, " N"], truth: Bool[np.ndarray, " N"]) -> Confusion:
    decided_N, truth_N = np.asarray(decided, bool), np.asarray(truth, bool)
    pairs = ((decided_N, truth_N), (decided_N, ~truth_N), (~decided_N, truth_N), (~decided_N, ~truth_N))
    return Confusion(*(int((one & other).sum()) for one, other in pairs))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
