"""Computes log pi(a|s), V(s), P(s) for every step, and the probability of success of every episode, in the order of the step index."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.data.examples import Examples
from mira_jax.data.packing import PackedBatches
from mira_jax.progress import track
from mira_jax.training.layout import Layout
from mira_jax.training.log_probs import answer_log_probs, response_log_probs, sum_by_step, token_entropies, token_log_probs

ROUND_LENGTH = 64
ONE_DEVICE = Layout()


def score_policy(
    model: nnx.Module, examples: Examples, *, row_length: int = 0, rows: int = 8, layout: Layout = ONE_DEVICE
) -> dict[str, np.ndarray]:
    """`log_prob`, log pi(a|s) in nats, and `token_count`, both with the end token; float32 [N], NaN for unusable steps.

    Args:
        row_length: tokens per packed row. 0: as many as the longest step needs.
        layout: that of the model's parameters. The rows of a batch are sharded over `data` and `fsdp`.

    Raises:
        UserError: there are no usable steps, or a step is longer than `row_length`.
    """

    scores = _score(model, policy_scores, examples, row_length, rows, layout, reads_responses=True, title="policy")
    return scores | {"token_count": np.where(examples.usable, examples.response_lengths, np.nan).astype(np.float32)}


def score_movement(model: nnx.Module, examples: Examples, *, rows: int = 8, which: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`log_prob` as of `score_policy`, and `entropy`: in nats, the sum over the response's tokens of the policy's entropy at each.
    Arguments and errors as for `score_critic`."""

    def score(model: nnx.Module, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        hidden = model(batch["tokens"], batch["positions"], batch["segment_ids"], index_BxR=batch["response_index"])
        log_probs = token_log_probs(model, hidden, batch["response_targets"]) * batch["response_mask"]
        return {"log_prob": sum_by_step(log_probs, batch), "entropy": sum_by_step(token_entropies(model, hidden), batch)}

    return _score(model, score, examples, 0, rows, ONE_DEVICE, reads_responses=True, title="policy", which=which)


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
    return _score(model, critic_scores, examples, row_length, rows, layout, reads_responses=False, title="critic", which=which)


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
    return _score(model, orm_scores, examples, row_length, rows, layout, reads_responses=True, title="orm", which=which)


def policy_scores(model: nnx.Module, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """`log_prob` of the steps of a packed batch, BxS."""
    return {"log_prob": sum_by_step(response_log_probs(model, batch), batch)}


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
) -> dict[str, np.ndarray]:
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

    def fetch(step_id_BxS: np.ndarray, scores: Mapping[str, jax.Array]) -> None:
        present_BxS = step_id_BxS >= 0
        for name, values_BxS in scores.items():
            column_N = columns.setdefault(name, np.full(examples.steps, np.nan, np.float32))
            column_N[step_id_BxS[present_BxS]] = np.asarray(values_BxS)[present_BxS]

    previous: tuple[np.ndarray, Mapping[str, jax.Array]] | None = None
    with layout.active():
        for batch in track(packed, f"score {title}", "batches", len(packed)):
            arrays = layout.put_rows({name: array for name, array in batch.items() if name != "step_id"})
            # The scores of a batch are fetched after the next one has been sent, so that the devices do not wait for the host.
            sent = batch["step_id"], compiled(state, arrays)
            if previous:
                fetch(*previous)
            previous = sent
    if previous:
        fetch(*previous)
    return columns
