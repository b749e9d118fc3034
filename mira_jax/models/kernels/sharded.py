"""Attention by a kernel, on one device or on a mesh. The partitioner of XLA cannot split a kernel, so each device calls it in a
`shard_map` for its own rows, heads and tokens.

Shapes as in `mira_jax.models.kernels.splash`; t is T / parts, the tokens of one device.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mira_jax.errors import UserError
from mira_jax.models import sequence
from mira_jax.models.kernels import ranges, splash
from mira_jax.models.kernels.choose import Kernel
from mira_jax.models.sharding import AXES, partition


def attend(
    kernel: Kernel,
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    segment_ids_BxT: jax.Array | None,
    window: int | None,
    scale: float,
) -> jax.Array:
    """As `mira_jax.models.attention.attend`. Rows, heads and tokens that cannot be split evenly are replicated."""
    local = partial(_local, kernel, window=window, scale=scale)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(AXES) <= set(mesh.shape) or mesh.size == 1:
        return local(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, segment_ids_BxT)
    if segment_ids_BxT is None and sequence.parts() > 1:
        segment_ids_BxT = jnp.ones(q_BxTxNxH.shape[:2], jnp.int32)
    heads, kv_heads = q_BxTxNxH.shape[2], k_BxTxKxH.shape[2]
    of_rows, of_tokens, of_heads, _ = partition(("batch", "tokens", "heads", None), q_BxTxNxH.shape, mesh.shape)
    of_kv_heads = partition((None, None, "heads", None), k_BxTxKxH.shape, mesh.shape)[2]
    here = heads // mesh.shape["tensor"] if of_heads else heads
    if of_heads and not of_kv_heads and heads // kv_heads % here:
        of_heads, here = None, heads  # The heads of a device would belong to several kv heads, and not to all.

    def body(q_BxtxNxH, k_BxtxKxH, v_BxtxKxH, segment_ids_Bxt):
        if of_heads and not of_kv_heads:
            first = jax.lax.axis_index("tensor") * here // (heads // kv_heads)
            k_BxtxKxH, v_BxtxKxH = (jax.lax.dynamic_slice_in_dim(x, first, 1, axis=2) for x in (k_BxtxKxH, v_BxtxKxH))
        keys = k_BxtxKxH, v_BxtxKxH, segment_ids_Bxt
        return local(q_BxtxNxH, *(_previous(x, window) for x in keys) if of_tokens else keys)

    q_spec, kv_spec = PartitionSpec(of_rows, of_tokens, of_heads), PartitionSpec(of_rows, of_tokens, of_kv_heads)
    specs = q_spec, kv_spec, kv_spec, PartitionSpec(of_rows, of_tokens)
    # A Pallas call does not say over which axes its result varies, so this is not checked.
    split = jax.shard_map(body, in_specs=specs, out_specs=q_spec, check_vma=False)
    return split(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, segment_ids_BxT)


def _local(kernel: Kernel, q_BxTxNxH, k_BxSxKxH, v_BxSxKxH, segment_ids_BxS, *, window: int | None, scale: float) -> jax.Array:
    """Attention of the last T tokens of rows of S tokens, on one device."""
    if kernel.name == "splash":
        return splash.attend(q_BxTxNxH, k_BxSxKxH, v_BxSxKxH, segment_ids_BxS, window, scale, interpret=kernel.interpret)
    if kernel.name == "cudnn":
        return _cudnn(q_BxTxNxH, k_BxSxKxH, v_BxSxKxH, segment_ids_BxS, window, scale, kernel.interpret)
    from mira_jax.models.kernels import flash

    before = k_BxSxKxH.shape[1] - q_BxTxNxH.shape[1]
    if segment_ids_BxS is None:
        segment_ids_BxS = jnp.zeros(k_BxSxKxH.shape[:2], jnp.int32)
    first_BxS = ranges.first_seen(segment_ids_BxS, window)
    # The kernel takes as many queries as keys. The added ones see as few keys as the order of the ranges allows.
    index_S = jnp.arange(first_BxS.shape[1], dtype=jnp.int32)
    first_BxS = jnp.where(index_S < before, jnp.minimum(index_S, first_BxS[:, before, None]), first_BxS)
    q_BxSxNxH = jnp.pad(q_BxTxNxH, ((0, 0), (before, 0), (0, 0), (0, 0)))
    tiling = flash.default_tiling(q_BxTxNxH.shape[-1], kernel.capability)
    out_BxSxNxH = flash.attend(
        q_BxSxNxH, k_BxSxKxH, v_BxSxKxH, first_BxS, scale, tiling=tiling, label=flash.label(window), interpret=kernel.interpret
    )
    return out_BxSxNxH[:, before:]


def _cudnn(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, segment_ids_BxT, window: int | None, scale: float, interpret: bool) -> jax.Array:
    if segment_ids_BxT is not None:
        raise UserError("attention: cudnn takes no segment ids, which packed and padded rows have; set auto or xla")
    local = None if window is None else (window - 1, 0)
    return jax.nn.dot_product_attention(
        q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, scale=scale, is_causal=True, local_window_size=local,
        implementation="xla" if interpret else "cudnn",
    )  # fmt: skip


def _previous(x_Bxt: jax.Array, window: int | None) -> jax.Array:
    """The device's own tokens at the end, after those that they may see: the window - 1 tokens of its left neighbour, or the tokens
    of all other devices. Later tokens have segment ids that no token has."""
    reach = window - 1 if window is not None else x_Bxt.shape[1]
    if window is not None and reach <= x_Bxt.shape[1]:
        return sequence.extended(x_Bxt, reach)
    whole_BxT = sequence.gather(x_Bxt)
    length, index = x_Bxt.shape[1], jax.lax.axis_index(sequence.AXIS)
    if x_Bxt.ndim == 2:
        whole_BxT = jnp.where(jnp.arange(whole_BxT.shape[1]) < (index + 1) * length, whole_BxT, splash.AFTER)
    return jnp.roll(whole_BxT, -(index + 1) * length, axis=1)
