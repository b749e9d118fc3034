"""Scores recorded episodes: reference log-probabilities, V(s) and P(s) of every step, and the probability of success of every episode.

    mira score --set episodes=[runs/shop/exploration-labelled] --policy runs/shop/sft --critic runs/shop/critic --out runs/shop/scores

    mira score --set episodes=[runs/shop/exploration-labelled] --orm runs/shop/orm --out runs/shop/scores

The command writes side tables. The training of the actor reads the first two:

    OUT/policy.npz   log_prob (nats, end token included), token_count; with `alternatives` also the likeliest tokens
                     in place of each response token
    OUT/critic.npz   value, potential, milestone_1, ...: one column for each head of the critics
    OUT/critic.json  what the critics are worth, if the episodes are labelled (`mira_jax.recipes.quality`)
    OUT/orm.npz      success_probability, one row per episode, for its last step
    OUT/orm.json     agreement of the ORM with the rules, if the episodes are labelled (`mira_jax.recipes.agreement`)

A table records its inputs: weights, prompt, tokenizer, dtype and shards. An existing table is kept if all of these are
unchanged, so an interrupted command can be resumed. It is recomputed if the model in the same folder or the episodes have
changed. A table of another model or of other episodes is never replaced.
"""

import collections
import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from mira_jax import commands, host_memory
from mira_jax import config as configs
from mira_jax.config import Count, Natural
from mira_jax.data.answers import outcome_examples
from mira_jax.data.cache import cache_folder
from mira_jax.data.episodes import Episodes
from mira_jax.data.steps import step_examples
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import sole_writer, to_json, write_atomically
from mira_jax.models.gemma3 import use_kernels
from mira_jax.models.kernels.check import checked_kernels
from mira_jax.models.kernels.choose import Setting
from mira_jax.models.precision import Precision, use_precision
from mira_jax.models.sharding import MeshConfig
from mira_jax.needs import Needs
from mira_jax.recipes import agreement
from mira_jax.recipes.labels import fold_of, read_labels, task_key
from mira_jax.recipes.quality import critic_quality, describe
from mira_jax.recipes.scoring import score_critic, score_orm, score_policy
from mira_jax.rl.replay import perplexity
from mira_jax.training.layout import Layout, make_layout
from mira_jax.training.load import checkpoint_id, load_config, load_model, weights_identity
from mira_jax.training.optimizer import DType
from mira_jax.training.run_folder import CONFIG, section, trained_on
from mira_jax.trajectories.prompts import PromptConfig, refuse_subgoals
from mira_jax.trajectories.records import Evidence, Page, Status, Step, Trajectory
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import Provenance, SideTable
from mira_jax.trajectories.token_columns import TokenColumn
from mira_jax.trajectories.tokenizer import Tokenizer

