import jax
import jax.numpy as jnp
import pytest

from mira_jax.models.config import GLOBAL, LOCAL, PRESETS, Gemma3Config
from mira_jax.models.kernels import flash, ranges, sharded
from mira_jax.models.kernels.choose import choose_kernels
from mira_jax.sizing import flops
from mira_jax.sizing.flops import Text

PUBLISHED = {"270m": (1.9, 2.3), "1b": (6.3, 6.9), "4b": (24.5, 26.0), "12b": (74.1, 79.0), "27b": (166.5, 172.7)}
"""Training GFLOP per token at 8k and 32k. The 12B's at 32k was checked against a published run: 349.4 TFLOP/s at 4,478
tokens/s a chip is 78.0."""


@pytest.mark.parametrize("preset", PUBLISHED)
def test_gflop_per_token_are_the_published_ones(preset):
    found = [flops.per_token(PRESETS[preset], length) / 1e9 for length in (8192, 32768)]
    assert found == pytest.approx(PUBLISHED[preset], abs=0.051)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 9])
@pytest.mark.parametrize("window", [None, 1, 4, 20])
def test_pairs_are_those_of_the_mask(length, window):
    mask = [(i, j) for i in range(length) for j in range(length) if 0 <= i - j < (window or length)]
    assert flops.pairs(length, window) == len(mask)


def test_a_small_model_by_hand():
    # D = 8, N = 2, K = 1, H = 4, F = 16, V = 10, a local layer of window 3 and a global one; a text of 5 tokens.
    model = Gemma3Config(10, 8, 2, 2, 1, 4, 16, window=3, layer_types=(LOCAL, GLOBAL))
    key_value, rest = 2 * 8 * 4, 2 * 8 * 2 * 4 + 3 * 8 * 16
    # The loss reads the last 2 tokens: the last layer's keys and values are those of all 5, all else in it is for 2.
    matrices = 2 * (5 * (key_value + rest) + 5 * key_value + 2 * rest)
    logits = 2 * 10 * 8 * 2
    attention = 2 * 2 * 2 * 4 * ((1 + 2 + 3 + 3 + 3) + (4 + 5))
    assert flops.training_flops(model, [Text(5, 2, 2)]) == 3 * (matrices + logits + attention)
    assert flops.training_flops(model, [Text(5, 2, 2)], trained=0) == 2 * (matrices + logits) + 3 * attention
    assert flops.training_flops(model, [Text(5, 2, 2)] * 4) == 12 * (matrices + logits + attention)
    assert flops.forward_flops(model, [Text(5, 2, 2)]) == matrices + logits + attention
    # The fifth token sees 3 tokens in the local layer and 5 in the global one.
    one = 2 * 2 * (key_value + rest) + 2 * 10 * 8 + 2 * 2 * 2 * 4 * (3 + 5)
    assert flops.decode_flops(model, rows=7, length=5) == 7 * one


def test_a_traced_program_counts_each_product_as_often_as_it_runs():
    def program(x, w):
        y, _ = jax.lax.scan(lambda carry, _: (carry @ w, None), x, length=6)
        return jax.checkpoint(lambda y: jnp.einsum("bij,bjk->bik", y[None], w[None]))(y)

    x, w = jax.ShapeDtypeStruct((3, 4), jnp.float32), jax.ShapeDtypeStruct((4, 4), jnp.float32)
    assert flops.done(jax.make_jaxpr(program)(x, w)) == 2 * 3 * 4 * 4 * 7


def test_the_larger_branch_counts():
    def program(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: (x @ w) @ w, lambda: x @ w)

    x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    assert flops.done(jax.make_jaxpr(program)(x, x)) == 2 * 4**3 * 2


def test_kernels_count_by_the_blocks_that_they_visit_in_each_kind_of_layer():
    """A head dim of 64, rows of 300 tokens with texts of 130 and 100; forward and backward are traced, on any machine."""
    model = Gemma3Config(10, 8, 2, 4, 2, 64, 16, window=50, layer_types=(LOCAL, GLOBAL))
    chosen = choose_kernels("pallas", model, "bfloat16", platform="gpu", capability="9.0")
    found = flops.kernel_flops(chosen, model, [Text(130, 1, 1), Text(100, 1, 1)], 300)
    assert set(found) == {
        kernel + window for kernel in (flash.FORWARD, flash.QUERY_GRADIENT, flash.KEY_GRADIENT) for window in ("", "_window_50")
    }
    segments = jnp.repeat(jnp.arange(3), jnp.array([130, 100, 70]), total_repeat_length=300)[None]
    tiling = flash.HOPPER_TILINGS[64]
    assert {name: found[name] for name in found if "window" not in name} == flash.flops(ranges.first_seen(segments, None)[0], 64, tiling)
    assert found[flash.FORWARD + "_window_50"] == flash.flops(ranges.first_seen(segments, 50)[0], 64, tiling)[flash.FORWARD]

    def loss(q, k, v):
        attend = lambda kind, window: sharded.attend(chosen[kind], q, k, v, jnp.tile(segments, (2, 1)), window, 0.1)  # noqa: E731
        return jnp.sum((attend(LOCAL, 50) + attend(GLOBAL, None)).astype(jnp.float32))

    q, k, v = (jax.ShapeDtypeStruct((2, 300, heads, 64), jnp.bfloat16) for heads in (4, 2, 2))
    assert flops.done(jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(q, k, v), found) == pytest.approx(2 * 4 * sum(found.values()))
    assert flops.kernel_flops(choose_kernels("xla", model, "bfloat16", platform="gpu"), model, [Text(300, 1, 1)], 300) == {}
