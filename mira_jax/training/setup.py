"""Builds the inputs of the loop from a config: tokenizer, packed data, model and state."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from mira_jax import config as configs
from mira_jax.config import Count
from mira_jax.data.examples import Examples
from mira_jax.data.packing import PackedBatches
from mira_jax.data.pipeline import DataConfig, split
from mira_jax.data.steps import choose, corpus
from mira_jax.errors import ConfigError, UserError
from mira_jax.models import lora as adapters
from mira_jax.models.config import PRESETS, Gemma3Config, Preset
from mira_jax.models.gemma3 import use_kernels
from mira_jax.models.kernels.check import checked_kernels
from mira_jax.models.kernels.choose import Kernels, Setting, describe_kernels
from mira_jax.models.lora import LoraConfig
from mira_jax.models.precision import Precision
from mira_jax.models.remat import Remat
from mira_jax.schema import Options
from mira_jax.training.layout import Layout
from mira_jax.training.load import build_model, load_config, load_model, lora_configs
from mira_jax.training.optimizer import DType
from mira_jax.training.state import Build, Params, Skeleton, init_params, params_of, skeleton
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.token_columns import TokenColumn
from mira_jax.trajectories.tokenizer import FILE_NAME, Tokenizer, find_tokenizer, train_tokenizer


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    preset: Preset | None = None
    """Model size for training from scratch. With `init_from`, the sizes of that model are used."""
    sizes: Annotated[dict[str, Any], Options({"": "mira_jax.models.config:Gemma3Config"})] = dataclasses.field(default_factory=dict)
    """Fields of `mira_jax.models.config.Gemma3Config` that override the preset. The vocabulary size defaults to the tokenizer's."""
    dtype: DType = "float32"
    """Dtype of activations."""
    param_dtype: DType = "float32"
    """Dtype of parameters: float32, or bfloat16, which halves their memory and that of their gradients. See `optimizer.master`
    for its effect on small updates. A critic's heads and the adapters of `lora` are always float32."""
    precision: Precision = "highest"
    """Precision of float32 matrix products (`mira_jax.models.precision`). Only highest is exact float32 on every backend."""
    remat: Remat = "none"
    """What the forward pass keeps for the backward pass: none, block, products, or a list such as [heads, gate, up]
    (`mira_jax.models.remat`)."""
    unroll: bool = False
    """Train adapters (`lora`) layer by layer instead of in a scan over groups of layers. The scan copies what the forward pass keeps
    into stacks, which costs time on GPUs; without it, compiling takes several times longer. Checkpoints are the same. Models of fewer
    than 12 layers have no scan."""
    attention: Setting = "auto"
    """The implementation of attention (`mira_jax.models.kernels.choose`): auto, xla, splash or pallas, or one of these each for
    `local` and `global` layers. auto: a kernel on TPUs and GPUs where one can be used, and xla elsewhere."""


@dataclasses.dataclass(frozen=True)
class TokenizerTraining:
    vocabulary_size: Count = 1024
    """Maximum number of pieces."""
    symbols: list[str] = dataclasses.field(default_factory=list)
    """Strings that are always a single piece."""
    texts: Count = 20_000
    """Maximum number of intents, of responses and of pages to train on."""


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    path: str | None = None
    """A folder with a tokenizer, a tokenizer.json or a SentencePiece model. Default with `init_from`: its tokenizer."""
    train: TokenizerTraining | None = None
    """Train a tokenizer on the data if none is given."""


def open_tokenizer(
    config: TokenizerConfig, init_from: str | None, run: Path, reader: Sequence[Trajectory], seed: int
) -> tuple[Tokenizer, dict[str, bytes]]:
    """The run's tokenizer if it exists, otherwise the given one, otherwise one trained on the data. Also returns the files to
    store with the run.

    Writes nothing.
    """
    if find_tokenizer([run]):
        own = _read(run)
        if config.path and Path(config.path).exists() and _read(config.path)[0].sha256 != own[0].sha256:
            raise UserError(
                f"tokenizer.path: {config.path} is not the tokenizer that {run} began with; name that one, or choose another out"
            )
        return own
    if config.path or (init_from and not config.train):
        return _read(config.path or init_from)
    if not config.train:
        raise UserError("tokenizer: give tokenizer.path, or tokenizer.train.vocabulary_size to train one, or init_from")
    if init_from:
        raise UserError("tokenizer.train: a model from init_from has its tokenizer already")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        train_tokenizer(corpus(reader, config.train.texts, seed), path, config.train.vocabulary_size, config.train.symbols)
        return _read(path)


def _read(path: str | Path) -> tuple[Tokenizer, dict[str, bytes]]:
    tokenizer = Tokenizer(path)
    return tokenizer, tokenizer.contents()


@dataclasses.dataclass(frozen=True)
class Packed:
    train: PackedBatches
    holdout: PackedBatches | None
    description: dict[str, Any]
    """Values that must not change when the run is resumed."""


