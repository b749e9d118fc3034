"""Statistics of ordered grades, from tables of weighted counts [R, rows, columns], one for each resample of a bootstrap."""

import numpy as np


def auroc(tables_RxLx2: np.ndarray) -> np.ndarray:
    """The probability that a success has a larger grade than a failure, where equal grades count half. Rows are grades in rising order,
    the columns failures and successes. NaN without successes or without failures."""
    larger, equal, pairs = _pair_counts(tables_RxLx2)
    return ratio(larger + equal / 2, pairs)


def kendall_tau(tables_RxLx2: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of grade and success: (C - D) / sqrt((N - N_grade) (N - N_success)) over N pairs of episodes, of which C are
    concordant, D discordant, and N_grade and N_success tied."""
    larger, equal, pairs = _pair_counts(tables_RxLx2)
    smaller = pairs - larger - equal
    total = _pairs_of(tables_RxLx2.sum(axis=(1, 2)))
    tied_shares = _pairs_of(tables_RxLx2.sum(axis=2)).sum(axis=1)
    tied_outcomes = _pairs_of(tables_RxLx2.sum(axis=1)).sum(axis=1)
    return ratio(larger - smaller, np.sqrt((total - tied_shares) * (total - tied_outcomes)))


def spearman(tables_RxLxM: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of rows and columns, both in rising order: Pearson's of their mean ranks."""
    rows, columns = tables_RxLxM.sum(axis=2), tables_RxLxM.sum(axis=1)
    one, other = _centred_ranks(rows), _centred_ranks(columns)
    covariance = np.einsum("rlm,rl,rm->r", tables_RxLxM, one, other)
    return ratio(covariance, np.sqrt((rows * one**2).sum(axis=1) * (columns * other**2).sum(axis=1)))


def weighted_kappa(tables_RxKxK: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights: 1 - sum_ij (i - j)^2 O_ij / sum_ij (i - j)^2 E_ij, where O_ij counts the items with grade i in
    the rows and j in the columns, and E_ij = O_i. O_.j / N is expected by chance    (Cohen 1968). NaN if rows and columns have all items
    at one and the same grade."""
    grades = np.arange(tables_RxKxK.shape[1])
    weights = np.square(grades[:, None] - grades[None, :]).astype(float)
    total = tables_RxKxK.sum(axis=(1, 2))
    rows, columns = tables_RxKxK.sum(axis=2), tables_RxKxK.sum(axis=1)
    observed = np.einsum("rij,ij->r", tables_RxKxK, weights) * total
    expected = np.einsum("ri,rj,ij->r", rows, columns, weights)
    return 1 - ratio(observed, expected)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _pair_counts(tables_RxLx2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a success and a failure, by whether the success has the larger share, an equal one, and all."""
    failures, successes = tables_RxLx2[..., 0], tables_RxLx2[..., 1]
    below = np.cumsum(failures, axis=1) - failures
    return (successes * below).sum(axis=1), (successes * failures).sum(axis=1), successes.sum(axis=1) * failures.sum(axis=1)


def _pairs_of(counts: np.ndarray) -> np.ndarray:
    return counts * (counts - 1) / 2


def _centred_ranks(counts_RxL: np.ndarray) -> np.ndarray:
    """Mean ranks of the levels, less the mean over all."""
    ranks = np.cumsum(counts_RxL, axis=1) - (counts_RxL - 1) / 2
    return ranks - (counts_RxL.sum(axis=1, keepdims=True) + 1) / 2
