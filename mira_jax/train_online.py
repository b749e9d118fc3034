"""The trainer of `mira online`: waits for the episodes of each round, updates the policy on them, and saves it.

    mira train-online --config configs/anchor/trainer.yaml --set rollouts=runs/anchor/rounds --out runs/anchor/policy

`mira online` starts it. On a host of its own it is started like this, with the folders on a common file system. If a run is killed, the
same command resumes after the last complete round.
"""

import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mira_jax import commands, host_memory
from mira_jax.config import Count, Natural
from mira_jax.data.episodes import Episodes
from mira_jax.data.pipeline import Batches, DataConfig
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import to_json, write_atomically
from mira_jax.model_files import digests_of
from mira_jax.models.kernels.choose import describe_kernels
from mira_jax.models.lora import LoraConfig
from mira_jax.models.precision import use_precision
from mira_jax.models.sharding import MeshConfig
from mira_jax.recipes import make_recipe, options_of
from mira_jax.recipes.base import OLD, REFERENCE, NothingToLearn, Prepared, Recipe, TokenShape
from mira_jax.recipes.objectives import OBJECTIVES
from mira_jax.rounds import DONE, ROUND, Version, read_version
from mira_jax.schema import Options
from mira_jax.training import processes, setup
from mira_jax.training.checkpoint import Checkpoints
from mira_jax.training.layout import Layout, make_layout
from mira_jax.training.load import MODEL, lora_run, model_fingerprint, write_model_json
from mira_jax.training.loop import FINITE, Diverged
from mira_jax.training.metrics import MetricsWriter, read_metrics
from mira_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from mira_jax.training.round_data import RoundPosition, make_token_log_probs
from mira_jax.training.run_folder import RunFolder
from mira_jax.training.setup import ModelConfig, TokenizerConfig
from mira_jax.training.state import Params, abstract_state, all_finite, init_state
from mira_jax.training.step import cut, make_step
from mira_jax.trajectories.prompts import refuse_subgoals
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.token_columns import TokenColumn
from mira_jax.trajectories.tokenizer import Tokenizer

