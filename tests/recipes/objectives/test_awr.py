import numpy as np
import pytest

from mira_jax.errors import UserError
from tests.recipes.objectives.scored import VALUES, Batch, actor, advantage, prepare, table


def test_the_advantage_is_the_return_less_the_value():
    np.testing.assert_allclose(advantage(objective="awr"), [0.5, 0.4, 0.1, -0.4, -0.2], atol=1e-6)
    np.testing.assert_allclose(advantage(objective="awr", gamma=0.5), [0.25 - 0.5, 0.5 - 0.6, 0.1, -0.4, -0.2], atol=1e-6)


def test_it_reads_value_only():
    prepare([table(value=VALUES)], objective="awr")
    with pytest.raises(UserError, match="none has a column value"):
        prepare([], objective="awr")


def test_the_loss_of_a_packed_batch_is_that_of_its_steps(policy, scored, reader, examples):
    batch = Batch(actor(objective="awr", beta=0.5), policy, reader, examples, scored)
    assert batch.loss == pytest.approx(-np.mean(np.minimum(np.exp(batch.advantage / 0.5), 20) * batch.log_prob), rel=2e-4)
