"""The programs of `mira score` and `mira serve` on one chip, without data, tokenizer or parameter values.

Estimates follow the rules of `mira_jax.sizing.estimate`, without gradients: temporary values are those of one layer and of the logits.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mira_jax.config import Count, Natural
from mira_jax.errors import UserError
from mira_jax.models.config import LOCAL, Gemma3Config
from mira_jax.models.decoding import GPU_OPTIONS, TOP, SamplerFunctions, empty_rows
from mira_jax.models.gemma3 import Cache, Gemma3
from mira_jax.models.kernels.choose import Kernels
from mira_jax.models.sampler import bucket, cache_length
from mira_jax.recipes.base import Recipe
from mira_jax.recipes.scoring import critic_scores, orm_scores, policy_scores
from mira_jax.sizing import flops
from mira_jax.sizing.chips import Topology
from mira_jax.sizing.estimate import block_residuals, leaf_bytes
from mira_jax.sizing.flops import Text
from mira_jax.sizing.plan import kernels_for, make_skeleton, make_workload, model_sizes
from mira_jax.train import TrainConfig
from mira_jax.training.log_probs import CHUNK_LOGITS
from mira_jax.training.optimizer import DType
from mira_jax.training.state import Skeleton

What = Literal["train", "score", "serve"]
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class ScoreSizes:
    """The keys of `mira score` that its memory depends on."""

    rows: Count = 8
    """Rows per batch."""
    row_length: Natural = 0
    """Tokens per row. 0: `data.row_length`."""
    dtype: DType = "float32"
    """Dtype of activations."""
    param_dtype: DType = "float32"
    """Dtype of parameters, except the critics' heads and adapters."""


