"""Trains a policy or a critic on shards of episodes.

    mira train --config configs/shop/sft.yaml --set optimizer.learning_rate=1e-5

If a run is killed, the same command resumes from the last checkpoint and gives the same numbers.
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import numpy as np

from mira_jax import commands, host_memory
from mira_jax.config import Count, Natural, Positive
from mira_jax.data.cache import cache_folder
from mira_jax.data.episodes import Episodes
from mira_jax.data.examples import Examples
from mira_jax.data.packing import Share
from mira_jax.data.pipeline import Batches, DataConfig
from mira_jax.errors import ConfigError, UserError
from mira_jax.model_files import digests_of
from mira_jax.models.config import PRESETS
from mira_jax.models.lora import LoraConfig
from mira_jax.models.precision import use_precision
from mira_jax.models.sharding import MeshConfig
from mira_jax.needs import LEAST_SPACE, Needs
from mira_jax.recipes import DEFAULT_OBJECTIVE, RECIPES, make_recipe, options_of
from mira_jax.recipes.base import Recipe
from mira_jax.recipes.policies import SUPPORT
from mira_jax.recipes.quality import weak_columns
from mira_jax.schema import Options
from mira_jax.training import loop, processes, setup
from mira_jax.training.checkpoint import CheckpointConfig, Checkpoints, ends_at
from mira_jax.training.layout import Layout, make_layout
from mira_jax.training.load import MODEL, load_config, lora_run, model_fingerprint, weights_identity, write_model_json
from mira_jax.training.metrics import MetricsWriter
from mira_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from mira_jax.training.processes import DistributedConfig
from mira_jax.training.reference import check_first
from mira_jax.training.run_folder import RunFolder, recipe_of, trained_on
from mira_jax.training.setup import ModelConfig, TokenizerConfig
from mira_jax.training.state import TrainState, abstract_state, init_state
from mira_jax.training.step import Metrics, cut, make_evaluation, make_step
from mira_jax.trajectories import side_tables
from mira_jax.trajectories.prompts import refuse_subgoals
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable
from mira_jax.trajectories.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    every: Count = 20
    """Updates between two measurements of the holdout loss."""
    patience: Count = 3
    """Number of measurements in a row without a lower loss after which training stops."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    out: str = ""
    """The folder of the run."""
    recipe: Annotated[dict[str, Any], Options(RECIPES, chosen_by=("name", "objective"), defaults={"objective": DEFAULT_OBJECTIVE})] = (
        dataclasses.field(default_factory=lambda: {"name": "sft"})
    )
    """`name`, the `objective` of the actor, and the options of that recipe."""
    init_from: str | None = None
    """A run folder or a Hugging Face folder to initialise from. A critic takes the trunk of a policy."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    lora: LoraConfig | None = None
    """Train low-rank adapters on top of the matrices of `init_from`, which stay frozen. `lora: {}` uses the defaults. The run
    requires the model of `init_from` as long as it is used; an export does not."""
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    epochs: Positive = 1.0
    """Number of passes over the data."""
    updates: Count | None = None
    """Number of updates. If given, it replaces `epochs`."""
    seed: Natural = 0
    """Seed for the initial parameters, the order of the data and the holdout."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """How the work is divided among several devices. May change when a run is resumed."""
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    """Settings for training with several processes. May change when a run is resumed."""
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    early_stopping: EarlyStopping | None = None
    """Stop when the holdout loss no longer falls, and keep the checkpoint with the lowest. Needs data.holdout, or a fold of the recipe."""
    log_every: Count = 10
    """Updates between two fetches of the metrics. Every update has its line in the metrics regardless."""

    def __post_init__(self) -> None:
        if self.optimizer.master and self.model.param_dtype == "float32":
            raise ConfigError("optimizer.master", "the parameters are float32 already; leave it out, or set model.param_dtype=bfloat16")
        if self.data.rows % self.optimizer.accumulate:
            raise ConfigError(
                "optimizer.accumulate", f"{self.data.rows} rows can't be divided into {self.optimizer.accumulate} equal parts"
            )


def main(config: TrainConfig) -> int:
    """Reads the data, builds the model, trains, and writes a run folder. Returns 130 if it was stopped before the end."""
    host_memory.keep()
    use_precision(config.model.precision)
    processes.start(config.distributed)
    with processes.sole_writer(config.out, "a training run"):
        return _train(config)


def _train(config: TrainConfig) -> int:
    with processes.together():
        recipe = make_recipe(config.recipe)
        if recipe.heads and config.data.selections:
            raise ConfigError("data.selections", "critics learn from whole episodes; leave it out")
        if not recipe.heads:
            refuse_subgoals(config.data.prompt, "data.prompt")
        config = dataclasses.replace(config, recipe=options_of(recipe), distributed=config.distributed.anywhere())
        run = RunFolder(config.out, config)
        if (ended := run.complete) and ends_at(run.path, ended["step"]):
            _say(f"{run.path}: complete already, at update {ended['step']}", sys.stdout)
            return 0
        reader = ShardReader(config.data.folders)
        tokenizer, tokenizer_files = setup.open_tokenizer(config.tokenizer, config.init_from, run.path, reader, config.seed)
        tables = [SideTable.read(path) for path in config.data.side_tables]
        _check_tables(config, tables, reader, tokenizer)
        model = setup.describe_model(config.model, config.init_from, recipe.heads, tokenizer, config.seed, config.lora)
        lora = lora_run(run.path, config.lora, config.init_from) if config.lora else None
        origin = model_fingerprint(config.init_from) if config.init_from else None
        cache = cache_folder(config.data.cache, config.out)
        episodes = Episodes(reader, config.data.prompt, tokenizer, recipe.examples, cache)
        selections = [SideTable.read(path) for path in config.data.selections]
        prepared = recipe.prepare(episodes, tables)
        _refuse_weak(config, tables)
        keep = prepared.keep & side_tables.selected_steps(reader, selections)
        packed = setup.pack_data(
            config.data, episodes.examples, keep, prepared.columns, recipe.reads_responses, prepared.held_out, prepared.token_columns,
            epochs=config.epochs, updates=config.updates, seed=config.seed,
        )  # fmt: skip
        layout = make_layout(config.mesh, config.data.rows // config.optimizer.accumulate, config.data.row_length)
        _say(setup.describe(packed, model, prepared.summary))

    with run.writing():
        with processes.together():
            processes.require_equal("the data", packed.description["fingerprint"])
            if processes.first():
                run.create()
                inputs = {**packed.description, "summary": prepared.summary, "init_from": origin, "shards": list(reader.sha256)}
                run.check_inputs(inputs, _learned_from(config, recipe, reader.ids(), episodes.examples, packed))
                with digests_of(run.path, [MODEL, *tokenizer_files]):
                    for name, content in tokenizer_files.items():
                        run.write_bytes(name, content)
                    write_model_json(run.path, model.config, recipe.heads, lora)
        result = _fit(config, run, recipe, packed, model, layout)
        if not result.finished:
            saved = f"stopped after update {result.step}, which is saved" if result.step else "stopped before anything was saved"
            _say(f"{saved}; resume with: {run.restart}")
            return 130
        if processes.first():
            run.finish(result.step, result.metrics, result.seconds)
            _say(f"{run.path}: {result.step} updates, loss {result.metrics['loss']:.4f}, {result.seconds:.0f} s", sys.stdout)
    return 0


def _fit(config: TrainConfig, run: RunFolder, recipe: Recipe, packed: setup.Packed, model: setup.Model, layout: Layout) -> loop.LoopResult:
    """Trains from the last checkpoint, or from the start, to the end."""
    updates, parts = len(packed.train), config.optimizer.accumulate
    optimizer = make_optimizer(config.optimizer, updates)
    abstract = abstract_state(model.skeleton.params, optimizer)
    checkpoints = Checkpoints(run.path, config.checkpoint.keep)
    rows, at_once = layout.rows(config.data.rows, parts), config.data.rows // parts
    data = Batches(Share(packed.train, rows))
    step = checkpoints.latest or 0
    params, frozen = model.skeleton.split(model.make_params(layout)) if model.skeleton.frozen or not step else (None, {})
    if step:
        state = checkpoints.restore(layout.abstract(abstract), data)
        _say(f"{run.path}: continues after update {step} of {updates}")
    else:
        state = init_state(params, optimizer, layout.of(abstract))
    evaluate = None
    if packed.holdout:
        evaluation = make_evaluation(model.skeleton, recipe.loss)
        held = Share(packed.holdout, layout.rows(config.data.rows))
        evaluate = loop.mean_over(
            lambda params, batch: evaluation(params, batch, frozen),
            held,
            lambda batch: layout.put_batch(cut(batch, 1), config.data.rows),
            loop.HOLDOUT,
        )
    writer = MetricsWriter(run.path, step) if processes.first() else None
    rate = learning_rate(config.optimizer, updates)
    step_of = make_step(model.skeleton, recipe.loss, optimizer, rate, layout.of(abstract), config.optimizer.sum_dtype)

    def update(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        return step_of(state, batch, frozen)

    if not step:
        update = check_first(update, config.model.dtype, _say)
    with layout.active(), contextlib.closing(data):
        result = loop.train(
            state,
            step,
            update,
            data,
            lambda batch: layout.put_batch(cut(batch, parts), at_once),
            loop.LoopConfig(updates, config.log_every, config.checkpoint.every, *_evaluations(config, packed, updates)),
            checkpoints,
            writer,
            evaluate,
        )
    if writer:
        writer.close()
    return result


def _evaluations(config: TrainConfig, packed: setup.Packed, updates: int) -> tuple[list[int], int | None]:
    """The updates at which the holdout is measured, and the patience of early stopping."""
    stopping = config.early_stopping
    if stopping:
        return [*range(stopping.every, updates, stopping.every), updates], stopping.patience
    return [*packed.train.epoch_ends, updates], None


def _say(text: str, to: TextIO | None = None) -> None:
    """Prints the text once, from one of the processes."""
    if processes.first():
        print(text, file=to or sys.stderr)


def _refuse_weak(config: TrainConfig, tables: list[SideTable]) -> None:
    """Raises UserError if the recipe has read a column of a critic that is weak."""
    for table in tables if not config.data.accept_weak_critics else ():
        for name, reason in weak_columns(table.quality, table.used).items():
            raise UserError(f"{table.source}: {name}: {reason}. Improve the critic, leave it out, or set data.accept_weak_critics=true")


def _learned_from(config: TrainConfig, recipe: Recipe, ids: Sequence[str], examples: Examples, packed: setup.Packed) -> set[str] | None:
    """The ids of the episodes that the run is trained on. A critic that starts from a critic, or a run that starts from one of the same
    recipe, has seen those of that one too. None if these are unknown."""
    own = {ids[record] for record in np.unique(examples.episode[packed.train.steps])}
    if not config.init_from or not (load_config(config.init_from)[1] or recipe_of(config.init_from) == recipe.name):
        return own
    before = trained_on(config.init_from)
    return None if before is None else own | before


def _check_tables(config: TrainConfig, tables: list[SideTable], reader: ShardReader, tokenizer: Tokenizer) -> None:
    """Refuses side tables that were computed with settings other than those of this run. Raises UserError."""
    side_tables.check(tables, reader.sha256, config.data.prompt, tokenizer.sha256)
    references = [(table, made) for table in tables for made in table.made_by if "log_prob" in made.columns]
    if not references:
        return
    if not config.init_from:
        raise UserError(f"{references[0][0].source}: holds the reference of a policy, but the run starts from none; set init_from")
    fingerprint, base = weights_identity(config.init_from)
    numbers = {key: getattr(config.model, key) for key in ("dtype", "param_dtype", "precision")}
    sets = " ".join(f"--set {key}={value}" for key, value in numbers.items())
    for table, made in references:
        start = dataclasses.replace(made, fingerprint=fingerprint, base=base, **numbers)
        if difference := made.difference(start):
            raise UserError(
                f"{table.source}: the reference, computed by {made.checkpoint}, is not the policy that the run starts from, "
                f"{config.init_from} ({difference}); score with --policy {config.init_from} {sets}"
            )


def needs(config: TrainConfig, found: Needs) -> None:
    for number, folder in enumerate(config.data.folders):
        found.shards(f"data.folders.{number}", folder)
    for number, path in enumerate(config.data.side_tables):
        found.input(f"data.side_tables.{number}", path)
    found.input("tokenizer.path", config.tokenizer.path)
    readable = found.input("init_from", config.init_from)
    parameters = 0
    with found.attempt("init_from"):
        if readable:
            parameters = load_config(config.init_from)[0].parameters
        elif config.model.preset and not config.init_from:
            parameters = PRESETS[config.model.preset].parameters
    with found.attempt("recipe"):
        _check_alternatives(config, make_recipe(config.recipe), found)
    # A checkpoint holds the parameters and Adam's two moments in float32. One more than is kept exists while it is written.
    size = 0 if config.lora else 12 * parameters * (config.checkpoint.keep + 1)
    found.output("out", config.out, max(size, LEAST_SPACE))


def _check_alternatives(config: TrainConfig, recipe: Recipe, found: Needs) -> None:
    """Raises ConfigError if an earlier stage stores fewer likely tokens than the recipe reads."""
    wanted = getattr(recipe, "token_columns", {}).get(SUPPORT)
    for number, path in enumerate(config.data.side_tables):
        stored = found.alternatives.get(os.path.abspath(path))
        if wanted and stored is not None and stored < wanted.shape[0]:
            raise ConfigError(
                f"data.side_tables.{number}",
                f"{path}: the stage that writes it has alternatives={stored}, and recipe.support_weight needs {wanted.shape[0]}; "
                f"set alternatives={wanted.shape[0]} there",
            )


REQUIRED = {
    "out": "give the folder of the run, for example --out runs/sft",
    "data.folders": "give at least one folder of episodes",
}
COMMAND = commands.Command("train", main, TrainConfig, __doc__, flags=("out", "init_from"), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
