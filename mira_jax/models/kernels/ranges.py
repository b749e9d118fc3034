"""The range of keys that each query sees. In a packed row it is contiguous, so a kernel needs no mask."""

import jax
import jax.numpy as jnp


def first_seen(segment_ids_BxT: jax.Array, window: int | None) -> jax.Array:
    """The first key that each query sees: max(start of its segment, i - W + 1). The last one is the query's own, i.

    Segments are contiguous. Returns int32 BxT, which does not decrease along T.
    """
    index_T = jnp.arange(segment_ids_BxT.shape[1], dtype=jnp.int32)
    starts_BxT = segment_ids_BxT[:, 1:] != segment_ids_BxT[:, :-1]
    start_BxT = jax.lax.cummax(jnp.pad(jnp.where(starts_BxT, index_T[1:], 0), ((0, 0), (1, 0))), axis=1)
    return start_BxT if window is None else jnp.maximum(start_BxT, index_T - window + 1)
