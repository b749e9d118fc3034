"""Adapters: the model with them is the model with them merged, and their gradients are the dense ones projected."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.models import lora
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.heads import Critic
from mira_jax.models.lora import LoraConfig
from mira_jax.models.sharding import AXES, shardings
from mira_jax.training.load import build_model
from mira_jax.training.metrics import Mean
from mira_jax.training.optimizer import OptimizerConfig, make_optimizer
from mira_jax.training.state import init_params, init_state, params_of, skeleton
from mira_jax.training.step import make_step

SIZES = {"vocabulary_size": 64, "width": 24, "query_heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 40, "window": 8}
MIXED = Gemma3Config(layers=5, layer_types=("sliding_attention", "full_attention") * 2 + ("sliding_attention",), scan_layers=True, **SIZES)
"""Two slots, scanned twice, and a tail."""
DEEP = Gemma3Config(layers=5, layer_types=("sliding_attention",) * 5, scan_layers=True, **SIZES)
"""One slot, scanned five times."""
CONFIG = LoraConfig(rank=3, alpha=12.0)
TOKENS = jax.random.randint(jax.random.key(5), (2, 20), 0, 64)


quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def bones_of(config: Gemma3Config, settings: LoraConfig = CONFIG):
    return skeleton(lambda rngs: lora.adapt(Gemma3(config, rngs=rngs), settings, rngs), lora.trained)


def drawn(tree):
    """Random numbers of the right size for every leaf, adapters B included."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(structure, [0.2 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)])


def merged(bones, frozen, adapters):
    return lora.merged(params_of(bones.merge(adapters, jax.tree.map(jnp.array, frozen))), [CONFIG.scale])


def loss_of(model) -> jax.Array:
    """A function of every output, smooth and without symmetry."""
    hidden = model(TOKENS, index_BxR=jnp.array([[3, 7, 19], [0, 18, 19]]))
    return jnp.sum(jnp.sin(3 * model.logits(hidden)))


def test_outputs_are_those_of_the_merged_model_and_gradients_the_dense_ones_projected():
    bones, plain = bones_of(MIXED), skeleton(lambda rngs: Gemma3(MIXED, rngs=rngs))
    adapters, frozen = drawn(bones.params), drawn(bones.frozen)
    adapted_loss = lambda adapters, frozen: loss_of(bones.merge(adapters, frozen))  # noqa: E731
    loss, (gradients, dense) = quick(jax.value_and_grad(adapted_loss, argnums=(0, 1)))(adapters, frozen)
    merged_loss = quick(lambda params: loss_of(plain.merge(params)))(merged(bones, frozen, adapters))
    assert float(loss) == pytest.approx(float(merged_loss), abs=1e-3)
    checked = 0
    for path, gradient in jax.tree_util.tree_leaves_with_path(dense):
        names = [key.key for key in path]
        if (pair := lora.adapters_of(names, adapters)) is None:
            continue
        g, (a, b) = np.asarray(gradient, np.float64), (np.asarray(part, np.float64) for part in pair)
        # y = x (W + s A B): dA = s G B^T and dB = s A^T G, with G the gradient of W. Axes: D in, N heads, H, F, r rank.
        letters = {"query": "dnh", "key": "dnh", "value": "dnh", "output": "nhd", "gate": "df", "up": "df", "down": "fd"}[names[-1]]
        inputs = 2 if names[-1] == "output" else 1
        into, out = letters[:inputs], letters[inputs:]
        d_a = CONFIG.scale * np.einsum(f"...{letters},...r{out}->...{into}r", g, b)
        d_b = CONFIG.scale * np.einsum(f"...{letters},...{into}r->...r{out}", g, a)
        ours = lora.adapters_of(names, gradients)
        np.testing.assert_allclose(ours[0], d_a, atol=2e-4 * np.abs(d_a).max())
        np.testing.assert_allclose(ours[1], d_b, atol=2e-4 * np.abs(d_b).max())
        checked += 1
    assert checked == 7 * sum(len(frozen.get(name, {})) for name in ("groups", "tail"))


def test_merging_is_w_plus_alpha_over_rank_a_b():
    draw = np.random.default_rng(0)
    w, a, b = draw.standard_normal((2, 4, 8, 24)), draw.standard_normal((2, 4, 8, 3)), draw.standard_normal((2, 3, 24))
    adapters = {"output_a": jnp.float32(a), "output_b": jnp.float32(b)}
    matrices = {"output": jnp.float32(w), "key": jnp.ones((2, 24, 2, 8))}
    ours = lora.merged({"attention": {**matrices, "lora": adapters}}, [0.5])
    expected = np.stack([w[i] + 0.5 * (a[i].reshape(32, 3) @ b[i]).reshape(4, 8, 24) for i in range(2)])
    np.testing.assert_allclose(ours["attention"]["output"], expected, atol=1e-5)
    np.testing.assert_array_equal(ours["attention"]["key"], np.ones((2, 24, 2, 8)))
    assert set(ours["attention"]) == {"output", "key"}
    narrow = lora.merged({"attention": {"output": jnp.bfloat16(w), "lora": adapters}}, [0.5])
    assert narrow["attention"]["output"].dtype == jnp.bfloat16


