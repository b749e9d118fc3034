"""The functions that the sampler compiles: prefill, the decode loop, and scoring. All are pure.

Dimensions: B rows of the cache, P prompts that are prefilled together, T prompt tokens (padded), S positions of a slice,
V vocabulary, K alternatives, D width.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mira_jax.models.drawing import draw
from mira_jax.models.gemma3 import Cache, Gemma3
from mira_jax.models.sharding import constrain

TOP = 20
"""Maximum number of alternative tokens whose log-probabilities are reported."""
CHUNK = 8
"""Decode steps per call of the compiled loop. This bounds how long a new prompt waits for its prefill."""
GPU_OPTIONS = {"xla_gpu_dot_merger_threshold_mb": 0}
"""Options of XLA for `advance` on GPUs. Without them, each step copies every matrix that has an adapter beside it, to make one product of
their two."""
SHORTEST = 64
"""The smallest bucket for prompt and cache lengths."""


@functools.partial(jax.tree_util.register_dataclass, meta_fields=[], data_fields=[
    "token", "log_prob", "sampling_log_prob", "top_ids", "top_log_probs", "position", "remaining", "active", "fresh", "seed", "choice",
    "temperature", "top_p", "top_k",
])  # fmt: skip
@dataclasses.dataclass
class Rows:
    """The state of each row of the cache. All arrays have the leading dimension B."""

    token: jax.Array
    """The last token drawn. Its keys and values are not in the cache yet."""
    log_prob: jax.Array
    sampling_log_prob: jax.Array
    top_ids: jax.Array
    top_log_probs: jax.Array
    position: jax.Array
    """The position of `token` in its sequence, which is the cache slot it will fill."""
    remaining: jax.Array
    """Number of tokens that may still follow `token`."""
    active: jax.Array
    fresh: jax.Array
    """`token` was drawn after the prefill and has not been returned yet."""
    seed: jax.Array
    choice: jax.Array
    temperature: jax.Array
    top_p: jax.Array
    top_k: jax.Array


def empty_rows(rows: int, top: int) -> Rows:
    """The state of rows without a prompt. `top`: K."""

    def zeros(dtype: Any, *shape: int) -> jax.Array:
        return jnp.zeros((rows, *shape), dtype)

    return Rows(
        token=zeros(jnp.int32), log_prob=zeros(jnp.float32), sampling_log_prob=zeros(jnp.float32), top_ids=zeros(jnp.int32, top),
        top_log_probs=zeros(jnp.float32, top), position=zeros(jnp.int32), remaining=zeros(jnp.int32), active=zeros(bool), fresh=zeros(bool),
        seed=zeros(jnp.uint32), choice=zeros(jnp.int32), temperature=zeros(jnp.float32), top_p=zeros(jnp.float32), top_k=zeros(jnp.int32),
    )  # fmt: skip


class SamplerFunctions:
    """Pure functions, bound to the structure of a model. `mira_jax.models.sampler.Sampler` compiles them."""

    def __init__(self, graph: Any, tree: Any, end_ids: tuple[int, ...], words: int):
        self._graph, self._tree, self._end_ids, self._words = graph, tree, end_ids, words

    def _model(self, parameters: tuple[jax.Array, ...]) -> Gemma3:
        return nnx.merge(self._graph, jax.tree.unflatten(self._tree, parameters))

    def prefill(self, parameters: Any, tokens_PxT: jax.Array, lengths_P: jax.Array) -> tuple[jax.Array, Cache]:
        """The hidden state of each prompt's last token, PxD, and a cache of P rows of length T."""
        P, T = tokens_PxT.shape
        model = self._model(parameters)
        positions = jnp.arange(T, dtype=jnp.int32)[None]
        segments = (positions < lengths_P[:, None]).astype(jnp.int32)
        hidden, cache = model(tokens_PxT, positions, segments, model.init_cache(P, T), (lengths_P - 1)[:, None])
        return hidden[:, 0], cache

    def extend(self, parameters: Any, tokens_1xT: jax.Array, cache: Cache, numbers: jax.Array) -> tuple[jax.Array, Cache]:
        """As `prefill`, for tokens that follow the cached ones. `numbers`: the number of cached tokens and of tokens that follow."""
        held, count = numbers
        model = self._model(parameters)
        segments = (jnp.arange(tokens_1xT.shape[1], dtype=jnp.int32)[None] < count).astype(jnp.int32)
        cache = dataclasses.replace(cache, lengths_B=held[None], empty=False)
        hidden, cache = model(tokens_1xT, None, segments, cache, (count - 1)[None, None])
        return hidden[:, 0], cache

    def first(self, parameters: Any, hidden_PxD: jax.Array, numbers: jax.Array, seed: jax.Array, knobs: jax.Array, top: int) -> Rows:
        """The state of one row with its first token drawn. Separate from `prefill`, which is compiled for every length. `numbers`
        begins with the place of the prompt in the batch that was prefilled."""
        place, length, max_tokens, choice, top_k = numbers
        hidden_1xD = jax.lax.dynamic_slice_in_dim(hidden_PxD, place, 1)
        row = empty_rows(1, min(TOP, self._words))
        row = dataclasses.replace(
            row, seed=seed[None], choice=choice[None], temperature=knobs[:1], top_p=knobs[1:], top_k=top_k[None], position=length[None]
        )
        row = self._draw(self._model(parameters).logits(hidden_1xD), row, top)
        remaining = max_tokens[None] - 1
        active = (remaining > 0) & ~self._ends(row.token)
        return dataclasses.replace(row, remaining=remaining, active=active, fresh=jnp.ones(1, bool))

    def insert(self, cache: Cache, rows: Rows, prefilled: Cache, entry: Rows, places: jax.Array) -> tuple[Cache, Rows]:
        """Copies one prompt's cache and state to a row of the shared ones. Older keys beyond them remain in the row, but are masked.
        `places`: the row of the prompt in `prefilled`, and the row that it gets."""
        place, row = places

        def put(whole: jax.Array, part: jax.Array) -> jax.Array:
            start = (row, *(jnp.int32(0) for _ in whole.shape[1:]))
            return jax.lax.dynamic_update_slice(whole, jax.lax.dynamic_slice_in_dim(part, place, 1), start)

        cache = dataclasses.replace(cache, layers=jax.tree.map(put, cache.layers, prefilled.layers))
        return cache, jax.tree.map(lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, row, axis=0), rows, entry)

    def resize(self, cache: Cache, length: int) -> Cache:
        """The same cache with `length` slots per row: extended, or without the last slots."""

        def one(array: jax.Array) -> jax.Array:
            array = array[..., :length, :]
            return jnp.pad(array, [*[(0, 0)] * (array.ndim - 2), (0, length - array.shape[-2]), (0, 0)])

        return dataclasses.replace(cache, layers=jax.tree.map(one, cache.layers))

    def advance(
        self, parameters: Any, cache: Cache, rows: Rows, used: jax.Array, numbers: jax.Array, top: int
    ) -> tuple[Cache, Rows, tuple]:
        """The decode loop. `numbers`: the maximum number of steps, and whether to stop when the first row ends."""
        steps, until_free = numbers[0], numbers[1] > 0
        model = self._model(parameters)
        B = rows.token.shape[0]
        every = jnp.arange(B)
        rows = dataclasses.replace(rows, active=rows.active & used, fresh=rows.fresh & used)
        started = rows.active

        out = (jnp.zeros((B, CHUNK + 1), jnp.int32), jnp.zeros((B, CHUNK + 1), jnp.float32), jnp.zeros((B, CHUNK + 1), jnp.float32),
               jnp.zeros((B, CHUNK + 1, top), jnp.int32), jnp.zeros((B, CHUNK + 1, top), jnp.float32))  # fmt: skip

        def record(out: tuple, count: jax.Array, rows: Rows, which: jax.Array) -> tuple:
            at = (every, jnp.where(which, count, CHUNK + 1))  # out of range is dropped
            values = (rows.token, rows.log_prob, rows.sampling_log_prob, rows.top_ids[:, :top], rows.top_log_probs[:, :top])
            return tuple(array.at[at].set(value, mode="drop") for array, value in zip(out, values, strict=True))

        out = record(out, jnp.zeros(B, jnp.int32), rows, rows.fresh)
        count = rows.fresh.astype(jnp.int32)
        # A prompt may have ended with its first token. The loop then stops immediately, so that the caller can return it.
        ended = jnp.any(rows.fresh & ~rows.active)
        rows = dataclasses.replace(rows, fresh=jnp.zeros(B, bool))

        def unfinished(carry: tuple) -> jax.Array:
            step, _, rows, _, _ = carry
            freed = ended | jnp.any(started & ~rows.active)
            return (step < steps) & jnp.any(rows.active) & ~(until_free & freed)

        def body(carry: tuple) -> tuple:
            step, cache, rows, out, count = carry
            hidden, cache = model(rows.token[:, None], cache=dataclasses.replace(cache, lengths_B=rows.position))
            next_rows = dataclasses.replace(rows, position=rows.position + 1, remaining=rows.remaining - 1)
            next_rows = self._draw(model.logits(hidden[:, 0]), next_rows, top)
            out = record(out, count, next_rows, rows.active)
            next_active = rows.active & (next_rows.remaining > 0) & ~self._ends(next_rows.token)
            # Inactive rows keep their state. They write their last token to the same cache slot again, which has no effect.
            merged = jax.tree.map(lambda new, old: jnp.where(rows.active.reshape((B,) + (1,) * (new.ndim - 1)), new, old), next_rows, rows)
            return step + 1, cache, dataclasses.replace(merged, active=next_active), out, count + rows.active

        taken, cache, rows, out, count = jax.lax.while_loop(unfinished, body, (jnp.int32(0), cache, rows, out, count))
        return cache, rows, (count, *out, rows.active, taken)

    def score(self, parameters: Any, tokens_1xT: jax.Array, length: jax.Array, top: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Log-probabilities of tokens 1..T-1, and the K most likely tokens. Computed in slices of positions, so T x V logits are
        never held."""
        model = self._model(parameters)
        T = tokens_1xT.shape[1]
        positions = jnp.arange(T, dtype=jnp.int32)[None]
        hidden = model(tokens_1xT, positions, (positions < length).astype(jnp.int32))[0]
        targets = jnp.roll(tokens_1xT[0], -1)

        def one(slice_: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            hidden_SxD, targets_S = slice_
            log_probs_SxV = jax.nn.log_softmax(model.logits(hidden_SxD).astype(jnp.float32))
            best, best_ids = jax.lax.top_k(log_probs_SxV[:, : self._words], top)
            return jnp.take_along_axis(log_probs_SxV, targets_S[:, None], 1)[:, 0], best_ids, best

        sliced = jax.lax.map(one, (hidden.reshape(T // SHORTEST, SHORTEST, -1), targets.reshape(T // SHORTEST, SHORTEST)))
        return jax.tree.map(lambda array: array.reshape(T, *array.shape[2:]), sliced)

    def _ends(self, token_B: jax.Array) -> jax.Array:
        return (token_B[:, None] == jnp.array(self._end_ids, jnp.int32)).any(1)

    def _draw(self, logits_BxV: jax.Array, rows: Rows, top: int) -> Rows:
        """Draws the token for `rows.position`, with its two log-probabilities and the most likely tokens."""
        # On a mesh the logits are sharded over the vocabulary. Sorting them there would cost more than gathering them.
        logits_BxV = constrain(logits_BxV.astype(jnp.float32), "batch", None)
        total = jax.nn.logsumexp(logits_BxV, -1)
        logits_BxV = logits_BxV[:, : self._words]
        token, sampling_log_prob = draw(logits_BxV, rows.temperature, rows.top_p, rows.top_k, rows.seed, rows.choice, rows.position)
        log_prob = jnp.take_along_axis(logits_BxV, token[:, None], 1)[:, 0] - total
        rows = dataclasses.replace(rows, token=token, log_prob=log_prob, sampling_log_prob=sampling_log_prob)
        if top:
            best, best_ids = jax.lax.top_k(logits_BxV, top)
            rows = dataclasses.replace(rows, top_ids=best_ids.astype(jnp.int32), top_log_probs=best - total[:, None])
        return rows
