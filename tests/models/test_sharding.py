import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.models.sharding import AXES, MeshConfig, make_mesh, partition

ROOT = Path(__file__).parents[2]

TOLERANCE = {"loss": 1e-5, "gradient": 5e-5}
"""Relative to the largest number of the same array, float32. Seen: 3e-7 and 5e-6."""


def on_eight_devices(*cases: str) -> dict:
    """What `tests.models.eight_devices` prints."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.models.eight_devices", *cases]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_losses_and_gradients_on_a_mesh_equal_those_of_one_device():
    errors = on_eight_devices("actor:data x fsdp x tensor", "actor:fsdp x sequence")
    assert len(errors) == 2
    for case, error in errors.items():
        assert all(error[name] < TOLERANCE[name] for name in TOLERANCE), (case, error)


@pytest.mark.slow
def test_losses_and_gradients_on_each_axis_alone_and_on_three_equal_those_of_one_device():
    alone = [f"actor:{axis}" for axis in AXES]
    errors = on_eight_devices(*alone, *(f"{loss}:fsdp x tensor x sequence" for loss in ("sft", "actor", "critic")))
    assert len(errors) == 7
    for case, error in errors.items():
        assert all(error[name] < TOLERANCE[name] for name in TOLERANCE), (case, error)


def test_no_device_ever_holds_more_than_its_part_of_the_parameters():
    shares = on_eight_devices("shares")
    assert shares["made"] < 0.14 and shares["restored"] < 0.14, shares
    assert shares["while made"] < 0.3, shares


@pytest.mark.slow
def test_attention_of_a_long_row_is_exact_and_gathers_keys_and_values_alone():
    row = on_eight_devices("long_row")
    assert row["error, window 512"] < 1e-5 and row["error, window None"] < 1e-5, row
    assert 0 < row["gathered"] <= 8 / 64, row


def test_axes_that_do_not_divide_stay_whole():
    rules = {"width": ("fsdp",), "heads": ("tensor",)}
    mesh = {"fsdp": 2, "tensor": 4}
    assert partition(("width", "heads", None), (16, 4, 8), mesh, rules) == P(("fsdp",), ("tensor",), None)
    assert partition(("width", "heads", None), (16, 1, 8), mesh, rules) == P(("fsdp",), None, None)


def test_rules_that_collide_are_refused():
    with pytest.raises(ValueError, match="one mesh axis"):
        partition(("width", "heads"), (4, 4), {"fsdp": 2}, {"width": ("fsdp",), "heads": ("fsdp",)})


def test_a_mesh_takes_all_devices_or_says_why_not():
    mesh = make_mesh(MeshConfig())
    assert dict(mesh.shape) == {"data": 1, "fsdp": len(jax.devices()), "tensor": 1, "sequence": 1}
    assert np.size(mesh.devices) == len(jax.devices())
    with pytest.raises(UserError, match="makes 3 devices"):
        make_mesh(MeshConfig(data=3, fsdp=1))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": -1}, "data and fsdp are -1; only one axis"),
        ({"tensor": 0}, "mesh.tensor: 0; it is at least 1"),
    ],
)
def test_sizes_that_say_nothing_are_refused(sizes, message):
    with pytest.raises(UserError, match=message):
        build(MeshConfig, sizes, prefix="mesh.")
