"""The protocol of a recipe."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from flax import nnx
from jax import Array

from mira_jax.data.examples import Example
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable
from mira_jax.trajectories.tokenizer import Tokenizer


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
    """False: examples are packed up to their last prompt (all a critic needs), which is cheaper; R is then 0."""

    def examples(self, trajectory: Trajectory, prompt: PromptConfig, tokenizer: Tokenizer, /) -> Iterable[Example]:
        """The examples of one episode that is not an infrastructure error: what is packed as one segment each.

        `mira_jax.data.steps.step_examples`, one per step, is the usual choice. An example may have the turns of several
        steps, for example all of an episode. What follows is per step all the same: `keep`, columns, BxS arrays.
        """
        ...

    def prepare(self, reader: ShardReader, tables: Sequence[SideTable]) -> Prepared:
        """Per-step columns and the choice of steps, in NumPy, once at the start.

        Sees all episodes at once, so a column may compare the attempts at one task (`StepLabels.task`) or depend on the
        step's place in its episode (`StepLabels.numbers`).

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
