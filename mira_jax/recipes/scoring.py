"""Computes log pi(a|s), V(s), P(s) for every step, and the probability of success of every episode, in the order of the step index."""

import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.data.examples import Examples
from mira_jax.data.packing import Batch, PackedBatches
from mira_jax.progress import track
from mira_jax.recipes.labels import ALTERNATIVE_LOG_PROBS, ALTERNATIVES
from mira_jax.training.layout import Layout
from mira_jax.training.log_probs import (
    answer_log_probs,
    likeliest_tokens,
    response_hidden,
    sum_by_step,
    token_entropies,
    token_log_probs,
)
from mira_jax.trajectories.token_columns import TokenColumn

ROUND_LENGTH = 64
ONE_DEVICE = Layout()


def score_policy(
    model: nnx.Module, examples: Examples, *, row_length: int = 0, rows: int = 8, layout: Layout = ONE_DEVICE, alternatives: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, TokenColumn]]:
    """`log_prob`, log pi(a|s) in nats, and `token_count`, both with the end token; float32 [N], NaN for unusable steps.

    With `alternatives` also the token columns ALTERNATIVES, int32, and ALTERNATIVE_LOG_PROBS, float32: of each response token the
    likeliest tokens at its place, the likeliest first; [tokens, alternatives].

    Args:
        row_length: tokens per packed row. 0: as many as the longest step needs.
        layout: that of the model's parameters. The rows of a batch are sharded over `data` and `fsdp`.

    Raises:
        UserError: there are no usable steps, or a step is longer than `row_length`.
    """
    score = functools.partial(policy_scores, alternatives=alternatives)
    scores, tokens = _score(model, score, examples, row_length, rows, layout, reads_responses=True, title="policy")
    return scores | {"token_count": np.where(examples.usable, examples.response_lengths, np.nan).astype(np.float32)}, tokens


def score_movement(model: nnx.Module, examples: Examples, *, rows: int = 8, which: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`log_prob` as of `score_policy`, and `entropy`: in nats, the sum over the response's tokens of the policy's entropy at each.
    Arguments and errors as for `score_critic`."""

    def score(model: nnx.Module, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        hidden = response_hidden(model, batch)
        log_probs = token_log_probs(model, hidden, batch["response_targets"]) * batch["response_mask"]
        return {"log_prob": sum_by_step(log_probs, batch), "entropy": sum_by_step(token_entropies(model, hidden), batch)}

    return _score(model, score, examples, 0, rows, ONE_DEVICE, reads_responses=True, title="policy", which=which)[0]


def score_critic(
    model: nnx.Module,
    examples: Examples,
    *,
    row_length: int = 0,
    rows: int = 8,
    which: np.ndarray | None = None,
    layout: Layout = ONE_DEVICE,
) -> dict[str, np.ndarray]:
    """One probability per head: `value`, `potential`. Arguments and errors as for `score_policy`.

    Args:
        which: bool [N], the steps to score; the others are NaN. Default: all.
    """
    return _score(model, critic_scores, examples, row_length, rows, layout, reads_responses=False, title="critic", which=which)[0]


def score_orm(
    model: nnx.Module,
    examples: Examples,
    *,
    row_length: int = 0,
    rows: int = 8,
    which: np.ndarray | None = None,
    layout: Layout = ONE_DEVICE,
) -> dict[str, np.ndarray]:
    """`success_probability`, P(YES) / (P(YES) + P(NO)), at the last step of each episode; float32 [N], NaN elsewhere.

    Args:
        examples: made with `mira_jax.data.answers.outcome_examples`.
        which: bool [N], the steps whose episodes to score. Default: all.
    """
    return _score(model, orm_scores, examples, row_length, rows, layout, reads_responses=True, title="orm", which=which)[0]


def policy_scores(model: nnx.Module, batch: Mapping[str, jax.Array], alternatives: int = 0) -> dict[str, jax.Array]:
    """`log_prob` of the steps of a packed batch, BxS, and with `alternatives` the numbers of its response tokens, BxRxK."""
    hidden_BxRxD = response_hidden(model, batch)
    log_probs_BxR = token_log_probs(model, hidden_BxRxD, batch["response_targets"]) * batch["response_mask"]
    scores = {"log_prob": sum_by_step(log_probs_BxR, batch)}
    if alternatives:
        ids, log_probs = likeliest_tokens(model, hidden_BxRxD, alternatives)
        scores |= {ALTERNATIVES: ids, ALTERNATIVE_LOG_PROBS: log_probs}
    return scores


def critic_scores(model: nnx.Module, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The probability of each head at the steps of a packed batch, BxS."""
    logits = model(batch["tokens"], batch["positions"], batch["segment_ids"], batch["last_prompt_index"])
    return {name: jax.nn.sigmoid(logits_BxS.astype(jnp.float32)) for name, logits_BxS in logits.items()}


def orm_scores(model: nnx.Module, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """`success_probability` of the examples of a packed batch, BxS."""
    yes_BxS, no_BxS = answer_log_probs(model, batch)
    return {"success_probability": jax.nn.sigmoid(yes_BxS - no_BxS)}


def _score(
    model: nnx.Module,
    score: Callable,
    examples: Examples,
    row_length: int,
    rows: int,
    layout: Layout,
    reads_responses: bool,
    title: str,
    which: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, TokenColumn]]:
    """The scores of steps, BxS in a batch, and those of response tokens, BxRxK."""
    steps = np.flatnonzero(examples.usable if which is None else examples.usable & which)
    if not row_length:
        lengths = examples.prompt_lengths + (examples.response_lengths - 1 if reads_responses else 0)
        longest = lengths[np.isin(examples.turn_step[examples.first_turn[1:] - 1], steps)].max(initial=1)
        unit = math.lcm(ROUND_LENGTH, 1 if layout.mesh is None else layout.mesh.shape["sequence"])
        row_length = -(-int(longest) // unit) * unit
    packed = PackedBatches(examples, steps, {}, row_length=row_length, rows=rows, shuffle=False, reads_responses=reads_responses)
    graph, state = nnx.split(model)
    compiled = jax.jit(lambda state, batch: score(nnx.merge(graph, state), batch))
    columns: dict[str, np.ndarray] = {}
    tokens: dict[str, TokenColumn] = {}

    def fetch(batch: Batch, scores: Mapping[str, jax.Array]) -> None:
        present_BxS = batch["step_id"] >= 0
        for name, values in scores.items():
            if values.ndim == 3:
                if name not in tokens:
                    tokens[name] = packed.empty_token_column(values.shape[2:], values.dtype)
                tokens[name].fill(batch, np.asarray(values))
            else:
                column_N = columns.setdefault(name, np.full(examples.steps, np.nan, np.float32))
                column_N[batch["step_id"][present_BxS]] = np.asarray(values)[present_BxS]

    previous: tuple[Batch, Mapping[str, jax.Array]] | None = None
    with layout.active():
        for batch in track(packed, f"score {title}", "batches", len(packed)):
            arrays = layout.put_rows({name: array for name, array in batch.items() if name != "step_id"})
            # The scores of a batch are fetched after the next one has been sent, so that the devices do not wait for the host.
            sent = batch, compiled(state, arrays)
            if previous:
                fetch(*previous)
            previous = sent
    if previous:
        fetch(*previous)
    return columns, tokens
