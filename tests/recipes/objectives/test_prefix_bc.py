import numpy as np
import pytest

from mira_jax.errors import UserError
from tests.recipes.objectives.scored import EPISODES, Batch, actor, prepare
from tests.synthetic import trajectory


def test_it_keeps_successes_and_the_steps_of_failures_up_to_their_last_subgoal():
    """The failure of four steps reaches three subgoals, and goes wrong at its last step."""
    failure = trajectory(2, 4, success=False)
    assert actor(objective="prefix_bc").prepare([*EPISODES, failure], []).keep.tolist() == [True] * 3 + [True, False] + [True] * 3 + [False]


def test_without_a_subgoal_there_is_nothing_to_imitate():
    with pytest.raises(UserError, match="prefix_bc: none of the 1 episodes reached a subgoal"):
        actor(objective="prefix_bc").prepare([trajectory(1, 1, success=False)], [])


def test_it_reads_nothing():
    assert prepare([], objective="prefix_bc").columns == {}


def test_the_loss_of_a_packed_batch_is_that_of_its_steps(policy, scored, reader, examples):
    batch = Batch(actor(objective="prefix_bc"), policy, reader, examples, scored)
    assert batch.loss == pytest.approx(-batch.log_prob.sum() / batch.tokens.sum(), rel=2e-4)
    assert len(batch.log_prob) == np.sum(actor(objective="prefix_bc").prepare(reader, []).keep)
