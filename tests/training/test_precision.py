"""Numbers kept in bfloat16: rounded fairly, they train like float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mira_jax.training.optimizer import OptimizerConfig, make_optimizer
from mira_jax.training.precision import at_random

rounded_at_random = jax.jit(at_random)
ULP = 2.0**-7
"""Between 1 and 2."""


def test_rounds_to_a_neighbour_and_up_as_often_as_it_should():
    for share in (0.03, 0.5, 0.8):
        x = jnp.full((100_000,), 1 + share * ULP)
        rounded = np.asarray(rounded_at_random(x, jnp.uint32(7)), np.float64)
        assert set(np.unique(rounded)) == {1.0, 1 + ULP}
        ups = (rounded > 1).mean()
        assert abs(ups - share) < 4 * np.sqrt(share * (1 - share) / x.size)
        negative = np.asarray(rounded_at_random(-x, jnp.uint32(8)), np.float64)
        assert abs((negative < -1).mean() - share) < 4 * np.sqrt(share * (1 - share) / x.size)


def test_rounding_is_independent_over_places_and_seeds():
    x = jnp.full((400, 256), 1 + ULP / 2)
    up = [(np.asarray(rounded_at_random(x, jnp.uint32(seed))) > 1) - 0.5 for seed in range(4)]
    bound = 4 / np.sqrt(x.size) / 4  # 4 standard deviations of the mean of independent products of +-1/2
    for draw in up:
        assert abs((draw[1:] * draw[:-1]).mean()) < bound and abs((draw[:, 1:] * draw[:, :-1]).mean()) < bound
    assert all(abs((up[i] * up[j]).mean()) < bound for i in range(4) for j in range(i))


def test_what_is_bfloat16_already_or_no_number_stays():
    x = jnp.array([0.0, -0.0, 1.0, -3.5, 1e-30, 3.3e38, np.inf, -np.inf, np.nan]).astype(jnp.bfloat16)
    for seed in range(5):
        rounded = rounded_at_random(x.astype(jnp.float32), jnp.uint32(seed))
        np.testing.assert_array_equal(np.float32(rounded), np.float32(x))
    assert bool(jnp.isnan(rounded_at_random(jax.lax.bitcast_convert_type(jnp.uint32(0x7FFFFFFF), jnp.float32), jnp.uint32(1))))


def gradients(number: int) -> dict[str, jax.Array]:
    key = jax.random.fold_in(jax.random.key(1), number)
    return {"m": jax.random.normal(key, (16, 24)), "norm": {"scale": jax.random.normal(key, (16,))}}


PARAMS = {"m": jax.random.normal(jax.random.key(0), (16, 24)).astype(jnp.bfloat16), "norm": {"scale": jnp.ones(16, jnp.bfloat16)}}
GIVEN = lambda number, _: gradients(number)  # noqa: E731
SETTINGS = {"learning_rate": 3e-4, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.1, "clip": 0.0}


def run(config: OptimizerConfig, params, gradient, updates: int):
    """Yields parameters and state after each update."""
    yield from run_optax(make_optimizer(config, updates), params, gradient, updates)


def run_optax(optimizer: optax.GradientTransformation, params, gradient, updates: int):
    @jax.jit
    def step(number, params, state):
        change, state = optimizer.update(gradient(number, params), state, params)
        return optax.apply_updates(params, change), state

    state = jax.jit(optimizer.init)(params)
    for number in range(updates):
        params, state = step(number, params, state)
        yield params, state


def test_in_float32_it_is_adamw():
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), PARAMS)
    peer = optax.adamw(3e-4, 0.9, 0.999, 1e-8, weight_decay=0.1, mask={"m": True, "norm": {"scale": False}})
    for ours, other in zip(run(OptimizerConfig(**SETTINGS), wide, GIVEN, 20), run_optax(peer, wide, GIVEN, 20), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), ours[0], other[0])


def test_bfloat16_parameters_are_their_master_rounded_and_the_master_is_what_float32_gives():
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), PARAMS)
    narrow = run(OptimizerConfig(master=True, **SETTINGS), PARAMS, GIVEN, 200)
    for (params, state), (expected, _) in zip(narrow, run(OptimizerConfig(**SETTINGS), wide, GIVEN, 200), strict=True):
        jax.tree.map(lambda p, m: np.testing.assert_array_equal(p, np.asarray(m).astype(jnp.bfloat16)), params, state.master)
        jax.tree.map(lambda m, e: np.testing.assert_allclose(m, e, atol=1e-6), state.master, expected)
    assert params["m"].dtype == jnp.bfloat16


def test_small_updates_of_bfloat16_parameters_add_up():
    """A step of 3e-4 at 1 is a twenty-sixth of what bfloat16 can tell apart: rounded to nearest, nothing would ever move."""
    params = {"m": jnp.ones((64, 64), jnp.bfloat16)}
    config = OptimizerConfig(learning_rate=3e-4, schedule="constant", warmup=0.0, clip=0.0)
    *_, (params, _) = run(config, params, lambda *_: {"m": jnp.ones((64, 64))}, 300)
    assert float(jnp.mean(params["m"].astype(jnp.float32))) == pytest.approx(1 - 300 * 3e-4, abs=1e-3)


def test_the_second_moment_in_bfloat16_follows_the_gradients():
    """v = 0.001 sum 0.999^k g^2. A change of 1 in 1,000 is less than bfloat16 tells apart."""
    gradient = lambda number, _: {"m": jnp.full((64, 64), jnp.where(number < 500, 1.0, 2.0))}  # noqa: E731
    config = OptimizerConfig(learning_rate=1e-3, state_dtype="bfloat16", clip=0.0)
    *_, (_, state) = run(config, {"m": jnp.zeros((64, 64))}, gradient, 1500)
    v = optax.tree.get(state, "nu")["m"]
    expected = (1 - 0.999**500) * 0.999**1000 + 4 * (1 - 0.999**1000)
    assert v.dtype == jnp.bfloat16
    assert float(jnp.mean(v.astype(jnp.float32))) == pytest.approx(expected, rel=5e-3)
    assert float(jnp.std(v.astype(jnp.float32))) < 0.1 * expected


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("float32", {}),
        ("float32", {"state_dtype": "bfloat16"}),
        ("bfloat16", {"state_dtype": "bfloat16"}),
        ("bfloat16", {"state_dtype": "bfloat16", "master": True}),
        ("bfloat16", {"name": "adafactor"}),
    ],
)
def test_a_regression_ends_at_its_minimum(dtype, options):
    draw = np.random.default_rng(0)
    x, true = draw.standard_normal((512, 32)), draw.standard_normal((32, 8))
    x, y = jnp.float32(x), jnp.float32(x @ true + 0.5 * draw.standard_normal((512, 8)))
    loss = lambda params: jnp.mean((x @ params["m"].astype(jnp.float32) - y) ** 2)  # noqa: E731
    batch = lambda number: jax.random.choice(jax.random.key(number), 512, (64,), replace=False)  # noqa: E731

    def gradient(number, params):
        chosen = batch(number)
        return jax.grad(lambda p: jnp.mean((x[chosen] @ p["m"].astype(jnp.float32) - y[chosen]) ** 2))(params)

    config = OptimizerConfig(learning_rate=2e-2, schedule="linear", warmup=0.0, **options)
    *_, (params, _) = run(config, {"m": jnp.zeros((32, 8), dtype)}, gradient, 600)
    least = float(loss({"m": jnp.linalg.lstsq(x, y)[0]}))
    assert float(loss(params)) < (1.01 if dtype == "float32" else 1.02) * least
