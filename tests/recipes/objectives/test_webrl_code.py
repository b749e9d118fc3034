import numpy as np
import pytest

from mira_jax.errors import UserError
from tests.recipes.objectives.scored import LOG_PROBS, VALUES, Batch, actor, advantage, prepare, table


def test_the_advantage_is_one_of_two_numbers():
    np.testing.assert_allclose(advantage(objective="webrl_code"), [1, 1, 1, -0.6, -0.6])


def test_it_reads_log_prob_and_value():
    prepare([table(value=VALUES, log_prob=LOG_PROBS)], objective="webrl_code")
    with pytest.raises(UserError, match="none has a column log_prob"):
        prepare([table(value=VALUES)], objective="webrl_code")
    with pytest.raises(UserError, match="none has a column value"):
        prepare([table(log_prob=LOG_PROBS)], objective="webrl_code")


def test_the_loss_of_a_packed_batch_is_that_of_its_steps(policy, scored, reader, examples):
    batch = Batch(actor(objective="webrl_code"), policy, reader, examples, scored)
    assert batch.loss == pytest.approx(webrl_code(batch.log_prob, batch.log_prob - 1, batch.advantage, batch.tokens), rel=2e-4)


def webrl_code(log_prob, reference, a, tokens):
    ratio = (log_prob - reference) / tokens[a > 0].sum()
    p_ref = np.exp(reference / tokens)
    beta = np.where(((a >= 0) & (p_ref >= 0.8)) | ((a < 0) & (p_ref < 0.9)), 5.0, 1.0)
    beta = np.minimum(beta, np.abs(a / ratio))
    d = np.abs(beta * ratio - a)
    return np.mean(np.where(a > 0, np.where(d < 1, 0.5 * d * d, d - 0.5) / beta, 0.0))
