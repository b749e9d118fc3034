import copy

import jax
import msgspec
import numpy as np
import pytest

from mira_jax.data.packing import PackedBatches
from mira_jax.errors import UserError
from mira_jax.recipes import make_recipe
from mira_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from mira_jax.training.state import init_state, params_of, skeleton
from mira_jax.training.step import cut, make_step
from mira_jax.trajectories.token_columns import TokenColumn
from tests.recipes.conftest import rows_of_their_own
from tests.recipes.objectives.scored import ALL, EPISODES, LOG_PROBS, POTENTIALS, VALUES, Batch, actor, advantage, prepare, table


def test_the_advantage_and_its_ablations_by_hand():
    # With alpha 0.3, held at the end: one step [.19, .42, .1, -.11, -.2], Monte Carlo [.5, .4, .1, -.4, -.2].
    np.testing.assert_allclose(advantage(), [0.345, 0.41, 0.1, -0.255, -0.2], atol=1e-6)
    np.testing.assert_allclose(advantage(lambda_=1), [0.19, 0.42, 0.1, -0.11, -0.2], atol=1e-6)
    np.testing.assert_allclose(advantage(lambda_=0), [0.5, 0.4, 0.1, -0.4, -0.2], atol=1e-6)
    # alpha 0, WebRL: one step [.1, .3, .1, -.2, -.2].
    np.testing.assert_allclose(advantage(alpha=0), [0.3, 0.35, 0.1, -0.3, -0.2], atol=1e-6)
    # Zero after the end: the last steps lose 0.5 * 0.3 * P(s).
    np.testing.assert_allclose(advantage(at_end="zero"), [0.345, 0.41, 0.1 - 0.105, -0.255, -0.2 - 0.06], atol=1e-6)


def test_potentials_from_the_labels_by_hand():
    """The success does its three subgoals one after another; the failure does the first of two. V as above; alpha 0.3."""
    one_step = np.array([0.1 + 0.1, 0.3 + 0.1, 0.1, -0.2 + 0.15, -0.2])
    monte_carlo = np.array([0.5, 0.4, 0.1, -0.4, -0.2])
    tables = [table(log_prob=LOG_PROBS, value=VALUES)]
    for potential in ("count", "ordered"):
        made = prepare(tables, potential=potential).columns["advantage"]
        np.testing.assert_allclose(made, 0.5 * one_step + 0.5 * monte_carlo, atol=1e-6)
    # P after the end is 1 and 1/2: the last step of the success gains a third, that of the failure nothing.
    made = prepare(tables, potential="count", at_end="reached", lambda_=1).columns["advantage"]
    np.testing.assert_allclose(made, one_step + np.array([0, 0, 0.1, 0, 0]), atol=1e-6)
    # With shaped returns the Monte-Carlo part gains 0.3 (P(s_T) - P(s_t)): 1, 2/3, 1/3 of a success, 1/2 and 0 of the failure.
    made = prepare(tables, potential="count", at_end="reached", lambda_=0, shaped_returns=True).columns["advantage"]
    np.testing.assert_allclose(made, monte_carlo + np.array([0.3, 0.2, 0.1, 0.15, 0.0]), atol=1e-6)


def test_the_potential_of_milestone_heads_by_hand():
    heads = {"milestone_1": [0.8, 1, 1, 0.6, 1], "milestone_2": [0.5, 0.7, 1, 0.2, 0.1], "milestone_3": [0.2, 0.4, 0.6, 0.9, 0.9]}
    tables = [table(log_prob=LOG_PROBS, value=VALUES, **{name: np.array(column) for name, column in heads.items()})]
    potentials = np.array([0.5, 0.7, 2.6 / 3, 0.4, 0.55])  # the failure has two subgoals: its third head does not count
    shaping = np.array([0.2, 2.6 / 3 - 0.7, 1 - 2.6 / 3, 0.15, 0.5 - 0.55])
    made = prepare(tables, potential="milestones", at_end="reached", lambda_=1, alpha=1).columns["advantage"]
    np.testing.assert_allclose(made, np.array([0.1, 0.3, 0.1, -0.2, -0.2]) + shaping, atol=1e-6)
    made = prepare(tables, potential="milestones", at_end="reached", lambda_=0, alpha=1, shaped_returns=True).columns["advantage"]
    final = np.array([1, 1, 1, 0.5, 0.5])
    np.testing.assert_allclose(made, np.array([0.5, 0.4, 0.1, -0.4, -0.2]) + final - potentials, atol=1e-6)


def test_options_that_need_milestones_refuse_episodes_without_them():
    bare = msgspec.structs.replace(EPISODES[1], steps=tuple(msgspec.structs.replace(s, milestones=()) for s in EPISODES[1].steps))
    for options in ({"potential": "count"}, {"at_end": "reached"}, {"only_useful": True}, {"objective": "prefix_bc"}):
        with pytest.raises(UserError, match="needs milestones, and trajectory episode-0-1 has none"):
            actor(**options).prepare([EPISODES[0], bare], [ALL])
    actor().prepare([EPISODES[0], bare], [ALL])
    with pytest.raises(UserError, match=r"recipe\.at_end: reached counts subgoals in any order"):
        actor(potential="ordered", at_end="reached")


def test_advantages_are_normalized_over_the_steps_trained_on():
    a = np.array([0.345, 0.41, 0.1, -0.255, -0.2])
    np.testing.assert_allclose(advantage(normalize=True), a / np.sqrt(np.mean(a**2)), atol=1e-5)
    prepared = prepare([ALL], normalize=True, only_useful=True)  # the last step of the failure reaches no subgoal
    assert prepared.keep.tolist() == [True, True, True, True, False]
    np.testing.assert_allclose(prepared.columns["advantage"][:4], a[:4] / np.sqrt(np.mean(a[:4] ** 2)), atol=1e-5)


