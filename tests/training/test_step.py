"""Losses and updates of packed batches equal those of their parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, AxisType
from scipy import stats

from mira_jax.data.packing import PackedBatches
from mira_jax.data.steps import tokenize
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.sharding import AXES
from mira_jax.recipes.objectives.sft import SFT
from mira_jax.training.layout import Layout
from mira_jax.training.log_probs import (
    likeliest_tokens,
    log_probs_and_support,
    response_log_probs,
    sum_by_step,
    token_entropies,
    token_log_probs,
)
from mira_jax.training.state import abstract_state, init_params, init_state, params_of, skeleton
from mira_jax.training.step import cut, make_step
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    tokenizer = Tokenizer(synthetic.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"))
    return tokenize(synthetic.trajectories(6), PromptConfig(version="compact"), tokenizer, progress=False)


CONFIG = Gemma3Config(320, width=32, layers=2, query_heads=2, kv_heads=1, head_dim=16, mlp_width=64, window=24)


SMALL = Gemma3Config(320, width=32, layers=1, query_heads=2, kv_heads=1, head_dim=16, mlp_width=64, layer_types=("full_attention",))


def build(rngs):
    return Gemma3(CONFIG, rngs=rngs)


def build_small(rngs):
    return Gemma3(SMALL, rngs=rngs)


@pytest.fixture(scope="module")
def model():
    return build(nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch(examples):
    packed = PackedBatches(examples, np.arange(len(examples)), {}, row_length=256, rows=16)
    assert len(packed) == 1 and max(len(row) for row in packed.row_examples(0)) > 1
    return packed[0]


full_logits = jax.jit(lambda model, tokens: model.logits(model(tokens)))
log_probs_of = jax.jit(response_log_probs)


def alone(model, examples, step: int) -> np.ndarray:
    """log p of each response token of one step, from the full logits of that step by itself."""
    prompt, response = examples.prompt(step), examples.response(step)
    tokens = np.zeros((1, 256), np.int32)
    tokens[0, : len(prompt) + len(response)] = np.concatenate([prompt, response])
    logits = np.asarray(full_logits(model, tokens))[0].astype(np.float64)
    logits = logits[len(prompt) - 1 : len(prompt) + len(response) - 1]
    return logits[np.arange(len(response)), response] - np.log(np.exp(logits).sum(-1))


def test_packed_log_probs_equal_those_of_each_step_alone(model, examples, batch):
    log_probs = np.asarray(log_probs_of(model, batch))
    sums = np.asarray(sum_by_step(log_probs, batch))
    assert not log_probs[batch["response_mask"] == 0].any()
    for b, s in zip(*np.nonzero(batch["step_mask"]), strict=True):
        expected = alone(model, examples, batch["step_id"][b, s])
        mine = (batch["response_segment"][b] == s) & (batch["response_mask"][b] > 0)
        np.testing.assert_allclose(log_probs[b, mine], expected, atol=2e-5)
        assert sums[b, s] == pytest.approx(expected.sum(), abs=2e-4)


def test_the_loss_is_normalised_as_it_says(model, examples, batch):
    expected = [alone(model, examples, step) for step in range(len(examples))]
    for normalize, count in (("token", sum(map(len, expected))), ("step", len(expected))):
        loss, _ = jax.jit(SFT(normalize=normalize).loss)(model, batch)
        assert loss.total / loss.weight == pytest.approx(-sum(map(np.sum, expected)) / count, rel=1e-5)
        assert loss.weight == count


def test_chunks_give_the_same_log_probs_and_gradients(model):
    hidden = jax.random.normal(jax.random.key(0), (2, 7, CONFIG.width))
    targets = jax.random.randint(jax.random.key(1), (2, 7), 0, CONFIG.vocabulary_size)
    values = []
    for chunk_logits in (2**28, 2 * CONFIG.vocabulary_size * 3):
        total = lambda h, size=chunk_logits: jnp.sin(token_log_probs(model, h, targets, size)).sum()  # noqa: E731
        values.append((token_log_probs(model, hidden, targets, chunk_logits), jax.grad(total)(hidden)))
    np.testing.assert_allclose(values[0][0], values[1][0], atol=1e-5)
    np.testing.assert_allclose(values[0][1], values[1][1], atol=1e-5)


def test_the_probability_of_a_support_is_numpy_s_in_any_chunks(model):
    hidden = jax.random.normal(jax.random.key(0), (2, 7, CONFIG.width))
    targets = jax.random.randint(jax.random.key(1), (2, 7), 0, CONFIG.vocabulary_size)
    support = np.array(jax.random.randint(jax.random.key(2), (2, 7, 3), 0, CONFIG.vocabulary_size))
    support[0, 0] = -1  # the target alone
    support[0, 1] = targets[0, 1]  # a token counts once
    probabilities = np.asarray(jax.nn.softmax(model.logits(hidden)), np.float64)
    members = [[{int(targets[b, r]), *support[b, r].tolist()} - {-1} for r in range(7)] for b in range(2)]
    expected = [[np.log(sum(probabilities[b, r, token] for token in members[b][r])) for r in range(7)] for b in range(2)]
    for chunk_logits in (2**28, 2 * CONFIG.vocabulary_size * 3):
        log_probs, log_support = log_probs_and_support(model, hidden, targets, jnp.asarray(support), chunk_logits)
        np.testing.assert_allclose(log_support, expected, atol=1e-5)
        np.testing.assert_array_equal(log_probs, token_log_probs(model, hidden, targets, chunk_logits))
    np.testing.assert_allclose(log_support[0, :2], log_probs[0, :2], atol=1e-6)


def test_the_gradient_of_the_probability_of_a_support_is_that_of_differences(model):
    hidden = jax.random.normal(jax.random.key(0), (1, 2, CONFIG.width))
    targets, support = jnp.array([[3, 4]]), jnp.array([[[3, 7, -1], [9, 11, 12]]])
    total = jax.jit(lambda h: log_probs_and_support(model, h, targets, support)[1].sum())
    gradient = np.asarray(jax.grad(total)(hidden))
    for place in ((0, 0, 5), (0, 1, 0), (0, 1, 30)):
        step = np.zeros_like(hidden)
        step[place] = 0.02
        assert gradient[place] == pytest.approx(float(total(hidden + step) - total(hidden - step)) / 0.04, abs=2e-3)


def test_the_likeliest_tokens_are_numpy_s_in_any_chunks(model):
    hidden = jax.random.normal(jax.random.key(0), (2, 7, CONFIG.width))
    log_probs = np.asarray(jax.nn.log_softmax(model.logits(hidden)))
    order = np.argsort(-log_probs, axis=-1)[..., :5]
    for chunk_logits in (2**28, 2 * CONFIG.vocabulary_size * 3):
        ids, values = likeliest_tokens(model, hidden, 5, chunk_logits)
        np.testing.assert_array_equal(ids, order)
        np.testing.assert_allclose(values, np.take_along_axis(log_probs, order, axis=-1), atol=1e-5)


def test_entropies_are_scipy_s_in_any_chunks(model):
    hidden = jax.random.normal(jax.random.key(0), (2, 7, CONFIG.width))
    expected = stats.entropy(np.asarray(jax.nn.softmax(model.logits(hidden)), np.float64), axis=-1)
    for chunk_logits in (2**28, 2 * CONFIG.vocabulary_size * 3):
        np.testing.assert_allclose(token_entropies(model, hidden, chunk_logits), expected, rtol=1e-4)


def test_devices_that_share_the_rows_share_the_chunks(model):
    hidden, targets = jax.ShapeDtypeStruct((8, 40, CONFIG.width), jnp.float32), jax.ShapeDtypeStruct((8, 40), jnp.int32)
    program = lambda: jax.make_jaxpr(lambda h, t: token_log_probs(model, h, t, 10 * CONFIG.vocabulary_size))(hidden, targets)  # noqa: E731
    assert "scan" in str(program())
    mesh = AbstractMesh((1, 8, 4, 1), AXES, axis_types=(AxisType.Auto,) * 4)
    with jax.sharding.use_abstract_mesh(mesh):
        assert "scan" not in str(program())


def test_accumulated_parts_give_the_update_of_the_whole_batch(batch):
    bones, optimizer = skeleton(build_small), optax.sgd(1.0)
    step = make_step(bones, SFT().loss, optimizer, lambda count: count)
    results = []
    for parts in (1, 4):
        state = init_state(init_params(build_small, seed=0), optimizer)
        results.append(step(state, cut(batch, parts)))
    state, report = results[0]
    for other, other_report in results[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), state.params, other.params)
        assert float(other_report["loss"]) == pytest.approx(float(report["loss"]), rel=1e-5)
    assert int(report["tokens"]) == (batch["segment_ids"] > 0).sum()


def test_gradients_of_bfloat16_parameters_are_summed_in_float32(examples):
    """Of 20 parts, a step or two in nearly all. Expected: the parts' own gradients, summed by NumPy in float64."""
    packed = PackedBatches(examples, np.arange(len(examples)), {}, row_length=104, rows=len(examples))
    batch, loss_of = cut(packed[0], len(examples)), SFT().loss
    assert batch["step_mask"].any((1, 2)).sum() > 16
    bones = skeleton(lambda rngs: Gemma3(SMALL, rngs=rngs, param_dtype=jnp.bfloat16))
    params = init_params(lambda rngs: Gemma3(SMALL, rngs=rngs, param_dtype=jnp.bfloat16), seed=0)
    one = jax.jit(jax.grad(lambda params, part: loss_of(bones.merge(params), part)[0].total))
    expected = jax.tree.map(lambda leaf: np.zeros(leaf.shape), params)
    nearest = jax.tree.map(lambda leaf: np.zeros(leaf.shape, jnp.bfloat16), params)
    for part in range(len(examples)):
        gradients = jax.device_get(one(params, {name: array[part] for name, array in batch.items()}))
        expected = jax.tree.map(lambda total, new: total + new.astype(np.float64), expected, gradients)
        nearest = jax.tree.map(np.add, nearest, gradients)

    def error(tree) -> float:
        squares = jax.tree.map(lambda ours, exact: np.square(np.asarray(ours, np.float64) - exact).sum(), tree, expected)
        return np.sqrt(sum(jax.tree.leaves(squares)) / sum(np.square(leaf).sum() for leaf in jax.tree.leaves(expected)))

    keep = optax.GradientTransformation(lambda params: params, lambda given, _, params: (jax.tree.map(jnp.zeros_like, params), given))
    errors = {"nearest": error(nearest)}
    for sum_dtype in ("float32", "bfloat16"):
        step = make_step(bones, loss_of, keep, lambda count: count, sum_dtype=sum_dtype)
        state, _ = step(init_state(jax.tree.map(jnp.array, params), keep), batch)
        weight = batch["response_mask"].sum()
        errors[sum_dtype] = error(jax.tree.map(lambda leaf, weight=weight: leaf * weight, state.optimizer))
    # The parts' own gradients are rounded to bfloat16 once, in this program and in that.
    assert errors["float32"] < min(1e-3, errors["nearest"] / 4) and errors["bfloat16"] < 2 * errors["nearest"], errors


