"""Causal attention over packed rows, and over a cache. Logits and softmax are fp32, everywhere.

Written for XLA on CPU as much as for accelerators: queries go in blocks, each over the keys it can see, which skips
the future and what the window left behind; and the backward pass keeps the unnormalised weights and needs no pass
over them but the products themselves.

Shapes: B rows, T tokens, S keys, N query heads, K kv heads, G = N / K, M = G * T, H head dim, W window.
"""

from functools import partial

import jax
import jax.numpy as jnp

MASKED = -1e30
"""Added to the logits of unseen tokens: finite, so that a row that sees nothing has no NaN."""
BLOCK = 64
"""Queries per block, at least."""
MOST_BLOCKS = 16
"""Blocks of one row, at most, as each is compiled by itself."""


def attend(
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    segment_ids_BxT: jax.Array | None,
    window: int | None,
    scale: float,
) -> jax.Array:
    """Each token over the tokens of its own segment at or before it, at most `window` of them (itself included).

    Place within the row decides what is before; segments are contiguous. Returns BxTxNxH.
    """
    length = q_BxTxNxH.shape[1]
    if window is not None and length > max(2 * window, BLOCK * MOST_BLOCKS):
        return _banded(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, segment_ids_BxT, window, scale)
    blocks = []
    for start, stop, first in query_blocks(length, window):
        q, k, v = q_BxTxNxH[:, start:stop], k_BxTxKxH[:, first:stop], v_BxTxKxH[:, first:stop]
        seen = _seen(jnp.arange(start, stop), jnp.arange(first, stop), window)[None]
        if segment_ids_BxT is not None:
            seen = seen & (segment_ids_BxT[:, start:stop, None] == segment_ids_BxT[:, None, first:stop])
        blocks.append(dense(q, k, v, seen, scale))
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)


