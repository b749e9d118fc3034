"""Causal attention over packed rows and over a cache. Logits and softmax are always fp32.

The implementation is meant to be fast with XLA on CPU as well as on accelerators. Queries are processed in blocks, each over
only the keys it can see, which skips future keys and keys before the window. The forward pass saves the unnormalised weights,
and the backward pass reads them only in its matrix products.

Shapes: B rows, T tokens, S keys, N query heads, K kv heads, G = N / K, M = G * T, X = B * K or B x K, H head dim, W window.
"""

from functools import partial

import jax
import jax.numpy as jnp

MASKED = -1e30
"""Added to the logits of masked tokens. It is finite, so that a fully masked row gives no NaN."""
BLOCK = 64
"""Minimum number of queries per block."""
MOST_BLOCKS = 16
"""Maximum number of blocks in a row. Each block is compiled separately."""
KEPT_WEIGHTS = 2**28
"""Maximum number of attention weights of one layer that are kept from the forward to the backward pass: 1 GiB in fp32. Above
this, rows are processed in tiles."""
TILE = 1024
"""Maximum number of queries, and of keys, in a tile."""


def attend(
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    segment_ids_BxT: jax.Array | None,
    window: int | None,
    scale: float,
) -> jax.Array:
    """Each token attends to the tokens of its own segment at or before it, to at most `window` of them, itself included.

    Order is the position within the row; segments are contiguous. Returns BxTxNxH.
    """
    batch, length, heads, _ = q_BxTxNxH.shape
    if batch * heads * length * min(length / 2, 2 * (window or length)) > KEPT_WEIGHTS:
        return _tiled(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, segment_ids_BxT, window, scale)
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


def attend_from(
    q_BxRxNxH: jax.Array,
    index_BxR: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    segment_ids_BxT: jax.Array | None,
    window: int | None,
    scale: float,
) -> jax.Array:
    """The result of `attend` for only the tokens `index_BxR` of each row, computed from their queries. Returns BxRxNxH."""
    seen = _seen(index_BxR, jnp.arange(k_BxTxKxH.shape[1])[None], window)
    if segment_ids_BxT is not None:
        seen = seen & (jnp.take_along_axis(segment_ids_BxT, index_BxR, axis=1)[:, :, None] == segment_ids_BxT[:, None, :])
    return dense(q_BxRxNxH, k_BxTxKxH, v_BxTxKxH, seen, scale)


