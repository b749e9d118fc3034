"""Measures what a training run did to its policy, on the steps that it was trained on.

    mira diagnose runs/demo/mira

The command scores these steps with the policy before and after training, and writes RUN/diagnostics.json: the distributions of
advantages and log ratios by outcome, the share of the wanted change that probabilities allow, KL and entropy
(`mira_jax.trajectories.diagnostics`). `mira report` draws them.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from mira_jax import commands, host_memory
from mira_jax import config as configs
from mira_jax.config import Count
from mira_jax.data.cache import cache_folder
from mira_jax.data.episodes import Episodes
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import read_json, sole_writer
from mira_jax.models.gemma3 import use_kernels
from mira_jax.models.kernels.check import checked_kernels
from mira_jax.models.precision import use_precision
from mira_jax.needs import Needs
from mira_jax.recipes import make_recipe
from mira_jax.recipes.base import Prepared, Recipe
from mira_jax.recipes.diagnostics import diagnostics
from mira_jax.recipes.labels import read_labels
from mira_jax.recipes.scoring import score_movement
from mira_jax.train import TrainConfig
from mira_jax.training.checkpoint import latest_checkpoint
from mira_jax.training.load import load_model, model_fingerprint
from mira_jax.training.run_folder import CONFIG, DATA
from mira_jax.training.setup import pack_data
from mira_jax.trajectories.diagnostics import describe, write
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable, selected_steps
from mira_jax.trajectories.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class DiagnoseConfig:
    run: str = ""
    """Folder of a run of `mira train` that trained a policy by RL or behaviour cloning on labelled episodes."""
    rows: Count = 8
    """Rows per batch."""


def main(config: DiagnoseConfig) -> None:
    host_memory.keep()
    run = Path(config.run)
    trained = _trained(run)
    use_precision(trained.model.precision)
    with sole_writer(run, "a run"):
        recipe = make_recipe(trained.recipe)
        reader = ShardReader(trained.data.folders)
        episodes = Episodes(reader, trained.data.prompt, Tokenizer(run), recipe.examples, cache_folder(trained.data.cache, trained.out))
        prepared = recipe.prepare(episodes, [SideTable.read(path) for path in trained.data.side_tables])
        steps = _steps(run, trained, reader, episodes, recipe, prepared)
        which = np.zeros(episodes.examples.steps, bool)
        which[steps] = True
        before, after = (_score(folder, trained, episodes, config.rows, which) for folder in (str(trained.init_from), config.run))
        advantage = prepared.columns.get("advantage")
        found = diagnostics(
            int(latest_checkpoint(run).name),
            after["log_prob"][steps],
            before["log_prob"][steps],
            read_labels(reader).success[steps],
            episodes.examples.response_lengths[steps],
            after["entropy"][steps],
            before["entropy"][steps],
            None if advantage is None else advantage[steps],
            trained.recipe["beta"] if trained.recipe.get("objective") == "mira" and not trained.recipe["per_token"] else None,
        )
        write(run, found)
    print("\n".join(describe(found)))


def _steps(run: Path, trained: TrainConfig, reader: ShardReader, episodes: Episodes, recipe: Recipe, prepared: Prepared) -> np.ndarray:
    """int [N]: the steps that the run was trained on.

    Raises:
        UserError: the initial policy, the episodes or the tables are not those that the run was trained with.
    """
    made = read_json(run / DATA, "restore a copy")
    if made.get("init_from") != model_fingerprint(str(trained.init_from)):
        raise UserError(f"{trained.init_from}: the weights have changed since {run} was trained from them")
    keep = prepared.keep & selected_steps(reader, [SideTable.read(path) for path in trained.data.selections])
    packed = pack_data(
        trained.data, episodes.examples, keep, prepared.columns, recipe.reads_responses, prepared.held_out,
        epochs=trained.epochs, updates=trained.updates, seed=trained.seed,
    )  # fmt: skip
    if made.get("fingerprint") != packed.description["fingerprint"]:
        raise UserError(f"{run}: its episodes, side tables or selections have changed since it was trained")
    return np.unique(packed.train.steps)


def _trained(run: Path) -> TrainConfig:
    """The config of the run. Raises UserError if it is no run of a policy on labelled episodes that has a reference."""
    if not (run / CONFIG).exists():
        raise ConfigError("run", f"{run}: no run of `mira train`")
    trained = configs.build(TrainConfig, configs.read(run / CONFIG), source=str(run / CONFIG))
    if trained.recipe["name"] != "actor":
        raise ConfigError("run", f"{run}: was trained by the recipe {trained.recipe['name']}; expected an actor")
    if not trained.init_from:
        raise ConfigError("run", f"{run}: was trained from scratch, so there is no policy to compare with")
    return trained


def _score(folder: str, trained: TrainConfig, episodes: Episodes, rows: int, which: np.ndarray) -> dict[str, np.ndarray]:
    model, sizes = load_model(folder, dtype=trained.model.dtype, param_dtype=trained.model.param_dtype)
    use_kernels(model, checked_kernels(trained.model.attention, sizes, trained.model.dtype))
    return score_movement(model, episodes.examples, rows=rows, which=which)


def needs(config: DiagnoseConfig, found: Needs) -> None:
    if found.input("run", config.run):
        with found.attempt("run"):
            trained = _trained(Path(config.run))
            for folder in trained.data.folders:
                found.shards("run", folder)
            found.input("run", trained.init_from)


REQUIRED = {"run": "name the folder of a run, for example runs/demo/mira"}
COMMAND = commands.Command("diagnose", main, DiagnoseConfig, __doc__, positional=("run",), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
