"""Critic heads: one output per step, computed from the hidden state of the last prompt token."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3, matrix
from mira_jax.models.remat import Remat


class CriticHead(nnx.Module):
    """An MLP with one hidden layer: hidden states of any leading shape to logits of that shape, fp32.

    The output layer is initialised to 0, so a new critic predicts 0.5 everywhere.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.hidden = matrix(rngs, (), (width, width), width, jnp.float32)
        self.hidden_bias = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.out = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.out_bias = nnx.Param(jnp.zeros((), jnp.float32))

    def __call__(self, hidden_SxD: jax.Array) -> jax.Array:
        x = hidden_SxD.astype(jnp.float32)
        x = jax.nn.gelu(x @ self.hidden[...] + self.hidden_bias[...], approximate=True)
        return x @ self.out[...] + self.out_bias[...]


class Critic(nnx.Module):
    """A Gemma3 trunk with one or more named heads. The heads are fp32 for any dtype of the trunk."""

    def __init__(
        self,
        config: Gemma3Config,
        heads: Sequence[str] = ("value", "potential"),
        *,
        rngs: nnx.Rngs,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        remat: Remat = "none",
    ):
        self.trunk = Gemma3(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype, remat=remat)
        self.heads = nnx.Dict({name: CriticHead(config.width, rngs=rngs) for name in heads})

    def __call__(
        self, tokens_BxT: jax.Array, positions_BxT: jax.Array | None, segment_ids_BxT: jax.Array | None, index_BxS: jax.Array
    ) -> dict[str, jax.Array]:
        """Logits BxS of each head at the tokens `index_BxS` of each row."""
        hidden_BxSxD = self.trunk(tokens_BxT, positions_BxT, segment_ids_BxT, index_BxR=index_BxS)
        return {name: head(hidden_BxSxD) for name, head in self.heads.items()}
