"""LoRA: a frozen matrix W and a trained low-rank product, y = x W + (alpha / rank) (x A) B.

Hu et al., 2021 (arXiv 2106.09685). A is initialised at random and B to 0, so training starts from the frozen model. A model
with trained adapters is always evaluated in this form. Rounding W + (alpha / rank) A B to bfloat16 would change the model,
because most small changes of W are below the resolution of bfloat16.

A matrix maps its input axes to its output axes: `query` is D to NxH, `output` NxH to D. A has the input axes followed by the
rank R, and B the rank followed by the output axes. Scanned matrices and their adapters have a leading axis of groups.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from msgspec import Meta

from mira_jax.config import Count, Positive
from mira_jax.models.gemma3 import INPUT_AXES, Gemma3, matrix, project
from mira_jax.models.sharding import PARAMETERS, whole_width

Target = Literal["query", "key", "value", "output", "gate", "up", "down"]
TARGETS: tuple[Target, ...] = get_args(Target)


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    rank: Count = 16
    """R: columns of A and rows of B."""
    alpha: Positive = 32.0
    """The product is scaled by alpha / rank."""
    targets: Annotated[tuple[Target, ...], Meta(min_length=1)] = TARGETS
    """The matrices of every layer that get adapters."""

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class Adapters(nnx.Module):
    """The adapters of one attention or MLP: NAME_a and NAME_b in fp32 for each target matrix."""

    def __init__(self, part: nnx.Module, config: LoraConfig, rngs: nnx.Rngs):
        self.names = tuple(name for name in config.targets if hasattr(part, name))
        self.scale = config.scale
        self.before: Adapters | None = part.lora
        """Adapters that the model already had. They are frozen, like its matrices."""
        for name in self.names:
            stack, inputs, outputs = axes(name, getattr(part, name).shape)
            a = matrix(rngs, stack, (*inputs, config.rank), math.prod(inputs), jnp.float32)
            setattr(self, f"{name}_a", nnx.LoRAParam(a.get_value()))
            setattr(self, f"{name}_b", nnx.LoRAParam(jnp.zeros((*stack, config.rank, *outputs), jnp.float32)))

    def __call__(self, name: str, x_BxTxD: jax.Array) -> jax.Array | float:
        """The contribution of the adapters to the product of x and the matrix `name`: BxTx(output axes), or 0 if it is not a target."""
        before = 0.0 if self.before is None else self.before(name, x_BxTxD)
        if name not in self.names:
            return before
        a, b = (whole_width(getattr(self, key)[...].astype(x_BxTxD.dtype), key) for key in (f"{name}_a", f"{name}_b"))
        return before + project(project(x_BxTxD, a.reshape(x_BxTxD.shape[-1], -1)) * self.scale, b)


def adapt(model: nnx.Module, config: LoraConfig, rngs: nnx.Rngs) -> nnx.Module:
    """Adds new adapters to every layer of the model, a `Gemma3` or a `Critic`, in addition to existing ones."""
    trunk: Gemma3 = getattr(model, "trunk", model)
    for block in (*trunk.groups, *trunk.tail):
        block.attention.lora = Adapters(block.attention, config, rngs)
        block.mlp.lora = Adapters(block.mlp, config, rngs)
    return model


def trained(path: Sequence[str | int]) -> bool:
    """Whether a parameter of an adapted model is trained. This holds for the newest adapters and the heads of a critic."""
    return ("lora" in path and "before" not in path) or "heads" in path


def below(params: Mapping[str | int, Any]) -> dict[str | int, Any]:
    """Renames the parameters of a model, as nested dicts, to their paths after `adapt` has added new adapters."""

    def move(name: str | int, child: Any) -> Any:
        if name == "lora":
            return {"before": child}
        return below(child) if isinstance(child, Mapping) else child

    return {name: move(name, child) for name, child in params.items()}


def merged(params: Mapping[str | int, Any], scales: Sequence[float]) -> dict[str | int, Any]:
    """The parameters of the equivalent model without adapters: each matrix plus the products of its adapters.

    The sum is computed in fp32 and stored in the dtype of the matrix. bfloat16 is too coarse for this: see
    `mira_jax.models.merging`.

    Args:
        params: the parameters of an adapted model, as nested dicts. Matrices with adapters are consumed.
        scales: `LoraConfig.scale` of each set of adapters, oldest first.
    """

    def merge(tree: Mapping[str | int, Any], adapters: Mapping[str | int, Any] | None) -> dict[str | int, Any]:
        plain = {}
        for name, child in tree.items():
            if name == "lora":
                continue
            if isinstance(child, Mapping):
                plain[name] = merge(child, child.get("lora"))
                continue
            node, plain[name] = adapters, child
            for scale in reversed(scales):
                if node is None:
                    break
                if f"{name}_a" in node:
                    pair = node[f"{name}_a"], node[f"{name}_b"]
                    plain[name] = jax.device_put(_merge_matrix(name, plain[name], *pair, scale), child.sharding)
                node = node.get("before")
        return plain

    return merge(params, None)


@functools.partial(jax.jit, static_argnums=(0, 4), donate_argnums=1)
def _merge_matrix(name: str, base: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    stack, inputs, _ = axes(name, base.shape)
    a = jnp.asarray(a, jnp.float32).reshape(*stack, math.prod(inputs), -1)
    b = jnp.asarray(b, jnp.float32).reshape(*stack, a.shape[-1], -1)
    product = jnp.matmul(a, b, precision="highest").reshape(base.shape)
    return (jnp.asarray(base, jnp.float32) + scale * product).astype(base.dtype)


def adapters_of(path: Sequence[str | int], adapters: Mapping[str | int, Any]) -> tuple[jax.Array, jax.Array] | None:
    """(A, B) of the parameter at `path`, or None. `adapters`: nested dicts by name, as in a run's checkpoint."""
    node: Any = adapters
    for name in (*path[:-1], "lora"):
        if not isinstance(node, Mapping) or name not in node:
            return None
        node = node[name]
    return (node[f"{path[-1]}_a"], node[f"{path[-1]}_b"]) if f"{path[-1]}_a" in node else None


def axes(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(groups, inputs, outputs): the axes of a matrix's shape."""
    own = len(shape) - len(PARAMETERS[name])
    inputs = own + INPUT_AXES.get(name, 1)
    return shape[:own], shape[own:inputs], shape[inputs:]
