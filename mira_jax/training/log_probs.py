"""Log-probabilities of the responses in packed rows. Logits are computed only at response tokens, one chunk at a time.

Shapes: B rows, T tokens, R response tokens in a row, S steps in a row, D width, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

CHUNK_LOGITS = 2**28
"""Maximum number of logits held at once on a device: 1 GiB in fp32."""


def response_log_probs(model, batch: Mapping[str, Array], chunk_logits: int = CHUNK_LOGITS) -> Array:
    """log p of every response token given all tokens before it in its segment, BxR fp32, 0 where masked.

    `model` is a `Gemma3`; `batch` as in `mira_jax.data.packing`.
    """
    return token_log_probs(model, response_hidden(model, batch), batch["response_targets"], chunk_logits) * batch["response_mask"]


def response_hidden(model, batch: Mapping[str, Array]) -> Array:
    """The hidden state that predicts each response token, BxRxD. Undefined where masked."""
    return model(batch["tokens"], batch["positions"], batch["segment_ids"], index_BxR=batch["response_index"])


def answer_log_probs(model, batch: Mapping[str, Array]) -> tuple[Array, Array]:
    """(log P(YES), log P(NO)) after the prompt of each example, BxS fp32 each, over the full vocabulary. Undefined where masked.

    `batch` contains examples of `mira_jax.data.answers`, whose responses are the tokens of YES and of NO.
    """
    hidden_BxSxD = model(batch["tokens"], batch["positions"], batch["segment_ids"], index_BxR=batch["last_prompt_index"])
    rows, steps = batch["last_prompt_index"].shape
    answers_BxSx2 = batch["response_targets"][:, : 2 * steps].reshape(rows, steps, 2)
    return token_log_probs(model, hidden_BxSxD, answers_BxSx2[..., 0]), token_log_probs(model, hidden_BxSxD, answers_BxSx2[..., 1])


def token_log_probs(model, hidden_BxRxD: Array, targets_BxR: Array, chunk_logits: int = CHUNK_LOGITS) -> Array:
    """log softmax(logits(hidden))[target], BxR fp32. The backward pass recomputes the logits of each chunk."""

    def chunk(hidden_BxCxD: Array, targets_BxC: Array) -> Array:
        logits_BxCxV = model.logits(hidden_BxCxD)
        # A comparison instead of indexing: its gradient fuses with that of the softmax, while indexing would need a scatter.
        is_target_BxCxV = jnp.arange(logits_BxCxV.shape[-1]) == targets_BxC[..., None]
        chosen_BxC = jnp.sum(jnp.where(is_target_BxCxV, logits_BxCxV, 0.0), axis=-1)
        return chosen_BxC - jax.nn.logsumexp(logits_BxCxV, axis=-1)

    return _in_chunks(model, chunk, (hidden_BxRxD, targets_BxR), chunk_logits)


def token_entropies(model, hidden_BxRxD: Array, chunk_logits: int = CHUNK_LOGITS) -> Array:
    """Entropy of softmax(logits(hidden)) in nats, BxR fp32."""

    def chunk(hidden_BxCxD: Array) -> Array:
        log_probs_BxCxV = jax.nn.log_softmax(model.logits(hidden_BxCxD))
        return -jnp.sum(jnp.exp(log_probs_BxCxV) * log_probs_BxCxV, axis=-1)

    return _in_chunks(model, chunk, (hidden_BxRxD,), chunk_logits)


def log_probs_and_support(
    model, hidden_BxRxD: Array, targets_BxR: Array, support_BxRxK: Array, chunk_logits: int = CHUNK_LOGITS
) -> tuple[Array, Array]:
    """log p of the targets, as `token_log_probs`, and of the set of the target and the tokens of `support`, BxR fp32 each.

    `support_BxRxK`: ids of tokens; -1 is none.
    """

    def chunk(hidden_BxCxD: Array, targets_BxC: Array, support_BxCxK: Array) -> tuple[Array, Array]:
        logits_BxCxV = model.logits(hidden_BxCxD)
        ids_V = jnp.arange(logits_BxCxV.shape[-1])
        is_target_BxCxV = ids_V == targets_BxC[..., None]
        # One comparison for each of the K tokens, which fuse, instead of a scatter into the vocabulary.
        inside_BxCxV = is_target_BxCxV
        for k in range(support_BxCxK.shape[-1]):
            inside_BxCxV |= ids_V == support_BxCxK[..., k, None]
        total_BxC = jax.nn.logsumexp(logits_BxCxV, axis=-1)
        chosen_BxC = jnp.sum(jnp.where(is_target_BxCxV, logits_BxCxV, 0.0), axis=-1)
        return chosen_BxC - total_BxC, jax.nn.logsumexp(jnp.where(inside_BxCxV, logits_BxCxV, -jnp.inf), axis=-1) - total_BxC

    return _in_chunks(model, chunk, (hidden_BxRxD, targets_BxR, support_BxRxK), chunk_logits)


def likeliest_tokens(model, hidden_BxRxD: Array, count: int, chunk_logits: int = CHUNK_LOGITS) -> tuple[Array, Array]:
    """The ids, int32, and log-probabilities, fp32, of the `count` likeliest tokens, BxRxK each, the likeliest first."""

    def chunk(hidden_BxCxD: Array) -> tuple[Array, Array]:
        log_probs_BxCxK, ids_BxCxK = jax.lax.top_k(jax.nn.log_softmax(model.logits(hidden_BxCxD)), count)
        return ids_BxCxK, log_probs_BxCxK

    return _in_chunks(model, chunk, (hidden_BxRxD,), chunk_logits)


def _in_chunks(model, chunk: Callable[..., Any], arrays: tuple[Array, ...], chunk_logits: int) -> Any:
    """`chunk` of arrays BxR..., in chunks along R such that at most `chunk_logits` logits are held at once. The results are BxR..."""
    batch, count = arrays[0].shape[:2]
    size = max(1, chunk_logits * _logit_shards() // (batch * model.config.vocabulary_size))
    if count <= size:
        return chunk(*arrays)
    chunks = -(-count // size)
    padding = chunks * size - count

    def cut(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, padding), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(batch, chunks, size, *x.shape[2:]), 1, 0)

    values = jax.lax.map(jax.checkpoint(lambda parts: chunk(*parts)), tuple(map(cut, arrays)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(batch, chunks * size, *x.shape[3:])[:, :count], values)


def _logit_shards() -> int:
    """Number of devices that share the logits. With chunks sized for one device, the embedding would be gathered more often than
    necessary."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape.get(axis, 1) for axis in ("data", "fsdp", "tensor"))


def sum_by_step(values_BxR: Array, batch: Mapping[str, Array]) -> Array:
    """Sums values of response tokens over each step in a row, BxS."""
    steps = batch["step_mask"].shape[1]
    member_BxRxS = jax.nn.one_hot(batch["response_segment"], steps, dtype=values_BxR.dtype) * batch["response_mask"][..., None]
    return jnp.einsum("br,brs->bs", values_BxR, member_BxRxS)
