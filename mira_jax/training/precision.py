"""Optimizers that compute in float32 and store their values in bfloat16.

bfloat16 has 8 bits of precision. A change of less than about 1 part in 256 is lost when a number is rounded to nearest.
Adam's second moment at beta2 = 0.999 would never change, nor would a parameter at a small learning rate. Stochastic rounding
rounds up with a probability equal to the fraction that is cut off. It is unbiased, so small changes accumulate (Gupta et al.,
2015, arXiv 1502.02551).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class PrecisionState(NamedTuple):
    count: jax.Array
    """int32 scalar: number of updates done. It seeds the stochastic rounding."""
    inner: optax.OptState
    """The inner state, with its floating-point arrays in `state_dtype`."""
    master: Any
    """The parameters in float32, or () without master weights."""


def mixed_precision(inner: optax.GradientTransformation, state_dtype: Any, master: bool) -> optax.GradientTransformation:
    """Wraps `inner`, which receives gradients, parameters and its own state in float32, whatever dtypes they are stored in.

    Its state is stored in `state_dtype`, with stochastic rounding if that is bfloat16. Parameters in bfloat16 are rounded to
    nearest from `master`, a float32 copy in the state. Without `master`, their sum with the update is rounded stochastically.
    Parameters in float32 get the exact update.

    The resulting updates are float32, and `optax.apply_updates` turns them into the rounded parameters.
    """

    def init(params: optax.Params) -> PrecisionState:
        wide = _wide(params)
        return PrecisionState(jnp.zeros((), jnp.int32), _cast(inner.init(wide), state_dtype), wide if master else ())

    def update(gradients: optax.Updates, state: PrecisionState, params: optax.Params) -> tuple[optax.Updates, PrecisionState]:
        old = state.master if master else _wide(params)
        updates, inner_state = inner.update(_wide(gradients), _wide(state.inner), old)
        kept = _round_state(inner_state, state_dtype, _mix(state.count.astype(jnp.uint32)))
        new = jax.tree.map(jnp.add, old, updates)
        seed = _mix(~state.count.astype(jnp.uint32))

        def change(number: int, param: jax.Array, update: jax.Array, target: jax.Array) -> jax.Array:
            if param.dtype == jnp.float32 and not master:
                return update
            if param.dtype == jnp.bfloat16:
                target = _nearest(target) if master else at_random(target, _mix(seed + np.uint32(number))).astype(jnp.float32)
            return target - param.astype(jnp.float32)

        leaves, structure = jax.tree.flatten(params)
        changes = [change(*each) for each in zip(range(len(leaves)), leaves, jax.tree.leaves(updates), jax.tree.leaves(new), strict=True)]
        return jax.tree.unflatten(structure, changes), PrecisionState(state.count + 1, kept, new if master else ())

    return optax.GradientTransformation(init, update)


def at_random(x: jax.Array, seed: jax.Array) -> jax.Array:
    """Rounds float32 to one of its two neighbours in bfloat16, up with probability (x - below) / (above - below).

    Values that bfloat16 represents exactly are unchanged. `seed` is a uint32 scalar. The same seed rounds the same array in
    the same way for any sharding. The random bits are a hash of each element's index, so the whole computation is one
    elementwise program without additional memory.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    low = np.uint32(0xFFFF)
    rounded = (bits + (_mix(_places(x.shape) ^ seed) & low)) & ~low
    finite = jnp.where(jnp.isfinite(x), jax.lax.bitcast_convert_type(rounded, jnp.float32), x)
    return finite.astype(jnp.bfloat16)


def _round_state(state: optax.OptState, dtype: Any, seed: jax.Array) -> optax.OptState:
    if jnp.dtype(dtype) != jnp.bfloat16:
        return _cast(state, dtype)
    leaves, structure = jax.tree.flatten(state)
    rounded = [at_random(leaf, _mix(seed + np.uint32(i))) if _is_float(leaf) else leaf for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, rounded)


def _nearest(x: jax.Array) -> jax.Array:
    """Rounds float32 to the precision of bfloat16. Uses an explicit operation, because a compiler may remove a cast to bfloat16
    and back."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def _places(shape: tuple[int, ...]) -> jax.Array:
    """The row-major index of each element in the array, uint32."""
    place = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.prod(shape[axis + 1 :], dtype=np.uint64).astype(np.uint32)
        place = place + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return place


def _mix(x: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3 (Appleby, public domain): each input bit of the uint32 affects half of the output bits."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _wide(tree: Any) -> Any:
    return _cast(tree, jnp.float32)


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if _is_float(leaf) else leaf, tree)


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)
