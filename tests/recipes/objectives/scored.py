"""Two episodes with the columns of their side tables, small enough for sums by hand; and a real policy's table."""

import jax
import numpy as np

from mira_jax.data.packing import PackedBatches
from mira_jax.recipes import make_recipe
from mira_jax.recipes.base import Prepared, Recipe
from mira_jax.trajectories.side_tables import SideTable
from tests.synthetic import trajectory

# A success of three steps and a failure of two.
EPISODES = [trajectory(0, 3, success=True), trajectory(1, 2, success=False)]
VALUES = np.array([0.5, 0.6, 0.9, 0.4, 0.2])
POTENTIALS = np.array([0.0, 0.3, 0.7, 0.1, 0.4])
LOG_PROBS = np.array([-1.0, -2.0, -3.0, -4.0, -5.0])


def table(**columns):
    return SideTable(["episode-0-0"] * 3 + ["episode-0-1"] * 2, np.array([0, 1, 2, 0, 1]), columns)


ALL = table(log_prob=LOG_PROBS, value=VALUES, potential=POTENTIALS)


def actor(**options) -> Recipe:
    return make_recipe({"name": "actor", **options})


def prepare(tables, **options) -> Prepared:
    return actor(**options).prepare(EPISODES, tables)


def advantage(**options) -> np.ndarray:
    return prepare([ALL], **options).columns["advantage"]


class Batch:
    """All steps that a recipe chose in one batch, after the policy moved up by one nat everywhere."""

    def __init__(self, recipe: Recipe, policy, reader, examples, scored: SideTable):
        prepared = recipe.prepare(reader, [scored])
        reference = prepared.columns["reference_log_prob"].copy()
        prepared.columns["reference_log_prob"] -= 1.0
        steps = np.flatnonzero(prepared.keep)
        batch = PackedBatches(examples, steps, prepared.columns, row_length=512, rows=16, token_columns=prepared.token_columns)[0]
        assert batch["step_mask"].sum() == len(steps)
        loss, metrics = jax.jit(lambda batch: recipe.loss(policy, batch))(batch)
        self.loss = float(loss.total / loss.weight)
        self.metrics = {name: float(mean.total / mean.weight) for name, mean in metrics.items()}
        self.log_prob = reference[steps].astype(np.float64)
        self.advantage = prepared.columns.get("advantage", reference)[steps]
        self.tokens = examples.response_lengths[steps]