def query_blocks(length: int, window: int | None) -> list[tuple[int, int, int]]:
    """(start, stop, first): queries [start, stop) see no key outside [first, stop)."""
    size = max(BLOCK, -(-length // MOST_BLOCKS))
    blocks = []
    for start in range(0, length, size):
        first = 0 if window is None else max(0, start - window + 1)
        blocks.append((start, min(start + size, length), first))
    return blocks


def attend_cache(
    q_BxTxNxH: jax.Array, keys_BxSxKxH: jax.Array, values_BxSxKxH: jax.Array, slots_BxT: jax.Array, window: int | None, scale: float
) -> jax.Array:
    """Tokens at slots `slots_BxT` of their rows over the slots at or before their own, at most `window` of them."""
    seen = _seen(slots_BxT, jnp.arange(keys_BxSxKxH.shape[1])[None], window)
    return dense(q_BxTxNxH, keys_BxSxKxH, values_BxSxKxH, seen, scale)


def _seen(q_T: jax.Array, k_S: jax.Array, window: int | None) -> jax.Array:
    distance = q_T[..., :, None] - k_S[..., None, :]
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def _banded(q, k, v, segment_ids, window: int, scale: float) -> jax.Array:
    """The local form of long rows: chunks of one window, each over itself and the chunk before. O(T * W)."""
    batch, length = q.shape[:2]
    if segment_ids is None:
        segment_ids = jnp.ones((batch, length), jnp.int32)
    chunks = -(-length // window)

    def chunk(x, padding=0):
        x = jnp.pad(x, [(0, 0), (0, chunks * window - length)] + [(0, 0)] * (x.ndim - 2), constant_values=padding)
        return x.reshape(batch, chunks, window, *x.shape[2:])

    def with_previous(x, padding=0):
        previous = jnp.pad(x[:, :-1], [(0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 2), constant_values=padding)
        return jnp.concatenate([previous, x], axis=2)

    rows = lambda x: x.reshape(batch * chunks, *x.shape[2:])  # noqa: E731
    segments = chunk(segment_ids, padding=-1)
    same = segments[..., :, None] == with_previous(segments, padding=-2)[..., None, :]
    seen = same & _seen(jnp.arange(window, 2 * window), jnp.arange(2 * window), window)
    heads = dense(rows(chunk(q)), rows(with_previous(chunk(k))), rows(with_previous(chunk(v))), rows(seen), scale)
    return heads.reshape(batch, chunks * window, *heads.shape[2:])[:, :length]


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def dense(q_BxTxNxH: jax.Array, k_BxSxKxH: jax.Array, v_BxSxKxH: jax.Array, seen_BxTxS: jax.Array, scale: float) -> jax.Array:
    """softmax(q k^T scale) v, over what `seen` allows."""
    return _dense_forward(q_BxTxNxH, k_BxSxKxH, v_BxSxKxH, seen_BxTxS, scale)[0]


def _dense_forward(q_BxTxNxH, k_BxSxKxH, v_BxSxKxH, seen_BxTxS, scale):
    b, t, _, _ = q_BxTxNxH.shape
    kv_heads, s = k_BxSxKxH.shape[2], k_BxSxKxH.shape[1]
    q_BxKxMxH = _fold(q_BxTxNxH, kv_heads)
    logits = jnp.einsum("bkmh,bskh->bkms", q_BxKxMxH, k_BxSxKxH, preferred_element_type=jnp.float32) * scale
    bias = jnp.where(seen_BxTxS, 0.0, MASKED)[:, None, None]
    logits = (logits.reshape(b, kv_heads, -1, t, s) + bias).reshape(b, kv_heads, -1, s)
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    inverse_sum = 1.0 / jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(v_BxSxKxH.dtype)
    out = jnp.einsum("bkms,bskh->bkmh", weights, v_BxSxKxH, preferred_element_type=jnp.float32) * inverse_sum
    residuals = q_BxKxMxH, k_BxSxKxH, v_BxSxKxH, weights, inverse_sum, out
    return _unfold(out.astype(q_BxTxNxH.dtype), t), residuals


def _dense_backward(scale, residuals, gradient_BxTxNxH):
    """With E the unnormalised weights, l their sum and g = dO / l: dV = E^T g, dS = E * (g V^T - rowsum(g * O))."""
    q_BxKxMxH, k_BxSxKxH, v_BxSxKxH, weights, inverse_sum, out = residuals
    t = gradient_BxTxNxH.shape[1]
    dtype = v_BxSxKxH.dtype
    gradient = _fold(gradient_BxTxNxH, k_BxSxKxH.shape[2]).astype(jnp.float32) * inverse_sum
    inner = jnp.sum(gradient * out, axis=-1, keepdims=True)
    gradient = gradient.astype(dtype)
    d_weights = jnp.einsum("bkmh,bskh->bkms", gradient, v_BxSxKxH, preferred_element_type=jnp.float32)
    d_logits = (weights * (d_weights - inner) * scale).astype(dtype)
    d_q = jnp.einsum("bkms,bskh->bkmh", d_logits, k_BxSxKxH)
    d_k, d_v = _transposed_product(d_logits, q_BxKxMxH), _transposed_product(weights, gradient)
    return _unfold(d_q, t), d_k, d_v, None


def _transposed_product(wide_BxKxMxS: jax.Array, narrow_BxKxMxH: jax.Array) -> jax.Array:
    """sum over m of wide[m, s] narrow[m, h], BxSxKxH.

    The narrow side is turned around, behind a barrier, as XLA would else fold the turn into the product, and products
    along the first axis of both sides take it three times as long on CPU.
    """
    turned = jax.lax.optimization_barrier(narrow_BxKxMxH.swapaxes(2, 3))
    product_BxKxHxS = jax.lax.optimization_barrier(jnp.einsum("bkhm,bkms->bkhs", turned, wide_BxKxMxS))
    return product_BxKxHxS.transpose(0, 3, 1, 2)


dense.defvjp(_dense_forward, _dense_backward)


def _fold(x_BxTxNxH: jax.Array, kv_heads: int) -> jax.Array:
    """The query heads of one kv head beside each other: BxKxMxH."""
    b, t, n, h = x_BxTxNxH.shape
    x = x_BxTxNxH.reshape(b, t, kv_heads, n // kv_heads, h).transpose(0, 2, 3, 1, 4)
    return x.reshape(b, kv_heads, -1, h)


def _unfold(x_BxKxMxH: jax.Array, t: int) -> jax.Array:
    b, kv_heads, m, h = x_BxKxMxH.shape
    return x_BxKxMxH.reshape(b, kv_heads, m // t, t, h).transpose(0, 3, 1, 2, 4).reshape(b, t, -1, h)
