"""Selection of past experience for replay."""

import numpy as np
from jaxtyping import Bool, Float, Int

LOWEST, HIGHEST = 1 / 0.95, 1 / 0.5
"""WebRL's bounds on the perplexity (arXiv 2411.02337)."""


def perplexity(log_probs: Float[np.ndarray, " N"], token_counts: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """exp(-log pi(a|s) / tokens), the inverse of the geometric mean of the token probabilities. 1 means certainty.

    Args:
        log_probs: summed over the response's tokens, in nats.
        token_counts: tokens of the response, its end token included; at least 1.
    """
    return np.exp(-np.asarray(log_probs, np.float64) / np.asarray(token_counts)).astype(np.float32)


def keep_by_perplexity(
    success: Bool[np.ndarray, " N"], perplexities: Float[np.ndarray, " N"], lowest: float = LOWEST, highest: float = HIGHEST
) -> Bool[np.ndarray, " N"]:
    """WebRL's replay filter (arXiv 2411.02337, section 3). Keeps steps of successes that are neither too easy nor too unlikely
    for the current policy: 1/0.95 <= perplexity <= 1/0.5."""
    perplexities_N = np.asarray(perplexities)
    return np.asarray(success, bool) & (perplexities_N >= lowest) & (perplexities_N <= highest)


def limit(kept: Bool[np.ndarray, " N"], current: int, most: float = 2.0, seed: int = 0) -> Bool[np.ndarray, " N"]:
    """Keeps at most `most` times `current` of the kept items, drawn at random. (WebRL: the replay is at most twice the data of
    the phase.)"""
    places = np.flatnonzero(kept)
    room = int(most * current)
    if len(places) <= room:
        return np.asarray(kept, bool).copy()
    chosen = np.random.default_rng(seed).choice(places, room, replace=False)
    limited_N = np.zeros(len(kept), bool)
    limited_N[chosen] = True
    return limited_N
