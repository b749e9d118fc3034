"""Generates text with a model. Prompts occupy rows of one shared cache, and all rows are decoded together (continuous batching).

A prompt is prefilled with its length padded to one of a few buckets, and its keys and values are copied to a free row of the
cache. All rows then advance together by one token per step, inside a compiled loop. The number of rows is fixed, and the random
numbers of a row depend only on its seed, choice and position, so the result for a prompt does not depend on the other prompts in
the cache.

With a prefix cache (`Prefixes`), a long prompt is prefilled in parts, and the parts that it shares with a recent prompt are
reused. Otherwise several prompts may be prefilled in one batch (`prefill_tokens`). This changes the shapes of matrix products, so
the result for a prompt may then differ in the last bits with the prompts that arrive with it.

Dimensions: B rows of the cache, C its length in tokens, P prompts that are prefilled together, T prompt tokens (padded),
V vocabulary, K alternatives.
"""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from mira_jax.models.decoding import CHUNK, GPU_OPTIONS, SHORTEST, TOP, SamplerFunctions, empty_rows
from mira_jax.models.gemma3 import Cache, Gemma3, init_cache, unscan
from mira_jax.models.prefixes import PART, Prefixes

log = logging.getLogger(__name__)

PADDED_PARTS = (64, 128, PART)
"""Padded lengths of the last part of a prompt that is prefilled in parts."""


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


