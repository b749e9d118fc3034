"""Attention over rows whose tokens are sharded over the mesh axis `sequence`. The results are exact: only the placement differs.

Each device keeps the queries of its own tokens. Global layers gather the keys and values of the whole row. Local layers
receive from the left neighbour the keys and values within the window. If the axis has size 1, or no mesh is set, these
functions are the plain ones.

Shapes as in `mira_jax.models.attention`; t is T / parts, the tokens of one device.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mira_jax.models import attention

AXIS = "sequence"


def parts() -> int:
    """Number of devices that share the tokens of a row, on the mesh of `jax.set_mesh`."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape.get(AXIS, 1)


def attend(
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    segment_ids_BxT: jax.Array | None,
    window: int | None,
    scale: float,
) -> jax.Array:
    """As `attention.attend`. Rows that cannot be split evenly are replicated on every device."""
    count = parts()
    batch, length = q_BxTxNxH.shape[:2]
    if count == 1 or length % count:
        return attention.attend(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, segment_ids_BxT, window, scale)
    if segment_ids_BxT is None:
        segment_ids_BxT = jnp.ones((batch, length), jnp.int32)
    near = window is not None and window - 1 <= length // count
    body = partial(_attend_neighbour if near else _attend_gathered, window=window, scale=scale)
    return _split(body, 4)(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, segment_ids_BxT)


def attend_from(
    q_BxRxNxH: jax.Array,
    index_BxR: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    segment_ids_BxT: jax.Array | None,
    window: int | None,
    scale: float,
) -> jax.Array:
    """As `attention.attend_from`, with the selected tokens also split over the devices."""
    count = parts()
    length = k_BxTxKxH.shape[1]
    if count == 1 or length % count:
        return attention.attend_from(q_BxRxNxH, index_BxR, k_BxTxKxH, v_BxTxKxH, segment_ids_BxT, window, scale)
    if segment_ids_BxT is None:
        segment_ids_BxT = jnp.ones(k_BxTxKxH.shape[:2], jnp.int32)

    def body(q, index, k, v, segment_ids):
        return attention.attend_from(q, index, gather(k), gather(v), gather(segment_ids), window, scale)

    chosen = q_BxRxNxH.shape[1]
    q, index = _padded(q_BxRxNxH, count), _padded(index_BxR, count)
    return _split(body, 5)(q, index, k_BxTxKxH, v_BxTxKxH, segment_ids_BxT)[:, :chosen]


def take(x_BxTx: jax.Array, index_BxR: jax.Array) -> jax.Array:
    """The tokens `index_BxR` of each row, split over the devices. Each device sends its tokens to the devices that selected them."""
    count = parts()
    length, chosen = x_BxTx.shape[1], index_BxR.shape[1]
    if count == 1 or length % count:
        return _take(x_BxTx, index_BxR)

    def body(x, index):
        place = index - jax.lax.axis_index(AXIS) * x.shape[1]
        here = (place >= 0) & (place < x.shape[1])
        taken = _take(x, jnp.where(here, place, 0))
        taken = jnp.where(here.reshape(*here.shape, *(1,) * (x.ndim - 2)), taken, 0)
        return jax.lax.psum_scatter(taken, AXIS, scatter_dimension=1, tiled=True)

    tokens = PartitionSpec(None, AXIS)
    split = jax.shard_map(body, in_specs=(tokens, PartitionSpec()), out_specs=tokens, axis_names={AXIS})
    return split(x_BxTx, _padded(index_BxR, count))[:, :chosen]


def _take(x_BxTx: jax.Array, index_BxR: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_BxTx, index_BxR.reshape(*index_BxR.shape, *(1,) * (x_BxTx.ndim - 2)), axis=1)


def _attend_gathered(q_BxtxNxH, k_BxtxKxH, v_BxtxKxH, segment_ids_Bxt, *, window: int | None, scale: float) -> jax.Array:
    """Attention of the device's own queries over the whole row, in blocks of queries."""
    k, v, all_segments = gather(k_BxtxKxH), gather(v_BxtxKxH), gather(segment_ids_Bxt)
    batch, length, heads, _ = q_BxtxNxH.shape
    dense = attention.dense
    if batch * heads * length * k.shape[1] > attention.KEPT_WEIGHTS:
        dense = jax.checkpoint(dense, static_argnums=(4,))
    own = jax.lax.axis_index(AXIS) * length + jnp.arange(length)
    size = max(attention.BLOCK, -(-length // attention.MOST_BLOCKS))
    blocks = []
    for start in range(0, length, size):
        some = slice(start, start + size)
        distance = own[some, None] - jnp.arange(k.shape[1])
        seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
        seen = seen & (segment_ids_Bxt[:, some, None] == all_segments[:, None])
        blocks.append(dense(q_BxtxNxH[:, some], k, v, seen, scale))
    return jnp.concatenate(blocks, axis=1)


def _attend_neighbour(q_BxtxNxH, k_BxtxKxH, v_BxtxKxH, segment_ids_Bxt, *, window: int, scale: float) -> jax.Array:
    """Attention of the device's own queries over its own keys and the window - 1 keys before them. They are treated as one row,
    and the results of the first queries are discarded."""
    reach = window - 1
    q = jnp.pad(q_BxtxNxH, ((0, 0), (reach, 0), (0, 0), (0, 0)))
    row = q, *(extended(x, reach) for x in (k_BxtxKxH, v_BxtxKxH, segment_ids_Bxt))
    return attention.attend(*row, window, scale)[:, reach:]


def extended(x_Bxt: jax.Array, reach: int) -> jax.Array:
    """The device's own tokens after the last `reach` tokens of its left neighbour. The first device receives zeros: segment 0, which
    no token attends to."""
    end = x_Bxt[:, x_Bxt.shape[1] - reach :]
    return jnp.concatenate([jax.lax.ppermute(end, AXIS, [(i, i + 1) for i in range(parts() - 1)]), x_Bxt], axis=1)


def gather(x_Bxt: jax.Array) -> jax.Array:
    """The tokens of all devices."""
    return jax.lax.all_gather(x_Bxt, AXIS, axis=1, tiled=True)


def _padded(x_BxR: jax.Array, count: int) -> jax.Array:
    return jnp.pad(x_BxR, ((0, 0), (0, -x_BxR.shape[1] % count), *((0, 0),) * (x_BxR.ndim - 2)))


def _split(body: Callable, arguments: int) -> Callable:
    """Applies `body` to each device's shard of the second axis of each argument. The compiler handles the other mesh axes."""
    tokens = PartitionSpec(None, AXIS)
    return jax.shard_map(body, in_specs=(tokens,) * arguments, out_specs=tokens, axis_names={AXIS})
