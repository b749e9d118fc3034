"""GRPO: which episodes are compared, which steps are credited, and one update against one written plainly here."""

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from mira_jax.data.packing import PackedBatches
from mira_jax.data.steps import tokenize
from mira_jax.errors import UserError
from mira_jax.recipes import make_recipe
from mira_jax.recipes.objectives.grpo import OLD, REFERENCE, SAMPLER
from mira_jax.training.state import params_of, skeleton
from mira_jax.training.step import cut, make_evaluation
from mira_jax.trajectories.prompts import PromptConfig, response_ids
from mira_jax.trajectories.records import PlanGrade, Status
from mira_jax.trajectories.token_columns import TokenColumn
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic

PROMPT = PromptConfig(version="compact", max_tokens=256)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_path):
    return Tokenizer(tokenizer_path)


def attempt(tokenizer, task, number, success, steps=2, status=None, grade=None, seed=0):
    """An attempt at a task, as if a model had drawn it."""
    made = synthetic.trajectory(task, steps, success, status)
    draw = np.random.default_rng([task, number, seed])
    drawn = []
    for step in made.steps:
        ids = tuple(response_ids(step.response, tokenizer))
        drawn.append(msgspec.structs.replace(step, token_ids=ids, log_probs=tuple((-draw.random(len(ids))).tolist())))
    policy = msgspec.structs.replace(made.policy, temperature=1.0)
    return msgspec.structs.replace(
        made, id=f"{task}-{number}", attempt=number, policy=policy, steps=tuple(drawn),
        plan_grade=None if grade is None else PlanGrade(score=grade, source="rule"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def episodes(tokenizer):
    """Task 0: success and failure; task 1: two failures; task 2: a success, an error, a failure that ran out of steps."""
    return [
        attempt(tokenizer, 0, 0, True, grade=1.0),
        attempt(tokenizer, 0, 1, False, steps=3, status=Status.FINISHED, grade=0.5),
        attempt(tokenizer, 1, 0, False, grade=0.2),
        attempt(tokenizer, 1, 1, False, grade=0.8),
        attempt(tokenizer, 2, 0, True, grade=0.1),
        attempt(tokenizer, 2, 1, False, status=Status.INFRA_ERROR, grade=None),
        attempt(tokenizer, 2, 2, False, status=Status.HORIZON, grade=0.1),
    ]


def grpo(**options):
    return make_recipe({"name": "actor", "objective": "grpo", **options})


def by_episode(episodes, values):
    """`values`, one per step, cut into those of each episode."""
    return np.split(np.asarray(values), np.cumsum([len(one.steps) for one in episodes])[:-1])


def test_attempts_at_a_task_are_compared_and_groups_without_spread_are_left_out(episodes):
    prepared = grpo().prepare(episodes, [])
    advantages = [part[0] for part in by_episode(episodes, prepared.columns["advantage"])]
    np.testing.assert_allclose(advantages, [1, -1, 0, 0, 1, 0, -1], atol=1e-5)
    kept = [part.tolist() for part in by_episode(episodes, prepared.keep)]
    assert kept == [[True] * 2, [True] * 3, [False] * 2, [False] * 2, [True] * 2, [False] * 2, [True] * 2]
    shares = [part.tolist() for part in by_episode(episodes, prepared.columns["episode_share"])]
    np.testing.assert_allclose(np.concatenate(shares), [0.5, 0.5, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0, 0.5, 0.5, 0, 0, 0.5, 0.5], rtol=1e-6)
    assert (prepared.summary["groups"], prepared.summary["groups_without_spread"], prepared.summary["infra_errors"]) == (3, 1, 1)


@pytest.mark.parametrize(("credit", "first", "later"), [("plan", True, False), ("execution", False, True), ("all", True, True)])
def test_the_mask_credits_the_plan_or_the_execution(episodes, credit, first, later):
    kept = by_episode(episodes, grpo(credit=credit).prepare(episodes, []).keep)
    assert kept[0].tolist() == [first, later] and kept[1].tolist() == [first, later, later]


def test_the_reward_of_the_plan_is_its_grade(episodes):
    prepared = grpo(reward="plan", credit="plan").prepare(episodes, [])
    advantages = [part[0] for part in by_episode(episodes, prepared.columns["advantage"])]
    np.testing.assert_allclose(advantages, [1, -1, -1, 1, 0, 0, 0], atol=1e-4)


def test_a_plan_that_was_cut_has_no_reward(tokenizer):
    good, other = attempt(tokenizer, 0, 0, False, grade=1.0), attempt(tokenizer, 0, 1, False, grade=0.5)
    ids = good.steps[0].token_ids[:-1]
    first = msgspec.structs.replace(good.steps[0], cut=True, token_ids=ids, log_probs=good.steps[0].log_probs[:-1])
    prepared = grpo(reward="plan").prepare([msgspec.structs.replace(good, steps=(first, *good.steps[1:])), other], [])
    assert prepared.columns["advantage"][0] < 0 < prepared.columns["advantage"][2]


def test_a_success_that_ran_out_of_steps_has_no_reward(tokenizer):
    made = [attempt(tokenizer, 0, 0, True, status=Status.HORIZON), attempt(tokenizer, 0, 1, False)]
    assert grpo().prepare(made, []).summary["groups_without_spread"] == 1


def test_steps_that_the_policy_did_not_draw_are_left_out(tokenizer):
    made = [attempt(tokenizer, 0, 0, True), attempt(tokenizer, 0, 1, False)]
    forced = msgspec.structs.replace(made[0].steps[0], token_ids=None, log_probs=None)
    prepared = grpo().prepare([msgspec.structs.replace(made[0], steps=(forced, *made[0].steps[1:])), made[1]], [])
    assert prepared.keep.tolist() == [False, True, True, True]
    assert prepared.summary["steps_not_sampled"] == 1


def test_episodes_that_cannot_be_learned_from_are_refused(tokenizer, episodes):
    one = attempt(tokenizer, 0, 0, True)
    with pytest.raises(UserError, match="has no grade of its plan; label these episodes with"):
        grpo(reward="plan").prepare([one], [])
    steps = tuple(msgspec.structs.replace(step, log_probs=None) for step in one.steps)
    with pytest.raises(UserError, match="step 0 has tokens without log-probs"):
        grpo().prepare([msgspec.structs.replace(one, steps=steps)], [])
    steps = tuple(msgspec.structs.replace(step, log_probs=None, token_ids=None) for step in one.steps)
    with pytest.raises(UserError, match=r"data\.folders: no step has the tokens that the policy drew"):
        grpo().prepare([msgspec.structs.replace(one, steps=steps)], [])
    greedy = msgspec.structs.replace(one, policy=msgspec.structs.replace(one.policy, temperature=0.7, top_k=5))
    with pytest.raises(UserError, match=r"drawn with temperature 0\.7, top_p 1, top_k 5"):
        grpo().prepare([greedy], [])
    with pytest.raises(UserError, match="has no outcome"):
        grpo().prepare([msgspec.structs.replace(one, outcome=None)], [])


def packed_batch(recipe, episodes, examples, columns):
    prepared = recipe.prepare(episodes, [])
    tokens = prepared.token_columns | columns
    packed = PackedBatches(examples, np.flatnonzero(prepared.keep), prepared.columns, row_length=512, rows=4, token_columns=tokens)
    assert len(packed) == 1
    return packed[0]


@pytest.mark.parametrize("options", [{}, {"normalize": "tokens"}, {"credit": "execution", "entropy_weight": 0.3, "clip_high": 0.4}])
def test_the_loss_and_its_gradient_are_those_written_plainly(policy, config, tokenizer, episodes, options):
    """One step after another, without packing: the mean of -w min(rho A, clip(rho) A) + b k3 over credited tokens."""
    recipe = grpo(kl_weight=0.05, length=7.0, max_importance=1.2, **options)
    examples = tokenize(episodes, PROMPT, tokenizer, progress=False)
    draw = np.random.default_rng(0)
    prepared = recipe.prepare(episodes, [])
    lengths = [len(examples.response(n)) for n in range(examples.steps)]
    longest, most = max(np.diff(examples.starts)), max(lengths)
    tokens_NxT = np.zeros((examples.steps, longest), np.int32)
    places_NxR, targets_NxR = (np.zeros((examples.steps, most), np.int32) for _ in range(2))
    used_NxR = np.zeros((examples.steps, most))
    for n, length in enumerate(lengths):
        start = len(examples.prompt(n))
        tokens_NxT[n, : start + length] = [*examples.prompt(n), *examples.response(n)]
        places_NxR[n, :length] = np.arange(start - 1, start - 1 + length)
        targets_NxR[n, :length] = examples.response(n)
        used_NxR[n, :length] = prepared.keep[n]

    @jax.jit
    def forward(params):
        """log pi and entropy of each response token, NxR, one row for each step."""
        model = bones.merge(params)
        log_p = jax.nn.log_softmax(model.logits(model(tokens_NxT)))
        log_p = jnp.take_along_axis(log_p, places_NxR[..., None], axis=1)
        return jnp.take_along_axis(log_p, targets_NxR[..., None], axis=2)[..., 0], -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

    bones = skeleton(lambda rngs: type(policy)(config, rngs=rngs))
    params = params_of(policy)
    own = np.asarray(forward(params)[0])
    old, reference = own + draw.normal(0, 0.3, own.shape), own + draw.normal(0, 0.5, own.shape)
    # The sampler's numbers are near the old ones, so that weights lie on both sides of their bound.
    near = old + draw.normal(0, 0.2, own.shape)

    def column(values_NxR):
        return TokenColumn.of([values[:length] for values, length in zip(values_NxR, lengths, strict=True)])

    columns = {SAMPLER: column(near), OLD: column(old), REFERENCE: column(reference)}

    def plainly(params):
        log_prob, entropy = forward(params)
        advantage = jnp.broadcast_to(prepared.columns["advantage"][:, None], log_prob.shape)
        if recipe.entropy_weight:
            advantage += jax.lax.stop_gradient(jnp.minimum(recipe.entropy_weight * entropy, jnp.abs(advantage) / 2))
        ratio = jnp.exp(log_prob - old)
        weight = np.minimum(np.exp(old - near), 1.2)
        better = jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1 + recipe.clip_high) * advantage)
        d = reference - log_prob
        total = jnp.sum(used_NxR * (-weight * better + 0.05 * (jnp.exp(d) - d - 1)))
        if recipe.normalize == "tokens":
            return total / used_NxR.sum()
        return total / 7 / prepared.columns["episode_share"][prepared.keep].sum()

    batch = packed_batch(recipe, episodes, examples, columns)
    found = make_evaluation(bones, recipe.loss)(params, cut(batch, 1))
    np.testing.assert_allclose(found["loss"].total / found["loss"].weight, plainly(params), rtol=1e-4)

    @jax.jit
    def packed_loss(params):
        loss, _ = recipe.loss(bones.merge(params), batch)
        return loss.total / loss.weight

    for ours, theirs in zip(jax.tree.leaves(jax.grad(packed_loss)(params)), jax.tree.leaves(jax.grad(plainly)(params)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-5, rtol=1e-3)


def test_without_the_reference_the_divergence_is_refused(policy, config, tokenizer, episodes):
    recipe = grpo()
    examples = tokenize(episodes, PROMPT, tokenizer, progress=False)
    batch = packed_batch(recipe, episodes, examples, {})
    with pytest.raises(UserError, match=r"recipe\.kl_weight: only `mira online` computes"):
        recipe.loss(policy, batch)
    loss, metrics = grpo(kl_weight=0).loss(policy, batch)
    assert np.isfinite(loss.total) and metrics["importance_truncated"].total == 0


def test_token_columns_must_fit_the_tokens(tokenizer, episodes):
    examples = tokenize(episodes, PROMPT, tokenizer, progress=False)
    wrong = TokenColumn.of([[0.0]] * examples.steps)
    with pytest.raises(ValueError, match="token column x: 1 numbers for"):
        PackedBatches(examples, np.arange(2), {}, row_length=512, rows=1, token_columns={"x": wrong})