def pack_data(
    config: DataConfig,
    examples: Examples,
    keep: np.ndarray,
    columns: dict[str, np.ndarray],
    reads_responses: bool,
    held_out: np.ndarray | None = None,
    token_columns: Mapping[str, TokenColumn] | None = None,
    *,
    epochs: float,
    updates: int | None,
    seed: int,
) -> Packed:
    """Plans all batches. The arguments after `examples` are as in `Prepared`, for the steps of `examples`."""
    steps = choose(examples, keep, config.only)
    for name, column in columns.items():
        if not np.isfinite(column[steps]).all():
            raise ValueError(f"column {name} is not finite on every step that is trained on")
    for name, column in (token_columns or {}).items():
        if not np.isfinite(column.values).all():
            raise ValueError(f"token column {name} is not finite")
    if held_out is not None and config.holdout:
        raise ConfigError("data.holdout", "the recipe holds out a fold of the tasks; leave this out")
    held = split(examples.task[steps], config.holdout, seed) if held_out is None else held_out[steps]
    options = {
        "row_length": config.row_length,
        "rows": config.rows,
        "reads_responses": reads_responses,
        "drop_too_long": config.drop_too_long,
        "token_columns": token_columns,
    }
    train = PackedBatches(examples, steps[~held], columns, epochs=epochs, batches=updates, seed=seed, **options)
    holdout = PackedBatches(examples, steps[held], columns, shuffle=False, **options) if held.any() else None
    tokens = [array for _, column in sorted((token_columns or {}).items()) for array in (column.values, column.starts)]
    fingerprint = examples.fingerprint([steps, *(column[steps] for _, column in sorted(columns.items())), *tokens])
    return Packed(train, holdout, {"steps": len(steps), "tokens": len(examples.tokens), "fingerprint": fingerprint})


@dataclasses.dataclass(frozen=True)
class Model:
    """A model before its parameters are computed."""

    config: Gemma3Config
    kernels: Kernels
    """The implementations of attention."""
    skeleton: Skeleton
    make_params: Callable[[Layout], Params]
    """Makes all parameters, including frozen ones; `skeleton.split` separates them."""


def describe_model(
    config: ModelConfig, init_from: str | None, heads: tuple[str, ...], tokenizer: Tokenizer, seed: int, lora: LoraConfig | None = None
) -> Model:
    """The model to train, from scratch or from `init_from`. With `lora`, only its new adapters and a critic's heads are trained.

    Raises:
        UserError: sizes are missing or inconsistent, the vocabulary is smaller than the tokenizer's, adapters would have to be
            merged into bfloat16 parameters, or an implementation of attention cannot be used.
    """
    old_heads: tuple[str, ...] = ()
    old_lora: tuple[LoraConfig, ...] = ()
    if lora and not init_from:
        raise UserError("lora: adapters need a model that they adapt; name it with init_from")
    if init_from:
        if config.preset or config.sizes:
            raise UserError("model: sizes come from init_from; leave out model.preset and model.sizes")
        sizes, old_heads = load_config(init_from)
        old_lora = lora_configs(init_from)
        if old_lora and not lora and config.param_dtype != "float32":
            raise UserError(
                f"init_from: {init_from} holds adapters, most of which would be lost in matrices of {config.param_dtype}; "
                "train new adapters with lora={}, or set model.param_dtype=float32"
            )
        if old_heads and not heads:
            raise UserError(f"init_from: {init_from} holds a critic ({', '.join(old_heads)}), which is no policy to start from")
    else:
        preset = configs.to_tree(PRESETS[config.preset]) if config.preset else {}
        for derived in ("layer_types", "scan_layers", "vocabulary_size"):
            preset.pop(derived, None)
        sizes = configs.build(Gemma3Config, {"vocabulary_size": tokenizer.vocabulary_size, **preset, **config.sizes}, prefix="model.sizes.")
    tokenizer.fit(sizes.vocabulary_size, init_from or "model")

    kernels = checked_kernels(config.attention, sizes, config.dtype)

    layers = (*old_lora, lora) if lora else ()
    build, unrolled = builders(config, sizes, heads, layers, kernels)

    def make_params(layout: Layout) -> Params:
        given = {}
        if init_from:
            old = params_of(load_model(init_from, param_dtype=config.param_dtype, layout=layout)[0])
            trunk = old["trunk"] if old_heads else old
            given = adapters.below(trunk) if lora else adapters.merged(trunk, [settings.scale for settings in old_lora])
        if heads and init_from:
            given = {"trunk": given, "heads": {name: old["heads"][name] for name in heads if name in old_heads}}
        return init_params(build, seed, given, layout.of(bones.parameters))

    bones = skeleton(build, adapters.trained if lora else None)
    return Model(sizes, kernels, skeleton(build, adapters.trained, unrolled) if unrolled else bones, make_params)


def builders(
    config: ModelConfig, sizes: Gemma3Config, heads: tuple[str, ...], layers: Sequence[LoraConfig], kernels: Kernels
) -> tuple[Build, Build | None]:
    """What builds a model with these heads and adapters, and what builds it without stacked layers if `model.unroll` asks for that.

    Raises:
        ConfigError: it asks for that without adapters.
    """
    if config.unroll and not layers:
        raise ConfigError("model.unroll", "only with lora; without, every update would copy all parameters and gradients between layouts")

    def builder(sizes: Gemma3Config) -> Build:
        options = {"dtype": config.dtype, "param_dtype": config.param_dtype, "remat": config.remat}
        return lambda rngs: use_kernels(build_model(sizes, heads, layers, rngs=rngs, **options), kernels)

    apart = dataclasses.replace(sizes, scan_layers=False)
    return builder(sizes), builder(apart) if config.unroll and sizes.scan_layers else None


def describe(packed: Packed, model: Model, summary: dict[str, float]) -> str:
    """One paragraph that describes the planned training."""
    train = packed.train
    lines = [
        f"{model.config.parameters:,} parameters"
        + (f", {_count(model.skeleton.params):,} in adapters and heads that are trained" if model.skeleton.frozen else "")
        + f"; {len(train.steps):,} steps of episodes"
        + (f", {len(packed.holdout.steps):,} held out" if packed.holdout else "")
        + (f", {train.dropped:,} left out (longer than a row)" if train.dropped else ""),
        f"{len(train):,} updates of {train.rows} rows of {train.row_length} tokens, {train.packed_steps / len(train):.0f} steps an update",
        describe_kernels(model.kernels),
    ]
    lines += [f"{name}: {value:.4g}" for name, value in summary.items()]
    return "\n".join(lines)


def _count(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
