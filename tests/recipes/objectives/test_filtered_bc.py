import pytest

from mira_jax.errors import UserError
from tests.recipes.objectives.scored import EPISODES, Batch, actor, prepare


def test_filtered_cloning_keeps_the_successes():
    assert actor(objective="filtered_bc").prepare(EPISODES, []).keep.tolist() == [True] * 3 + [False] * 2
    with pytest.raises(UserError, match="none of the 1 episodes succeeded"):
        actor(objective="filtered_bc").prepare(EPISODES[1:], [])


def test_it_reads_nothing():
    assert prepare([], objective="filtered_bc").columns == {}


def test_the_loss_of_a_packed_batch_is_that_of_its_steps(policy, scored, reader, examples):
    batch = Batch(actor(objective="filtered_bc"), policy, reader, examples, scored)
    assert batch.loss == pytest.approx(-batch.log_prob.sum() / batch.tokens.sum(), rel=2e-4)