@dataclasses.dataclass(frozen=True)
class ServeSizes:
    """The keys of `mira serve` that its memory depends on."""

    rows: Count = 8
    """Number of completions that are decoded together."""
    max_length: Count = 4096
    """Maximum number of tokens of a prompt and its completion."""
    prefix_cache_mb: Natural = 0
    """Size of the prefix cache in MiB."""
    dtype: DType = "float32"
    """Dtype of parameters, activations and cache. Adapters are float32."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function of a command, with the shapes of its largest arguments."""

    name: str
    text: str
    """What one call computes."""
    tokens: int
    """Number of tokens that one call computes."""
    function: Any
    """Jitted."""
    arguments: tuple[Any, ...]
    """Trees of `jax.ShapeDtypeStruct`."""
    options: Mapping[str, Any]
    """Static keyword arguments."""
    needed: float
    """FLOPs in the definition of `flops.CONVENTION`."""
    working: float
    """Bytes in addition to the arguments, by the estimate."""
    hbm_bytes: float
    """Bytes moved between the chip and its memory, by the estimate."""
    kernel_flops: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """`flops.kernel_flops` for one row."""
    gpu_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of XLA if it is compiled for a GPU."""

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        """The program for the only device of `mesh`, which may be absent."""
        where = NamedSharding(mesh, PartitionSpec())
        place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)  # noqa: E731
        return self.function.lower(*jax.tree.map(place, self.arguments), **self.options)

    @functools.cached_property
    def done(self) -> float:
        """FLOPs of all its matrix products. The decode loop is counted as one iteration."""
        traced = jax.make_jaxpr(lambda *arguments: self.function(*arguments, **self.options))(*self.arguments)
        return flops.done(traced, self.kernel_flops)


@dataclasses.dataclass(frozen=True)
class Inference:
    """A command that computes without training: what it holds in memory, and its programs, one of which runs at a time."""

    what: What
    kind: str
    """The name of the recipe of the model."""
    model: Gemma3Config
    kernels: Kernels
    """The implementations of attention."""
    text: str
    """The settings in words."""
    held: dict[str, int]
    """Bytes that are held during all programs, by name."""
    growth: int
    """Bytes that are needed briefly while the cache grows, and no program runs."""
    programs: tuple[Program, ...]


def make_scoring(
    config: TrainConfig, recipe: Recipe, sizes: ScoreSizes, prompt: int, response: int, topology: Topology | None = None
) -> Inference:
    """The program that scores one batch with the model of a training config. Rows hold steps of `prompt` and `response` tokens.
    `topology`: as in `make_plan`.

    Raises:
        UserError: the model's sizes are unknown, or a step does not fit in a row.
    """
    model, length = model_sizes(config), sizes.row_length or config.data.row_length
    work = make_workload(recipe, sizes.rows, 1, length, prompt, response)
    kernels = kernels_for(config, model, sizes.dtype, topology)
    bones = make_skeleton(config, recipe, model, kernels, dtype=sizes.dtype, param_dtype=sizes.param_dtype, unroll=False)
    scores = critic_scores if recipe.heads else orm_scores if recipe.name == "orm" else policy_scores
    batch = {name: jax.ShapeDtypeStruct((sizes.rows, *array.shape), array.dtype) for name, array in work.arrays.items()}
    batch.pop("step_id", None)
    targets = sizes.rows * sum(text.targets for text in work.texts)
    logits = 4 * min(CHUNK_LOGITS, targets * model.vocabulary_size)
    layer, stream = _layer(model, kernels, sizes.dtype, batch), 2 * _stream(model, sizes.dtype, sizes.rows * length)
    parameters = _total(bones.parameters)
    program = Program(
        "score", _rows(sizes.rows), sizes.rows * sum(text.tokens for text in work.texts),
        jax.jit(lambda parameters, batch: scores(bones.merge(*bones.split(parameters)), batch)),
        (bones.parameters, batch), {},
        needed=sizes.rows * flops.forward_flops(model, work.texts), working=stream + max(layer, 2 * logits),
        hbm_bytes=parameters + 2 * model.layers * layer, kernel_flops=flops.kernel_flops(kernels, model, work.texts, length),
    )  # fmt: skip
    text = f"{_rows(sizes.rows)} of {length:,} tokens, each {len(work.texts)} steps of {work.texts[0].tokens:,}"
    text += f"; parameters {sizes.param_dtype}, activations {sizes.dtype}"
    return Inference("score", recipe.name, model, kernels, text, {"parameters": parameters}, 0, (program,))


def make_serving(config: TrainConfig, recipe: Recipe, sizes: ServeSizes, topology: Topology | None = None) -> Inference:
    """Prefill of the longest prompt, and a decode step of full rows, with the model of a training config. `topology`: as in `make_plan`.

    Raises:
        UserError: the recipe trains a critic, or the model's sizes are unknown.
    """
    if recipe.heads:
        raise UserError("what: a critic is not served; choose --what score, or another recipe")
    model, dtype = dataclasses.replace(model_sizes(config), scan_layers=False), jnp.dtype(sizes.dtype)
    kernels = kernels_for(config, model, sizes.dtype, topology)
    bones = make_skeleton(config, recipe, model, kernels, dtype=sizes.dtype, param_dtype=sizes.dtype, unroll=False)
    longest = min(sizes.max_length, model.max_positions)
    slots = cache_length(longest, longest)
    functions, parameters = _sampler_functions(bones, model)
    held = {"parameters": _total(bones.parameters), "cache": _total(_cache(bones, sizes.rows, slots))}
    held["prefix cache"] = sizes.prefix_cache_mb * MIB
    # The cache grows by a copy: from the largest smaller size, which has two thirds or three quarters of the slots.
    smaller = cache_length(slots * 2 // 3, longest)
    growth = _total(_cache(bones, sizes.rows, smaller)) if smaller < slots else 0
    programs = (
        _prefill(functions, parameters, bones, model, kernels, dtype, bucket(longest)),
        _decode(functions, parameters, bones, model, sizes.rows, slots, held["cache"]),
    )
    text = (
        f"{_rows(sizes.rows)} of up to {longest:,} tokens; parameters and cache {sizes.dtype}, prefix cache {sizes.prefix_cache_mb:,} MiB"
    )
    return Inference("serve", recipe.name, model, kernels, text, held, growth, programs)


def _prefill(
    functions: SamplerFunctions, parameters: Any, bones: Skeleton, model: Gemma3Config, kernels: Kernels, dtype: Any, length: int
) -> Program:
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
    layer = _layer(model, kernels, dtype, dict.fromkeys(("tokens", "positions", "segment_ids"), tokens))
    row = _total(_cache(bones, 1, length))
    return Program(
        "prefill", f"a prompt of {length:,} tokens", length, jax.jit(functions.prefill),
        (parameters, tokens, jax.ShapeDtypeStruct((1,), jnp.int32)), {},
        needed=flops.forward_flops(model, [Text(length, 1, 0)]), working=row + 2 * _stream(model, dtype, length) + layer,
        hbm_bytes=_total(parameters) + row + 2 * model.layers * layer,
        kernel_flops=flops.kernel_flops(kernels, model, [Text(length, 1, 0)], length),
    )  # fmt: skip


def _decode(
    functions: SamplerFunctions, parameters: Any, bones: Skeleton, model: Gemma3Config, rows: int, slots: int, cache_bytes: int
) -> Program:
    cache = dataclasses.replace(_cache(bones, rows, slots), empty=False)
    state = jax.eval_shape(lambda: empty_rows(rows, min(TOP, model.vocabulary_size)))
    numbers = jax.ShapeDtypeStruct((2,), jnp.int32)
    # A local layer reads only the slots within its window.
    near = sum(min(slots, model.window) if kind == LOCAL else slots for kind in model.layer_types) / (model.layers * slots)
    logits = 4 * rows * model.vocabulary_size
    return Program(
        "decode", f"one more token in {_rows(rows)} at {slots:,} tokens", rows,
        jax.jit(functions.advance, static_argnames=("top",), donate_argnums=(1, 2)),
        (parameters, cache, state, jax.ShapeDtypeStruct((rows,), jnp.bool_), numbers), {"top": 0},
        needed=flops.decode_flops(model, rows, slots), working=4 * logits,
        hbm_bytes=_total(parameters) + near * cache_bytes + 4 * logits, gpu_options=GPU_OPTIONS,
    )  # fmt: skip


def _sampler_functions(bones: Skeleton, model: Gemma3Config) -> tuple[SamplerFunctions, tuple[Any, ...]]:
    """The functions that a `Sampler` of the model compiles, and the parameters that they take."""
    leaves, tree = jax.tree.flatten(bones.state(bones.params, bones.frozen))
    return SamplerFunctions(bones.graph, tree, (1,), model.vocabulary_size), tuple(leaves)


def _cache(bones: Skeleton, rows: int, slots: int) -> Cache:
    """Shapes of the cache of a policy."""

    def make(parameters: Any) -> Cache:
        model = bones.merge(*bones.split(parameters))
        assert isinstance(model, Gemma3), "a critic has no cache"
        return model.init_cache(rows, slots)

    return jax.eval_shape(make, bones.parameters)


def _layer(model: Gemma3Config, kernels: Kernels, dtype: Any, batch: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Bytes of all values of the largest layer, more than exist at once."""
    kinds = [block_residuals(model, jnp.dtype(dtype), kind, batch, kernels) for kind in sorted(set(model.layer_types))]
    return max(sum(map(leaf_bytes, leaves)) for leaves in kinds)


def _stream(model: Gemma3Config, dtype: Any, tokens: int) -> int:
    return tokens * model.width * jnp.dtype(dtype).itemsize


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _total(tree: Any) -> int:
    return sum(map(leaf_bytes, jax.tree.leaves(tree)))