def query_blocks(length: int, window: int | None) -> list[tuple[int, int, int]]:
    """(start, stop, first) of each block: queries [start, stop) see no key outside [first, stop)."""
    size = max(BLOCK, -(-length // MOST_BLOCKS))
    blocks = []
    for start in range(0, length, size):
        first = 0 if window is None else max(0, start - window + 1)
        blocks.append((start, min(start + size, length), first))
    return blocks


def attend_cache(
    q_BxTxNxH: jax.Array, keys_BxKxSxH: jax.Array, values_BxKxSxH: jax.Array, slots_BxT: jax.Array, window: int | None, scale: float
) -> jax.Array:
    """Tokens at slots `slots_BxT` of their rows attend to the slots at or before their own, to at most `window` of them."""
    b, kv_heads, s, h = keys_BxKxSxH.shape
    slots_1xS = jnp.arange(s)[None]
    near = slots_BxT.shape[1] + (window or s) - 1
    if near < s:
        # A local layer reads only the slots within the window of its tokens.
        first_B = jnp.clip(slots_BxT[:, 0] - window + 1, 0, s - near)
        cut = jax.vmap(lambda row, first: jax.lax.dynamic_slice_in_dim(row, first, near, axis=1))
        keys_BxKxSxH, values_BxKxSxH = cut(keys_BxKxSxH, first_B), cut(values_BxKxSxH, first_B)
        slots_1xS = first_B[:, None] + jnp.arange(near)
    seen_BxTxS = _seen(slots_BxT, slots_1xS, window)
    q_BxKxMxH = _fold(q_BxTxNxH, kv_heads).reshape(b, kv_heads, -1, h)
    logits_BxKxMxS = jnp.einsum("bkmh,bksh->bkms", q_BxKxMxH, keys_BxKxSxH, preferred_element_type=jnp.float32) * scale
    bias = jnp.where(seen_BxTxS, 0.0, MASKED)[:, None, None]
    logits_BxKxMxS = (logits_BxKxMxS.reshape(b, kv_heads, -1, *seen_BxTxS.shape[1:]) + bias).reshape(logits_BxKxMxS.shape)
    weights_BxKxMxS = jax.nn.softmax(logits_BxKxMxS).astype(values_BxKxSxH.dtype)
    out_BxKxMxH = jnp.einsum("bkms,bksh->bkmh", weights_BxKxMxS, values_BxKxSxH, preferred_element_type=jnp.float32)
    return _unfold(out_BxKxMxH.astype(q_BxTxNxH.dtype), q_BxTxNxH.shape)


def _seen(q_T: jax.Array, k_S: jax.Array, window: int | None) -> jax.Array:
    distance = q_T[..., :, None] - k_S[..., None, :]
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def _banded(q, k, v, segment_ids, window: int, scale: float) -> jax.Array:
    """Local attention for long rows: each chunk of queries attends to its own chunk and the chunks within the window. O(T * W)."""
    batch, length = q.shape[:2]
    if segment_ids is None:
        segment_ids = jnp.ones((batch, length), jnp.int32)
    size = max(BLOCK, window // 4)
    chunks, reach = -(-length // size), -(-(window - 1) // size)

    def chunk(x, padding=0):
        x = jnp.pad(x, [(0, 0), (0, chunks * size - length)] + [(0, 0)] * (x.ndim - 2), constant_values=padding)
        return x.reshape(batch, chunks, size, *x.shape[2:])

    def with_previous(x, padding=0):
        x = jnp.pad(x, [(0, 0), (reach, 0)] + [(0, 0)] * (x.ndim - 2), constant_values=padding)
        return jnp.concatenate([x[:, i : i + chunks] for i in range(reach + 1)], axis=2)

    rows = lambda x: x.reshape(batch * chunks, *x.shape[2:])  # noqa: E731
    segments = chunk(segment_ids, padding=-1)
    same = segments[..., :, None] == with_previous(segments, padding=-2)[..., None, :]
    seen = same & _seen(jnp.arange(reach * size, (reach + 1) * size), jnp.arange((reach + 1) * size), window)
    heads = dense(rows(chunk(q)), rows(with_previous(chunk(k))), rows(with_previous(chunk(v))), rows(seen), scale)
    return heads.reshape(batch, chunks * size, *heads.shape[2:])[:, :length]


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def dense(q_BxTxNxH: jax.Array, k_BxSxKxH: jax.Array, v_BxSxKxH: jax.Array, seen_BxTxS: jax.Array, scale: float) -> jax.Array:
    """softmax(q k^T scale) v, over the keys allowed by `seen`."""
    return _dense_forward(q_BxTxNxH, k_BxSxKxH, v_BxSxKxH, seen_BxTxS, scale)[0]


def _dense_forward(q_BxTxNxH, k_BxSxKxH, v_BxSxKxH, seen_BxTxS, scale):
    b, t, n, _ = q_BxTxNxH.shape
    s, kv_heads = k_BxSxKxH.shape[1:3]
    q_XxMxH, k_XxSxH, v_XxSxH = (_fold(x, kv_heads) for x in (q_BxTxNxH, k_BxSxKxH, v_BxSxKxH))
    logits_XxMxS = jnp.einsum("...mh,...sh->...ms", q_XxMxH, k_XxSxH, preferred_element_type=jnp.float32) * scale
    bias = jnp.where(seen_BxTxS, 0.0, MASKED)[:, None, None]
    logits_XxMxS = (logits_XxMxS.reshape(b, kv_heads, n // kv_heads, t, s) + bias).reshape(logits_XxMxS.shape)
    weights_XxMxS = jnp.exp(logits_XxMxS - jnp.max(logits_XxMxS, axis=-1, keepdims=True))
    inverse_sum = 1.0 / jnp.sum(weights_XxMxS, axis=-1, keepdims=True)
    weights_XxMxS = weights_XxMxS.astype(v_XxSxH.dtype)
    out_XxMxH = jnp.einsum("...ms,...sh->...mh", weights_XxMxS, v_XxSxH, preferred_element_type=jnp.float32) * inverse_sum
    residuals = q_XxMxH, k_XxSxH, v_XxSxH, weights_XxMxS, inverse_sum, out_XxMxH
    return _unfold(out_XxMxH.astype(q_BxTxNxH.dtype), q_BxTxNxH.shape), residuals


def _dense_backward(scale, residuals, gradient_BxTxNxH):
    """With E the unnormalised weights, l their sum and g = dO / l: dV = E^T g, dS = E * (g V^T - rowsum(g * O))."""
    q_XxMxH, k_XxSxH, v_XxSxH, weights_XxMxS, inverse_sum, out_XxMxH = residuals
    b, _, _, h = gradient_BxTxNxH.shape
    dtype, keys = v_XxSxH.dtype, k_XxSxH.shape[-2]
    kv_heads = k_XxSxH.size // (b * keys * h)
    g_XxMxH = _fold(gradient_BxTxNxH, kv_heads).astype(jnp.float32) * inverse_sum
    inner = jnp.sum(g_XxMxH * out_XxMxH, axis=-1, keepdims=True)
    g_XxMxH = g_XxMxH.astype(dtype)
    d_weights = jnp.einsum("...mh,...sh->...ms", g_XxMxH, v_XxSxH, preferred_element_type=jnp.float32)
    d_logits = (weights_XxMxS * (d_weights - inner)).astype(dtype)
    d_q = jnp.einsum("...ms,...sh->...mh", d_logits, k_XxSxH) * scale
    d_k = _transposed_product(d_logits, q_XxMxH) * scale
    d_v = _transposed_product(weights_XxMxS, g_XxMxH)
    shape = b, keys, kv_heads, h
    return _unfold(d_q, gradient_BxTxNxH.shape), _unfold(d_k, shape), _unfold(d_v, shape), None


def _transposed_product(wide_XxMxS: jax.Array, narrow_XxMxH: jax.Array) -> jax.Array:
    """sum over m of wide[m, s] narrow[m, h], XxSxH.

    The narrow operand is transposed explicitly. Without the barrier, XLA folds the transpose into the product, and on CPU a
    product that contracts the first axis of both operands is much slower.
    """
    turned = jax.lax.optimization_barrier(narrow_XxMxH.swapaxes(-1, -2))
    product_XxHxS = jax.lax.optimization_barrier(jnp.einsum("...hm,...ms->...hs", turned, wide_XxMxS))
    return product_XxHxS.swapaxes(-1, -2)


dense.defvjp(_dense_forward, _dense_backward)


def _tiled(q, k, v, segment_ids, window: int | None, scale: float) -> jax.Array:
    """Attention for the longest rows: a scan over tiles of queries and keys. Both passes hold the weights of one tile at a time."""
    batch, length, _, h = q.shape
    size = TILE if window is None else min(TILE, max(window, 2 * BLOCK))
    tiles = -(-length // size)
    if segment_ids is None:
        segment_ids = jnp.ones((batch, length), jnp.int32)

    def split(x, padding=0):
        """tiles x batch x size x ..."""
        x = jnp.pad(x, [(0, 0), (0, tiles * size - length)] + [(0, 0)] * (x.ndim - 2), constant_values=padding)
        return jnp.moveaxis(x.reshape(batch, tiles, size, *x.shape[2:]), 1, 0)

    fold = jax.vmap(partial(_fold, kv_heads=k.shape[2]))
    out = _tiles(fold(split(q)), fold(split(k)), fold(split(v)), split(segment_ids, padding=-1), window, scale)
    out = jax.vmap(partial(_unfold, shape=(batch, size, q.shape[2], h)))(out)
    return jnp.moveaxis(out, 0, 1).reshape(batch, tiles * size, -1, h)[:, :length].astype(q.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _tiles(q_IxXxMxH, k_IxXxSxH, v_IxXxSxH, segments_IxBxS, window: int | None, scale: float) -> jax.Array:
    """Softmax over the keys of all tiles with a running maximum and sum (Milakov and Gimelshein, arXiv 1805.02867), fp32."""
    return _tiles_forward(q_IxXxMxH, k_IxXxSxH, v_IxXxSxH, segments_IxBxS, window, scale)[0]


def _tiles_forward(q, k, v, segments, window, scale):
    def tile(carry, pair):
        i, j = pair
        logits_XxMxS = _tile_logits(q, k, segments, i, j, window, scale)
        most, total, out = (_at(x, i) for x in carry)
        new = jnp.maximum(most, jnp.max(logits_XxMxS, axis=-1, keepdims=True))
        weights_XxMxS, shrink = jnp.exp(logits_XxMxS - new), jnp.exp(most - new)
        total = total * shrink + jnp.sum(weights_XxMxS, axis=-1, keepdims=True)
        values = jnp.einsum("...ms,...sh->...mh", weights_XxMxS.astype(v.dtype), _at(v, j), preferred_element_type=jnp.float32)
        parts = new, total, out * shrink + values
        return tuple(_put(x, i, part) for x, part in zip(carry, parts, strict=True)), None

    nothing = 0.0 * q.astype(jnp.float32)  # Derived from q to get the same sharding as q.
    start = nothing[..., :1] + MASKED, nothing[..., :1], nothing
    (most, total, out), _ = jax.lax.scan(tile, start, _tile_pairs(segments, window))
    out = out / total
    return out, (q, k, v, segments, most + jnp.log(total), out)


def _tiles_backward(window, scale, residuals, g_IxXxMxH):
    """As `_dense_backward`. The weights of each tile are recomputed as P = exp(logits - logsumexp)."""
    q, k, v, segments, logsumexp, out = residuals
    inner = jnp.sum(g_IxXxMxH * out, axis=-1, keepdims=True)
    g_IxXxMxH = g_IxXxMxH.astype(v.dtype)

    def tile(carry, pair):
        i, j = pair
        d_q, d_k, d_v = carry
        g = _at(g_IxXxMxH, i)
        weights_XxMxS = jnp.exp(_tile_logits(q, k, segments, i, j, window, scale) - _at(logsumexp, i))
        d_weights = jnp.einsum("...mh,...sh->...ms", g, _at(v, j), preferred_element_type=jnp.float32)
        d_logits = (weights_XxMxS * (d_weights - _at(inner, i)) * scale).astype(v.dtype)
        d_q = _put(d_q, i, _at(d_q, i) + jnp.einsum("...ms,...sh->...mh", d_logits, _at(k, j), preferred_element_type=jnp.float32))
        d_k = _put(d_k, j, _at(d_k, j) + _transposed_product(d_logits, _at(q, i)))
        d_v = _put(d_v, j, _at(d_v, j) + _transposed_product(weights_XxMxS.astype(v.dtype), g))
        return (d_q, d_k, d_v), None

    start = tuple(0.0 * x.astype(jnp.float32) for x in (q, k, v))
    gradients, _ = jax.lax.scan(tile, start, _tile_pairs(segments, window))
    return *(gradient.astype(x.dtype) for gradient, x in zip(gradients, (q, k, v), strict=True)), None


_tiles.defvjp(_tiles_forward, _tiles_backward)


def _tile_pairs(segments_IxBxS: jax.Array, window: int | None) -> tuple[jax.Array, jax.Array]:
    """The tiles of keys that each tile of queries sees. Its own tile comes first, because there every token sees at least itself."""
    tiles, _, size = segments_IxBxS.shape
    reach = tiles if window is None else -(-(window - 1) // size)
    pairs = [(i, j) for i in range(tiles) for j in range(i, max(i - reach, 0) - 1, -1)]
    return tuple(jnp.array(indices, jnp.int32) for indices in zip(*pairs, strict=True))


def _tile_logits(q, k, segments, i, j, window: int | None, scale: float) -> jax.Array:
    """Masked fp32 logits of the queries of tile i and the keys of tile j, XxMxS."""
    logits = jnp.einsum("...mh,...sh->...ms", _at(q, i), _at(k, j), preferred_element_type=jnp.float32) * scale
    of_q_BxS, of_k_BxS = _at(segments, i), _at(segments, j)
    batch, size = of_q_BxS.shape
    place = jnp.arange(size)
    seen = _seen(i * size + place, j * size + place, window) & (of_q_BxS[:, :, None] == of_k_BxS[:, None, :])
    bias = jnp.where(seen, 0.0, MASKED)[:, None, None]
    kv_heads = k[0].size // (batch * size * k.shape[-1])
    return (logits.reshape(batch, kv_heads, -1, size, size) + bias).reshape(logits.shape)


def _at(x_Ix: jax.Array, i: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x_Ix, i, keepdims=False)


def _put(x_Ix: jax.Array, i: jax.Array, part: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(x_Ix, part.astype(x_Ix.dtype), i, 0)


def _fold(x_BxTxNxH: jax.Array, kv_heads: int) -> jax.Array:
    """Groups the query heads by kv head: XxMxH, where X is B * K, or B x K on a mesh that may split both.

    XLA on CPU fuses best with a single axis.
    """
    b, t, n, h = x_BxTxNxH.shape
    x = x_BxTxNxH.reshape(b, t, kv_heads, n // kv_heads, h).transpose(0, 2, 3, 1, 4)
    return x.reshape(*((b * kv_heads,) if jax.sharding.get_abstract_mesh().empty else (b, kv_heads)), -1, h)


def _unfold(x_XxMxH: jax.Array, shape: tuple[int, int, int, int]) -> jax.Array:
    """Inverse of `_fold`: restores the shape BxTxNxH."""
    b, t, n, h = shape
    groups = x_XxMxH.shape[-2] // t
    return x_XxMxH.reshape(b, n // groups, groups, t, h).transpose(0, 3, 1, 2, 4).reshape(shape)
