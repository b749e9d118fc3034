"""Scores every step of recorded episodes: reference log-probabilities, V(s) and P(s).

    python -m mira_jax.score --set episodes=[runs/demo/rollouts] --policy runs/demo/sft --critic runs/demo/critic --out runs/demo/scores

writes side tables, which the actor's training reads:

    OUT/policy.npz   log_prob (nats, end token included), token_count
    OUT/critic.npz   value, potential: what the critics have heads for

A table that is there already, of the same checkpoint and steps, is kept: an interrupted command goes on.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import yaml

from mira_jax import commands, host_memory
from mira_jax import config as configs
from mira_jax.data.steps import StepExamples, tokenize
from mira_jax.errors import UserError
from mira_jax.models.heads import Critic
from mira_jax.recipes.scoring import score_critic, score_policy
from mira_jax.rl.replay import perplexity
from mira_jax.training.load import checkpoint_id, load_model
from mira_jax.training.run_folder import CONFIG
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable
from mira_jax.trajectories.tokenizer import Tokenizer

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    episodes: list[str] = dataclasses.field(default_factory=list)
    """Folders of shards."""
    policy: str | None = None
    """A run of `mira_jax.train` or a Hugging Face folder: the reference of the actor's objective."""
    critic: str | list[str] | None = None
    """A critic's run, or several whose heads differ: for example one for the value and one for the potential."""
    out: str = ""
    """A folder for the tables."""
    prompt: PromptConfig | None = None
    """How steps are turned into prompts. Default: as each model was trained, by the config of its run."""
    rows: int = 8
    """Rows per batch."""
    row_length: int = 0
    """Tokens per row; 0 for as many as the longest step needs."""
    dtype: str = "float32"
    """Of activations: float32 or bfloat16."""


def main(config: ScoreConfig) -> None:
    host_memory.keep()
    _check(config)
    reader = ShardReader(config.episodes)
    keys = _keys(reader)
    if config.policy:
        _write(Path(config.out) / "policy.npz", [config.policy], keys, lambda folder: _score(score_policy, folder, False, reader, config))
    if critics := _critics(config):
        _write(Path(config.out) / "critic.npz", critics, keys, lambda folder: _score(score_critic, folder, True, reader, config))


def _check(config: ScoreConfig) -> None:
    if not config.episodes:
        raise UserError("episodes: name at least one folder of episodes")
    if not config.out:
        raise UserError("out: name a folder for the tables")
    if Path(config.out).exists() and not Path(config.out).is_dir():
        raise UserError(f"out: {config.out} is not a folder; choose another")
    if not config.policy and not config.critic:
        raise UserError("policy, critic: name at least one model to score with")
    if config.dtype not in DTYPES:
        raise UserError(f"dtype: {config.dtype!r} is none of {', '.join(DTYPES)}")
    if config.rows < 1 or config.row_length < 0:
        raise UserError("rows must be at least 1, and row_length at least 0")


def _critics(config: ScoreConfig) -> list[str]:
    if isinstance(config.critic, str):
        return [config.critic]
    return list(config.critic or [])


def _keys(reader: ShardReader) -> list[tuple[str, int] | None]:
    """(trajectory id, step) of every step in the step index; None for those of infrastructure errors, which are not scored."""
    keys: list[tuple[str, int] | None] = []
    for trajectory in reader:
        sound = trajectory.status is not Status.INFRA_ERROR
        keys += [(trajectory.id, number) if sound else None for number in range(len(trajectory.steps))]
    if not any(keys):
        raise UserError(f"{', '.join(map(str, reader.folders))}: no steps to score")
    return keys


def _write(path: Path, folders: Sequence[str], keys: list[tuple[str, int] | None], score: Callable[[str], dict[str, np.ndarray]]) -> None:
    """Scores with each model and writes all columns to one table, unless it is there."""
    checkpoint = ", ".join(checkpoint_id(folder) for folder in folders)
    scored = [key for key in keys if key]
    if path.exists():
        found = SideTable.read(path)
        if found.checkpoint != checkpoint or set(zip(found.ids, found.steps.tolist(), strict=True)) != set(scored):
            raise UserError(f"{path}: made with {found.checkpoint}, or of other episodes; remove it or choose another out")
        print(f"{path}: complete")
        return
    columns: dict[str, np.ndarray] = {}
    for folder in folders:
        new = score(folder)
        if both := sorted(set(new) & set(columns)):
            raise UserError(f"critic: {folder} and another both have the head {both[0]}; name one critic per head")
        columns |= new
    sound = np.array([key is not None for key in keys])
    columns = {name: column[sound] for name, column in columns.items()}
    SideTable([key[0] for key in scored], np.array([key[1] for key in scored]), columns, checkpoint).write(path)
    print(f"{path}: {len(scored):,} steps; {_describe(columns)}")


def _score(
    score: Callable[..., dict[str, np.ndarray]], folder: str, critic: bool, reader: ShardReader, config: ScoreConfig
) -> dict[str, np.ndarray]:
    model, sizes = load_model(folder, dtype=DTYPES[config.dtype])
    if isinstance(model, Critic) != critic:
        raise UserError(f"{'critic' if critic else 'policy'}: {folder} holds a {'policy' if critic else 'critic'}")
    tokenizer = Tokenizer(folder)
    if tokenizer.vocabulary_size > sizes.vocabulary_size:
        raise UserError(f"{folder}: its tokenizer has {tokenizer.vocabulary_size} pieces, its model {sizes.vocabulary_size}")
    examples: StepExamples = tokenize(reader, config.prompt or _prompt(folder), tokenizer)
    return score(model, examples, row_length=config.row_length, rows=config.rows)


def _prompt(folder: str) -> PromptConfig:
    """`data.prompt` of the run's config; a Hugging Face folder has none and gets the default."""
    path = Path(folder) / CONFIG
    if not path.exists():
        return PromptConfig()
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    return configs.build(PromptConfig, tree.get("data", {}).get("prompt", {}), source=str(path))


def _describe(columns: dict[str, np.ndarray]) -> str:
    parts = [f"mean {name} {columns[name].mean():.3f}" for name in ("log_prob", "value", "potential") if name in columns]
    if "log_prob" in columns:
        parts.append(f"median perplexity {np.median(perplexity(columns['log_prob'], columns['token_count'])):.3f}")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(commands.run(main, ScoreConfig, __doc__, flags=("policy", "critic", "out")))
