"""Optimizers that compute in float32 and keep their numbers in bfloat16.

bfloat16 has 8 bits of precision: a number changed by less than 1 part in 256 or so is the same number after rounding
to nearest. Adam's second moment at beta2 = 0.999 would never move, nor would a parameter at a small learning rate.
Rounding at random, up with a probability equal to the part that is cut off, is right on average, so that small changes
add up (Gupta et al., 2015, arXiv 1502.02551).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class PrecisionState(NamedTuple):
    count: jax.Array
    """int32 scalar: updates done. The rounding is drawn from it."""
    inner: optax.OptState
    """Its arrays of numbers in `state_dtype`."""
    master: Any
    """The parameters in float32, or () without master weights."""


def mixed_precision(inner: optax.GradientTransformation, state_dtype: Any, master: bool) -> optax.GradientTransformation:
    """`inner`, given gradients, parameters and its own state in float32, whatever they are kept in.

    Its state is kept in `state_dtype`, rounded at random if that is bfloat16. Parameters in bfloat16 are those of
    `master`, a float32 copy in the state, rounded to nearest; without one, their sum with the update is rounded at
    random. Parameters in float32 get the update as it is.

    The updates it gives are float32, and `optax.apply_updates` makes of them the rounded parameters.
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
    """float32 rounded to one of its two neighbours in bfloat16, up with probability (x - below) / (above - below).

    What is bfloat16 already stays. `seed` is a uint32 scalar; the same seed rounds the same array the same way,
    however it is spread over devices. The random bits are a hash of each element's place, so that all of it is one
    elementwise program that needs no memory.
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
    """float32 with the precision of bfloat16. Said outright: a compiler may drop a cast there and back."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def _places(shape: tuple[int, ...]) -> jax.Array:
    """Each element's place in the array, row by row, uint32."""
    place = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.prod(shape[axis + 1 :], dtype=np.uint64).astype(np.uint32)
        place = place + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return place


def _mix(x: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3 (Appleby, public domain): every bit of uint32 in changes half the bits out."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _wide(tree: Any) -> Any:
    return _cast(tree, jnp.float32)


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if _is_float(leaf) else leaf, tree)


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)
