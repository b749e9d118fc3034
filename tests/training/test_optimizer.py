"""Schedules, clipping, decay and both optimizers, against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.training.optimizer import OptimizerConfig, decays, learning_rate, make_optimizer


def rates(updates: int, **options) -> list[float]:
    rate = learning_rate(OptimizerConfig(learning_rate=1.0, **options), updates)
    return [float(rate(jnp.int32(i))) for i in range(updates)]


def test_constant_after_a_warm_up_of_a_share_of_the_updates():
    assert rates(10, schedule="constant", warmup=0.4) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)


def test_linear_falls_evenly_to_its_end():
    assert rates(5, schedule="linear", warmup=0.2) == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.25])
    assert rates(4, schedule="linear", warmup=0.0, end=0.5) == pytest.approx([1.0, 0.875, 0.75, 0.625])


def test_cosine_is_half_way_at_half_time():
    # (1 + cos(pi f)) / 2 at f = 0, 1/4, 1/2, 3/4
    assert rates(4, schedule="cosine", warmup=0.0) == pytest.approx([1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])


def test_adamw_with_clipping_equals_the_equations():
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", warmup=0.0, weight_decay=0.5, clip=1.0, beta1=0.9, beta2=0.99)
    optimizer = make_optimizer(config, 10)
    params = {"matrix": jnp.array([[1.0, -2.0]]), "norm": {"scale": jnp.array([3.0])}}
    state = optimizer.init(params)
    m = v = {"matrix": np.zeros((1, 2)), "scale": np.zeros(1)}
    expected = {"matrix": np.array([[1.0, -2.0]]), "scale": np.array([3.0])}
    for t, (a, b, c) in enumerate([(3.0, 0.0, 4.0), (0.1, 0.2, -0.2)], start=1):
        gradient = {"matrix": np.array([[a, b]]), "scale": np.array([c])}
        updates, state = optimizer.update({"matrix": jnp.array([[a, b]]), "norm": {"scale": jnp.array([c])}}, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        norm = np.sqrt(a * a + b * b + c * c)
        gradient = {name: g / max(1.0, norm) for name, g in gradient.items()}
        m = {name: 0.9 * m[name] + 0.1 * g for name, g in gradient.items()}
        v = {name: 0.99 * v[name] + 0.01 * g * g for name, g in gradient.items()}
        for name, decay in (("matrix", 0.5), ("scale", 0.0)):
            step = m[name] / (1 - 0.9**t) / (np.sqrt(v[name] / (1 - 0.99**t)) + 1e-8)
            expected[name] = expected[name] - 0.1 * (step + decay * expected[name])
    np.testing.assert_allclose(params["matrix"], expected["matrix"], rtol=1e-5)
    np.testing.assert_allclose(params["norm"]["scale"], expected["scale"], rtol=1e-5)


def test_adafactor_equals_the_equations():
    """Algorithm 4 of arXiv 1804.04235 without momentum, with absolute steps: R and C are means, the decay is 1 - t^-0.8."""
    shapes = {"groups": {"gate": (2, 130, 140), "scale": (2, 130)}}
    draw = np.random.default_rng(0)
    make = lambda size: jax.tree.map(lambda shape: size * draw.standard_normal(shape), shapes, is_leaf=lambda x: isinstance(x, tuple))  # noqa: E731
    config = OptimizerConfig(name="adafactor", learning_rate=0.1, schedule="constant", warmup=0.0, clip=0, weight_decay=0.5)
    optimizer = make_optimizer(config, 10)
    expected = make(1.0)
    params = jax.tree.map(jnp.float32, expected)
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    rows, columns, whole = np.zeros((2, 130)), np.zeros((2, 140)), np.zeros((2, 130))
    for t, size in enumerate((1.0, 30.0), start=1):
        gradients = make(size)
        updates, state = step(jax.tree.map(jnp.float32, gradients), state, params)
        params = optax.apply_updates(params, updates)
        kept = 1 - t**-0.8
        g = gradients["groups"]["gate"]
        rows = kept * rows + (1 - kept) * (g**2).mean(2)
        columns = kept * columns + (1 - kept) * (g**2).mean(1)
        v = rows[:, :, None] * columns[:, None, :] / rows.mean(1)[:, None, None]
        matrix = g / np.sqrt(v)
        matrix /= np.maximum(1, np.sqrt((matrix**2).mean((1, 2), keepdims=True)))
        g = gradients["groups"]["scale"]
        whole = kept * whole + (1 - kept) * g**2
        vector = g / np.sqrt(whole)
        vector /= np.maximum(1, np.sqrt((vector**2).mean(1, keepdims=True)))
        old = expected["groups"]
        expected["groups"] = {"gate": old["gate"] - 0.1 * (matrix + 0.5 * old["gate"]), "scale": old["scale"] - 0.1 * vector}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), params, expected)
    sizes = [leaf.size for leaf in jax.tree.leaves(state)]
    assert sum(sizes) < 2 * (130 + 140) + 2 * 130 + 20


def test_the_norm_of_bfloat16_gradients_is_that_of_the_numbers():
    gradient = jax.random.normal(jax.random.key(0), (300, 300)).astype(jnp.bfloat16)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1.0, schedule="constant", warmup=0.0, clip=1.0, beta1=0.0), 10)
    _, state = jax.jit(lambda g: optimizer.update(g, optimizer.init(g), g))({"m": gradient})
    clipped = optax.tree.get(state, "mu")["m"]
    exact = np.asarray(gradient, np.float64)
    np.testing.assert_allclose(clipped, exact / np.sqrt((exact**2).sum()), rtol=1e-5)


def test_norms_and_biases_do_not_decay():
    tree = {"tail": {0: {"norm": {"scale": 1}, "mlp": {"up": 1}}}, "heads": {"value": {"out_bias": 1, "out": 1}}}
    expected = {"tail": {0: {"norm": {"scale": False}, "mlp": {"up": True}}}, "heads": {"value": {"out_bias": False, "out": True}}}
    assert decays(tree) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"name": "adam"}, {"schedule": "step"}, {"state_dtype": "float16"}, {"warmup": 3}, {"end": -0.1}, {"accumulate": 0},
        {"learning_rate": -1e-3}, {"learning_rate": float("nan")}, {"weight_decay": -0.1}, {"clip": -1.0}, {"clip": float("inf")},
        {"beta1": 1.0}, {"beta2": -0.1}, {"beta2": 1.0}, {"epsilon": 0.0},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match="optimizer." + next(iter(options))):
        build(OptimizerConfig, options, prefix="optimizer.")
