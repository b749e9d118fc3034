"""Schedules, clipping and decay, against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_norms_and_biases_do_not_decay():
    tree = {"tail": {0: {"norm": {"scale": 1}, "mlp": {"up": 1}}}, "heads": {"value": {"out_bias": 1, "out": 1}}}
    expected = {"tail": {0: {"norm": {"scale": False}, "mlp": {"up": True}}}, "heads": {"value": {"out_bias": False, "out": True}}}
    assert decays(tree) == expected


@pytest.mark.parametrize("options", [{"schedule": "step"}, {"warmup": 3}, {"accumulate": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        OptimizerConfig(**options)
