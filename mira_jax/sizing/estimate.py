"""Estimates memory and traffic of a step from shapes, without compiling.

State and saved activations are summed over the real trees and the real residuals of the loss's derivative. The working set
and the traffic follow simple rules, stated at each. Figures of a compiled program are more accurate, where available.
"""

import dataclasses
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh

from mira_jax.models import sharding
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3, use_kernels
from mira_jax.models.kernels.choose import XLA, Kernels
from mira_jax.sizing.plan import Plan
from mira_jax.training.log_probs import CHUNK_LOGITS


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes per chip."""

    parameters: int
    optimizer: int
    gradients: int
    activations: int
    """Activations saved by the forward pass for the backward pass."""
    working: int
    """Temporary buffers: gathered parameters, the backward pass of one layer, the logits of a chunk."""

    @property
    def peak(self) -> int:
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Estimate:
    memory: Memory
    hbm_bytes: float
    """Bytes moved between a chip and its memory in one step."""
    sent: dict[str, float]
    """Bytes that a chip sends in one step, by mesh axis."""


class Estimator:
    """Traces the derivative of a plan once, and computes the estimate for any mesh from it."""

    def __init__(self, plan: Plan):
        self.plan = plan
        # All rows that are computed at once, because attention selects its implementation by their number.
        self._rows = plan.workload.rows // plan.workload.parts
        batch = plan.part(self._rows)
        self._saved = residuals(_loss_of(plan), plan.state.params, (plan.skeleton.frozen, batch))
        self._blocks = [block_residuals(plan.model, plan.dtype, kind, batch, plan.kernels) for kind in sorted(set(plan.model.layer_types))]

    def on(self, mesh: AbstractMesh, parts: int | None = None) -> Estimate:
        """The estimate of one step on `mesh` with its rows in `parts` parts. Default: the number of parts in the plan."""
        plan, size = self.plan, dict(mesh.shape)
        parts = parts or plan.workload.parts
        rows = plan.workload.rows // parts // (size["data"] * size["fsdp"])
        parameters, optimizer = _shard_bytes(plan.skeleton.parameters, mesh), _shard_bytes(plan.state.optimizer, mesh)
        gradients = _shard_bytes(plan.state.params, mesh)
        if parts > 1:
            # The accumulated sum exists at the same time as the gradients of one part.
            wide = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), plan.state.params)
            gradients += _shard_bytes(wide, mesh) if plan.sum_dtype == "float32" else gradients
        saved = _spread(plan, self._saved, rows / self._rows, size)
        block = max(_spread(plan, leaves, rows / self._rows, size) for leaves in self._blocks)
        layer = _matrices(plan) * plan.dtype.itemsize // plan.model.layers // size["tensor"]
        embedding = plan.model.vocabulary_size * plan.model.width // size["tensor"]
        targets = plan.workload.rows // parts * sum(text.targets for text in plan.workload.texts)
        logits = 4 * min(CHUNK_LOGITS, targets * plan.model.vocabulary_size // (size["data"] * size["fsdp"] * size["tensor"]))
        split = size["fsdp"] > 1
        # Within a layer: its residuals, and the parameters of two layers, because those of the next layer are prefetched. At
        # the head: a chunk of logits, its softmax and its gradient, and the gathered embedding with its gradient in fp32.
        in_layer = (0 if plan.remat == "none" else block) + (2 * layer if split else 0)
        at_head = 3 * logits + (embedding * (plan.dtype.itemsize + 4) if split and targets else 0)
        memory = Memory(parameters, optimizer, gradients, saved, max(in_layer, at_head))
        return Estimate(memory, _hbm_bytes(plan, memory, block, size, parts), _collective_bytes(plan, size, rows, parts))


def residuals(function: Any, params: Any, given: Any) -> list[jax.ShapeDtypeStruct]:
    """The values that the backward pass of `function(params, given)` reads in addition to its arguments. Traced, not computed."""
    kept = jax.eval_shape(lambda params, given: jax.vjp(lambda params: function(params, given), params)[1], params, given)
    known = Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves((params, given)))
    found = []
    for leaf in jax.tree.leaves(kept):
        if known[leaf.shape, leaf.dtype]:
            known[leaf.shape, leaf.dtype] -= 1
        else:
            found.append(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return found


def _spread(plan: Plan, leaves: list[jax.ShapeDtypeStruct], share: float, size: dict[str, int]) -> int:
    """Bytes per chip of the residuals of all rows, for a `share` of the rows per chip.

    Tokens are sharded over `sequence`, and axes of heads or the MLP over `tensor`. A copy of a parameter in another dtype is
    sharded like the parameters, independent of the number of rows.
    """
    model = plan.model
    copies = {leaf.shape for leaf in jax.tree.leaves(plan.skeleton.parameters) if leaf.ndim > 1}
    heads = {model.query_heads, model.kv_heads, model.mlp_width, model.vocabulary_size, model.query_heads * model.head_dim}
    total = 0
    for leaf in leaves:
        if leaf.shape in copies:
            total += leaf_bytes(leaf) // (size["fsdp"] * size["tensor"])
        else:
            total += share * leaf_bytes(leaf) / (size["sequence"] * (size["tensor"] if heads & set(leaf.shape) else 1))
    return round(total)


def _loss_of(plan: Plan) -> Any:
    def loss(params: Any, given: tuple[Any, dict[str, jax.Array]]) -> jax.Array:
        frozen, batch = given
        return plan.recipe.loss(plan.skeleton.merge(params, frozen), batch)[0].total

    return loss


def block_residuals(
    model: Gemma3Config, dtype: jnp.dtype, kind: str, batch: dict[str, jax.ShapeDtypeStruct], kernels: Kernels = XLA
) -> list[jax.ShapeDtypeStruct]:
    """The values that the backward pass of one layer of a kind reads, if all of them are saved."""
    sizes = dataclasses.replace(model, layers=1, layer_types=(kind,), scan_layers=False, vocabulary_size=1)
    graph, state = nnx.split(nnx.eval_shape(lambda: use_kernels(Gemma3(sizes, rngs=nnx.Rngs(0), dtype=dtype), kernels)))

    def run(state: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return nnx.merge(graph, state)(batch["tokens"], batch["positions"], batch["segment_ids"])

    kept = residuals(run, state, {name: batch[name] for name in ("tokens", "positions", "segment_ids")})
    weights = {leaf.shape for leaf in jax.tree.leaves(state)}
    return [leaf for leaf in kept if leaf.shape not in weights]


def _hbm_bytes(plan: Plan, memory: Memory, block: int, size: dict[str, int], parts: int) -> float:
    """Optimizer: reads and writes its state, the parameters and the gradients. Each part: each pass reads the gathered
    parameters. Each layer's values are written and read in the forward pass, and read in the backward pass."""
    passes = _passes(plan)
    streamed = _matrices(plan) * plan.dtype.itemsize / size["tensor"] * (passes + 1)
    values = plan.model.layers * block * (2 * (passes - 1) + 1)
    return 2 * (memory.parameters + memory.optimizer + memory.gradients) + parts * (streamed + values + 2 * memory.activations)


