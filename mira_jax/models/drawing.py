"""Sampling a token from logits: temperature, top-k, top-p, and a random stream for each seed, choice and position.

Dimensions: B rows, V vocabulary.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32


def draw(
    logits: Float[Array, "B V"], temperature: Float[Array, " B"], top_p: Float[Array, " B"], top_k: Int[Array, " B"],
    seed: UInt32[Array, " B"], choice: Int[Array, " B"], position: Int[Array, " B"],
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:  # fmt: skip
    """One token per row, and its log-probability in nats under the distribution that it was drawn from.

    Logits are float32. The distribution is the softmax of logits / temperature, restricted by `truncated` and renormalised.
    Temperature 0 selects the most likely token, with log-probability 0. Sampling uses the Gumbel-max trick
    (https://arxiv.org/abs/1611.01144, section 2). The noise depends only on (seed, choice, position).
    """
    greedy = jnp.argmax(logits, -1).astype(jnp.int32)

    def drawn() -> tuple[jax.Array, jax.Array]:
        scaled = logits / jnp.maximum(temperature, 1e-6)[:, None]
        scaled = jax.lax.cond(jnp.any((top_p < 1) | (top_k > 0)), lambda: truncated(scaled, top_p, top_k), lambda: scaled)
        keys = jax.vmap(_key)(seed, choice, position)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
        token = jnp.where(temperature > 0, jnp.argmax(scaled + noise, -1).astype(jnp.int32), greedy)
        log_prob = jnp.take_along_axis(scaled, token[:, None], 1)[:, 0] - jax.nn.logsumexp(scaled, -1)
        return token, jnp.where(temperature > 0, log_prob, 0)

    return jax.lax.cond(jnp.any(temperature > 0), drawn, lambda: (greedy, jnp.zeros_like(temperature)))


def truncated(logits: Float[Array, "B V"], top_p: Float[Array, " B"], top_k: Int[Array, " B"]) -> Float[Array, "B V"]:
    """Sets the logits of tokens that may not be drawn to minus infinity.

    The allowed tokens are the `top_k` most likely ones (0: all), and of these, renormalised, the smallest set whose
    probability reaches `top_p` (Holtzman et al., 2020, https://arxiv.org/abs/1904.09751). Tokens as likely as the last one
    kept are also kept.
    """
    falling = -jnp.sort(-logits, -1)
    last = jnp.where(top_k > 0, jnp.minimum(top_k, logits.shape[-1]), logits.shape[-1]) - 1
    logits = jnp.where(logits >= jnp.take_along_axis(falling, last[:, None], 1), logits, -jnp.inf)
    probabilities = jax.nn.softmax(logits)
    falling = -jnp.sort(-probabilities, -1)
    before = jnp.cumsum(falling, -1) - falling
    # Ensures that the most likely token is kept for any top_p, even one that was rounded to 0.
    least = jnp.min(jnp.where(before < jnp.maximum(top_p, 1e-6)[:, None], falling, jnp.inf), -1)
    return jnp.where(probabilities >= least[:, None], logits, -jnp.inf)


def _key(seed: jax.Array, choice: jax.Array, position: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), choice), position)
