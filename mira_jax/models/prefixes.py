"""Prompts read lately, kept so that what a new prompt begins with need not be read again."""

import collections
from collections.abc import Sequence

import jax
import numpy as np

from mira_jax.models.gemma3 import Cache

LEAST = 256
"""Fewer tokens than this are sooner read again than found, copied and read on from."""


class Prefixes:
    """The caches of the prompts read last, within a limit of memory; the one unused for longest goes first.

    Not thread-safe: the sampler's thread owns it.
    """

    def __init__(self, limit: int):
        """`limit`: bytes of keys and values; 0 keeps nothing."""
        self.limit = limit
        self.bytes = 0
        self.hits = 0
        """Prompts that began like one that was kept."""
        self.tokens = 0
        """Prompt tokens that were not read again."""
        self._kept: collections.OrderedDict[bytes, tuple[np.ndarray, Cache]] = collections.OrderedDict()

    def find(self, prompt: Sequence[int]) -> tuple[int, Cache | None]:
        """How many tokens of `prompt` are the beginning of a kept one, and that one's cache; (0, None) if too few.

        The last token of `prompt` is never among them: what follows it has to be worked out.
        """
        if len(prompt) <= LEAST:
            return 0, None
        wanted = np.asarray(prompt, np.int32)
        most, best = LEAST - 1, None
        for key, (tokens, _) in self._kept.items():
            count = _common(wanted[:-1], tokens)
            if count > most:
                most, best = count, key
        if best is None:
            return 0, None
        self._kept.move_to_end(best)
        self.hits += 1
        self.tokens += most
        return most, self._kept[best][1]

    def keep(self, prompt: Sequence[int], cache: Cache) -> None:
        """Keeps the cache of `prompt`, one row, unless it is too short to be of use or too large to be kept."""
        tokens = np.asarray(prompt, np.int32)
        size = _bytes(cache)
        if len(tokens) <= LEAST or size > self.limit:
            return
        self._drop(tokens.tobytes())
        self._kept[tokens.tobytes()] = tokens, cache
        self.bytes += size
        while self.bytes > self.limit:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Forgets all prompts."""
        self._kept.clear()
        self.bytes = 0

    def _drop(self, key: bytes) -> None:
        if key in self._kept:
            self.bytes -= _bytes(self._kept.pop(key)[1])


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """The length of the common beginning."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def _bytes(cache: Cache) -> int:
    return sum(array.nbytes for array in jax.tree.leaves((cache.groups, cache.tail)))
