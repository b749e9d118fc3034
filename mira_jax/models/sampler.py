"""Generates text with a model. Prompts occupy rows of one shared cache, and all rows are decoded together (continuous batching).

A prompt is prefilled on its own, with its length padded to one of a few buckets, and its keys and values are copied to a free
row of the cache. Prefixes shared with recent prompts come from the prefix cache (`Prefixes`). All rows then advance together
by one token per step, inside a compiled loop. The number of rows is fixed, and the random numbers of a row depend only on its
seed, choice and position, so the result for a prompt does not depend on the other prompts in the cache.

Dimensions: B rows of the cache, C its length in tokens, T prompt tokens (padded), V vocabulary, K alternatives.
"""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.models.drawing import draw
from mira_jax.models.gemma3 import Cache, Gemma3
from mira_jax.models.prefixes import Prefixes

log = logging.getLogger(__name__)

TOP = 20
"""Maximum number of alternative tokens whose log-probabilities are reported."""
CHUNK = 8
"""Decode steps per call of the compiled loop. This bounds how long a new prompt waits for its prefill."""
SHORTEST = 64
"""The smallest bucket for prompt and cache lengths."""
PARTS = (64, 128, 256, 512)
"""Padded lengths for tokens that are prefilled after a cached prefix."""
PREFIX_BYTES = 2**30
"""Default memory limit of the prefix cache."""