def test_no_update_after_the_first_compiles_again(batch):
    bones, optimizer = skeleton(build_small), optax.adam(1e-3)
    given = jax.device_put({"embedding": jnp.ones((320, 32))}, jax.devices()[0])
    step = make_step(bones, SFT().loss, optimizer, lambda count: count)
    state = init_state(init_params(build_small, seed=0, given=given), optimizer, Layout().of(abstract_state(bones.params, optimizer)))
    state, _ = step(state, cut(batch, 1))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    try:
        for _ in range(2):
            state, _ = step(state, cut(batch, 1))
    finally:
        jax.monitoring.clear_event_listeners()
    assert not [event for event in compiled if "compile" in event]


def test_given_parameters_are_kept_and_the_rest_is_drawn_as_before():
    fresh = init_params(build_small, seed=3)
    given = {"embedding": jnp.full((320, 32), 7.0), "tail": {0: {"mlp": {"up": jnp.full((32, 64), 5.0)}}}}
    mixed = init_params(build_small, seed=3, given=given)
    assert jax.tree.structure(mixed) == jax.tree.structure(fresh)
    assert mixed["embedding"][0, 0] == 7 and mixed["tail"][0]["mlp"]["up"][0, 0] == 5
    np.testing.assert_array_equal(mixed["tail"][0]["mlp"]["gate"], fresh["tail"][0]["mlp"]["gate"])
    np.testing.assert_array_equal(mixed["tail"][0]["mlp"]["down"], fresh["tail"][0]["mlp"]["down"])


def test_a_skeleton_takes_parameters_back(model, batch):
    rebuilt = skeleton(build).merge(params_of(model))
    np.testing.assert_array_equal(log_probs_of(rebuilt, batch), log_probs_of(model, batch))