def test_advantages_that_are_not_possible_are_clipped_before_they_are_normalized():
    """Q is between 0 and 1.3. log pi_ref leaves all of the first, nothing of the second, and .13 of the others."""
    tables = [table(log_prob=np.array([-3.0, 0.0, *[np.log(0.9)] * 3]), value=VALUES, potential=POTENTIALS)]
    a = np.array([0.345, 0, 0.1, -0.13, -0.13])
    np.testing.assert_allclose(prepare(tables, clip_impossible=True).columns["advantage"], a, atol=1e-5)
    found = prepare(tables, clip_impossible=True, normalize=True).columns["advantage"]
    np.testing.assert_allclose(found, a / np.sqrt(np.mean(a**2)), atol=1e-4)


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


def test_the_log_ratio_may_be_per_token_and_negatives_weigh_less(policy, scored, reader, examples):
    batch = Batch(actor(beta=0.5, per_token=True, negative_weight=0.25), policy, reader, examples, scored)
    weight = np.where(batch.advantage < 0, 0.25, 1.0)
    assert 0 < (batch.advantage < 0).sum() < len(weight)
    assert batch.loss == pytest.approx(np.mean(weight * (0.5 * 1.0 / batch.tokens - batch.advantage) ** 2), rel=2e-4)


def test_a_step_may_drop_so_far_and_no_further(policy, scored, reader, examples):
    """The policy is one nat above the reference of `scored`, and so 1.5 nats below this one."""
    higher = copy.copy(scored)
    higher.columns = scored.columns | {"log_prob": scored.columns["log_prob"] + 2.5}
    batch = Batch(actor(beta=0.5, max_drop=1.0), policy, reader, examples, higher)
    ratio = np.where(batch.advantage < 0, -1.0, -1.5)
    assert batch.loss == pytest.approx(np.mean((0.5 * ratio - batch.advantage) ** 2), rel=2e-4)


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


def test_the_support_term_counts_the_tokens_that_the_reference_supports(policy, scored, reader, examples):
    """Here the policy is the reference, so its mass on the support is a sum of the reference's probabilities, in NumPy."""
    logits = jax.jit(lambda tokens: policy.logits(policy(tokens)))(rows_of_their_own(examples))
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    least = float(np.exp(np.median(scored.token_columns["alternative_log_probs"].values)))
    outside = []
    for step in np.flatnonzero(examples.usable):
        for place, token in enumerate(examples.response(step), int(examples.prompt_lengths[step]) - 1):
            of_token = probabilities[step, place]
            likely = [v for v in np.argsort(-of_token)[:5] if of_token[v] >= least]
            outside.append(-np.log(of_token[sorted({int(token), *likely})].sum()))
    assert 0.1 < np.mean(outside) < 10
    plain = Batch(actor(beta=0.5), policy, reader, examples, scored)
    batch = Batch(actor(beta=0.5, support_weight=2.0, support_least=least, support_tokens=5), policy, reader, examples, scored)
    assert batch.metrics["outside_support"] == pytest.approx(np.mean(outside), rel=2e-4)
    assert batch.loss - plain.loss == pytest.approx(2.0 * np.sum(outside) / examples.usable.sum(), rel=2e-4)


def test_the_support_needs_enough_alternatives_of_every_step():
    ids = TokenColumn(np.array([[1, 2]] * 9), np.array([0, 1, 3, 4, 6, 9]))
    chances = np.log(np.array([[0.7, 0.2]] * 8 + [[0.9, 0.0001]], np.float32))
    tokens = {"alternatives": ids, "alternative_log_probs": TokenColumn(chances, ids.starts)}
    whole = copy.copy(ALL)
    whole.token_columns = tokens
    prepared = prepare([whole], support_weight=1.0, support_tokens=2)
    assert prepared.token_columns["support"].values.tolist() == [[1, 2]] * 8 + [[1, -1]]
    assert prepared.token_columns["support"].starts.tolist() == ids.starts.tolist()
    assert prepare([whole], support_weight=1.0, support_tokens=1).token_columns["support"].values.shape == (9, 1)
    with pytest.raises(UserError, match=r"has alternatives of 2 tokens, not 32; score the policy again with --set alternatives=32"):
        prepare([whole], support_weight=1.0)
    with pytest.raises(UserError, match=r"data.side_tables: none has alternatives; score the policy again with --set alternatives=32"):
        prepare([ALL], support_weight=1.0)
    # Of two tables each has its steps; one lacks the last.
    halves = [copy.copy(ALL) for _ in range(2)]
    for half, keep in zip(halves, ([3, 4], [0, 1, 2]), strict=True):
        half.ids, half.steps = [ALL.ids[row] for row in keep], ALL.steps[keep]
        half.columns = {name: column[keep] for name, column in ALL.columns.items()}
        half.token_columns = {name: column.take(np.array(keep)) for name, column in tokens.items()}
    joined = prepare(halves, support_weight=1.0, support_tokens=2)
    np.testing.assert_array_equal(joined.token_columns["support"].values, prepared.token_columns["support"].values)
    with pytest.raises(UserError, match="no alternatives for step 0 of trajectory episode-0-1; score the policy again"):
        prepare([ALL, halves[1]], support_weight=1.0, support_tokens=2)
