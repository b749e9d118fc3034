import numpy as np
import pytest

from mira_jax.errors import UserError
from tests.recipes.objectives.scored import LOG_PROBS, VALUES, Batch, actor, advantage, prepare, table


def test_the_advantage_is_one_of_two_numbers():
    np.testing.assert_allclose(advantage(objective="webrl_code", value_heads=1), [1, 1, 1, -0.6, -0.6])


def test_v_is_the_smaller_of_two_heads():
    """The failure's first step: V falls from .4 to .2, but from .1 to .2 by the second head, which is above the .05 of the code."""
    second = VALUES.copy()
    second[3] = 0.1
    tables = [table(value=VALUES, second_value=second, log_prob=LOG_PROBS)]
    np.testing.assert_allclose(prepare(tables, objective="webrl_code").columns["advantage"], [1, 1, 1, 1, -0.6])
    np.testing.assert_allclose(prepare(tables, objective="webrl_code", value_heads=1).columns["advantage"], [1, 1, 1, -0.6, -0.6])


def test_it_reads_log_prob_and_value():
    prepare([table(value=VALUES, log_prob=LOG_PROBS)], objective="webrl_code", value_heads=1)
    with pytest.raises(UserError, match="none has a column second_value"):
        prepare([table(value=VALUES, log_prob=LOG_PROBS)], objective="webrl_code")
    with pytest.raises(UserError, match="none has a column log_prob"):
        prepare([table(value=VALUES)], objective="webrl_code")
    with pytest.raises(UserError, match="none has a column value"):
        prepare([table(log_prob=LOG_PROBS)], objective="webrl_code")


def test_the_loss_of_a_packed_batch_is_that_of_its_steps(policy, scored, reader, examples):
    batch = Batch(actor(objective="webrl_code", value_heads=1), policy, reader, examples, scored)
    assert batch.loss == pytest.approx(webrl_code(batch.log_prob, batch.log_prob - 1, batch.advantage, batch.tokens), rel=2e-4)


def webrl_code(log_prob, reference, a, tokens):
    ratio = (log_prob - reference) / tokens[a > 0].sum()
    p_ref = np.exp(reference / tokens)
    beta = np.where(((a >= 0) & (p_ref >= 0.8)) | ((a < 0) & (p_ref < 0.9)), 5.0, 1.0)
    beta = np.minimum(beta, np.abs(a / ratio))
    d = np.abs(beta * ratio - a)
    return np.mean(np.where(a > 0, np.where(d < 1, 0.5 * d * d, d - 0.5) / beta, 0.0))