def bucket(length: int) -> int:
    """`length` rounded up to multiples of 64 up to 512, then to four steps per doubling. Few distinct lengths need few compiled
    programs."""
    octave = 1 << max(length - 1, 1).bit_length()
    step = SHORTEST if octave <= 512 else octave // 8
    return -(-max(length, 1) // step) * step


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sampling settings of one row."""

    max_tokens: int
    temperature: float = 0.0
    """0 selects the most likely token."""
    top_p: float = 1.0
    """Sample only from the smallest set of tokens whose probability reaches this value."""
    seed: int = 0
    choice: int = 0
    """Completions with the same seed and different choices are sampled independently."""
    top_k: int = 0
    """Sample only from this many of the most likely tokens. 0: from all."""


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


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The tokens drawn by one call of `advance`. Row b drew `count[b]` tokens; entries beyond that are undefined."""

    count: np.ndarray
    """B, int32."""
    tokens: np.ndarray
    """B x CHUNK+1, int32."""
    log_probs: np.ndarray
    """B x CHUNK+1, under the model distribution: temperature 1, the whole vocabulary; nats."""
    sampling_log_probs: np.ndarray
    """B x CHUNK+1, under the distribution that the token was drawn from; nats. 0 for greedy rows."""
    top_ids: np.ndarray
    """B x CHUNK+1 x K. K is 0 unless alternatives were requested."""
    top_log_probs: np.ndarray
    active: np.ndarray
    """B: whether the row continues."""
    steps: int
    """Number of decode steps taken."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """Log-probabilities of a prompt's tokens 1..T-1, each conditioned on the tokens before it."""

    log_probs: np.ndarray
    """T-1, nats."""
    top_ids: np.ndarray
    """T-1 x K, most likely first."""
    top_log_probs: np.ndarray


class Sampler:
    """One model, B rows. Not thread-safe: one thread owns it."""

    def __init__(
        self, model: Gemma3, end_ids: Sequence[int], rows: int = 8, max_length: int = 4096, words: int | None = None,
        prefix_bytes: int = PREFIX_BYTES,
    ):  # fmt: skip
        """
        Args:
            model: its dtype is also the dtype of the cache.
            end_ids: tokens that end a completion.
            rows: number of prompts decoded together.
            max_length: maximum number of tokens of a prompt and its completion.
            words: draw only from the first `words` ids. The embedding may have more rows than the tokenizer has pieces.
            prefix_bytes: memory limit of the prefix cache, in addition to the cache. 0 disables it.
        """
        self.rows, self.max_length = rows, max_length
        graph, state = nnx.split(model)
        # jit dispatches a plain tuple of arrays with the least overhead.
        leaves, tree = jax.tree.flatten(state)
        self._parameters = tuple(leaves)
        self.vocabulary_size: int = min(words or model.config.vocabulary_size, model.config.vocabulary_size)
        functions = _Functions(graph, tree, tuple(end_ids), self.vocabulary_size)
        self._top = min(TOP, self.vocabulary_size)
        self._new_cache = model.init_cache
        self.prefixes = Prefixes(prefix_bytes)
        self._prefill = jax.jit(functions.prefill)
        self._read_on = jax.jit(functions.read_on)
        self._first = jax.jit(functions.first, static_argnames=("top",))
        self._insert = jax.jit(functions.insert, donate_argnums=(0, 1))
        self._advance = jax.jit(functions.advance, static_argnames=("top",), donate_argnums=(1, 2))
        self._score = jax.jit(functions.score, static_argnames=("top",))
        self._compiled: set[tuple] = set()
        self._resize = jax.jit(functions.resize, static_argnames=("length",))
        self.reset()

    def reset(self) -> None:
        """Clears all rows. Also needed after a failed call, because its donated arrays no longer exist."""
        self.length = 0
        self._cache: Cache | None = None
        self._state = _empty_rows(self.rows, self._top)
        self._used = np.zeros(self.rows, bool)
        self.prefixes.clear()

    def free_row(self) -> int | None:
        """A row without a prompt, or None if all rows are in use."""
        free = np.flatnonzero(~self._used)
        return int(free[0]) if len(free) else None

    def insert(self, prompt: Sequence[int], sampling: Sampling, alternatives: bool = False) -> int:
        """Prefills a prompt in a free row and draws its first token, which the next `advance` returns.

        Precondition: `prompt` has at least one token, `sampling.max_tokens` is at least one, and their sum is at most
        `max_length`. `alternatives` also keeps the log-probabilities of the most likely tokens. Returns the row.
        """
        row = self.free_row()
        length = len(prompt)
        assert row is not None and 0 < length <= self.max_length - sampling.max_tokens, "the caller checks room and length"
        hidden, row_cache = self._read(prompt)
        self._make_room(max(_slots(row_cache), length + sampling.max_tokens))
        numbers = np.array([length, sampling.max_tokens, sampling.choice, min(sampling.top_k, self.vocabulary_size)], np.int32)
        seed = np.uint32(sampling.seed & 0xFFFFFFFF)
        knobs = np.array([sampling.temperature, sampling.top_p], np.float32)
        top = self._top if alternatives else 0
        entry = self._first(self._parameters, hidden, numbers, seed, knobs, top=top)
        self._cache, self._state = self._insert(self._cache, self._state, row_cache, entry, np.int32(row))
        self._used[row] = True
        return row

    def advance(self, steps: int = CHUNK, until_free: bool = False, alternatives: bool = False) -> Chunk:
        """Draws up to `steps` (at most CHUNK) more tokens in every active row. Stops early if no row is active.

        `until_free` also stops as soon as one row has ended, so that a waiting prompt can use it.
        """
        top = self._top if alternatives else 0
        numbers = np.array([min(steps, CHUNK), until_free], np.int32)
        with self._announced("decode", self.length, top):
            self._cache, self._state, drawn = self._advance(self._parameters, self._cache, self._state, self._used, numbers, top=top)
        *arrays, taken = jax.device_get(drawn)
        return Chunk(*arrays, int(taken))

    def release(self, row: int) -> None:
        """Frees a row, whether or not its completion has ended."""
        self._used[row] = False

    def score(self, prompt: Sequence[int], alternatives: bool = False) -> Scores:
        """Log-probabilities of the prompt's own tokens. Does not change any row."""
        length = len(prompt)
        tokens = _padded(prompt, bucket(length))
        top = self._top if alternatives else 0
        with self._announced("score", tokens.shape[1], top):
            scores = self._score(self._parameters, tokens, np.int32(length), top=top)
        return Scores(*(array[: length - 1] for array in jax.device_get(scores)))

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Compiles for prompts of these lengths without a cached prefix."""
        for length in lengths:
            row = self.insert([0] * length, Sampling(2))
            self.advance()
            self.release(row)
            self.prefixes.clear()

    def _read(self, prompt: Sequence[int]) -> tuple[jax.Array, Cache]:
        """The hidden state of a prompt's last token, 1xD, and its cache, one row. The cache is added to the prefix cache."""
        shared, cache = self.prefixes.find(prompt)
        if cache is None:
            tokens = _padded(prompt, bucket(len(prompt)))
            with self._announced("prefill", tokens.shape[1]):
                hidden, cache = self._prefill(self._parameters, tokens, np.int32(len(prompt)))
        while shared and shared < len(prompt):
            part = prompt[shared : shared + PARTS[-1]]
            tokens = _padded(part, next(size for size in PARTS if size >= len(part)))
            room = self._room(shared + tokens.shape[1])
            if _slots(cache) != room:
                cache = self._resize(cache, length=room)
            with self._announced("prefill", tokens.shape[1], room):
                hidden, cache = self._read_on(self._parameters, tokens, cache, np.array([shared, len(part)], np.int32))
            shared += len(part)
        self.prefixes.keep(prompt, cache)
        return hidden, cache

    @contextlib.contextmanager
    def _announced(self, *program: str | int) -> Iterator[None]:
        """Logs that a call must compile, and how long the compilation took."""
        start = time.perf_counter()
        yield
        if program not in self._compiled:
            self._compiled.add(program)
            log.info("compiled %s for %d tokens in %.1f s", program[0], program[1], time.perf_counter() - start)

    def _make_room(self, length: int) -> None:
        """Grows the cache to the longest row. It shrinks only when no row is in use, to avoid recompilation."""
        needed = self._room(length)
        if needed > self.length and self._used.any():
            self._cache = self._resize(self._cache, length=needed)
            self.length = needed
        elif needed > self.length or (not self._used.any() and 4 * needed <= self.length):
            self._cache = dataclasses.replace(self._new_cache(self.rows, needed), empty=False)
            self.length = needed

    def _room(self, length: int) -> int:
        """The number of cache slots for `length` tokens. Few distinct values, and close to the maximum length when near it."""
        return min(_cache_bucket(length), max(self.max_length, bucket(length)))


def _padded(tokens: Sequence[int], length: int) -> np.ndarray:
    padded = np.zeros((1, length), np.int32)
    padded[0, : len(tokens)] = tokens
    return padded


def _slots(cache: Cache) -> int:
    """Number of slots per row of the cache."""
    return jax.tree.leaves((cache.groups, cache.tail))[0].shape[-2]


def _cache_bucket(length: int) -> int:
    """512, 768, 1024, 1536 ...: powers of two and the midpoints between them."""
    size = 512
    while size < length:
        if size + size // 2 >= length:
            return size + size // 2
        size *= 2
    return size


def _empty_rows(rows: int, top: int) -> Rows:
    def zeros(dtype: Any, *shape: int) -> jax.Array:
        return jnp.zeros((rows, *shape), dtype)

    return Rows(
        token=zeros(jnp.int32), log_prob=zeros(jnp.float32), sampling_log_prob=zeros(jnp.float32), top_ids=zeros(jnp.int32, top),
        top_log_probs=zeros(jnp.float32, top), position=zeros(jnp.int32), remaining=zeros(jnp.int32), active=zeros(bool), fresh=zeros(bool),
        seed=zeros(jnp.uint32), choice=zeros(jnp.int32), temperature=zeros(jnp.float32), top_p=zeros(jnp.float32), top_k=zeros(jnp.int32),
    )  # fmt: skip


class _Functions:
    """The pure functions that `Sampler` compiles, bound to the structure of a model."""

    def __init__(self, graph: Any, tree: Any, end_ids: tuple[int, ...], words: int):
        self._graph, self._tree, self._end_ids, self._words = graph, tree, end_ids, words

    def _model(self, parameters: tuple[jax.Array, ...]) -> Gemma3:
        return nnx.merge(self._graph, jax.tree.unflatten(self._tree, parameters))

    def prefill(self, parameters: Any, tokens_1xT: jax.Array, length: jax.Array) -> tuple[jax.Array, Cache]:
        """The hidden state of a prompt's last token, 1xD, and its cache of length T."""
        T = tokens_1xT.shape[1]
        model = self._model(parameters)
        positions = jnp.arange(T, dtype=jnp.int32)[None]
        segments = (positions < length).astype(jnp.int32)
        hidden, cache = model(tokens_1xT, positions, segments, model.init_cache(1, T), (length - 1)[None, None])
        return hidden[:, 0], cache

    def read_on(self, parameters: Any, tokens_1xT: jax.Array, cache: Cache, numbers: jax.Array) -> tuple[jax.Array, Cache]:
        """As `prefill`, for tokens that follow the cached ones. `numbers`: the number of cached tokens and of tokens that follow."""
        held, count = numbers
        model = self._model(parameters)
        segments = (jnp.arange(tokens_1xT.shape[1], dtype=jnp.int32)[None] < count).astype(jnp.int32)
        cache = dataclasses.replace(cache, lengths_B=held[None], empty=False)
        hidden, cache = model(tokens_1xT, None, segments, cache, (count - 1)[None, None])
        return hidden[:, 0], cache

    def first(self, parameters: Any, hidden_1xD: jax.Array, numbers: jax.Array, seed: jax.Array, knobs: jax.Array, top: int) -> Rows:
        """The state of one row with its first token drawn. Separate from `prefill`, which is compiled for every length."""
        length, max_tokens, choice, top_k = numbers
        row = _empty_rows(1, min(TOP, self._words))
        row = dataclasses.replace(
            row, seed=seed[None], choice=choice[None], temperature=knobs[:1], top_p=knobs[1:], top_k=top_k[None], position=length[None]
        )
        row = self._draw(self._model(parameters).logits(hidden_1xD), row, top)
        remaining = max_tokens[None] - 1
        active = (remaining > 0) & ~self._ends(row.token)
        return dataclasses.replace(row, remaining=remaining, active=active, fresh=jnp.ones(1, bool))

    def insert(self, cache: Cache, rows: Rows, row_cache: Cache, entry: Rows, row: jax.Array) -> tuple[Cache, Rows]:
        """Copies one prompt's cache and state to row `row` of the shared ones. Older keys beyond them remain in the row, but are masked."""

        def put(stacked: int) -> Callable:
            def one(whole: jax.Array, part: jax.Array) -> jax.Array:
                start = [jnp.int32(0)] * whole.ndim
                start[stacked] = row
                return jax.lax.dynamic_update_slice(whole, part, start)

            return one

        cache = dataclasses.replace(
            cache, groups=jax.tree.map(put(1), cache.groups, row_cache.groups), tail=jax.tree.map(put(0), cache.tail, row_cache.tail)
        )
        return cache, jax.tree.map(lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, row, axis=0), rows, entry)

    def resize(self, cache: Cache, length: int) -> Cache:
        """The same cache with `length` slots per row: extended, or without the last slots."""

        def one(array: jax.Array) -> jax.Array:
            array = array[..., :length, :]
            return jnp.pad(array, [*[(0, 0)] * (array.ndim - 2), (0, length - array.shape[-2]), (0, 0)])

        return dataclasses.replace(cache, groups=jax.tree.map(one, cache.groups), tail=jax.tree.map(one, cache.tail))

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

        def goes_on(carry: tuple) -> jax.Array:
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

        taken, cache, rows, out, count = jax.lax.while_loop(goes_on, body, (jnp.int32(0), cache, rows, out, count))
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
        logits_BxV = logits_BxV.astype(jnp.float32)
        total = jax.nn.logsumexp(logits_BxV, -1)
        logits_BxV = logits_BxV[:, : self._words]
        token, sampling_log_prob = draw(logits_BxV, rows.temperature, rows.top_p, rows.top_k, rows.seed, rows.choice, rows.position)
        log_prob = jnp.take_along_axis(logits_BxV, token[:, None], 1)[:, 0] - total
        rows = dataclasses.replace(rows, token=token, log_prob=log_prob, sampling_log_prob=sampling_log_prob)
        if top:
            best, best_ids = jax.lax.top_k(logits_BxV, top)
            rows = dataclasses.replace(rows, top_ids=best_ids.astype(jnp.int32), top_log_probs=best - total[:, None])
        return rows
