"""The Grain pipeline: a thread prepares batches in advance, and the position can be saved and restored."""

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
    """Side tables written by `mira_jax.score`, for recipes that read them."""
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


def batches_of(batches: Sequence[Batch]) -> grain.DatasetIterator[Batch]:
    """Iterates over `batches`. `get_state()` is the position after the last batch returned, however many are prepared in
    advance.

    The position counts batches, so it is the same in every process, for any number of processes that share the rows.
    """
    dataset = grain.MapDataset.range(len(batches)).map(batches.__getitem__)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))


def split(task: np.ndarray, holdout: float, seed: int) -> np.ndarray:
    """bool [N]: which steps are held out. All episodes of a task are on the same side. `seed` determines the tasks.

    Args:
        task: int [N], as in `mira_jax.data.examples.Examples`.
    """
    tasks = np.unique(task)
    count = round(holdout * len(tasks))
    held = np.random.default_rng([seed, 1]).permutation(tasks)[:count]
    return np.isin(task, held)