POLICY_COLUMNS = ("log_prob", "token_count")
ORM_COLUMNS = ("success_probability",)
Kind = Literal["policy", "critic", "orm"]
Keys = list[tuple[str, int] | None]
"""(trajectory id, step) for each entry of the step index. None for steps without a row in the table."""


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    episodes: list[str] = dataclasses.field(default_factory=list)
    """Folders of shards to score."""
    policy: str | None = None
    """A run of `mira_jax.train` or a Hugging Face folder. It is the reference policy of the actor's objective."""
    critic: str | list[str] | None = None
    """A critic's run, or several runs with different heads, for example one for the value and one for the potential. Of critics that
    were trained on folds of the tasks, name those of all folds. Several runs with the same head, as many for each fold, are an
    ensemble: the column is their mean."""
    orm: str | list[str] | None = None
    """A run of the recipe orm or its export. Of runs that were trained on folds of the tasks, name those of all folds."""
    out: str = ""
    """The folder that the tables are written to."""
    prompt: PromptConfig | None = None
    """How steps are turned into prompts. Default: the prompt config that each model was trained with, from the config of its run."""
    alternatives: Natural = 0
    """Number of likeliest tokens to store for each response token of the policy, with their log-probabilities. The objective mira reads
    them with `support_weight`."""
    rows: Count = 8
    """Rows per batch. A multiple of `mesh.data` times `mesh.fsdp`."""
    row_length: Natural = 0
    """Tokens per row. 0: as many as the longest step needs."""
    cache: str | None = None
    """Folder of the token cache, which the stages on the same episodes share. Default: `token_cache` next to `out`. '': none, the
    tokens are in memory."""
    dtype: DType = "float32"
    """Dtype of activations. Set this, `param_dtype` and `precision` to the values in `model` of the run that will read the table."""
    param_dtype: DType = "float32"
    """Dtype of parameters, except the critics' heads and adapters."""
    precision: Precision = "highest"
    """Precision of float32 matrix products (`mira_jax.models.precision`)."""
    attention: Setting = "auto"
    """The implementation of attention, as `model.attention` of `mira train`. Set this to the value in that run."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """How the devices divide the work, as in training. A table does not record it: the mesh changes the scores only by rounding."""


def main(config: ScoreConfig) -> None:
    host_memory.keep()
    use_precision(config.precision)
    _check(config)
    with sole_writer(config.out, "scores"):
        _score_all(config)


def _score_all(config: ScoreConfig) -> None:
    layout = make_layout(config.mesh, config.rows, config.row_length, prefix="")
    reader = ShardReader(config.episodes)
    tables = [_Table(kind, Path(config.out) / f"{kind}.npz", folders) for kind, folders in _models(config).items() if folders]
    models = [(table.kind, *pair) for table in tables for pair in zip(table.folders, table.made_by(config), strict=True)]
    cache = cache_folder(config.cache, config.out)
    episodes: dict[Inputs, Episodes] = {}
    for kind, folder, made in models:
        if _inputs(kind, made) not in episodes:
            examples_of = outcome_examples if kind == "orm" else step_examples
            episodes[_inputs(kind, made)] = Episodes(reader, made.prompt, Tokenizer(folder), examples_of, cache)
    steps = _Steps(reader)
    for table in tables:
        _write(table, reader, episodes, steps, config, layout)


Inputs = tuple[bool, PromptConfig, str]
"""What determines the examples of given episodes: whether they are those of an ORM, the prompt, the tokenizer."""


def _inputs(kind: Kind, made: Provenance) -> Inputs:
    return kind == "orm", made.prompt, made.tokenizer


def _check(config: ScoreConfig) -> None:
    if Path(config.out).exists() and not Path(config.out).is_dir():
        raise ConfigError("out", f"{config.out} is not a folder; choose another")
    if not any(_models(config).values()):
        raise ConfigError("policy", "name at least one model to score with, by policy, critic or orm")


def _models(config: ScoreConfig) -> dict[Kind, list[str]]:
    """The models of each kind."""
    return {"policy": _several(config.policy), "critic": _several(config.critic), "orm": _several(config.orm)}


def _several(folders: str | list[str] | None) -> list[str]:
    return list(filter(None, [folders] if isinstance(folders, str) else folders or []))


class _Steps:
    """The steps of all episodes, without their pages and responses. Read once, at the first use."""

    def __init__(self, reader: ShardReader):
        self._reader = reader
        self._bare: list[Trajectory] = []

    def read(self, episodes: Iterable[Trajectory]) -> list[Trajectory]:
        """Reads the episodes at the first call. Raises UserError if there are no steps to score."""
        if not self._bare:
            self._bare = [_bare(trajectory) for trajectory in episodes]
            if not any(self.keys("policy", ())):
                raise UserError(f"{', '.join(map(str, self._reader.folders))}: no steps to score")
        return self._bare

    def keys(self, kind: Kind, episodes: Iterable[Trajectory]) -> Keys:
        """The keys of the rows. Steps of infrastructure errors are not scored. An ORM scores an episode, at its last step."""
        keys: Keys = []
        for trajectory in self._bare or self.read(episodes):
            sound, count = trajectory.status is not Status.INFRA_ERROR, len(trajectory.steps)
            keys += [(trajectory.id, step) if sound and (kind != "orm" or step == count - 1) else None for step in range(count)]
        return keys


def _bare(trajectory: Trajectory) -> Trajectory:
    nothing = Page(url="", observation="")
    steps = tuple(Step(index=step.index, page=nothing, response="", milestones=step.milestones) for step in trajectory.steps)
    return msgspec.structs.replace(trajectory, steps=steps, evidence=Evidence())


@dataclasses.dataclass(frozen=True)
class _Table:
    """A side table to write: its models, each with other columns."""

    kind: Kind
    path: Path
    folders: Sequence[str]

    def made_by(self, config: ScoreConfig) -> list[Provenance]:
        """The present state of each model. Raises UserError if one is missing, or a column has more models for one fold than another."""
        made_by = [_provenance(folder, self.kind, config) for folder in self.folders]
        _check_heads(self.kind, self.folders, made_by)
        return made_by


def _write(
    table: _Table, reader: ShardReader, episodes: Mapping[Inputs, Episodes], steps: _Steps, config: ScoreConfig, layout: Layout
) -> None:
    """Scores with each model and writes all columns to one table, unless the existing table is current."""
    path, made_by = table.path, table.made_by(config)
    if path.exists():
        # The examples are not needed yet, and perhaps not at all.
        stale = _stale(SideTable.read(path), made_by, steps.keys(table.kind, reader), reader.sha256)
        if not stale:
            print(f"{path}: complete")
            return
        print(f"{path}: {stale}; scored anew")
    scores: dict[str, list[np.ndarray]] = {}
    tokens: dict[str, TokenColumn] = {}
    for folder, made in zip(table.folders, made_by, strict=True):
        columns, of_tokens = _score(table.kind, folder, made, episodes[_inputs(table.kind, made)], steps, config, layout)
        tokens |= of_tokens
        for column, scored in columns.items():
            scores.setdefault(column, []).append(scored)
    values = {column: _mean_of_scored(several) for column, several in scores.items()}
    if made_by != table.made_by(config):
        raise UserError(
            f"{', '.join(table.folders)}: a new checkpoint was saved meanwhile; run the same command again once training is over"
        )
    quality = _quality(table.kind, steps.read(reader), made_by, values)
    keys = steps.keys(table.kind, reader)
    sound = np.array([key is not None for key in keys])
    values = {name: column[sound] for name, column in values.items()}
    tokens = {name: column.take(np.flatnonzero(sound)) for name, column in tokens.items()}
    scored = [key for key in keys if key]
    ids, numbers = [key[0] for key in scored], np.array([key[1] for key in scored])
    SideTable(ids, numbers, values, made_by, reader.sha256, quality=quality, token_columns=tokens).write(path)
    print(f"{path}: {len(scored):,} {'episodes' if table.kind == 'orm' else 'steps'}; {_describe(values)}")
    if quality:
        write_atomically(path.with_suffix(".json"), to_json(quality).encode())
        print("\n".join(agreement.describe(quality[ORM_COLUMNS[0]]) if table.kind == "orm" else describe(quality)))


def _provenance(folder: str, kind: Kind, config: ScoreConfig) -> Provenance:
    sizes, heads = load_config(folder)
    if bool(heads) != (kind == "critic"):
        raise ConfigError(kind, f"{folder} holds a {'critic' if heads else 'policy'}")
    recipe = (section(folder, "recipe") or {}).get("name")
    if kind == "orm" and recipe not in (None, "orm"):
        raise ConfigError("orm", f"{folder} was trained by the recipe {recipe}; name a run of the recipe orm")
    tokenizer = Tokenizer(folder)
    tokenizer.fit(sizes.vocabulary_size, folder)
    if kind == "policy" and config.alternatives > sizes.vocabulary_size:
        raise ConfigError("alternatives", f"{folder} has only {sizes.vocabulary_size:,} tokens")
    fingerprint, base = weights_identity(folder)
    prompt = config.prompt or _prompt(folder)
    if kind != "critic":
        refuse_subgoals(prompt, "prompt")
    return Provenance(
        columns=heads or (ORM_COLUMNS if kind == "orm" else POLICY_COLUMNS),
        checkpoint=checkpoint_id(folder),
        fingerprint=fingerprint,
        base=base,
        prompt=prompt,
        tokenizer=tokenizer.sha256,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        precision=config.precision,
        fold=_fold(folder),
        alternatives=config.alternatives if kind == "policy" else 0,
    )


def _stale(found: SideTable, made_by: Sequence[Provenance], keys: Keys, shards: Sequence[str]) -> str:
    """The reason why the table must be recomputed, or "" if it is current.

    Raises:
        UserError: the table is of other episodes or other models, so this command must not replace it.
    """
    wanted = {key for key in keys if key}
    ours = {_folder(made.checkpoint) for made in made_by}
    other_models = [made.checkpoint for made in found.made_by if _folder(made.checkpoint) not in ours]
    differences = [made.difference(now) for made, now in zip(found.made_by, made_by, strict=False)]
    same = len(found.made_by) == len(made_by) and not any(differences)
    if not {key[0] for key in wanted} & set(found.ids):
        raise UserError(f"{found.source}: a table of other episodes; choose another out")
    if other_models and not same:
        raise UserError(f"{found.source}: made by {', '.join(other_models)}; choose another out")
    if not found.made_by:
        return "does not record which models computed it (it was written by an older version)"
    if not same:
        return "stale: " + ("; ".join(filter(None, differences)) or "made by another number of models")
    if set(found.shards) != set(shards) or set(zip(found.ids, found.steps.tolist(), strict=True)) != wanted:
        return "stale: the episodes have changed"
    return ""


def _folder(checkpoint: str) -> str:
    return os.path.realpath(checkpoint.rpartition("@")[0] or checkpoint)


def _mean_of_scored(several: Sequence[np.ndarray]) -> np.ndarray:
    """float32 [N]: the mean over the models that scored a step, NaN where none did."""
    counts_N = np.sum([np.isfinite(scores) for scores in several], axis=0)
    sums_N = np.sum([np.nan_to_num(scores) for scores in several], axis=0)
    return np.where(counts_N, sums_N / np.maximum(counts_N, 1), np.nan).astype(np.float32)


def _check_heads(kind: Kind, folders: Sequence[str], made_by: Sequence[Provenance]) -> None:
    """Each column must come from as many different models for each fold. Raises ConfigError."""
    word = "head" if kind == "critic" else "column"
    for column in sorted({column for made in made_by for column in made.columns}):
        makers = [(folder, made) for folder, made in zip(folders, made_by, strict=True) if column in made.columns]
        weights = [(made.fingerprint, made.base) for _, made in makers]
        same = [folder for number, (folder, _) in enumerate(makers) if weights[number] in weights[:number]]
        if same:
            raise ConfigError(kind, f"{same[0]}: another {kind} has the same weights; name each once")
        folds = collections.Counter(made.fold for _, made in makers)
        totals = {fold.partition(" of ")[2] for fold in folds}
        if len(totals) > 1:
            raise ConfigError(
                kind, f"the {word} {column} is of {kind}s with different folds: {', '.join(fold or 'none' for fold in sorted(folds))}"
            )
        total = totals.pop()
        wanted = [f"{number} of {total}" for number in range(int(total))] if total else [""]
        if missing := [fold for fold in wanted if folds[fold] < max(folds.values())]:
            raise ConfigError(kind, f"the {word} {column} lacks the fold {', '.join(missing)}; train that {kind} and name it too")


def _score(
    kind: Kind, folder: str, made: Provenance, episodes: Episodes, steps: _Steps, config: ScoreConfig, layout: Layout
) -> tuple[dict[str, np.ndarray], dict[str, TokenColumn]]:
    model, sizes = load_model(folder, dtype=config.dtype, param_dtype=config.param_dtype, layout=layout)
    use_kernels(model, checked_kernels(config.attention, sizes, config.dtype, key="attention"))
    trajectories = steps.read(episodes)  # the same iteration makes the examples
    examples = episodes.examples
    if kind == "policy":
        return score_policy(
            model, examples, row_length=config.row_length, rows=config.rows, layout=layout, alternatives=config.alternatives
        )
    which = _scored_by(made, trajectories)[examples.episode] if made.fold else None
    score = score_orm if kind == "orm" else score_critic
    return score(model, examples, row_length=config.row_length, rows=config.rows, which=which, layout=layout), {}


def _scored_by(made: Provenance, trajectories: Sequence[Trajectory]) -> np.ndarray:
    """bool [records]: the episodes that a model scores: those of the fold that it holds out, or all."""
    if not made.fold:
        return np.ones(len(trajectories), bool)
    number, _, folds = made.fold.partition(" of ")
    return np.array([fold_of(task_key(trajectory.task), int(folds)) == int(number) for trajectory in trajectories], bool)


def _quality(
    kind: Kind, trajectories: Sequence[Trajectory], made_by: Sequence[Provenance], values: dict[str, np.ndarray]
) -> dict[str, Any]:
    """{} if episodes are not labelled. Says which columns are of models that were trained on episodes that they scored."""
    labelled = all(trajectory.outcome is not None or trajectory.status is Status.INFRA_ERROR for trajectory in trajectories)
    if kind == "policy" or not labelled:
        return {}
    quality = _orm_quality(trajectories, values) if kind == "orm" else critic_quality(read_labels(trajectories), values)
    for made in made_by:
        known = trained_on(_folder(made.checkpoint))
        scored = {trajectory.id for trajectory, own in zip(trajectories, _scored_by(made, trajectories), strict=True) if own}
        if known is None or known & scored:
            seen = "it does not record which episodes it was trained on" if known is None else "it scored episodes that it was trained on"
            for name in ({"milestones"} if "milestone_1" in made.columns else set()) | {*made.columns} & set(quality):
                quality[name]["weak"] = f"{seen}; train {kind}s on folds of the tasks (recipe.folds)"
    return quality


def _orm_quality(trajectories: Sequence[Trajectory], values: dict[str, np.ndarray]) -> dict[str, Any]:
    (column,) = ORM_COLUMNS
    episodes = [trajectory for trajectory in trajectories if trajectory.steps]
    last = np.cumsum([len(trajectory.steps) for trajectory in episodes]) - 1
    found = agreement.agreement(episodes, values[column][last])
    return {column: found} if found else {}


def _prompt(folder: str) -> PromptConfig:
    """`data.prompt` of the run's config. For a Hugging Face folder, the default."""
    tree = section(folder, "data", "prompt")
    return PromptConfig() if tree is None else configs.build(PromptConfig, tree, source=str(Path(folder) / CONFIG), prefix="data.prompt.")