def _collective_bytes(plan: Plan, size: dict[str, int], rows: int, parts: int) -> dict[str, float]:
    """fsdp: gathers the parameters for each pass and reduce-scatters the gradients. data: sums gradients. tensor: sums the
    residual stream after attention and after the MLP, each pass. sequence: gathers keys and values, each pass.

    The rest of the step (norms, metrics, clipping) is small.
    """
    model, passes = plan.model, _passes(plan)
    activation = plan.dtype.itemsize
    matrices = (_matrices(plan) + model.vocabulary_size * model.width) / size["tensor"]
    gradients = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(plan.state.params)) / size["tensor"]
    stream = rows * plan.workload.row_length / size["sequence"] * activation
    share = {axis: (count - 1) / count for axis, count in size.items()}
    sent = {
        "fsdp": parts * share["fsdp"] * (passes * matrices * activation + gradients),
        "data": 2 * parts * share["data"] * gradients / size["fsdp"],
        "tensor": parts * 2 * share["tensor"] * stream * model.width * 2 * passes * model.layers,
        "sequence": parts * share["sequence"] * stream * size["sequence"] * 2 * model.kv_heads * model.head_dim * passes * model.layers,
    }
    return {axis: float(count) for axis, count in sent.items() if count}


def _passes(plan: Plan) -> int:
    """Number of passes: forward, backward, and a second forward if layers are recomputed."""
    return 2 if plan.remat == "none" else 3


def _matrices(plan: Plan) -> int:
    """Number of parameters in the matrices of all layers."""
    return plan.model.parameters - plan.model.vocabulary_size * plan.model.width


def _shard_bytes(tree: Any, mesh: AbstractMesh) -> int:
    where = sharding.shardings(tree, mesh)
    shard = lambda leaf, here: math.prod(here.shard_shape(leaf.shape)) * leaf.dtype.itemsize  # noqa: E731
    return sum(jax.tree.leaves(jax.tree.map(shard, tree, where)))


def leaf_bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize
