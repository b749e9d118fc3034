"""The protocol of a recipe."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from flax import nnx
from jax import Array

from mira_jax.training.metrics import Mean
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a recipe makes of the data before training. N is the number of steps, in the order of the reader's `StepIndex`."""

    keep: np.ndarray
    """bool [N]: which steps to train on. Steps of infra_error episodes are left out whatever this says."""
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """float32 [N] each: per-step numbers the loss reads, for example `advantage`. Finite wherever `keep` is true."""
    summary: dict[str, float] = dataclasses.field(default_factory=dict)
    """Shown at the start and kept in the run's data.json: for example the mean advantage."""


class Recipe(Protocol):
    """One thing that can be trained."""

    name: str
    """Its key in `mira_jax.recipes.RECIPES`. Objectives of a policy share `actor`, and have their own key as `objective`."""
    heads: tuple[str, ...]
    """() trains a policy (`Gemma3`); names, for example ("value",), train a `Critic` with these heads. A field or a property."""
    reads_responses: bool
    """False: rows hold prompts alone (all a critic needs), which is cheaper; the `response_*` arrays are then empty (R = 0)."""

    def prepare(self, reader: ShardReader, tables: Sequence[SideTable]) -> Prepared:
        """Per-step columns and the choice of steps, in NumPy, once at the start.

        Raises:
            UserError: the data lacks what the recipe needs (labels, a side table's column ...).
        """
        ...

    def loss(self, model: nnx.Module, batch: dict[str, Array]) -> tuple[Mean, dict[str, Mean]]:
        """The loss and the metrics of one batch, under jit.

        `batch` holds the arrays of `mira_jax.data.packing` and one float32 BxS array per column of `prepare`.
        Every returned value is a `Mean(total, weight)`; over accumulated batches and devices totals and weights
        are summed before they are divided, so a loss that is a sum over steps or tokens does not depend on how a
        batch was cut up. The weight of the loss says what it is normalised by: the count of steps, or of response tokens.
        """
        ...
