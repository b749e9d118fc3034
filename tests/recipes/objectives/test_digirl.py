import numpy as np
import pytest

from mira_jax.errors import UserError
from mira_jax.rl.advantages import digirl
from tests.recipes.objectives.scored import ALL, EPISODES, VALUES, Batch, actor, prepare, table
from tests.synthetic import trajectory

LAST = np.array([False, False, True, False, True])
REWARDS = np.array([0.0, 0.0, 1.0, 0.0, 0.0])


def test_the_step_advantage_by_hand():
    # One step: .6 - .5, .9 - .6, 1 - .9 in the success; .2 - .4, -.2 in the failure. decay .5: weights 1/4, 1/2, 1 and 1/2, 1.
    expected = [0.25 + 0.75 * 0.1, 0.5 + 0.5 * 0.3, 1.0, 0.5 * -0.2, 0.0]
    np.testing.assert_allclose(digirl(REWARDS, VALUES, LAST, 0.5), expected, atol=1e-6)
    np.testing.assert_allclose(digirl(REWARDS, VALUES, LAST, 1.0), [1, 1, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(digirl(REWARDS, VALUES, LAST, 0.0), [0.1, 0.3, 1.0, -0.2, 0.0], atol=1e-6)


def test_it_imitates_the_better_steps_of_episodes_that_did_better_than_expected():
    """A_I is .5 for the success and -.4 for the failure. Of the steps of the success, A_h is .325, .65 and 1: above 1/3 from the second."""
    assert prepare([ALL], objective="digirl").keep.tolist() == [False, True, True, False, False]
    with pytest.raises(UserError, match="digirl: none of the 1 episodes has a step to imitate"):
        failure = trajectory(1, 2, success=False)
        actor(objective="digirl").prepare([failure], [table(value=VALUES)])


def test_it_reads_value():
    with pytest.raises(UserError, match="none has a column value"):
        actor(objective="digirl").prepare(EPISODES, [])


def test_the_loss_of_a_packed_batch_is_that_of_its_steps(policy, scored, reader, examples):
    batch = Batch(actor(objective="digirl", percentile=20), policy, reader, examples, scored)
    assert batch.loss == pytest.approx(-batch.log_prob.sum() / batch.tokens.sum(), rel=2e-4)