def _fold(folder: str) -> str:
    """The fold that a run holds out, as in `Provenance.fold`."""
    recipe = section(folder, "recipe") or {}
    return f"{recipe.get('fold', 0)} of {recipe['folds']}" if recipe.get("folds") else ""


def _describe(columns: dict[str, np.ndarray]) -> str:
    parts = [f"mean {name} {columns[name].mean():.3f}" for name in ("log_prob", "value", "potential", *ORM_COLUMNS) if name in columns]
    if "log_prob" in columns:
        parts.append(f"median perplexity {np.median(perplexity(columns['log_prob'], columns['token_count'])):.3f}")
    return ", ".join(parts)


def needs(config: ScoreConfig, found: Needs) -> None:
    for number, folder in enumerate(config.episodes):
        found.shards(f"episodes.{number}", folder)
    for kind, folders in _models(config).items():
        for folder in folders:
            if found.input(kind, folder):
                with found.attempt(kind):
                    _provenance(folder, kind, config)
    found.output("out", config.out)
    if config.policy:
        found.alternatives[os.path.abspath(Path(config.out) / "policy.npz")] = config.alternatives
    if config.out:
        with found.attempt():
            _check(config)


REQUIRED = {"episodes": "name at least one folder of episodes", "out": "name a folder for the tables"}
COMMAND = commands.Command("score", main, ScoreConfig, __doc__, flags=("policy", "critic", "orm", "out"), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
