"""Attention on TPUs, by the splash attention kernel of JAX. It skips the blocks of keys that the causal or local mask excludes.

Shapes: B rows, T queries, S keys, N query heads, K kv heads, H head dim. In the kernel, heads precede tokens.
"""

import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention

from mira_jax.models.remat import HEADS

LANES = 128
"""Blocks are a multiple of this."""
MOST = 512
"""Maximum number of queries, and of keys, in a block."""
PADDING = 1 / 8
"""Maximum share of a row that is added to get larger blocks."""
BEFORE, AFTER = -2, -1
"""Segment ids of padding. Tokens of a row have ids from 0 on."""


def attend(
    q_BxTxNxH: jax.Array,
    k_BxSxKxH: jax.Array,
    v_BxSxKxH: jax.Array,
    segment_ids_BxS: jax.Array | None,
    window: int | None,
    scale: float,
    *,
    interpret: bool = False,
) -> jax.Array:
    """As `mira_jax.models.attention.attend`, for the last T tokens of rows of S tokens. Returns BxTxNxH.

    `interpret`: runs the kernel without a TPU, slowly.
    """
    length, keys = q_BxTxNxH.shape[1], k_BxSxKxH.shape[1]
    block = block_size(length, window)
    # The kernel takes whole blocks of queries and of keys, and the mask needs whole blocks of keys before the first query.
    before, after = -(keys - length) % block, -length % block
    if segment_ids_BxS is None and before:
        segment_ids_BxS = jnp.zeros(k_BxSxKxH.shape[:2], jnp.int32)
    if segment_ids_BxS is not None:
        segment_ids_BxS = jnp.pad(segment_ids_BxS, ((0, 0), (before, after)), constant_values=((0, 0), (BEFORE, AFTER)))
    q = _heads_first(q_BxTxNxH * jnp.asarray(scale, q_BxTxNxH.dtype), 0, after)
    k, v = (_heads_first(x, before, after) for x in (k_BxSxKxH, v_BxSxKxH))
    return _attend((window, block, interpret), q, k, v, segment_ids_BxS)[:, :, :length].swapaxes(1, 2)


def block_size(length: int, window: int | None) -> int:
    """The largest block that pads rows of `length` tokens by little and is not much larger than the window."""
    sizes = [MOST // 2**n for n in range((MOST // LANES).bit_length())]
    fits = [size for size in sizes if -length % size <= PADDING * length and (window is None or size < 2 * window)]
    return max(fits, default=LANES)


def _heads_first(x_BxTxNxH: jax.Array, before: int, after: int) -> jax.Array:
    return jnp.pad(x_BxTxNxH, ((0, 0), (before, after), (0, 0), (0, 0))).swapaxes(1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options: tuple, q_BxNxTxH, k_BxKxSxH, v_BxKxSxH, segment_ids_BxS):
    """The kernel in the precision of `_precision`, which has to be set while each pass is traced."""
    with _precision(q_BxNxTxH.dtype):
        return _rows(options, segment_ids_BxS)(q_BxNxTxH, k_BxKxSxH, v_BxKxSxH)


def _attend_forward(options, q_BxNxTxH, k_BxKxSxH, v_BxKxSxH, segment_ids_BxS):
    with _precision(q_BxNxTxH.dtype):
        return jax.vjp(_rows(options, segment_ids_BxS), q_BxNxTxH, k_BxKxSxH, v_BxKxSxH)


def _attend_backward(options, pullback, gradient_BxNxTxH):
    with _precision(gradient_BxNxTxH.dtype):
        return *pullback(gradient_BxNxTxH), None


_attend.defvjp(_attend_forward, _attend_backward)


def _precision(dtype):
    """The compiler for TPUs has only the precisions default and highest, and for bfloat16, where both are the same, only default."""
    name = jax.config.jax_default_matmul_precision
    return jax.default_matmul_precision("default" if dtype != jnp.float32 or name in (None, "default") else "highest")


def _rows(options: tuple, segment_ids_BxS: jax.Array | None):
    def rows(q_BxNxTxH, k_BxKxSxH, v_BxKxSxH):
        (heads, length), keys = q_BxNxTxH.shape[1:3], k_BxKxSxH.shape[2]
        kernel = _kernel(heads, length, keys, *options)

        def row(q_NxTxH, k_KxSxH, v_KxSxH, ids_S):
            ids = None if ids_S is None else splash_attention.SegmentIds(ids_S[keys - length :], ids_S)
            return kernel(q_NxTxH, k_KxSxH, v_KxSxH, ids)

        return jax.vmap(row)(q_BxNxTxH, k_BxKxSxH, v_BxKxSxH, segment_ids_BxS)

    return rows


@functools.lru_cache(maxsize=64)
def _kernel(heads: int, length: int, keys: int, window: int | None, block: int, interpret: bool):
    """The kernel for one row, with the list of blocks that the mask leaves. The list takes seconds to make for long rows."""
    shape, offset = (length, keys), keys - length
    if window is None:
        mask = splash_attention.CausalMask(shape, offset)
    else:
        mask = splash_attention.LocalMask(shape, (window - 1, 0), offset)
    sizes = splash_attention.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
    )
    options = {"block_sizes": sizes, "head_shards": 1, "q_seq_shards": 1, "residual_checkpoint_name": HEADS, "interpret": interpret}
    make = functools.partial(splash_attention.make_splash_mha, **options)
    # In another thread, the list is computed: here it would be traced, for the devices of the mesh, which may be absent.
    with ThreadPoolExecutor(1) as thread:
        return jax.device_get(thread.submit(make, splash_attention.MultiHeadMask([mask] * heads)).result())
