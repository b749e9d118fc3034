import jax
import numpy as np
import pytest

from mira_jax.data.packing import PackedBatches
from mira_jax.errors import UserError
from mira_jax.recipes import make_recipe
from mira_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from mira_jax.training.state import init_state, params_of, skeleton
from mira_jax.training.step import cut, make_step
from tests.recipes.objectives.scored import ALL, LOG_PROBS, POTENTIALS, VALUES, Batch, actor, advantage, prepare, table


def test_the_advantage_and_its_ablations_by_hand():
    # With alpha 0.3, held at the end: one step [.19, .42, .1, -.11, -.2], Monte Carlo [.5, .4, .1, -.4, -.2].
    np.testing.assert_allclose(advantage(), [0.345, 0.41, 0.1, -0.255, -0.2], atol=1e-6)
    np.testing.assert_allclose(advantage(lambda_=1), [0.19, 0.42, 0.1, -0.11, -0.2], atol=1e-6)
    np.testing.assert_allclose(advantage(lambda_=0), [0.5, 0.4, 0.1, -0.4, -0.2], atol=1e-6)
    # alpha 0, WebRL: one step [.1, .3, .1, -.2, -.2].
    np.testing.assert_allclose(advantage(alpha=0), [0.3, 0.35, 0.1, -0.3, -0.2], atol=1e-6)
    # Zero after the end: the last steps lose 0.5 * 0.3 * P(s).
    np.testing.assert_allclose(advantage(at_end="zero"), [0.345, 0.41, 0.1 - 0.105, -0.255, -0.2 - 0.06], atol=1e-6)


def test_the_advantages_are_described():
    prepared = prepare([ALL])
    a = np.array([0.345, 0.41, 0.1, -0.255, -0.2])
    assert prepared.summary["advantage_mean"] == pytest.approx(a.mean(), abs=1e-6)
    assert prepared.summary["advantage_std"] == pytest.approx(a.std(), abs=1e-6)
    assert prepared.summary["advantage_positive"] == pytest.approx(0.6)
    assert prepared.summary["success_rate"] == 0.5
    np.testing.assert_array_equal(prepared.columns["reference_log_prob"], LOG_PROBS)


def test_it_reads_log_prob_value_and_potential_if_it_shapes():
    with pytest.raises(UserError, match="none has a column log_prob"):
        prepare([table(value=VALUES, potential=POTENTIALS)])
    with pytest.raises(UserError, match="none has a column potential"):
        prepare([table(value=VALUES, log_prob=LOG_PROBS)])
    prepare([table(value=VALUES), table(log_prob=LOG_PROBS)], alpha=0)


def test_the_loss_of_a_packed_batch_is_that_of_its_steps(policy, scored, reader, examples):
    batch = Batch(actor(beta=0.5), policy, reader, examples, scored)
    assert batch.loss == pytest.approx(np.mean((0.5 * 1.0 - batch.advantage) ** 2), rel=2e-4)


def test_mira_raises_what_was_better_than_expected_and_lowers_what_was_worse(config, policy, scored, reader, examples):
    recipe = make_recipe({"name": "actor", "beta": 0.05})
    prepared = recipe.prepare(reader, [scored])
    packed = PackedBatches(examples, np.flatnonzero(prepared.keep), prepared.columns, row_length=256, rows=8, batches=60)
    settings = OptimizerConfig(learning_rate=3e-3, schedule="constant", warmup=0)
    optimizer = make_optimizer(settings, len(packed))
    step = make_step(skeleton(lambda rngs: type(policy)(config, rngs=rngs)), recipe.loss, optimizer, learning_rate(settings, len(packed)))
    state = init_state(jax.tree.map(lambda x: x.copy(), params_of(policy)), optimizer)
    reports = []
    for batch in packed:
        state, report = step(state, cut(batch, 1))
        reports.append({name: float(number) for name, number in report.items()})
    assert reports[0]["log_ratio"] == pytest.approx(0, abs=1e-3)
    assert reports[0]["moved_up"] == reports[0]["moved_down"] == 0
    last = {name: np.mean([report[name] for report in reports[-5:]]) for name in reports[0]}
    assert last["loss"] < 0.5 * reports[0]["loss"]
    assert last["log_ratio_where_positive"] > 1 and last["log_ratio_where_negative"] < -1
