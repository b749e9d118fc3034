"""The episodes of one stage, decoded once: their examples are made while someone reads them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mira_jax.data.cache import REMEDY, Entry, inputs
from mira_jax.data.examples import Examples, ExamplesOf
from mira_jax.data.steps import ExamplesBuilder, step_examples
from mira_jax.errors import UserError
from mira_jax.progress import track
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.tokenizer import Tokenizer


class Episodes(Sequence[Trajectory]):
    """A reader that also makes the examples of its episodes.

    The first complete iteration over the episodes makes their examples too, unless the token cache has them. A recipe reads its
    labels in this iteration. If nobody has iterated, `examples` does.
    """

    def __init__(
        self,
        reader: ShardReader,
        prompt: PromptConfig,
        tokenizer: Tokenizer,
        examples_of: ExamplesOf | None = None,
        cache: Path | None = None,
        *,
        progress: bool = True,
    ):
        """
        Args:
            prompt, tokenizer, examples_of: as in `mira_jax.data.steps.tokenize`.
            cache: the folder of the token cache. None: tokens are made anew and kept in memory. This is also done for examples
                that the cache does not support (`mira_jax.data.cache.inputs`).
        """
        self._reader, self._prompt, self._tokenizer, self._progress = reader, prompt, tokenizer, progress
        self._examples_of = examples_of or step_examples
        made_from = inputs(reader.sha256, prompt, tokenizer, self._examples_of) if cache else None
        self._entry = Entry(cache, made_from) if cache and made_from else None
        self._examples: Examples | None = None
        self._making = False

    @property
    def steps_per_record(self) -> np.ndarray:
        """int32[episodes], read only from the sidecars."""
        return self._reader.steps_per_record

    @property
    def examples(self) -> Examples:
        """The examples of all episodes.

        Raises:
            UserError: see `step_examples`, and `Entry` for the cache.
        """
        if not self._found():
            for _ in self:
                pass
        if self._examples is None:
            raise RuntimeError("an iteration over these episodes has not ended")
        return self._examples

    def _found(self) -> bool:
        if self._examples is None and self._entry:
            self._examples = self._entry.open()
        return self._examples is not None

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> Trajectory:
        return self._reader[index]

    def __iter__(self) -> Iterator[Trajectory]:
        if self._making or self._found():
            yield from self._reader
            return
        self._making = True
        try:
            yield from self._cached() if self._entry else self._in_memory()
        finally:
            self._making = False

    def _cached(self) -> Iterator[Trajectory]:
        assert self._entry is not None
        with self._entry.lock():
            # Another process may have made them since.
            if not self._found():
                with self._entry.writing(self._prompt, self._tokenizer, self._examples_of) as builder:
                    yield from self._add_each(builder)
                if not self._found():
                    raise UserError(f"{self._entry.path}: does not hold what was just written to it; {REMEDY}")
                return
        yield from self._reader

    def _in_memory(self) -> Iterator[Trajectory]:
        builder = ExamplesBuilder(self._prompt, self._tokenizer, self._examples_of)
        yield from self._add_each(builder)
        self._examples = builder.build()

    def _add_each(self, builder: ExamplesBuilder) -> Iterator[Trajectory]:
        for trajectory in track(self._reader, "tokenize", "episodes", len(self._reader), shown=self._progress):
            builder.add(trajectory)
            yield trajectory