@dataclasses.dataclass(frozen=True)
class Work:
    """A prompt to complete."""

    prompt: Sequence[int]
    sampling: Sampling
    alternatives: bool = False
    """Whether to keep the log-probabilities of the most likely tokens."""


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
        prefix_bytes: int = 0, prefill_tokens: int = 0, mesh: jax.sharding.Mesh | None = None,
    ):  # fmt: skip
        """
        Args:
            model: its dtype is also the dtype of the cache. Its stacked layers are taken apart, in place (`gemma3.unscan`).
            end_ids: tokens that end a completion.
            rows: number of prompts decoded together.
            max_length: maximum number of tokens of a prompt and its completion.
            words: draw only from the first `words` ids. The embedding may have more rows than the tokenizer has pieces.
            prefix_bytes: memory limit of the prefix cache, in addition to the cache. 0: none.
            prefill_tokens: maximum number of tokens, padding included, of prompts that are prefilled in one batch. 0: different
                prompts are prefilled one by one. Not together with a prefix cache.
            mesh: the mesh on which the parameters are, from `mira_jax.models.sharding.make_mesh`. The cache is sharded by kv heads
                over `tensor`. Default: one device.
        """
        assert not (prefix_bytes and prefill_tokens), "a batch has no parts that could be reused"
        self.rows, self.max_length, self._prefill_tokens, self._mesh = rows, max_length, prefill_tokens, mesh
        graph, state = nnx.split(unscan(model))
        # jit dispatches a plain tuple of arrays with the least overhead.
        leaves, tree = jax.tree.flatten(state)
        self._parameters = tuple(leaves)
        self._tree = tree
        self.vocabulary_size: int = min(words or model.config.vocabulary_size, model.config.vocabulary_size)
        functions = SamplerFunctions(graph, tree, tuple(end_ids), self.vocabulary_size)
        self._top = min(TOP, self.vocabulary_size)
        self.prefixes = Prefixes(prefix_bytes)
        self._new_cache = jax.jit(functools.partial(init_cache, model.config, dtype=model.dtype), static_argnums=(0, 1))
        self._prefill = jax.jit(functions.prefill)
        self._extend = jax.jit(functions.extend)
        self._first = jax.jit(functions.first, static_argnames=("top",))
        self._insert = jax.jit(functions.insert, donate_argnums=(0, 1))
        options = GPU_OPTIONS if jax.default_backend() == "gpu" else None
        self._advance = jax.jit(functions.advance, static_argnames=("top",), donate_argnums=(1, 2), compiler_options=options)
        self._score = jax.jit(functions.score, static_argnames=("top",))
        self._compiled: set[tuple] = set()
        self._resize = jax.jit(functions.resize, static_argnames=("length",))
        self.reset()

    def reset(self) -> None:
        """Clears all rows. Also needed after a failed call, because its donated arrays no longer exist."""
        self.length = 0
        self._cache: Cache | None = None
        self._state = empty_rows(self.rows, self._top)
        if self._mesh is not None:
            self._state = jax.device_put(self._state, NamedSharding(self._mesh, PartitionSpec()))
        self._used = np.zeros(self.rows, bool)
        self.prefixes.clear()

    def replace_weights(self, model: Gemma3) -> None:
        """Uses the parameters of another model of the same architecture, without compiling again. Clears all rows and the prefix cache.
        Stacked layers of the model are taken apart, in place.

        Raises:
            ValueError: the parameters differ in structure, shape or dtype.
        """
        leaves, tree = jax.tree.flatten(nnx.split(unscan(model))[1])
        if tree != self._tree or [(x.shape, x.dtype) for x in leaves] != [(x.shape, x.dtype) for x in self._parameters]:
            raise ValueError("the parameters have other names, shapes or dtypes")
        self._parameters = tuple(leaves)
        self.reset()

    @property
    def free_rows(self) -> int:
        """Number of rows without a prompt."""
        return int(np.count_nonzero(~self._used))

    def is_batch(self, prompts: Sequence[Sequence[int]]) -> bool:
        """Whether these prompts may be prefilled together: equal ones, and others if their padded tokens are within the limit and no
        prompt is padded to more than twice its bucket."""
        different = {tuple(prompt) for prompt in prompts}
        buckets = [bucket(len(prompt)) for prompt in different]
        return len(different) == 1 or (
            max(buckets) * _batch_rows(len(different)) <= self._prefill_tokens and max(buckets) <= 2 * min(buckets)
        )

    def insert(self, work: Sequence[Work]) -> list[int]:
        """Prefills prompts in one batch, equal ones once, each for a free row. Draws their first tokens, which the next `advance`
        returns.

        Precondition: `is_batch`, at most `free_rows` prompts, each with at least one token, `max_tokens` of at least one, and
        a sum of both of at most `max_length`. Returns the row of each.
        """
        prompts = list(dict.fromkeys(tuple(one.prompt) for one in work))
        assert len(work) <= self.free_rows and all(prompts), "the caller checks rows and lengths"
        assert all(len(one.prompt) + one.sampling.max_tokens <= self.max_length for one in work), "the caller checks rows and lengths"
        with self._on_mesh():
            hidden, prefilled = self._read(prompts[0]) if len(prompts) == 1 else self._read_together(prompts)
            self._fit_cache(max(_slots(prefilled), *(len(one.prompt) + one.sampling.max_tokens for one in work)))
            return [self._enter(one, hidden, prefilled, prompts.index(tuple(one.prompt))) for one in work]

    def _enter(self, work: Work, hidden: jax.Array, prefilled: Cache, place: int) -> int:
        """Draws the first token after prompt `place` of those that were prefilled, and gives it a row."""
        row, sampling = int(np.flatnonzero(~self._used)[0]), work.sampling
        top_k = min(sampling.top_k, self.vocabulary_size)
        numbers = np.array([place, len(work.prompt), sampling.max_tokens, sampling.choice, top_k], np.int32)
        seed = np.uint32(sampling.seed & 0xFFFFFFFF)
        knobs = np.array([sampling.temperature, sampling.top_p], np.float32)
        entry = self._first(self._parameters, hidden, numbers, seed, knobs, top=self._top if work.alternatives else 0)
        self._cache, self._state = self._insert(self._cache, self._state, prefilled, entry, np.array([place, row], np.int32))
        self._used[row] = True
        return row

    def advance(self, steps: int = CHUNK, until_free: bool = False, alternatives: bool = False) -> Chunk:
        """Draws up to `steps` (at most CHUNK) more tokens in every active row. Stops early if no row is active.

        `until_free` also stops as soon as one row has ended, so that a waiting prompt can use it.
        """
        top = self._top if alternatives else 0
        numbers = np.array([min(steps, CHUNK), until_free], np.int32)
        with self._on_mesh(), self._log_compilation("decode", self.length, top):
            self._cache, self._state, drawn = self._advance(self._parameters, self._cache, self._state, self._used, numbers, top=top)
        *arrays, taken = jax.device_get(drawn)
        return Chunk(*arrays, int(taken))

    def release(self, row: int) -> None:
        """Frees a row, whether or not its completion has ended."""
        self._used[row] = False

    def score(self, prompt: Sequence[int], alternatives: bool = False) -> Scores:
        """Log-probabilities of the prompt's own tokens. Does not change any row."""
        length = len(prompt)
        tokens = _padded([prompt], bucket(length))
        top = self._top if alternatives else 0
        with self._on_mesh(), self._log_compilation("score", tokens.shape[1], top):
            scores = self._score(self._parameters, tokens, np.int32(length), top=top)
        return Scores(*(array[: length - 1] for array in jax.device_get(scores)))

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Compiles for prompts of these lengths, in batches of every size, without a cached prefix."""
        for length in lengths:
            count = 1
            while count <= self.rows and self.is_batch(prompts := [[place] * length for place in range(count)]):
                rows = self.insert([Work(prompt, Sampling(2)) for prompt in prompts])
                self.advance()
                for row in rows:
                    self.release(row)
                self.prefixes.clear()
                count *= 2

    def _read(self, prompt: Sequence[int]) -> tuple[jax.Array, Cache]:
        """The hidden state of a prompt's last token, 1xD, and its cache, one row. With a prefix cache, it is added to that."""
        if not self.prefixes.limit or len(prompt) <= PART:
            return self._read_together([prompt])
        held, cache = self.prefixes.find(prompt)
        if cache is None:
            held = PART
            hidden, cache = self._read_together([prompt[:PART]])
        while held < len(prompt):
            part = prompt[held : held + PART]
            tokens = _padded([part], next(size for size in PADDED_PARTS if size >= len(part)))
            # The shapes depend only on the place of the part in the prompt, so that a part is always computed in the same way.
            room = self._cache_length(held + PART)
            if _slots(cache) != room:
                cache = self._resize(cache, length=room)
            with self._log_compilation("prefill", tokens.shape[1], room):
                hidden, cache = self._extend(self._parameters, tokens, cache, np.array([held, len(part)], np.int32))
            held += len(part)
        self.prefixes.keep(prompt, cache)
        return hidden, cache

    def _read_together(self, prompts: Sequence[Sequence[int]]) -> tuple[jax.Array, Cache]:
        """The hidden states of the last tokens of prompts, PxD, and their cache of P rows. P is the number of prompts, padded."""
        count = _batch_rows(len(prompts))
        tokens = _padded(prompts, bucket(max(map(len, prompts))), count)
        lengths = np.array([len(prompt) for prompt in prompts] + [1] * (count - len(prompts)), np.int32)
        with self._log_compilation("prefill", tokens.shape[1], count):
            return self._prefill(self._parameters, tokens, lengths)

    def _on_mesh(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

    @contextlib.contextmanager
    def _log_compilation(self, *program: str | int) -> Iterator[None]:
        """Logs that a call must compile, and how long the compilation took."""
        start = time.perf_counter()
        yield
        if program not in self._compiled:
            self._compiled.add(program)
            log.info("compiled %s for %d tokens in %.1f s", program[0], program[1], time.perf_counter() - start)

    def _fit_cache(self, length: int) -> None:
        """Grows the cache to the longest row. It shrinks only when no row is in use, to avoid recompilation."""
        needed = self._cache_length(length)
        if needed > self.length and self._used.any():
            self._cache = self._resize(self._cache, length=needed)
            self.length = needed
        elif needed > self.length or (not self._used.any() and 4 * needed <= self.length):
            self._cache = dataclasses.replace(self._new_cache(self.rows, needed), empty=False)
            self.length = needed

    def _cache_length(self, length: int) -> int:
        return cache_length(length, self.max_length)


def _padded(prompts: Sequence[Sequence[int]], length: int, rows: int = 1) -> np.ndarray:
    padded = np.zeros((rows, length), np.int32)
    for row, prompt in zip(padded, prompts, strict=False):
        row[: len(prompt)] = prompt
    return padded


def _batch_rows(count: int) -> int:
    """`count` rounded up to a power of two. Few distinct numbers of rows need few compiled programs."""
    return 1 << (count - 1).bit_length()


def _slots(cache: Cache) -> int:
    """Number of slots per row of the cache."""
    return cache.layers[0][0].shape[-2]


def cache_length(length: int, max_length: int) -> int:
    """The number of cache slots for `length` tokens. Few distinct values, and close to the maximum length when near it."""
    return min(_cache_bucket(length), max(max_length, bucket(length)))


def _cache_bucket(length: int) -> int:
    """512, 768, 1024, 1536 ...: powers of two and the midpoints between them."""
    size = 512
    while size < length:
        if size + size // 2 >= length:
            return size + size // 2
        size *= 2
    return size
