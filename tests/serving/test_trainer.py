"""The sampler's log-probabilities are those of the trainer, which packs several episodes in one row."""

import numpy as np

from mira_jax.data.examples import one_per_step
from mira_jax.data.packing import PackedBatches
from mira_jax.models.sampler import Sampling
from mira_jax.serving.engine import Job
from mira_jax.training.round_data import make_token_log_probs
from mira_jax.training.state import params_of, skeleton
from mira_jax.training.step import cut

TOLERANCE = 1e-5
"""In nats, for each token, in float32."""


def test_log_probabilities_of_the_server_and_of_packed_rows_agree(model, engine):
    prompts = [[2, *range(5, 5 + length)] for length in (3, 17, 40, 9, 60, 25)]
    drawn = [future.result(timeout=60) for future in engine.submit([Job(p, Sampling(24, 1.0, seed=n)) for n, p in enumerate(prompts)])]
    tokens = [np.array([*prompt, *one.tokens], np.int32) for prompt, one in zip(prompts, drawn, strict=True)]
    examples = one_per_step(
        np.concatenate(tokens), np.cumsum([0, *map(len, tokens)]), np.array([len(prompt) for prompt in prompts], np.int32)
    )
    packed = PackedBatches(examples, np.arange(len(prompts)), {}, row_length=128, rows=2)
    bones = skeleton(lambda rngs: type(model)(model.config, rngs=rngs))
    log_probs = make_token_log_probs(bones)
    column = packed.empty_token_column()
    for batch in packed:
        column.fill(batch, np.asarray(log_probs(params_of(model), cut(batch, 1), {})))
    for number, one in enumerate(drawn):
        np.testing.assert_allclose(column[number], one.log_probs, atol=TOLERANCE)
