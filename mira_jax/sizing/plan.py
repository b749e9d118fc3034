"""Derives the training step from a config, without data, tokenizer, parameter values or devices."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mira_jax import config as configs
from mira_jax.data.examples import one_per_step
from mira_jax.data.packing import PackedBatches
from mira_jax.errors import UserError
from mira_jax.models import lora, sharding
from mira_jax.models.config import PRESETS, Gemma3Config
from mira_jax.models.kernels.choose import XLA, Kernels, choose_kernels
from mira_jax.models.remat import Remat
from mira_jax.models.sharding import AXES, MeshConfig
from mira_jax.recipes.base import Recipe, TokenShape
from mira_jax.sizing import flops
from mira_jax.sizing.chips import Topology
from mira_jax.sizing.flops import Text
from mira_jax.train import TrainConfig
from mira_jax.training.layout import Layout
from mira_jax.training.load import load_config
from mira_jax.training.optimizer import learning_rate, make_optimizer
from mira_jax.training.setup import builders
from mira_jax.training.state import Skeleton, TrainState, abstract_state, skeleton
from mira_jax.training.step import make_step

DERIVED = ("layer_types", "scan_layers")
"""Fields of a preset that follow from the number of layers."""
UPDATES = 1000
"""Number of updates if the config does not set it. The schedule requires a number, but it does not affect the figures."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """The rows of one update. They are identical: each contains as many steps of one length as fit."""

    rows: int
    parts: int
    """Number of parts that the rows are divided into. The parts are computed one after another."""
    row_length: int
    texts: tuple[Text, ...]
    """The steps of one row."""
    arrays: dict[str, jax.ShapeDtypeStruct]
    """A packed batch of one row, by name."""

    @property
    def tokens(self) -> int:
        """Tokens of all rows, without padding."""
        return self.rows * sum(text.tokens for text in self.texts)


def make_workload(recipe: Recipe, rows: int, parts: int, row_length: int, prompt: int, response: int) -> Workload:
    """Packs synthetic steps with the code that packs real ones.

    Raises:
        UserError: a step does not fit in a row.
    """
    length = prompt + response - 1 if recipe.reads_responses else prompt
    count = row_length // length
    if not count:
        raise UserError(
            f"prompt_tokens: a step of {prompt} + {response} tokens is longer than a row of {row_length}; "
            "lower it, or raise data.row_length"
        )
    examples = one_per_step(
        tokens=np.zeros(count * (prompt + response), np.int32),
        starts=np.arange(count + 1, dtype=np.int64) * (prompt + response),
        prompt_lengths=np.full(count, prompt, np.int32),
    )
    packed = PackedBatches(examples, np.arange(count), {}, row_length=row_length, rows=1, reads_responses=recipe.reads_responses)
    arrays = {name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in packed[0].items()}
    outputs = response if recipe.reads_responses else 1
    text = Text(length, outputs, outputs if recipe.reads_responses else 0)
    if getattr(recipe, "prompt_weight", 0):
        text = Text(length, length, length + outputs)
    return Workload(rows, parts, row_length, (text,) * count, arrays)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A training step that can be compiled."""

    model: Gemma3Config
    kernels: Kernels
    """The implementations of attention."""
    skeleton: Skeleton
    recipe: Recipe
    workload: Workload
    optimizer: Any
    rate: Any
    state: TrainState
    """Shapes and dtypes of the train state."""
    remat: Remat
    dtype: jnp.dtype
    """Dtype of activations."""
    sum_dtype: str
    """Dtype of the sum of bfloat16 gradients over parts."""

    @functools.cached_property
    def kernel_flops(self) -> Mapping[str, float]:
        """`flops.kernel_flops` for one row."""
        return flops.kernel_flops(self.kernels, self.model, self.workload.texts, self.workload.row_length)

    @functools.cached_property
    def _row(self) -> dict[str, jax.ShapeDtypeStruct]:
        """One row, with the columns that the recipe reads."""
        arrays = self.workload.arrays
        tokens = arrays["response_mask"].shape
        shapes: dict[str, TokenShape] = getattr(self.recipe, "token_columns", {})
        arrays = arrays | {name: jax.ShapeDtypeStruct((*tokens, *of.shape), of.dtype) for name, of in shapes.items()}
        columns = _columns(self.skeleton, self.recipe, {name: _stack(array, 1) for name, array in arrays.items()})
        return arrays | dict.fromkeys(columns, arrays["step_mask"])

    def part(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The input of the loss for `rows` rows."""
        return {name: _stack(array, rows) for name, array in self._row.items()}

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        """The real train step, lowered for the devices of `mesh`, which may be absent."""
        layout = Layout(mesh)
        step = make_step(self.skeleton, self.recipe.loss, self.optimizer, self.rate, layout.of(self.state), self.sum_dtype)
        with layout.active():
            return step.lower(layout.abstract(self.state), self._batch(mesh), layout.abstract(self.skeleton.frozen))

    def trace(self) -> Any:
        """The step for all rows on one device, as a jaxpr."""
        step = make_step(self.skeleton, self.recipe.loss, self.optimizer, self.rate, sum_dtype=self.sum_dtype)
        return jax.make_jaxpr(step)(self.state, self._batch(None), self.skeleton.frozen)

    def _batch(self, mesh: Mesh | None) -> dict[str, jax.ShapeDtypeStruct]:
        workload = self.workload
        where = None if mesh is None else NamedSharding(mesh, PartitionSpec(None, *sharding.batch_sharding(mesh).spec))
        return {
            name: jax.ShapeDtypeStruct((workload.parts, *array.shape), array.dtype, sharding=where)
            for name, array in self.part(workload.rows // workload.parts).items()
        }


def make_plan(config: TrainConfig, recipe: Recipe, workload: Workload, topology: Topology | None = None) -> Plan:
    """Makes a plan. The model has the sizes of `init_from` or of the config, including the vocabulary.

    Args:
        topology: the chips for which the implementation of attention is chosen. Default: that of XLA, whatever the config says.

    Raises:
        UserError: there are no sizes or no vocabulary, the folder in `init_from` does not exist, or an implementation of attention
            cannot be used.
    """
    updates = config.updates or UPDATES
    sizes = model_sizes(config)
    kernels = kernels_for(config, sizes, config.model.dtype, topology)
    bones = make_skeleton(config, recipe, sizes, kernels)
    optimizer = make_optimizer(config.optimizer, updates)
    state = abstract_state(bones.params, optimizer)
    settings = config.model.remat, jnp.dtype(config.model.dtype), config.optimizer.sum_dtype
    return Plan(sizes, kernels, bones, recipe, workload, optimizer, learning_rate(config.optimizer, updates), state, *settings)


def kernels_for(config: TrainConfig, sizes: Gemma3Config, dtype: str, topology: Topology | None) -> Kernels:
    """The implementations of attention on these chips. Raises UserError if one cannot be used."""
    if topology is None:
        return XLA
    return choose_kernels(config.model.attention, sizes, dtype, platform=topology.platform, capability=topology.capability)


def make_skeleton(config: TrainConfig, recipe: Recipe, sizes: Gemma3Config, kernels: Kernels = XLA, **changes: Any) -> Skeleton:
    """The model of a config, with its adapters and heads. `changes`: fields of `config.model` with other values."""
    layers = (config.lora,) if config.lora else ()
    build, unrolled = builders(dataclasses.replace(config.model, **changes), sizes, recipe.heads, layers, kernels)
    return skeleton(build, lora.trained if config.lora else None, unrolled)


def model_sizes(config: TrainConfig) -> Gemma3Config:
    """The sizes of `init_from` or of the config. Raises the same UserErrors as `make_plan`."""
    if config.init_from:
        if not Path(config.init_from).is_dir():
            raise UserError(f"init_from: {config.init_from} is not here; to size without it, give its sizes, for example --preset 12b")
        return load_config(config.init_from)[0]
    sizes = dict(config.model.sizes)
    if config.model.preset:
        preset = {key: value for key, value in configs.to_tree(PRESETS[config.model.preset]).items() if key not in DERIVED}
        sizes = preset | sizes
    elif "vocabulary_size" not in sizes:
        raise UserError("model: its sizes are unknown; give --preset 12b, init_from, or model.sizes with vocabulary_size")
    return configs.build(Gemma3Config, sizes, prefix="model.sizes.")


def abstract_mesh(config: MeshConfig, chips: int) -> AbstractMesh:
    """As `mira_jax.models.sharding.make_mesh`, without devices. Raises UserError if the sizes do not match `chips`."""
    return AbstractMesh(sharding.mesh_sizes(config, chips), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def require_shareable(mesh: AbstractMesh | Mesh, workload: Workload) -> None:
    """Raises UserError if the rows of one part cannot be divided evenly, as in `mira_jax.training.layout`."""
    at_once, sharers = workload.rows // workload.parts, mesh.shape["data"] * mesh.shape["fsdp"]
    if at_once % sharers:
        raise UserError(
            f"data.rows: {at_once} rows at once can't be shared evenly by {sharers} chips (mesh.data times mesh.fsdp); "
            f"try --set data.rows={sharers * workload.parts * math.ceil(at_once / sharers)}"
        )


def _columns(skeleton: Skeleton, recipe: Recipe, arrays: dict[str, jax.ShapeDtypeStruct]) -> list[str]:
    """The columns that a loss reads in addition to the packed arrays, found by tracing it."""
    read: list[str] = []

    class Batch(dict):
        def __missing__(self, name: str) -> jax.Array:
            read.append(name)
            return jnp.zeros_like(self["step_mask"])

    def loss(params: Any, frozen: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return recipe.loss(skeleton.merge(params, frozen), Batch(batch))[0].total

    jax.eval_shape(loss, skeleton.params, skeleton.frozen, arrays)
    return sorted(set(read))


def _stack(array: jax.ShapeDtypeStruct, count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *array.shape), array.dtype)
