"""The Grain pipeline: a thread or processes prepare batches in advance, and the position can be saved and restored."""

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import grain
import numpy as np
from absl import flags

from mira_jax.config import Count, Natural, ProperFraction
from mira_jax.data.packing import Batch
from mira_jax.trajectories.prompts import PromptConfig

AHEAD = 4
"""Number of batches to prepare in advance."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    folders: list[str] = dataclasses.field(default_factory=list)
    """Folders of shards."""
    side_tables: list[str] = dataclasses.field(default_factory=list)
    """Side tables written by `mira_jax.score`, for recipes that read them."""
    selections: list[str] = dataclasses.field(default_factory=list)
    """Selections of steps in these folders, written by `mira replay`, for a policy. Of the episodes that a selection contains, only the
    selected steps are trained on. Advantages are computed before, from whole episodes."""
    accept_weak_critics: bool = False
    """Train on V or P even if `mira score` found them weak: no better than a baseline that sees only the template, or computed on
    episodes that the critic was trained on."""
    only: Literal["all", "success"] = "all"
    """Which episodes to train on. success: only the steps of successful episodes."""
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    row_length: Count = 1024
    """Tokens per row. Several steps are packed into one row."""
    rows: Count = 8
    """Rows per batch, over all devices."""
    drop_too_long: bool = False
    """Leave out steps that are longer than a row. If false, such a step is an error."""
    holdout: ProperFraction = 0.0
    """Share of the tasks whose episodes are held out from training to measure the loss."""
    workers: Natural = 0
    """Number of processes that make batches. 0: a thread of the training process makes them. Without the token cache, each process
    has a copy of the tokens. May change when a run is resumed."""
    cache: str | None = None
    """Folder of the token cache, which the stages on the same episodes share. Default: `token_cache` next to `out`. '': none, the
    tokens are in memory. May change when a run is resumed."""


class Batches(Iterator[Batch]):
    """Iterates over `batches` and prepares the next ones in advance.

    The position is the number of batches returned, however many are prepared in advance. It is the same in every process, for
    any number of processes that share the rows, and for any number of workers.
    """

    def __init__(self, batches: Sequence[Batch], workers: int = 0):
        """`workers`: the number of processes that make batches. 0: a thread of this process does."""
        self._batches, self._workers = batches, workers
        self._next = 0
        self._prepared: grain.DatasetIterator[Batch] | None = None

    def __next__(self) -> Batch:
        if self._next >= len(self._batches):
            raise StopIteration
        if self._prepared is None:
            self._prepared = self._start()
        batch = next(self._prepared)
        self._next += 1
        return batch

    def _start(self) -> grain.DatasetIterator[Batch]:
        dataset = grain.MapDataset.source(self._batches).slice(slice(self._next, None))
        if not self._workers:
            return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)))
        if not flags.FLAGS.is_parsed():
            # Grain reads its flags before it starts a process. Programs that do not use absl have not parsed any.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=-(-AHEAD // self._workers))
        # Batches pass through pipes: in containers, the shared memory that Grain would use is often limited to 64 MB.
        plain = grain.experimental.DatasetOptions(min_shm_size=2**62)
        dataset = grain.experimental.WithOptionsIterDataset(dataset.to_iter_dataset(grain.ReadOptions(num_threads=0)), plain)
        return iter(dataset.mp_prefetch(options, _start_worker))

    def get_state(self) -> dict[str, Any]:
        return {"next_index": self._next}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.close()
        self._next = state["next_index"]

    def close(self) -> None:
        """Ends the thread or the processes. The next batch starts them again."""
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None


def _start_worker(index: int, count: int) -> None:
    """Ties the life of a worker to that of its parent, and leaves the signals that stop a run to the parent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def split(task: np.ndarray, holdout: float, seed: int) -> np.ndarray:
    """bool [N]: which steps are held out. All episodes of a task are on the same side. `seed` determines the tasks.

    Args:
        task: int [N], as in `mira_jax.data.examples.Examples`.
    """
    tasks = np.unique(task)
    count = round(holdout * len(tasks))
    held = np.random.default_rng([seed, 1]).permutation(tasks)[:count]
    return np.isin(task, held)
