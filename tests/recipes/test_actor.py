import jax
import numpy as np
import pytest

from mira_jax.data.packing import PackedBatches
from mira_jax.errors import UserError
from mira_jax.recipes import make_recipe, options_of
from mira_jax.recipes.scoring import score_policy
from mira_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from mira_jax.training.state import init_state, params_of, skeleton
from mira_jax.training.step import cut, make_step
from mira_jax.trajectories.side_tables import SideTable
from tests.synthetic import trajectory

# A success of three steps and a failure of two.
EPISODES = [trajectory(0, 3, success=True), trajectory(1, 2, success=False)]
VALUES = np.array([0.5, 0.6, 0.9, 0.4, 0.2])
POTENTIALS = np.array([0.0, 0.3, 0.7, 0.1, 0.4])
LOG_PROBS = np.array([-1.0, -2.0, -3.0, -4.0, -5.0])


def table(**columns):
    return SideTable(["episode-0-0"] * 3 + ["episode-0-1"] * 2, np.array([0, 1, 2, 0, 1]), columns)


ALL = table(log_prob=LOG_PROBS, value=VALUES, potential=POTENTIALS)


def advantage(**options):
    return make_recipe({"name": "actor", **options}).prepare(EPISODES, [ALL]).columns["advantage"]


def test_options_are_the_config_s():
    actor = make_recipe({"name": "actor", "objective": "kl", "lambda_": 1, "max_weight": None})
    assert (actor.objective, actor.lambda_, actor.max_weight) == ("kl", 1.0, None)
    assert make_recipe(options_of("actor", actor)) == actor
    for wrong, message in (
        ({"beta": 0}, r"recipe\.beta"),
        ({"lambda_": 1.5}, r"recipe\.lambda_"),
        ({"objective": "ppo"}, "ppo"),
        ({"at_end": "stop"}, "stop"),
    ):
        with pytest.raises(UserError, match=message):
            make_recipe({"name": "actor", **wrong})


def test_mira_s_advantage_and_its_ablations_by_hand():
    # With alpha 0.3, held at the end: one step [.19, .42, .1, -.11, -.2], Monte Carlo [.5, .4, .1, -.4, -.2].
    np.testing.assert_allclose(advantage(), [0.345, 0.41, 0.1, -0.255, -0.2], atol=1e-6)
    np.testing.assert_allclose(advantage(lambda_=1), [0.19, 0.42, 0.1, -0.11, -0.2], atol=1e-6)
    np.testing.assert_allclose(advantage(lambda_=0), [0.5, 0.4, 0.1, -0.4, -0.2], atol=1e-6)
    np.testing.assert_allclose(advantage(objective="kl"), advantage(), atol=1e-6)
    np.testing.assert_allclose(advantage(objective="awr"), [0.5, 0.4, 0.1, -0.4, -0.2], atol=1e-6)
    # alpha 0, WebRL: one step [.1, .3, .1, -.2, -.2].
    np.testing.assert_allclose(advantage(alpha=0), [0.3, 0.35, 0.1, -0.3, -0.2], atol=1e-6)
    # Zero after the end: the last steps lose 0.5 * 0.3 * P(s).
    np.testing.assert_allclose(advantage(at_end="zero"), [0.345, 0.41, 0.1 - 0.105, -0.255, -0.2 - 0.06], atol=1e-6)
    np.testing.assert_allclose(advantage(objective="webrl_code"), [1, 1, 1, -0.6, -0.6])


def test_the_advantages_are_described():
    prepared = make_recipe({"name": "actor"}).prepare(EPISODES, [ALL])
    a = np.array([0.345, 0.41, 0.1, -0.255, -0.2])
    assert prepared.summary["advantage_mean"] == pytest.approx(a.mean(), abs=1e-6)
    assert prepared.summary["advantage_std"] == pytest.approx(a.std(), abs=1e-6)
    assert prepared.summary["advantage_positive"] == pytest.approx(0.6)
    assert prepared.summary["success_rate"] == 0.5
    np.testing.assert_array_equal(prepared.columns["reference_log_prob"], LOG_PROBS)


