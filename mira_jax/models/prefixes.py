"""Prefix cache: keys and values of recent prompts, reused for new prompts with the same beginning."""

import collections
from collections.abc import Sequence

import jax
import numpy as np

from mira_jax.models.gemma3 import Cache

PART = 256
"""Prompts are prefilled in parts of this many tokens, and whole parts are reused. A reused part was computed by the same program from
the same inputs as a new one, so reuse changes no bit of a completion, in any dtype."""


class Prefixes:
    """Caches of recent prompts, limited by memory. The least recently used one is evicted first.

    Not thread-safe: the sampler's thread owns it.
    """

    def __init__(self, limit: int):
        """`limit`: maximum bytes of keys and values. 0 disables the cache."""
        self.limit = limit
        self.bytes = 0
        self.hits = 0
        """Number of prompts that shared a prefix with a cached prompt."""
        self.tokens = 0
        """Number of prompt tokens that were reused."""
        self._kept: collections.OrderedDict[bytes, tuple[np.ndarray, Cache]] = collections.OrderedDict()

    def find(self, prompt: Sequence[int]) -> tuple[int, Cache | None]:
        """The length of the longest cached prefix of `prompt` in whole parts, and the cache that contains it. (0, None) if there is none.

        The last token of `prompt` is never included: its hidden state must be computed.
        """
        wanted = np.asarray(prompt, np.int32)
        most, best = 0, None
        for key, (tokens, _) in self._kept.items():
            count = _common(wanted[:-1], tokens) // PART * PART
            if count > most:
                most, best = count, key
        if best is None:
            return 0, None
        self._kept.move_to_end(best)
        self.hits += 1
        self.tokens += most
        return most, self._kept[best][1]

    def keep(self, prompt: Sequence[int], cache: Cache) -> None:
        """Stores the cache of `prompt`, one row, unless it is too short to be useful or too large."""
        tokens = np.asarray(prompt, np.int32)
        size = _bytes(cache)
        if len(tokens) <= PART or size > self.limit:
            return
        self._drop(tokens.tobytes())
        self._kept[tokens.tobytes()] = tokens, cache
        self.bytes += size
        while self.bytes > self.limit:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Removes all prompts."""
        self._kept.clear()
        self.bytes = 0

    def _drop(self, key: bytes) -> None:
        if key in self._kept:
            self.bytes -= _bytes(self._kept.pop(key)[1])


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """The length of the common prefix."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def _bytes(cache: Cache) -> int:
    return sum(array.nbytes for array in jax.tree.leaves(cache.layers))