def test_it_starts_as_the_frozen_model_and_trains_nothing_else():
    settings = LoraConfig(rank=2, targets=("query", "down"))
    bones, plain = bones_of(DEEP, settings), skeleton(lambda rngs: Gemma3(DEEP, rngs=rngs))
    build = lambda rngs: lora.adapt(Gemma3(DEEP, rngs=rngs), settings, rngs)  # noqa: E731
    adapters, frozen = bones.split(init_params(build, seed=0))
    assert set(adapters["groups"][0]["attention"]["lora"]) == {"query_a", "query_b"}
    assert set(adapters["groups"][0]["mlp"]["lora"]) == {"down_a", "down_b"}
    before = jax.tree.map(np.array, frozen)
    first = lambda model, batch: (Mean(loss_of(model), jnp.float32(1)), {})  # noqa: E731
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup=0.0), 10)
    step = make_step(bones, first, optimizer, lambda count: count)
    batch = {"segment_ids": np.ones((1, 2, 20), np.int32), "step_mask": np.ones((1, 2, 1), np.float32)}
    state, losses = init_state(adapters, optimizer), []
    for _ in range(10):
        state, report = step(state, batch, frozen)
        losses.append(float(report["loss"]))
    assert losses[0] == pytest.approx(float(quick(lambda params: loss_of(plain.merge(params)))(frozen)), abs=1e-4)
    assert losses[-1] < losses[0] - 5
    jax.tree.map(np.testing.assert_array_equal, frozen, before)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(adapters))
    assert numbers == 5 * 2 * (24 + 4 * 8 + 40 + 24)
    assert sum(leaf.size for leaf in jax.tree.leaves(optax.tree.get(state.optimizer, "nu"))) == numbers


def test_the_heads_of_a_critic_are_trained_beside_the_adapters():
    bones = skeleton(lambda rngs: lora.adapt(Critic(DEEP, ("value",), rngs=rngs, param_dtype=jnp.bfloat16), CONFIG, rngs), lora.trained)
    assert set(bones.params) == {"heads", "trunk"} and set(bones.frozen) == {"trunk"}
    assert {leaf.dtype for leaf in jax.tree.leaves(bones.params)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(bones.frozen)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("heads", [(), ("value",)], ids=["policy", "critic"])
@pytest.mark.parametrize("config", [MIXED, DEEP], ids=["mixed", "deep"])
def test_layer_by_layer_it_computes_the_same_as_in_a_scan(config, heads):
    """The loss and the gradients of the newest adapters, which are stacked in both cases."""

    def builder(scan: bool):
        sizes = dataclasses.replace(config, scan_layers=scan)
        return lambda rngs: build_model(sizes, heads, (CONFIG, LoraConfig(rank=2, alpha=2.0)), rngs=rngs)

    scanned = skeleton(builder(True), lora.trained)
    unrolled = skeleton(builder(True), lora.trained, builder(False))
    parameters = drawn(scanned.parameters)
    given = scanned.split(parameters)
    expected = quick(jax.value_and_grad(lambda adapters: total_of(scanned.merge(adapters, given[1]))))(given[0])
    adapters, apart = unrolled.split(jax.tree.map(jnp.copy, parameters))
    model = unrolled.merge(adapters, apart)
    assert not getattr(model, "trunk", model).groups
    assert jax.tree.map(jnp.shape, apart) == jax.tree.map(jnp.shape, unrolled.frozen)
    found = quick(jax.value_and_grad(lambda adapters: total_of(unrolled.merge(adapters, apart))))(adapters)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-4 * float(jnp.abs(other).max())), found, expected)


def total_of(model) -> jax.Array:
    if hasattr(model, "trunk"):
        return sum(jnp.sum(jnp.sin(3 * scores)) for scores in jax.tree.leaves(model(TOKENS, None, None, jnp.array([[3, 7], [0, 19]]))))
    return loss_of(model)


def test_adapters_are_split_as_their_matrices_are():
    mesh = AbstractMesh((1, 4, 2, 1), AXES, axis_types=(AxisType.Auto,) * 4)
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings(bones_of(DEEP).params, mesh))["groups"][0]
    attention, mlp = specs["attention"]["lora"], specs["mlp"]["lora"]
    assert attention["query_a"] == PartitionSpec(None, ("fsdp",), None)
    assert attention["query_b"] == PartitionSpec(None, None, ("tensor",), None)
    assert attention["output_a"] == PartitionSpec(None, ("tensor",), None, None)
    assert attention["output_b"] == mlp["down_b"] == PartitionSpec(None, None, ("fsdp",))
    assert mlp["up_b"] == PartitionSpec(None, None, ("tensor",)) and mlp["down_a"] == PartitionSpec(None, ("tensor",), None)


@pytest.mark.parametrize("options", [{"rank": 0}, {"alpha": 0.0}, {"targets": ("embedding",)}, {"targets": ()}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match="lora." + next(iter(options))):
        build(LoraConfig, options, prefix="lora.")
