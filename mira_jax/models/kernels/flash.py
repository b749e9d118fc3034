"""Causal attention over ranges of keys, as Pallas kernels for GPUs.

FlashAttention-2 (Dao, arXiv 2307.08691) for queries that each see one contiguous range of keys. Windows and packed rows are such
ranges, so there is no mask array, and blocks of keys outside the ranges are neither read nor multiplied, in both passes. Query heads
that share a kv head read the same keys and values; nothing is repeated.

Shapes: B rows, T tokens, N query heads, K kv heads, G = N / K, H head dim, I queries of a block, J keys of a block.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from mira_jax.models.remat import HEADS

LOG2E = math.log2(math.e)
"""The kernels use powers of two, which the hardware computes."""
FORWARD, QUERY_GRADIENT, KEY_GRADIENT = "flash_attention_forward", "flash_attention_query_gradient", "flash_attention_key_gradient"
"""The beginnings of the kernels' names."""
MASKED = -1e30
"""The logit of a key outside the range. It is finite, so that a block without any visible key gives no NaN."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The blocks of one kernel."""

    queries: int
    keys: int
    warps: int
    stages: int = 2
    """Number of blocks in flight from memory."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """The blocks of the three kernels."""

    forward: Blocks
    query_gradient: Blocks
    key_gradient: Blocks

    def padding(self, length: int) -> int:
        """Number of tokens that fill the last blocks of a row."""
        return -length % max(max(blocks.queries, blocks.keys) for blocks in (self.forward, self.query_gradient, self.key_gradient))


@dataclasses.dataclass(frozen=True)
class Options:
    """What the kernels are compiled for, besides shapes."""

    scale: float
    tiling: Tiling
    label: str
    interpret: bool


SMALL_TILINGS = {
    64: Tiling(Blocks(64, 64, 4), Blocks(64, 64, 4), Blocks(32, 64, 4)),
    128: Tiling(Blocks(64, 64, 4), Blocks(64, 32, 4), Blocks(32, 64, 4)),
    256: Tiling(Blocks(64, 32, 8), Blocks(32, 32, 4), Blocks(16, 64, 8)),
}
"""Tilings by head dim, for bfloat16. They fit in 99 KiB of shared memory, which every GPU since Ampere has, and in its registers."""
HOPPER_TILINGS = {
    64: Tiling(Blocks(128, 128, 8), Blocks(128, 64, 8), Blocks(64, 128, 8)),
    128: Tiling(Blocks(128, 128, 8), Blocks(128, 64, 8), Blocks(64, 128, 8)),
    256: Tiling(Blocks(128, 64, 8), Blocks(64, 64, 8), Blocks(64, 64, 8)),
}
"""For 227 KiB of shared memory. At least 64 rows in every product, which the tensor cores of these GPUs take at once."""
BLACKWELL_TILINGS = {**HOPPER_TILINGS, 256: Tiling(Blocks(128, 64, 8), Blocks(64, 32, 8), Blocks(32, 64, 8))}
"""As for Hopper, but operands that Hopper keeps in registers are in shared memory too."""
TILINGS = {"9.": HOPPER_TILINGS, "10.": BLACKWELL_TILINGS}
"""By the beginning of the compute capability: H100 and H200, B200. Other GPUs: `SMALL_TILINGS`."""


def attend(
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    first_BxT: jax.Array,
    scale: float,
    *,
    tiling: Tiling | None = None,
    label: str = "",
    interpret: bool = False,
) -> jax.Array:
    """Token t of a row attends to the tokens first[t] to t. Returns BxTxNxH. Differentiable in q, k and v.

    Args:
        first_BxT: int32, nondecreasing along T, at most t (`mira_jax.models.kernels.ranges`).
        scale: factor of the logits.
        tiling: block sizes, powers of two. Default: that of `default_tiling` for the GPU of this process.
        label: the end of the kernels' names, to find them in a compiled program.
        interpret: run without a GPU, slowly.

    Raises:
        ValueError: there is no tiling for this head dim, or an array has 2^31 elements or more.
    """
    length = q_BxTxNxH.shape[1]
    options = Options(scale, tiling or default_tiling(q_BxTxNxH.shape[-1]), label, interpret)
    if padding := options.tiling.padding(length):
        q_BxTxNxH, k_BxTxKxH, v_BxTxKxH = (jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))) for x in (q_BxTxNxH, k_BxTxKxH, v_BxTxKxH))
        # A padded token sees only padded tokens.
        first_BxT = jnp.pad(first_BxT, ((0, 0), (0, padding)), constant_values=length)
    if q_BxTxNxH.size >= 2**31:
        raise ValueError(f"the queries have {q_BxTxNxH.size:,} elements, and the kernels count to 2^31; use fewer rows at once")
    return _attend(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, first_BxT, options)[:, :length]


def default_tiling(head_dim: int, capability: str = "") -> Tiling:
    """The tiling for a compute capability; default: that of the GPU of this process, or without one, the tiling that fits on all.

    Raises:
        ValueError: there is none for this head dim.
    """
    capability = capability or str(getattr(jax.devices()[0], "compute_capability", ""))
    tilings = next((tilings for start, tilings in TILINGS.items() if capability.startswith(start)), SMALL_TILINGS)
    if head_dim not in tilings:
        raise ValueError(f"head dim {head_dim}: the kernels have tilings for {', '.join(map(str, tilings))}")
    return tilings[head_dim]


def label(window: int | None) -> str:
    """The label of the kernels of layers with this window."""
    return "" if window is None else f"_window_{window}"


def flops(first_T: np.ndarray, head_dim: int, tiling: Tiling) -> dict[str, float]:
    """FLOPs of each kernel for one row and query head, with all tokens of the blocks that it visits.

    Args:
        first_T: as in `attend`.
    """
    padding = tiling.padding(len(first_T))
    first_T = np.pad(np.asarray(first_T), (0, padding), constant_values=len(first_T))

    def by_queries(blocks: Blocks) -> int:
        starts = np.arange(0, len(first_T), blocks.queries)
        return int(np.sum(-(-(starts + blocks.queries) // blocks.keys) - first_T[starts] // blocks.keys))

    def by_keys(blocks: Blocks) -> int:
        starts = np.arange(0, len(first_T), blocks.keys)
        stops = np.searchsorted(first_T, starts + blocks.keys - 1, side="right")
        return int(np.sum(-(-stops // blocks.queries) - starts // blocks.queries))

    # The products of a pair of blocks: q k and p v; q k, dO v and dS k; q k, dO p, v dO and dS q.
    kernels = {FORWARD: (2, by_queries, tiling.forward), QUERY_GRADIENT: (3, by_queries, tiling.query_gradient)}
    kernels[KEY_GRADIENT] = 4, by_keys, tiling.key_gradient
    return {
        name: 2.0 * products * blocks.queries * blocks.keys * head_dim * visited(blocks)
        for name, (products, visited, blocks) in kernels.items()
    }


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, first, options: Options) -> jax.Array:
    return _forward(q, k, v, first, options)[0]


def _forward(q, k, v, first, options: Options):
    out, log_sum = (checkpoint_name(x, HEADS) for x in _run_forward(q, k, v, first, options))
    return out, (q, k, v, first, out, log_sum)


# JAX removes an unused call of a compiled function, as after rematerialisation, but not a call of a kernel.
@partial(jax.jit, static_argnums=4)
def _run_forward(q, k, v, first, options: Options) -> tuple[jax.Array, jax.Array]:
    """The output, and the logarithms of the softmax's sums, BxNxT, base 2."""
    batch, length, heads, width = q.shape
    groups, blocks = heads // k.shape[2], options.tiling.forward
    one_head = lambda rows, head: pl.BlockSpec((None, rows, None, width), head)  # noqa: E731
    return pl.pallas_call(
        partial(_forward_kernel, blocks=blocks, scale=options.scale),
        grid=(length // blocks.queries, batch, heads),
        in_specs=[
            one_head(blocks.queries, lambda i, b, n: (b, i, n, 0)),
            one_head(length, lambda i, b, n: (b, 0, n // groups, 0)),
            one_head(length, lambda i, b, n: (b, 0, n // groups, 0)),
            pl.BlockSpec((None, blocks.queries), lambda i, b, n: (b, i)),
        ],
        out_specs=[
            one_head(blocks.queries, lambda i, b, n: (b, i, n, 0)),
            pl.BlockSpec((None, None, blocks.queries), lambda i, b, n: (b, n, i)),
        ],
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((batch, heads, length), jnp.float32)],
        compiler_params=triton.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages),
        interpret=options.interpret,
        name=FORWARD + options.label,
    )(q, k, v, first)


def _forward_kernel(q_ref, k_ref, v_ref, first_ref, out_ref, log_sum_ref, *, blocks: Blocks, scale: float):
    """A block of queries: the softmax over all keys that it sees, with a running maximum and sum."""
    start = pl.program_id(0) * blocks.queries
    q_IxH, first_I = q_ref[...], first_ref[...]
    place_I = _places(pl.program_id(0), blocks.queries)

    def block(j, carry):
        out_IxH, most_I, sum_I = carry
        keys = pl.ds(j * blocks.keys, blocks.keys)
        seen_IxJ = _seen(place_I[:, None], first_I[:, None], _places(j, blocks.keys)[None])
        logits_IxJ = _logits(q_IxH, k_ref[keys, :], seen_IxJ, scale)
        new_I = jnp.maximum(most_I, jnp.max(logits_IxJ, axis=1))
        weights_IxJ, shrink_I = jnp.exp2(logits_IxJ - new_I[:, None]), jnp.exp2(most_I - new_I)
        v_JxH = v_ref[keys, :]
        out_IxH = out_IxH * shrink_I[:, None] + _product(weights_IxJ.astype(v_JxH.dtype), v_JxH)
        return out_IxH, new_I, sum_I * shrink_I + jnp.sum(weights_IxJ, axis=1)

    nothing_I = jnp.zeros((blocks.queries,), jnp.float32)
    carry = jnp.zeros(q_IxH.shape, jnp.float32), nothing_I + MASKED, nothing_I
    # Because `first` does not decrease, the block's first query sees its earliest key.
    seen = first_ref[0] // blocks.keys, pl.cdiv(start + blocks.queries, blocks.keys)
    out_IxH, most_I, sum_I = jax.lax.fori_loop(*seen, block, carry)
    out_ref[...] = (out_IxH / sum_I[:, None]).astype(out_ref.dtype)
    log_sum_ref[...] = most_I + jnp.log2(sum_I)


def _backward(options: Options, residuals, d_out):
    """With P the weights and delta = rowsum(dO * O): dS = P * (dO V^T - delta), dQ = dS K, dK = dS^T Q, dV = P^T dO."""
    q, k, v, first, out, log_sum = residuals
    delta_BxNxT = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).swapaxes(1, 2)
    arrays = q, k, v, first, d_out, log_sum, delta_BxNxT
    return _query_gradient(arrays, options), *_key_gradient(arrays, options), None


_attend.defvjp(_forward, _backward)


def _query_gradient(arrays, options: Options) -> jax.Array:
    (q, k), blocks = arrays[:2], options.tiling.query_gradient
    batch, length, heads, width = q.shape
    groups = heads // k.shape[2]
    queries = pl.BlockSpec((None, blocks.queries, None, width), lambda i, b, n: (b, i, n, 0))
    keys = pl.BlockSpec((None, length, None, width), lambda i, b, n: (b, 0, n // groups, 0))
    sums = pl.BlockSpec((None, None, blocks.queries), lambda i, b, n: (b, n, i))
    return pl.pallas_call(
        partial(_query_gradient_kernel, blocks=blocks, scale=options.scale),
        grid=(length // blocks.queries, batch, heads),
        in_specs=[queries, keys, keys, pl.BlockSpec((None, blocks.queries), lambda i, b, n: (b, i)), queries, sums, sums],
        out_specs=queries,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=triton.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages),
        interpret=options.interpret,
        name=QUERY_GRADIENT + options.label,
    )(*arrays)


def _query_gradient_kernel(q_ref, k_ref, v_ref, first_ref, d_out_ref, log_sum_ref, delta_ref, d_q_ref, *, blocks: Blocks, scale: float):
    """A block of queries: its gradient, summed over the keys that it sees."""
    start = pl.program_id(0) * blocks.queries
    q_IxH, first_I, d_out_IxH = q_ref[...], first_ref[...], d_out_ref[...]
    log_sum_I, delta_I = log_sum_ref[...], delta_ref[...]
    place_I = _places(pl.program_id(0), blocks.queries)

    def block(j, d_q_IxH):
        keys = pl.ds(j * blocks.keys, blocks.keys)
        k_JxH = k_ref[keys, :]
        seen_IxJ = _seen(place_I[:, None], first_I[:, None], _places(j, blocks.keys)[None])
        weights_IxJ = jnp.exp2(_logits(q_IxH, k_JxH, seen_IxJ, scale) - log_sum_I[:, None])
        d_weights_IxJ = _product(d_out_IxH, v_ref[keys, :], transposed=True)
        d_logits_IxJ = weights_IxJ * (d_weights_IxJ - delta_I[:, None])
        return d_q_IxH + _product(d_logits_IxJ.astype(k_JxH.dtype), k_JxH)

    seen = first_ref[0] // blocks.keys, pl.cdiv(start + blocks.queries, blocks.keys)
    d_q_IxH = jax.lax.fori_loop(*seen, block, jnp.zeros(q_IxH.shape, jnp.float32))
    d_q_ref[...] = (d_q_IxH * scale).astype(d_q_ref.dtype)


def _key_gradient(arrays, options: Options) -> tuple[jax.Array, jax.Array]:
    (q, k, v, first), blocks = arrays[:4], options.tiling.key_gradient
    batch, length, heads, width = q.shape
    kv_heads = k.shape[2]
    groups = heads // kv_heads
    # The number of queries whose range begins at or before the last key of a block: no later query sees the block.
    ends = jnp.arange(blocks.keys - 1, length, blocks.keys)
    stop_BxJ = jax.vmap(lambda row: jnp.searchsorted(row, ends, side="right", method="compare_all"))(first).astype(jnp.int32)
    keys = pl.BlockSpec((None, blocks.keys, None, width), lambda j, b, n: (b, j, n, 0))
    queries = pl.BlockSpec((None, length, groups, width), lambda j, b, n: (b, 0, n, 0))
    sums = pl.BlockSpec((None, groups, length), lambda j, b, n: (b, n, 0))
    row = pl.BlockSpec((None, length), lambda j, b, n: (b, 0))
    one = pl.BlockSpec((None, 1), lambda j, b, n: (b, j))
    return pl.pallas_call(
        partial(_key_gradient_kernel, blocks=blocks, groups=groups, scale=options.scale),
        grid=(length // blocks.keys, batch, kv_heads),
        in_specs=[queries, keys, keys, row, queries, sums, sums, one],
        out_specs=[keys, keys],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k, v)],
        compiler_params=triton.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages),
        interpret=options.interpret,
        name=KEY_GRADIENT + options.label,
    )(*arrays, stop_BxJ)


def _key_gradient_kernel(
    q_ref, k_ref, v_ref, first_ref, d_out_ref, log_sum_ref, delta_ref, stop_ref, d_k_ref, d_v_ref, *, blocks: Blocks, groups: int,
    scale: float,
):  # fmt: skip
    """A block of keys: its gradient and that of its values, summed over the queries of all its heads that see it."""
    start = pl.program_id(0) * blocks.keys
    k_JxH, v_JxH = k_ref[...], v_ref[...]
    first_block, last_block = start // blocks.queries, pl.cdiv(stop_ref[0], blocks.queries)
    count = last_block - first_block
    place_J = _places(pl.program_id(0), blocks.keys)

    def block(step, carry):
        d_k_JxH, d_v_JxH = carry
        head, i = step // count, first_block + step % count
        queries = pl.ds(i * blocks.queries, blocks.queries)
        q_IxH, d_out_IxH = q_ref[queries, head, :], d_out_ref[queries, head, :]
        place_I = _places(i, blocks.queries)
        # The products have keys as rows, which are as many as the tensor cores take at once.
        seen_JxI = _seen(place_I[None], first_ref[queries][None], place_J[:, None])
        logits_JxI = _logits(k_JxH, q_IxH, seen_JxI, scale)
        weights_JxI = jnp.exp2(logits_JxI - log_sum_ref[head, queries][None])
        d_v_JxH += _product(weights_JxI.astype(d_out_IxH.dtype), d_out_IxH)
        d_weights_JxI = _product(v_JxH, d_out_IxH, transposed=True)
        d_logits_JxI = weights_JxI * (d_weights_JxI - delta_ref[head, queries][None])
        return d_k_JxH + _product(d_logits_JxI.astype(q_IxH.dtype), q_IxH), d_v_JxH

    nothing = jnp.zeros(k_JxH.shape, jnp.float32)
    d_k_JxH, d_v_JxH = jax.lax.fori_loop(0, groups * count, block, (nothing, nothing))
    d_k_ref[...] = (d_k_JxH * scale).astype(d_k_ref.dtype)
    d_v_ref[...] = d_v_JxH.astype(d_v_ref.dtype)


def _places(block: jax.Array, size: int) -> jax.Array:
    """The places in the row of the tokens of a block."""
    return block * size + jnp.arange(size)


def _seen(query: jax.Array, first: jax.Array, key: jax.Array) -> jax.Array:
    """Whether the key is in the range of the query, by their places in the row."""
    return (key <= query) & (key >= first)


def _logits(a: jax.Array, b: jax.Array, seen: jax.Array, scale: float) -> jax.Array:
    """a b^T scale in base 2, masked by `seen`."""
    return jnp.where(seen, _product(a, b, transposed=True) * (scale * LOG2E), MASKED)


def _product(a: jax.Array, b: jax.Array, transposed: bool = False) -> jax.Array:
    """a b, or a b^T, in fp32. Products of fp32 arrays are exact fp32, not TF32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dimensions = (((1,), (1 if transposed else 0,)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)
