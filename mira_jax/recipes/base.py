"""The protocol that recipes implement."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from flax import nnx
from jax import Array

from mira_jax.data.episodes import Episodes
from mira_jax.data.examples import Example
from mira_jax.errors import UserError
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.side_tables import SideTable
from mira_jax.trajectories.token_columns import TokenColumn
from mira_jax.trajectories.tokenizer import Tokenizer

OLD = "old_log_prob"
REFERENCE = "token_reference_log_prob"
"""Token columns that online training computes for the recipes that name them: log pi_old, by the weights before the first update of the
round, and log pi_ref, by the first policy."""


class TokenShape(NamedTuple):
    """What a token column has for each response token."""

    shape: tuple[int, ...] = ()
    dtype: str = "float32"


class NothingToLearn(UserError):
    """No episode is of use to the recipe, such as no success to imitate. Online training goes on with the next round."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The result of preparing the data before training. N is the number of steps, in the order of the reader's `StepIndex`."""

    keep: np.ndarray
    """bool [N]: which steps to train on. Steps of episodes with status infra_error are always left out."""
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """float32 [N] each: per-step numbers read by the loss, for example `advantage`. Finite wherever `keep` is true."""
    summary: dict[str, float] = dataclasses.field(default_factory=dict)
    """Printed at the start and stored in the run's data.json, for example the mean advantage."""
    held_out: np.ndarray | None = None
    """bool [N]: which steps are held out to measure the loss. Default: the share `data.holdout` of the tasks."""
    token_columns: dict[str, TokenColumn] = dataclasses.field(default_factory=dict)
    """Numbers per response token that the loss reads, for example log-probabilities. Complete and finite wherever `keep` is true."""


class Recipe(Protocol):
    """A training method, for a policy or a critic.

    A recipe whose loss reads token columns describes them in `token_columns`, a dict of `TokenShape` by name, for online training and
    `mira size`.
    """

    name: str
    """Its key in `mira_jax.recipes.RECIPES`. The objectives of a policy share the name `actor`, and each has its own key in `objective`."""
    heads: tuple[str, ...]
    """() trains a policy (`Gemma3`). Names, for example ("value",), train a `Critic` with these heads. May be a field or a property."""
    reads_responses: bool
    """False: examples are packed up to their last prompt, which is sufficient for a critic and cheaper. R is then 0."""

    def examples(self, trajectory: Trajectory, prompt: PromptConfig, tokenizer: Tokenizer, /) -> Iterable[Example]:
        """The examples of one episode without an infrastructure error. Each is packed as one segment.

        The usual implementation is `mira_jax.data.steps.step_examples`, with one example per step. An example may contain the
        turns of several steps, for example of a whole episode. `keep`, columns and BxS arrays are per step in any case.
        """
        ...

    def prepare(self, reader: Episodes, tables: Sequence[SideTable]) -> Prepared:
        """Computes the per-step columns and selects the steps, in NumPy, once at the start.

        The method has access to all episodes, so a column may compare the attempts at one task (`StepLabels.task`) or depend
        on the position of the step in its episode (`StepLabels.numbers`). Iterate over the reader at most once: each iteration
        decodes all records.

        Raises:
            UserError: the data lacks something that the recipe needs, such as labels or a column of a side table.
        """
        ...

    def loss(self, model: nnx.Module, batch: dict[str, Array]) -> tuple[Mean, dict[str, Mean]]:
        """The loss and the metrics of one batch, under jit.

        `batch` contains the arrays of `mira_jax.data.packing`, and one array per column of `prepare`: float32 BxS, or BxR... for
        token columns. Every returned value is a `Mean(total, weight)`. Over accumulated batches and devices, totals and weights are summed
        separately before the division, so a loss that is a sum over steps or tokens does not depend on how a batch is split.
        The weight of the loss is its normalisation: the number of steps, or of response tokens.
        """
        ...
