"""Causal attention over packed rows, and over a cache. Logits and softmax are fp32, everywhere.

Shapes: B rows, T tokens, S cache slots, N query heads, K kv heads, G = N / K, H head dim, W window.
"""

import jax
import jax.numpy as jnp

MASKED = -1e30
"""Added to the logits of unseen tokens: finite, so that a row that sees nothing has no NaN."""
BLOCK = 128
"""Queries per block of the dense form, at least: short enough to skip most of the future, long enough for the matrix unit."""
MOST_BLOCKS = 16


def attend(
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    segment_ids_BxT: jax.Array | None,
    window: int | None,
    scale: float,
) -> jax.Array:
    """Each token over the tokens of its own segment at or before it, at most `window` of them (itself included).

    Position within the row decides what is before; segments are contiguous. Returns BxTxNxH.
    """
    length = q_BxTxNxH.shape[1]
    blocks = []
    for start, stop, first in query_blocks(length, window):
        segments = None if segment_ids_BxT is None else (segment_ids_BxT[:, start:stop], segment_ids_BxT[:, first:stop])
        seen = _seen(jnp.arange(start, stop), jnp.arange(first, stop), window)[None]
        if segments is not None:
            seen = seen & (segments[0][:, :, None] == segments[1][:, None, :])
        blocks.append(dense(q_BxTxNxH[:, start:stop], k_BxTxKxH[:, first:stop], v_BxTxKxH[:, first:stop], seen, scale))
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)


def query_blocks(length: int, window: int | None) -> list[tuple[int, int, int]]:
    """(start, stop, first): queries [start, stop) see no key outside [first, stop)."""
    size = max(BLOCK, -(-length // MOST_BLOCKS))
    blocks = []
    for start in range(0, length, size):
        first = 0 if window is None else max(0, start - window + 1)
        blocks.append((start, min(start + size, length), first))
    return blocks


def _seen(q_T: jax.Array, k_S: jax.Array, window: int | None) -> jax.Array:
    distance = q_T[..., :, None] - k_S[..., None, :]
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def attend_cache(
    q_BxTxNxH: jax.Array, keys_BxSxKxH: jax.Array, values_BxSxKxH: jax.Array, slots_BxT: jax.Array, window: int | None, scale: float
) -> jax.Array:
    """Tokens at slots `slots_BxT` of their rows over the slots at or before their own, at most `window` of them."""
    seen = _seen(slots_BxT, jnp.arange(keys_BxSxKxH.shape[1])[None], window)
    return dense(q_BxTxNxH, keys_BxSxKxH, values_BxSxKxH, seen, scale)


def dense(q_BxTxNxH: jax.Array, k_BxSxKxH: jax.Array, v_BxSxKxH: jax.Array, seen_BxTxS: jax.Array, scale: float) -> jax.Array:
    """Plain softmax attention under a mask."""
    b, t, n, h = q_BxTxNxH.shape
    kv_heads = k_BxSxKxH.shape[2]
    q = q_BxTxNxH.reshape(b, t, kv_heads, n // kv_heads, h)
    logits = jnp.einsum("btkgh,bskh->bkgts", q * scale, k_BxSxKxH, preferred_element_type=jnp.float32)
    logits = jnp.where(seen_BxTxS[:, None, None], logits, MASKED)
    weights = jax.nn.softmax(logits, axis=-1).astype(v_BxSxKxH.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v_BxSxKxH).reshape(b, t, n, h)
