"""Products of float32 are float32 on accelerators: read from the programs that XLA is given for them."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mira_jax.config import build
from mira_jax.models import attention
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3, look_up, unembed
from mira_jax.models.precision import PRECISIONS, use_precision
from mira_jax.recipes import make_recipe
from mira_jax.sizing.plan import make_plan, make_workload
from mira_jax.train import TrainConfig
from mira_jax.training.step import make_evaluation, make_step

SIZES = {"vocabulary_size": 64, "width": 32, "layers": 3, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64, "window": 24,
         "scan_layers": True}  # fmt: skip
PLATFORMS = ("cuda", "tpu")


@pytest.fixture(autouse=True)
def same_precision_after():
    yield
    use_precision("highest")


def products(function, *arguments) -> Counter:
    """How many dot products the program for each platform has, by (precision, dtypes of the factors)."""
    found: Counter = Counter()
    for platform in PLATFORMS:
        text = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
        assert "convolution" not in text
        lines = [line for line in text.splitlines() if "dot_general" in line]
        for line in lines:
            precision = re.search(r"precision = \[(\w+), (\w+)\]", line)
            factors = re.search(r": \(tensor<(?:\d+x)*(\w+)>, tensor<(?:\d+x)*(\w+)>\)", line)
            found[precision.groups() if precision else None, factors.groups()] += 1
        assert len(lines) > 1
    return found


def float32(found: Counter) -> Counter:
    """By precision, those that have a factor in float32."""
    only: Counter = Counter()
    for (precision, factors), count in found.items():
        if "f32" in factors:
            only[precision] += count
    return only


def plan_of(recipe, model, **keys):
    config = build(TrainConfig, {"recipe": recipe, "model": {"sizes": SIZES, **model}, **keys})
    made = make_recipe(config.recipe)
    return make_plan(config, made, make_workload(made, 2, config.optimizer.accumulate, 128, 20, 5))


@pytest.mark.parametrize(
    "recipe, model, keys",
    [
        ({"name": "actor"}, {"remat": "block"}, {"optimizer": {"accumulate": 2}}),
        ({"name": "critic"}, {"remat": ["query", "key", "value", "heads", "output"]}, {"optimizer": {"name": "adafactor"}}),
        ({"name": "sft", "prompt_weight": 0.5}, {}, {"lora": {}}),
        ({"name": "critic"}, {"dtype": "bfloat16", "param_dtype": "bfloat16"}, {"optimizer": {"accumulate": 2}}),
        ({"name": "actor"}, {"dtype": "bfloat16", "param_dtype": "bfloat16"}, {"lora": {}}),
    ],
    ids=["actor", "critic", "sft-lora", "critic-bfloat16", "actor-lora-bfloat16"],
)
def test_no_product_of_float32_in_a_training_step_is_less_than_float32(recipe, model, keys):
    plan = plan_of(recipe, model, **keys)
    step = make_step(plan.skeleton, plan.recipe.loss, plan.optimizer, plan.rate)
    batch = {name: jax.ShapeDtypeStruct((plan.workload.parts, *array.shape), array.dtype) for name, array in plan.part(1).items()}
    evaluation = make_evaluation(plan.skeleton, plan.recipe.loss)
    arguments = batch, plan.skeleton.frozen
    for program, state in ((step, plan.state), (evaluation, plan.skeleton.params)):
        found = float32(products(program, state, *arguments))
        assert set(found) == {("HIGHEST", "HIGHEST")}, found
    if model.get("dtype") == "bfloat16":
        # Two heads of a critic, whose two products become six with their gradients, in each of two parts; or the sums over a
        # step's tokens. Products with the model's own matrices have two factors in bfloat16.
        everything = products(step, plan.state, *arguments)
        wide = sum(count for (_, factors), count in everything.items() if "f32" in factors)
        assert wide <= len(PLATFORMS) * (24 if recipe["name"] == "critic" else 2) < everything.total() / 2


def test_reading_and_decoding_are_float32():
    graph, state = nnx.split(nnx.eval_shape(lambda: Gemma3(Gemma3Config(**SIZES | {"scan_layers": False}), rngs=nnx.Rngs(0))))

    def read_and_decode(state, tokens):
        model = nnx.merge(graph, state)
        hidden, cache = model(tokens, cache=model.init_cache(2, 64))
        hidden, cache = model(tokens[:, :1], cache=cache)
        return model.logits(hidden)

    found = float32(products(read_and_decode, state, jnp.zeros((2, 8), jnp.int32)))
    assert set(found) == {("HIGHEST", "HIGHEST")}


@pytest.mark.parametrize("length, window", [(64, None), (2048, 64), (40_000, 64)], ids=["blocks", "bands", "tiles"])
def test_every_form_of_attention_is_float32(length, window):
    q, k, v = (jax.ShapeDtypeStruct((1, length, heads, 8), jnp.float32) for heads in (4, 2, 2))

    def loss(q, k, v):
        return jnp.sum(attention.attend(q, k, v, None, window, 1.0))

    assert set(float32(products(jax.grad(loss, (0, 1, 2)), q, k, v))) == {("HIGHEST", "HIGHEST")}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_faster_one_is_used_when_it_is_asked_for(precision):
    use_precision(precision)
    found = float32(products(lambda x: (x @ x) @ x, jnp.ones((4, 4))))
    assert set(found) == {(precision.upper(), precision.upper())}


def test_the_gradient_of_a_bfloat16_embedding_sums_in_float32():
    """One word 4,000 times: bfloat16 sums stop growing at 256 times an addend. Expected: NumPy, float64."""
    draw = np.random.default_rng(0)
    embedding = jnp.asarray(draw.standard_normal((5, 8)), jnp.bfloat16)
    tokens = jnp.asarray(draw.integers(0, 2, (4, 1000)))
    weights = jnp.asarray(draw.uniform(0.5, 1, (4, 1000, 8)), jnp.bfloat16)
    expected = np.zeros((5, 8))
    np.add.at(expected, np.asarray(tokens), np.asarray(weights, np.float64))
    gradient = jax.grad(lambda e: jnp.sum((look_up(e, tokens) * weights).astype(jnp.float32)))(embedding)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(gradient, np.float64), expected, rtol=2**-8)


def test_the_gradient_of_the_logits_is_that_of_a_product():
    """Expected: NumPy, float64."""
    draw = np.random.default_rng(1)
    hidden, embedding, weights = draw.standard_normal((3, 5, 8)), draw.standard_normal((11, 8)), draw.standard_normal((3, 5, 11))
    loss = lambda h, e: jnp.sum(jnp.asarray(weights, jnp.float32) * unembed(h, e))  # noqa: E731
    expected = np.einsum("btv,vd->btd", weights, embedding), np.einsum("btv,btd->vd", weights, hidden)
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 0.03)):
        got = jax.grad(loss, (0, 1))(jnp.asarray(hidden, dtype), jnp.asarray(embedding, dtype))
        for ours, theirs in zip(got, expected, strict=True):
            assert ours.dtype == dtype
            assert np.abs(np.asarray(ours, np.float64) - theirs).max() < tolerance * np.abs(theirs).max()
