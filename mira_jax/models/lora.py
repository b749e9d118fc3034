"""LoRA: beside a frozen matrix W a trained product of two thin ones, y = x W + (alpha / rank) (x A) B.

Hu et al., 2021 (arXiv 2106.09685). A starts at random and B at 0, so that training starts from the frozen model.

A matrix maps its input axes to its output axes: `query` is D to NxH, `output` NxH to D. A has the input axes and
then the rank R, B the rank and then the output axes. Scanned matrices and their adapters have an axis of groups in front.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.errors import UserError
from mira_jax.models.gemma3 import INPUT_AXES, Gemma3, matrix, project
from mira_jax.models.sharding import PARAMETERS, whole_width
from mira_jax.models.weights import Name, Weights

TARGETS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    rank: int = 16
    """R: columns of A, rows of B."""
    alpha: float = 32.0
    """The product counts alpha / rank times."""
    targets: tuple[str, ...] = TARGETS
    """The matrices of every layer that get adapters."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"lora.rank: {self.rank}; it must be at least 1")
        if not 0 < self.alpha < math.inf:
            raise UserError(f"lora.alpha: {self.alpha}; it must be above 0")
        if unknown := [name for name in self.targets if name not in TARGETS]:
            raise UserError(f"lora.targets: {unknown[0]!r} is none of {', '.join(TARGETS)}")
        if not self.targets:
            raise UserError(f"lora.targets: name at least one of {', '.join(TARGETS)}")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class Adapters(nnx.Module):
    """The adapters of one attention or MLP: NAME_a and NAME_b in fp32 for each of its matrices that is a target."""

    def __init__(self, part: nnx.Module, config: LoraConfig, rngs: nnx.Rngs):
        self.names = tuple(name for name in config.targets if hasattr(part, name))
        self.scale = config.scale
        for name in self.names:
            shape = getattr(part, name).shape
            stack, inputs, outputs = _axes(name, shape)
            a = matrix(rngs, stack, (*inputs, config.rank), math.prod(inputs), jnp.float32)
            setattr(self, f"{name}_a", nnx.LoRAParam(a.get_value()))
            setattr(self, f"{name}_b", nnx.LoRAParam(jnp.zeros((*stack, config.rank, *outputs), jnp.float32)))

    def __call__(self, name: str, x_BxTxD: jax.Array) -> jax.Array | float:
        """What they add to the product of x and the matrix `name`: BxTx(output axes), or 0 where it is no target."""
        if name not in self.names:
            return 0.0
        a, b = (whole_width(getattr(self, key)[...].astype(x_BxTxD.dtype), key) for key in (f"{name}_a", f"{name}_b"))
        return project(project(x_BxTxD, a.reshape(x_BxTxD.shape[-1], -1)) * self.scale, b)


def adapt(model: nnx.Module, config: LoraConfig, rngs: nnx.Rngs) -> nnx.Module:
    """The model, a `Gemma3` or a `Critic`, with new adapters in every layer."""
    trunk: Gemma3 = getattr(model, "trunk", model)
    for block in (*trunk.groups, *trunk.tail):
        block.attention.lora = Adapters(block.attention, config, rngs)
        block.mlp.lora = Adapters(block.mlp, config, rngs)
    return model


def trained(path: Sequence[str | int]) -> bool:
    """Whether a parameter of an adapted model is trained: adapters, and the heads of a critic."""
    return "lora" in path or "heads" in path


def merge(path: Sequence[str | int], base: jax.Array, adapters: Mapping[str | int, Any], scale: float) -> jax.Array:
    """W + scale A B for the parameter at `path`, in its dtype, computed in fp32; `base` itself where there are no adapters.

    Args:
        path: of the parameter in the model's state, for example ("groups", 0, "attention", "query").
        base: the frozen parameter, scanned or not.
        adapters: nested dicts by name, as a run's checkpoint holds them.
        scale: `LoraConfig.scale`.
    """
    pair = adapters_of(path, adapters)
    return base if pair is None else merge_matrix(str(path[-1]), base, *pair, scale)


def adapters_of(path: Sequence[str | int], adapters: Mapping[str | int, Any]) -> tuple[jax.Array, jax.Array] | None:
    """(A, B) of the parameter at `path`, or None."""
    node: Any = adapters
    for name in (*path[:-1], "lora"):
        if not isinstance(node, Mapping) or name not in node:
            return None
        node = node[name]
    return (node[f"{path[-1]}_a"], node[f"{path[-1]}_b"]) if f"{path[-1]}_a" in node else None


def merge_matrix(name: str, base: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """W + scale A B for the matrix `name`, in its dtype, computed in fp32."""
    stack, inputs, _ = _axes(name, base.shape)
    a = jnp.asarray(a, jnp.float32).reshape(*stack, math.prod(inputs), -1)
    b = jnp.asarray(b, jnp.float32).reshape(*stack, a.shape[-1], -1)
    product = jnp.matmul(a, b, precision="highest").reshape(base.shape)
    return (jnp.asarray(base, jnp.float32) + scale * product).astype(base.dtype)


class MergedWeights:
    """The parameters of a merged model one after another, as `mira_jax.models.weights.Weights`."""

    def __init__(self, base: Weights, adapters: Mapping[str | int, Any], scale: float):
        """`adapters` and `scale`: as `merge` takes them."""
        self.config, self.stored = base.config, base.stored
        self._base, self._adapters, self._scale = base, adapters, scale

    def read(self, name: Name, dtype: Any = None) -> np.ndarray:
        """One parameter, cast to `dtype` if given, merged in fp32 group by group."""
        if (pair := adapters_of(name, self._adapters)) is None:
            return self._base.read(name, dtype)
        base = self._base.read(name)
        _, inputs, outputs = _axes(str(name[-1]), base.shape)
        a, b = (np.asarray(part, np.float32) for part in pair)
        a, b = a.reshape(-1, math.prod(inputs), a.shape[-1]), b.reshape(-1, a.shape[-1], math.prod(outputs))
        merged = np.empty(base.shape, dtype or base.dtype)
        groups = zip(a, b, base.reshape(-1, *inputs, *outputs), merged.reshape(-1, *inputs, *outputs), strict=True)
        for a_DxR, b_RxF, before, after in groups:
            after[...] = before.astype(np.float32) + self._scale * (a_DxR @ b_RxF).reshape(before.shape)
        return merged


def _axes(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(groups, inputs, outputs) of a matrix's shape."""
    own = len(shape) - len(PARAMETERS[name])
    inputs = own + INPUT_AXES.get(name, 1)
    return shape[:own], shape[own:inputs], shape[inputs:]