HISTORY = "rounds.jsonl"
"""A line per round: its episodes, rewards, updates and seconds."""
POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class TrainOnlineConfig:
    out: str = ""
    """The folder of the run."""
    rollouts: str = ""
    """The folder of the rounds, rounds/ of `mira online`."""
    episodes: str = "labelled"
    """The folder of the labelled episodes, in that of a round."""
    recipe: Annotated[dict[str, Any], Options({"actor": OBJECTIVES}, chosen_by=("name", "objective"), defaults={"objective": "grpo"})] = (
        dataclasses.field(default_factory=lambda: {"name": "actor", "objective": "grpo"})
    )
    """The objective, and its options. It must need no side tables: grpo, filtered_bc, prefix_bc."""
    init_from: str = ""
    """A run folder or a Hugging Face folder: the first policy, and the reference of the KL divergence."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    lora: LoraConfig | None = None
    """Train low-rank adapters, as in `mira train`."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-6, schedule="constant", warmup=0.0)
    )
    """schedule and warmup must be constant and 0, since the number of updates is not known beforehand."""
    rounds: Count = 1
    """Number of rounds. May grow when a run is resumed."""
    epochs: Count = 1
    """Passes over the episodes of a round."""
    staleness: Natural = 0
    """Refuses episodes that were drawn with older weights: more rounds before than this, see `mira online`."""
    seed: Natural = 0
    """Seed of the adapters and of the order of the data."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """How the work is divided among the devices of this host."""
    keep: Count = 2
    """Number of checkpoints to keep. A server reads the newest."""

    def __post_init__(self) -> None:
        if self.optimizer.schedule != "constant" or self.optimizer.warmup:
            raise ConfigError("optimizer.schedule", "the number of updates is not known beforehand; set it to constant, and warmup to 0")
        for name in ("folders", "side_tables", "selections", "holdout", "cache"):
            if getattr(self.data, name):
                raise ConfigError(f"data.{name}", "the episodes are those of the rounds; leave it out")
        if self.data.rows % self.optimizer.accumulate:
            raise ConfigError(
                "optimizer.accumulate", f"{self.data.rows} rows can't be divided into {self.optimizer.accumulate} equal parts"
            )


def main(config: TrainOnlineConfig) -> int:
    """Trains on one round after the other. Returns 130 if it was stopped before the end."""
    host_memory.keep()
    use_precision(config.model.precision)
    with processes.sole_writer(config.out, "a training run"):
        recipe = make_recipe(config.recipe)
        refuse_subgoals(config.data.prompt, "data.prompt")
        config = dataclasses.replace(config, recipe=options_of(recipe))
        run = RunFolder(config.out, config, "mira_jax.train_online")
        tokenizer, tokenizer_files = setup.open_tokenizer(TokenizerConfig(), config.init_from, run.path, [], config.seed)
        model = setup.describe_model(config.model, config.init_from, (), tokenizer, config.seed, config.lora)
        _say(describe_kernels(model.kernels))
        lora = lora_run(run.path, config.lora, config.init_from) if config.lora else None
        with run.writing():
            run.create()
            run.check_inputs({"init_from": model_fingerprint(config.init_from)}, None)
            with digests_of(run.path, [MODEL, *tokenizer_files]):
                for name, content in tokenizer_files.items():
                    run.write_bytes(name, content)
                write_model_json(run.path, model.config, (), lora)
            layout = make_layout(config.mesh, config.data.rows // config.optimizer.accumulate, config.data.row_length)
            with layout.active(), processes.StopSignal() as stop:
                trainer = _Trainer(config, recipe, run, tokenizer, model, layout)
                while trainer.round < config.rounds:
                    if not trainer.train_round(stop):
                        _say(f"stopped after round {trainer.round}, which is saved; resume with: {run.restart}")
                        return 130
                trainer.close()
            run.finish(trainer.step, trainer.metrics, trainer.seconds)
    _say(f"{run.path}: {trainer.round} rounds, {trainer.step} updates")
    return 0


class _Trainer:
    """The policy, and the rounds that it was trained on."""

    def __init__(self, config: TrainOnlineConfig, recipe: Recipe, run: RunFolder, tokenizer: Tokenizer, model: setup.Model, layout: Layout):
        """Restores the newest checkpoint, or writes the first, and publishes it."""
        self._config, self._recipe, self._path, self._tokenizer, self._layout = config, recipe, run.path, tokenizer, layout
        self._checkpoints = Checkpoints(run.path, config.keep)
        self._position = RoundPosition()
        skeleton = model.skeleton
        optimizer = make_optimizer(config.optimizer, 1)
        abstract = abstract_state(skeleton.params, optimizer)
        params, self._frozen = skeleton.split(model.make_params(layout))
        self._columns: Mapping[str, TokenShape] = getattr(recipe, "token_columns", {})
        self._reference = jax.tree.map(jnp.copy, params) if REFERENCE in self._columns else None
        if self._checkpoints.latest is not None:
            self._state = self._checkpoints.restore(layout.abstract(abstract), self._position)
        else:
            self._state = init_state(params, optimizer, layout.of(abstract))
        self._step_of = make_step(
            skeleton, recipe.loss, optimizer, learning_rate(config.optimizer, 1), layout.of(abstract), config.optimizer.sum_dtype
        )
        self._log_probs = make_token_log_probs(skeleton)
        self._writer = MetricsWriter(run.path, self.step)
        self._shapes = (1, 1)
        """S and R of the rounds so far: batches of equal shapes need one compilation."""
        self._history = [line for line in read_metrics(self._path / HISTORY) if line["round"] <= self.round]
        self.metrics: dict[str, float] = self._writer.last
        self._save()

    @property
    def round(self) -> int:
        """Number of complete rounds."""
        return self._position.round

    @property
    def step(self) -> int:
        """Number of updates."""
        return self._position.step

    @property
    def seconds(self) -> float:
        """Seconds of updates."""
        return sum(line["train_seconds"] for line in self._history)

    def train_round(self, stop: processes.StopSignal) -> bool:
        """Waits for the next round and trains on it. Returns False if it was stopped, with the state of the last complete round saved."""
        number = self.round + 1
        folder = Path(self._config.rollouts) / str(number)
        waited = time.monotonic()
        while not (folder / DONE).exists():
            if stop.asked(self.step):
                return False
            time.sleep(POLL_SECONDS)
        started = time.monotonic()
        drawn = read_version(folder / DONE)
        prepared, packed = self._read(folder / self._config.episodes, number, drawn)
        updates = len(packed.train) if packed else 0
        self._say_round(number, prepared, updates)
        for batch in Batches(packed.train) if packed else ():
            if stop.asked(self.step):
                return False
            self._update(batch)
        self._position.round = number
        line = {
            "round": number, "version": drawn.round, "step": self.step, "updates": updates, **prepared.summary,
            "wait_seconds": round(started - waited, 3), "train_seconds": round(time.monotonic() - started, 3),
        }  # fmt: skip
        if packed:
            line |= {"tokens": int(packed.description["tokens"]), **{key: self.metrics[key] for key in FINITE}}
        self._history.append(line)
        self._save()
        return True

    def close(self) -> None:
        self._writer.close()
        self._checkpoints.close()

    def _read(self, folder: Path, number: int, drawn: Version) -> tuple[Prepared, setup.Packed | None]:
        """The episodes of a round. None: there is nothing to learn from them.

        Raises:
            UserError: they are no episodes of this policy, or were drawn with weights that are too old.
        """
        if drawn.round < number - 1 - self._config.staleness:
            raise UserError(
                f"{folder}: drawn with the weights of round {drawn.round}, more than staleness={self._config.staleness} rounds before the "
                f"last, {number - 1}"
            )
        reader = ShardReader([str(folder)])
        for trajectory in reader:
            known = trajectory.policy.fingerprint
            if trajectory.status is not Status.INFRA_ERROR and known and known != drawn.fingerprint:
                raise UserError(
                    f"{folder}: trajectory {trajectory.id} was drawn with the weights {known}, not with those of round {drawn.round}, "
                    f"{drawn.fingerprint}; remove the folder of this round, and its rollouts run again"
                )
        episodes = Episodes(reader, self._config.data.prompt, self._tokenizer, self._recipe.examples, progress=False)
        try:
            prepared = self._recipe.prepare(episodes, [])
        except NothingToLearn as error:
            _say(str(error))
            return Prepared(np.zeros(0, bool)), None
        if not prepared.keep.any():
            return prepared, None
        tokens = prepared.token_columns | self._own_log_probs(episodes, prepared)
        packed = self._pack(episodes, prepared, tokens, self._config.epochs)
        packed.train.widen(*self._shapes)
        self._shapes = packed.train.steps_per_row, packed.train.responses_per_row
        return prepared, packed

    def _pack(self, episodes: Episodes, prepared: Prepared, tokens: dict[str, TokenColumn], epochs: int) -> setup.Packed:
        return setup.pack_data(
            self._config.data, episodes.examples, prepared.keep, prepared.columns, True, None, tokens,
            epochs=epochs, updates=None, seed=self._config.seed + self.step,
        )  # fmt: skip

    def _own_log_probs(self, episodes: Episodes, prepared: Prepared) -> dict[str, TokenColumn]:
        """The token columns OLD and REFERENCE, if the recipe reads them."""
        params = {name: of for name, of in ((OLD, self._state.params), (REFERENCE, self._reference)) if name in self._columns}
        if not params:
            return {}
        packed = self._pack(episodes, prepared, prepared.token_columns, 1).train
        packed.widen(*self._shapes)
        self._shapes = packed.steps_per_row, packed.responses_per_row
        batches = [self._layout.put_batch(cut(packed[index], 1), self._config.data.rows) for index in range(len(packed))]

        def column(params: Params) -> TokenColumn:
            column = packed.empty_token_column()
            for index, batch in enumerate(batches):
                column.fill(packed[index], np.asarray(self._log_probs(params, batch, self._frozen)))
            return column

        return {name: column(of) for name, of in params.items()}

    def _update(self, batch: dict[str, np.ndarray]) -> None:
        parts = self._config.optimizer.accumulate
        placed = self._layout.put_batch(cut(batch, parts), self._config.data.rows // parts)
        self._state, values = self._step_of(self._state, placed, self._frozen)
        self.metrics = {name: float(value) for name, value in jax.device_get(values).items()}
        for name in FINITE:
            if not np.isfinite(self.metrics[name]):
                raise Diverged(f"update {self.step + 1}: {name} is {self.metrics[name]}; training stops, and the last round is kept")
        self._position.step += 1
        self._writer.write(self.step, self.metrics | {"round": self.round + 1})

    def _save(self) -> None:
        """Saves the state, and publishes it."""
        if not all_finite(self._state):
            raise Diverged(f"update {self.step}: the parameters are not finite; training stops, and the last round is kept")
        self._writer.flush()
        self._checkpoints.save(self.step, self._state, self._position)
        self._checkpoints.wait()
        write_atomically(self._path / HISTORY, "".join(map(to_json, self._history)).encode())
        version = Version(self.round, self.step, model_fingerprint(self._path))
        write_atomically(self._path / ROUND, to_json(dataclasses.asdict(version)).encode())

    def _say_round(self, number: int, prepared: Prepared, updates: int) -> None:
        shown = {name: prepared.summary[name] for name in ("reward", "success_rate", "groups_without_spread") if name in prepared.summary}
        values = ", ".join(f"{name} {value:.3g}" for name, value in shown.items())
        _say(f"round {number} of {self._config.rounds}: {values}; " + (f"{updates} updates" if updates else "nothing to learn from"))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


REQUIRED = {
    "out": "name the folder of the run, for example --out runs/online/policy",
    "rollouts": "name the folder of the rounds, for example --set rollouts=runs/online/rounds",
    "init_from": "name the first policy, for example --init-from runs/sft",
}
COMMAND = commands.Command("train-online", main, TrainOnlineConfig, __doc__, flags=("out", "init_from"), required=REQUIRED)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
