"""The Grain pipeline: batches made ahead of the device in a thread, with a position that is saved and restored."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import grain
import numpy as np

from mira_jax.config import Count, ProperFraction
from mira_jax.data.packing import Batch
from mira_jax.trajectories.prompts import PromptConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    folders: list[str] = dataclasses.field(default_factory=list)
    """Folders of shards."""
    side_tables: list[str] = dataclasses.field(default_factory=list)
    """Files that `mira_jax.score` wrote, for recipes that read them."""
    only: Literal["all", "success"] = "all"
    """success: the steps of successful episodes alone."""
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    row_length: Count = 1024
    """Tokens per row. Several steps are packed in one."""
    rows: Count = 8
    """Rows per batch, over all devices."""
    drop_too_long: bool = False
    """Leave out steps longer than a row; otherwise they are an error."""
    holdout: ProperFraction = 0.0
    """Share of the tasks whose episodes are kept from training, to measure the loss on."""


def batches_of(batches: Sequence[Batch]) -> grain.DatasetIterator[Batch]:
    """Iterates over `batches`. `get_state()` is the position after the last batch taken, whatever was made ahead.

    The position counts batches, so it is the same in every process, however many share the rows.
    """
    dataset = grain.MapDataset.range(len(batches)).map(batches.__getitem__)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))


def split(task: np.ndarray, holdout: float, seed: int) -> np.ndarray:
    """bool [N]: which steps are held out. All episodes of a task are on one side; the tasks are drawn from `seed`.

    Args:
        task: int [N], as in `mira_jax.data.examples.Examples`.
    """
    tasks = np.unique(task)
    count = round(holdout * len(tasks))
    held = np.random.default_rng([seed, 1]).permutation(tasks)[:count]
    return np.isin(task, held)
