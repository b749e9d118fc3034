"""Which prompts are kept, found and forgotten."""

import jax.numpy as jnp
import pytest

from mira_jax.models.gemma3 import Cache
from mira_jax.models.prefixes import PART, Prefixes

SIZE = 2 * 4 * 16
"""Bytes of the caches below."""


def cache() -> Cache:
    return Cache([(jnp.zeros((1, 1, 4, 4)), jnp.zeros((1, 1, 4, 4)))], jnp.zeros(1, jnp.int32))


@pytest.fixture
def heads() -> list[list[int]]:
    """Three beginnings that have nothing in common."""
    return [[word] * (PART + 40) for word in (1, 2, 3)]


def test_the_longest_common_beginning_in_whole_parts_is_found_less_the_last_token(heads):
    prefixes = Prefixes(10 * SIZE)
    first, second = cache(), cache()
    prefixes.keep(heads[0] + [7] * PART, first)
    prefixes.keep(heads[0] + [8] * PART, second)
    assert prefixes.find(heads[0] + [8] * (PART - 40) + [9]) == (2 * PART, second)
    assert prefixes.find(heads[0] + [8] * (PART - 40)) == (PART, first)
    assert prefixes.find(heads[0] + [8, 9])[0] == PART
    assert prefixes.find(heads[1]) == (0, None)
    assert (prefixes.hits, prefixes.tokens) == (3, 4 * PART)


def test_short_prompts_are_neither_kept_nor_found(heads):
    prefixes = Prefixes(10 * SIZE)
    prefixes.keep(heads[0][:PART], cache())
    assert prefixes.bytes == 0
    prefixes.keep(heads[0], cache())
    assert prefixes.find(heads[0][: PART - 1] + heads[1]) == prefixes.find(heads[0][:PART]) == (0, None)
    assert prefixes.find(heads[0][:PART] + heads[1])[0] == PART


def test_what_was_unused_for_longest_goes_when_memory_is_short(heads):
    prefixes = Prefixes(2 * SIZE + SIZE // 2)
    for head in heads[:2]:
        prefixes.keep(head, cache())
    prefixes.find(heads[0])
    prefixes.keep(heads[2], cache())
    assert prefixes.bytes == 2 * SIZE
    assert [prefixes.find(head)[1] is not None for head in heads] == [True, False, True]


def test_the_same_prompt_is_kept_once_and_none_without_memory(heads):
    prefixes, none = Prefixes(10 * SIZE), Prefixes(SIZE - 1)
    for _ in range(2):
        prefixes.keep(heads[0], cache())
        none.keep(heads[0], cache())
    assert (prefixes.bytes, none.bytes) == (SIZE, 0)
    prefixes.clear()
    assert prefixes.bytes == 0 and prefixes.find(heads[0]) == (0, None)
