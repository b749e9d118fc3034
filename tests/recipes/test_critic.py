import jax
import numpy as np
import pytest
from flax import nnx

from mira_jax.data.packing import PackedBatches
from mira_jax.errors import UserError
from mira_jax.models.heads import Critic
from mira_jax.recipes import make_recipe, options_of
from mira_jax.recipes.critic import HEADS
from mira_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from mira_jax.training.state import init_state, params_of, skeleton
from mira_jax.training.step import cut, make_step
from mira_jax.trajectories.side_tables import SideTable
from tests.synthetic import trajectory

NAMES = "success", "progress", "progress_weight"
EPISODES = [trajectory(0, 3, success=True), trajectory(1, 2, success=False), trajectory(2, 1, success=True)]


def test_options_are_the_config_s():
    critic = make_recipe({"name": "critic", "heads": ["value"], "potential_from": "all"})
    assert critic.heads == ("value",)
    assert make_recipe(options_of(critic)) == critic
    with pytest.raises(UserError, match="expected one or more of value, second_value, potential"):
        make_recipe({"name": "critic", "heads": ["worth"]})
    with pytest.raises(UserError, match=r"unknown key recipe\.head; did you mean recipe\.heads"):
        make_recipe({"name": "critic", "head": "value"})


def test_progress_labels_come_from_successes():
    prepared = make_recipe({"name": "critic"}).prepare(EPISODES, [])
    assert prepared.keep.tolist() == [True] * 6
    np.testing.assert_array_equal(prepared.columns["success"], [1, 1, 1, 0, 0, 1])
    np.testing.assert_allclose(prepared.columns["progress"], [0, 1 / 3, 2 / 3, 0, 0, 0], atol=1e-6)
    # 4 of 6 steps have a label: each weighs 6/4.
    np.testing.assert_allclose(prepared.columns["progress_weight"], [1.5, 1.5, 1.5, 0, 0, 1.5])
    assert prepared.summary["success_rate"] == pytest.approx(2 / 3)


def test_progress_labels_come_from_failures_too_if_asked():
    prepared = make_recipe({"name": "critic", "potential_from": "all"}).prepare(EPISODES, [])
    np.testing.assert_allclose(prepared.columns["progress"], [0, 1 / 3, 2 / 3, 0, 1 / 2, 0], atol=1e-6)
    np.testing.assert_array_equal(prepared.columns["progress_weight"], np.ones(6))


def test_a_potential_of_its_own_trains_on_labelled_steps_alone():
    prepared = make_recipe({"name": "critic", "heads": ["potential"]}).prepare(EPISODES, [])
    assert prepared.keep.tolist() == [True, True, True, False, False, True]
    np.testing.assert_array_equal(prepared.columns["progress_weight"], prepared.keep)


def test_without_a_success_there_is_no_potential():
    with pytest.raises(UserError, match="no episode succeeded; label more episodes"):
        make_recipe({"name": "critic"}).prepare([trajectory(0, 2, success=False)], [])


@pytest.fixture(scope="module")
def model(config):
    model = Critic(config, HEADS, rngs=nnx.Rngs(1))
    for name, head in model.heads.items():  # a new critic says one half everywhere
        head.out[...] = jax.random.normal(jax.random.key(len(name)), head.out[...].shape)
    return model


@pytest.fixture(scope="module")
def alone(model, examples):
    """Each head's probability for each step, every prompt in a row of its own, padded on the right."""
    tokens = np.zeros((len(examples), int(examples.prompt_lengths.max())), np.int32)
    for step in range(len(examples)):
        tokens[step, : examples.prompt_lengths[step]] = examples.prompt(step)
    run = jax.jit(lambda tokens, last: model(tokens, None, None, last))
    logits = run(tokens, np.maximum(examples.prompt_lengths[:, None] - 1, 0))
    return {name: 1 / (1 + np.exp(-np.asarray(values, np.float64)[:, 0])) for name, values in logits.items()}


