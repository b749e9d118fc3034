import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.models.heads import Critic
from mira_jax.recipes.scoring import score_critic, score_policy
from tests.recipes.conftest import rows_of_their_own


def test_log_probs_are_the_sums_over_the_responses_end_tokens_included(policy, examples):
    scores = score_policy(policy, examples, rows=4)[0]
    tokens = rows_of_their_own(examples)
    log_probs = np.asarray(jax.jit(lambda tokens: jax.nn.log_softmax(policy.logits(policy(tokens))))(jnp.asarray(tokens)))
    for step in np.flatnonzero(examples.usable):
        first, response = int(examples.prompt_lengths[step]), examples.response(step)
        expected = sum(log_probs[step, first + i - 1, token] for i, token in enumerate(response))
        np.testing.assert_allclose(scores["log_prob"][step], expected, rtol=1e-4)
        assert scores["token_count"][step] == len(response)
    assert not examples.usable.all()
    assert np.isnan(scores["log_prob"][~examples.usable]).all()


def test_alternatives_are_the_likeliest_tokens_at_each_place_of_the_response(policy, examples):
    _, tokens = score_policy(policy, examples, rows=4, alternatives=3)
    ids, log_probs = tokens["alternatives"], tokens["alternative_log_probs"]
    rows = rows_of_their_own(examples)
    expected = np.asarray(jax.jit(lambda tokens: jax.nn.log_softmax(policy.logits(policy(tokens))))(jnp.asarray(rows)))
    for step in range(examples.steps):
        first, length = int(examples.prompt_lengths[step]), len(examples.response(step)) * examples.usable[step]
        of_step = expected[step, first - 1 : first - 1 + length]
        assert ids[step].shape == log_probs[step].shape == (length, 3)
        np.testing.assert_allclose(log_probs[step], -np.sort(-of_step, axis=-1)[:, :3], atol=2e-5)
        np.testing.assert_allclose(np.take_along_axis(of_step, ids[step], axis=-1), log_probs[step], atol=2e-5)


def test_critics_read_the_last_prompt_token(config, examples):
    critic = Critic(config, rngs=nnx.Rngs(1))
    for name, head in critic.heads.items():
        head.out[...] = jax.random.normal(jax.random.key(len(name)), head.out[...].shape)
    scores = score_critic(critic, examples, rows=4, row_length=256)
    last = np.maximum(examples.prompt_lengths[:, None] - 1, 0)
    logits = jax.jit(lambda tokens: critic(tokens, None, None, last))(rows_of_their_own(examples))
    assert set(scores) == {"value", "potential"}
    for name, column in scores.items():
        expected = 1 / (1 + np.exp(-np.asarray(logits[name])[:, 0]))
        np.testing.assert_allclose(column[examples.usable], expected[examples.usable], rtol=1e-4)
        assert np.isnan(column[~examples.usable]).all()
