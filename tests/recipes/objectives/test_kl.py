import numpy as np
import pytest

from mira_jax.errors import UserError
from tests.recipes.objectives.scored import LOG_PROBS, POTENTIALS, VALUES, Batch, actor, advantage, prepare, table


def test_its_advantages_are_mira_s():
    np.testing.assert_allclose(advantage(objective="kl"), advantage(), atol=1e-6)
    np.testing.assert_allclose(advantage(objective="kl", alpha=0), [0.3, 0.35, 0.1, -0.3, -0.2], atol=1e-6)


def test_it_reads_value_and_potential_and_uses_a_reference_if_there_is_one():
    assert set(prepare([table(value=VALUES, potential=POTENTIALS)], objective="kl").columns) == {"advantage"}
    with pytest.raises(UserError, match="none has a column potential"):
        prepare([table(value=VALUES, log_prob=LOG_PROBS)], objective="kl")
    prepare([table(value=VALUES)], objective="kl", alpha=0)


@pytest.mark.parametrize("bound", [20.0, 1.5, None])
def test_the_loss_of_a_packed_batch_is_that_of_its_steps(policy, scored, reader, examples, bound):
    batch = Batch(actor(objective="kl", beta=0.5, max_weight=bound), policy, reader, examples, scored)
    weights = np.minimum(np.exp(batch.advantage / 0.5), bound or np.inf)
    assert batch.loss == pytest.approx(-np.mean(weights * batch.log_prob), rel=2e-4)


def test_normalised_advantages_have_a_root_mean_square_of_one():
    assert np.sqrt(np.mean(np.square(advantage(objective="kl", normalize=True)))) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("option", [{"per_token": True}, {"negative_weight": 0.5}, {"max_drop": 2.0}, {"support_weight": 1.0}])
def test_options_that_it_does_not_use_are_refused(option):
    with pytest.raises(UserError, match=f"recipe.{next(iter(option))}"):
        actor(objective="kl", **option)