def test_td_targets_trust_the_values_of_a_table():
    """By hand, lambda = 1/2: the success's G_2 = 1, G_1 = (.9 + 1)/2, G_0 = (.6 + .95)/2; the failure's G_1 = 0, G_0 = (.2 + 0)/2."""
    steps = [(episode.id, step) for episode in EPISODES for step in range(len(episode.steps))]
    table = SideTable([name for name, _ in steps], np.array([step for _, step in steps]), {"value": [0.5, 0.6, 0.9, 0.4, 0.2, 0.3]})
    recipe = make_recipe({"name": "critic", "heads": ["value"], "td_lambda": 0.5})
    np.testing.assert_allclose(recipe.prepare(EPISODES, [table]).columns["value_target"], [0.775, 0.95, 1, 0.1, 0, 1])
    held_out = make_recipe({"name": "critic", "heads": ["value"], "td_lambda": 0.5, "folds": 2}).prepare(EPISODES, [table])
    assert held_out.held_out is not None and 0 < held_out.held_out.sum() < 6
    outcomes = np.where(held_out.held_out, [1, 1, 1, 0, 0, 1], [0.775, 0.95, 1, 0.1, 0, 1])
    np.testing.assert_allclose(held_out.columns["value_target"], outcomes)
    with pytest.raises(UserError, match="none has a column value"):
        recipe.prepare(EPISODES, [])


@pytest.mark.parametrize("options", [{"heads": ["second_value"]}, {"td_lambda": 0.5}, {"expectile": 0.7}])
def test_options_of_v_need_v(options):
    with pytest.raises(UserError, match=rf"recipe\.{next(iter(options))}: .* needs the head value"):
        make_recipe({"name": "critic", "heads": ["potential"], **options})


@pytest.mark.parametrize("heads", [("value",), ("potential",), ("value", "potential"), ("value", "second_value")])
def test_the_loss_of_a_packed_batch_is_that_of_its_steps_one_by_one(model, alone, reader, examples, heads):
    recipe = make_recipe({"name": "critic", "heads": list(heads), "potential_weight": 0.5})
    prepared = recipe.prepare(reader, [])
    steps = np.flatnonzero(prepared.keep)
    batch = PackedBatches(examples, steps, prepared.columns, row_length=512, rows=16, reads_responses=False)[0]
    assert (batch["step_mask"].sum(), batch["step_mask"].shape[1] > 1) == (len(steps), True)
    loss, metrics = jax.jit(lambda batch: recipe.loss(model, batch))(batch)

    success, progress, weights = (prepared.columns[name][steps] if name in prepared.columns else None for name in NAMES)
    v, p = alone["value"][steps], alone["potential"][steps]
    expected = 0.0
    if "value" in heads:
        cross_entropy = np.mean(np.where(success > 0, -np.log(v), -np.log(1 - v)))
        if "second_value" in heads:
            w = alone["second_value"][steps]
            cross_entropy = (cross_entropy + np.mean(np.where(success > 0, -np.log(w), -np.log(1 - w)))) / 2
        expected += cross_entropy
        assert float(metrics["value_loss"].total / metrics["value_loss"].weight) == pytest.approx(cross_entropy, rel=1e-4)
    if "potential" in heads:
        squared = (p - progress) ** 2
        expected += (0.5 if "value" in heads else 1.0) * np.dot(weights, squared) / len(steps)
        mean = np.dot(weights, squared) / np.sum(weights)
        assert float(metrics["potential_loss"].total / metrics["potential_loss"].weight) == pytest.approx(mean, rel=1e-4)
    assert float(loss.total / loss.weight) == pytest.approx(expected, rel=1e-4)


def test_training_learns_the_outcome_and_the_progress(config, reader, examples):
    recipe = make_recipe({"name": "critic"})
    prepared = recipe.prepare(reader, [])
    packed = PackedBatches(
        examples, np.flatnonzero(prepared.keep), prepared.columns, row_length=256, rows=8, batches=80, reads_responses=False
    )
    build = lambda rngs: Critic(config, recipe.heads, rngs=rngs)  # noqa: E731
    settings = OptimizerConfig(learning_rate=3e-3, schedule="constant", warmup=0)
    optimizer = make_optimizer(settings, len(packed))
    step = make_step(skeleton(build), recipe.loss, optimizer, learning_rate(settings, len(packed)))
    state = init_state(params_of(build(nnx.Rngs(0))), optimizer)
    reports = []
    for batch in packed:
        state, report = step(state, cut(batch, 1))
        reports.append({name: float(value) for name, value in report.items()})
    assert reports[0]["value_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert np.mean([report["value_loss"] for report in reports[-5:]]) < 0.3
    assert np.mean([report["potential_loss"] for report in reports[-5:]]) < 0.01
    assert np.mean([report["value_of_successes"] - report["value_of_failures"] for report in reports[-5:]]) > 0.5
