"""Measures what training did to a policy: the fields of `trajectories.diagnostics.Diagnostics`. N steps."""

from collections.abc import Mapping

import numpy as np

from mira_jax.rl.advantages import room_to_rise
from mira_jax.trajectories.diagnostics import QUANTILES, Diagnostics, Distribution

BINS = 24
DIGITS = 4


def diagnostics(
    update: int,
    log_prob: np.ndarray,
    reference: np.ndarray,
    success: np.ndarray,
    tokens: np.ndarray,
    entropy: np.ndarray,
    reference_entropy: np.ndarray,
    advantage: np.ndarray | None = None,
    beta: float | None = None,
) -> Diagnostics:
    """
    Args:
        log_prob, reference: log pi and log pi_ref of the response, in nats.
        success: bool [N], whether the step's episode succeeded.
        tokens: number of response tokens.
        entropy, reference_entropy: sums over the response's tokens of the entropy of pi and of pi_ref, in nats.
        advantage: of an objective that has one.
        beta: of an objective whose loss is least at log pi - log pi_ref = A / beta.
    """
    ratio = log_prob - reference
    outcomes = {"successes": success, "failures": ~success}
    total = max(float(tokens.sum()), 1.0)
    return Diagnostics(
        update=update,
        steps=len(ratio),
        kl=_rounded(-ratio.mean()),
        entropy=_rounded(entropy.sum() / total),
        reference_entropy=_rounded(reference_entropy.sum() / total),
        log_ratio=_by_group(ratio, outcomes),
        log_ratio_by_sign=None if advantage is None else _by_group(ratio, {"positive": advantage > 0, "negative": advantage < 0}),
        advantage=None if advantage is None else _by_group(advantage, outcomes),
        room=None if advantage is None or not beta else _rounded(room_to_rise(advantage, reference, beta)),
    )


def _by_group(values: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, Distribution]:
    low, high = np.quantile(values, [0.005, 0.995])
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    rows = {}
    for name, chosen in groups.items():
        own = values[chosen].astype(np.float64)
        rows[name] = Distribution(
            steps=len(own),
            mean=_rounded(own.mean()) if len(own) else None,
            quantiles=[_rounded(value) for value in np.quantile(own, QUANTILES)] if len(own) else None,
            edges=[_rounded(edge) for edge in edges],
            counts=np.histogram(np.clip(own, low, high), edges)[0].tolist(),
        )
    return rows


def _rounded(value: float) -> float:
    return round(float(value), DIGITS)
