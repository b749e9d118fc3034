import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mira_jax.errors import UserError
from mira_jax.models.sharding import MeshConfig, _partition, make_mesh

EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from mira_jax.models.config import GLOBAL, LOCAL, Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.sharding import MeshConfig, batch_sharding, make_mesh, shardings

config = Gemma3Config(64, 16, 5, 4, 2, 8, 32, window=5, layer_types=(LOCAL, GLOBAL) * 2 + (LOCAL,), scan_layers=True)
graph, state = nnx.split(Gemma3(config, rngs=nnx.Rngs(0)))
tokens = jax.random.randint(jax.random.key(1), (4, 16), 1, 64)
segments = jnp.where(jnp.arange(16) < 7, 1, 2)[None].repeat(4, 0)
loss = lambda state, tokens, segments: jnp.sum(jnp.sin(nnx.merge(graph, state)(tokens, None, segments)))
value, gradient = jax.jit(jax.value_and_grad(loss))(state, tokens, segments)
for sizes in (MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(fsdp=2, sequence=4)):
    mesh = make_mesh(sizes)
    with jax.set_mesh(mesh):
        places = shardings(state, mesh)
        placed = jax.device_put(state, places)
        step = jax.jit(jax.value_and_grad(loss), out_shardings=(None, places))
        got, got_gradient = step(placed, *jax.device_put((tokens, segments), batch_sharding(mesh)))
    np.testing.assert_allclose(got, value, rtol=1e-4)
    for ours, expected in zip(jax.tree.leaves(got_gradient), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)
query = places["groups"][0]["attention"]["query"]
print(getattr(query, "get_value", lambda: query)().spec)
"""


def test_sharded_loss_and_gradients_equal_those_of_one_device():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run([sys.executable, "-c", EIGHT_DEVICES], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "fsdp" in done.stdout


def test_axes_that_do_not_divide_stay_whole():
    rules = {"width": ("fsdp",), "heads": ("tensor",)}
    mesh = {"fsdp": 2, "tensor": 4}
    assert _partition(("width", "heads", None), (16, 4, 8), mesh, rules) == P(("fsdp",), ("tensor",), None)
    assert _partition(("width", "heads", None), (16, 1, 8), mesh, rules) == P(("fsdp",), None, None)


def test_rules_that_collide_are_refused():
    with pytest.raises(ValueError, match="one mesh axis"):
        _partition(("width", "heads"), (4, 4), {"fsdp": 2}, {"width": ("fsdp",), "heads": ("fsdp",)})


def test_a_mesh_takes_all_devices_or_says_why_not():
    mesh = make_mesh(MeshConfig())
    assert dict(mesh.shape) == {"data": 1, "fsdp": len(jax.devices()), "tensor": 1, "sequence": 1}
    assert np.size(mesh.devices) == len(jax.devices())
    with pytest.raises(UserError, match="makes 3 devices"):
        make_mesh(MeshConfig(data=3, fsdp=1))
