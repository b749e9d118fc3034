"""`mira serve` on a mesh of four simulated devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def found():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "tests.serving.four_devices"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_completions_on_a_mesh_are_those_of_one_device(found):
    served = found["served"]
    assert served["equal tokens"] == served["equal tokens after a reload"] == 1
    assert all(served[name] < 1e-5 for name in ("log_probs", "sampling_log_probs", "prompt_log_probs")), served


def test_each_device_holds_its_part_of_the_parameters_and_of_the_cache(found):
    assert found["served"]["cache on a device"] == 1 / 4
    assert found["served"]["parameters on a device"] < 0.27, "matrices are divided by four; norms are on every device"


def test_the_host_holds_one_parameter_at_a_time(found):
    """In bytes of bfloat16, as a share of the whole: a parameter and its casts, but neither the model nor a float32 copy of it."""
    assert found["loaded"]["peak on the host"] < 0.6 and found["loaded"]["parameters on a device"] < 0.26, found["loaded"]


def test_adapters_and_batches_on_a_mesh(found):
    for name in ("alone", "in a batch"):
        assert found["adapted"][f"{name}: equal tokens"] == 1
        assert found["adapted"][f"{name}: log_probs"] < 1e-5, found


def test_a_mesh_that_does_not_fit_is_refused(found):
    assert found["served"]["message for 3"] == "mesh.tensor: 3 devices can't share 4 kv head(s) evenly; set a divisor of 4"
    assert found["served"]["message for 8"] == "mesh.tensor: 8 devices; there are 4: set this many or fewer"