def test_each_objective_asks_for_what_it_reads():
    def prepare(tables, **options):
        return make_recipe({"name": "actor", **options}).prepare(EPISODES, tables)

    with pytest.raises(UserError, match="none has a column log_prob"):
        prepare([table(value=VALUES, potential=POTENTIALS)])
    with pytest.raises(UserError, match="none has a column potential"):
        prepare([table(value=VALUES, log_prob=LOG_PROBS)])
    prepare([table(value=VALUES), table(log_prob=LOG_PROBS)], alpha=0)
    prepare([table(value=VALUES)], objective="awr")
    prepare([], objective="filtered_bc")
    with pytest.raises(UserError, match="none has a column value"):
        prepare([], objective="awr")


def test_filtered_cloning_keeps_the_successes():
    assert make_recipe({"name": "actor", "objective": "filtered_bc"}).prepare(EPISODES, []).keep.tolist() == [True] * 3 + [False] * 2
    with pytest.raises(UserError, match="none of the 1 episodes succeeded"):
        make_recipe({"name": "actor", "objective": "filtered_bc"}).prepare(EPISODES[1:], [])


@pytest.fixture(scope="module")
def scored(policy, reader, examples):
    """A side table of the policy's own log-probs, with values and potentials made up."""
    columns = score_policy(policy, examples)
    draw = np.random.default_rng(0)
    columns |= {"value": draw.random(len(examples)), "potential": draw.random(len(examples))}
    ids = [trajectory.id for trajectory in reader for _ in trajectory.steps]
    numbers = np.array([step.index for trajectory in reader for step in trajectory.steps])
    sound = examples.usable
    return SideTable(np.array(ids)[sound].tolist(), numbers[sound], {name: column[sound] for name, column in columns.items()})


def value(mean):
    return float(mean.total / mean.weight)


@pytest.mark.parametrize("objective", ["mira", "kl", "awr", "filtered_bc", "webrl_code"])
def test_the_loss_of_a_packed_batch_is_that_of_its_steps(policy, scored, reader, examples, objective):
    recipe = make_recipe({"name": "actor", "objective": objective, "beta": 0.5})
    prepared = recipe.prepare(reader, [scored])
    reference = prepared.columns["reference_log_prob"].copy()
    prepared.columns["reference_log_prob"] -= 1.0  # as if the policy had moved up by one nat everywhere
    steps = np.flatnonzero(prepared.keep)
    batch = PackedBatches(examples, steps, prepared.columns, row_length=512, rows=16)[0]
    assert batch["step_mask"].sum() == len(steps)
    loss, metrics = jax.jit(lambda batch: recipe.loss(policy, batch))(batch)

    log_prob, a = reference[steps].astype(np.float64), prepared.columns.get("advantage", reference)[steps]
    tokens = examples.response_lengths[steps]
    expected = {
        "mira": lambda: np.mean((0.5 * 1.0 - a) ** 2),
        "kl": lambda: -np.mean(np.minimum(np.exp(a / 0.5), 20) * log_prob),
        "awr": lambda: -np.mean(np.minimum(np.exp(a / 0.5), 20) * log_prob),
        "filtered_bc": lambda: -log_prob.sum() / tokens.sum(),
        "webrl_code": lambda: webrl_code(log_prob, log_prob - 1, a, tokens),
    }[objective]()
    assert value(loss) == pytest.approx(expected, rel=2e-4)
    assert value(metrics["nll_per_token"]) == pytest.approx(-log_prob.sum() / tokens.sum(), rel=1e-4)
    assert value(metrics["log_ratio"]) == pytest.approx(1, abs=1e-4)
    assert (value(metrics["moved_up"]), value(metrics["moved_down"])) == (1, 0)


def webrl_code(log_prob, reference, a, tokens):
    ratio = (log_prob - reference) / tokens[a > 0].sum()
    p_ref = np.exp(reference / tokens)
    beta = np.where(((a >= 0) & (p_ref >= 0.8)) | ((a < 0) & (p_ref < 0.9)), 5.0, 1.0)
    beta = np.minimum(beta, np.abs(a / ratio))
    d = np.abs(beta * ratio - a)
    return np.mean(np.where(a > 0, np.where(d < 1, 0.5 * d * d, d - 0.5) / beta, 0.0))


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
