"""What is read of compiled programs, and of the TPU compiler's refusals. The first message is that of libtpu 0.0.42."""

import json
import os
import subprocess
import sys

import jax
import pytest

from mira_jax import config as configs
from mira_jax.models.config import GLOBAL, LOCAL
from mira_jax.models.sharding import make_mesh
from mira_jax.recipes import make_recipe
from mira_jax.sizing.chips import parse_topology
from mira_jax.sizing.compiled import read_exhausted
from mira_jax.sizing.devices import absent_devices
from mira_jax.sizing.plan import make_plan, make_workload
from mira_jax.train import TrainConfig

SIZES = {"vocabulary_size": 96, "width": 64, "layers": 3, "query_heads": 4, "kv_heads": 2, "head_dim": 16, "mlp_width": 128, "window": 32}


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (48.28G) exceeds available HBM "
            "(15.75G).",
            48.28,
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.", 20.5),
    ],
)
def test_a_program_too_large_says_how_much_it_wants(message, gib):
    found = read_exhausted(message, seconds=1.0)
    assert not found.fits
    assert found.peak == gib * 2**30


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize(
    ("mesh", "head_dim", "dtype"),
    [({"fsdp": 2, "tensor": 2}, 256, "bfloat16"), ({"fsdp": 2, "sequence": 2}, 128, "float32")],
)
def test_the_train_step_for_a_tpu_has_the_splash_kernel(topology, mesh, head_dim, dtype):
    """In bfloat16 with the default precision of products, highest, which the compiler refuses for bfloat16."""
    pytest.importorskip("libtpu")
    jax.config.update("jax_platforms", "cpu")
    sizes = {"vocabulary_size": 512, "width": 256, "layers": 4, "query_heads": 4, "kv_heads": 2, "head_dim": head_dim, "mlp_width": 512}
    tree = {
        "model": {
            "sizes": {**sizes, "window": 256, "layer_types": [LOCAL, GLOBAL] * 2, "scan_layers": True},
            "dtype": dtype,
            "remat": "block",
        },
        "data": {"rows": 4, "row_length": 1024},
        "mesh": mesh,
    }
    config = configs.build(TrainConfig, tree)
    recipe = make_recipe(config.recipe)
    plan = make_plan(config, recipe, make_workload(recipe, 4, 1, 1024, 400, 40), parse_topology("v5p:1x1x1"))
    with jax.default_matmul_precision(config.model.precision):
        text = plan.lower(make_mesh(config.mesh, absent_devices(parse_topology(topology)))).compile().as_text()
    kernels = [line for line in text.splitlines() if "tpu_custom_call" in line]
    for kernel in ("splash_mha_fwd_segmented", "splash_mha_dq_segmented", "splash_mha_dkv_segmented"):
        assert any(kernel in line for line in kernels), kernel


def compiled(tmp_path, *arguments):
    """The JSON of `mira size` with a compiler: in its own process, because the tests' XLA_FLAGS change what is compiled."""
    path = tmp_path / "size.json"
    sizes = ["--set", f"model.sizes={json.dumps(SIZES)}", "--set", "prompt_tokens=50", "--set", "response_tokens=10"]
    rows = ["--set", "data.rows=16", "--set", "data.row_length=128"]
    command = [sys.executable, "-m", "mira_jax.size", *sizes, *rows, "--json", str(path), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "compiler is not installed" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())["sizings"][0]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("topology", ["a100:1", "h100:1", "h200:1", "b200:1"])
def test_a_step_is_compiled_for_one_gpu(topology, tmp_path):
    tree = compiled(tmp_path, "--topology", topology)
    found = tree["compiled"]
    # fp32 parameters and moments, and the batch, of which no array exceeds 16 rows of 128 numbers of 4 bytes.
    state = 12 * tree["parameters"]
    assert state < found["arguments"] < state + 20 * 16 * 128 * 4
    assert found["arguments"] < found["peak"] < found["arguments"] + 2 * sum(tree["estimate"]["memory"].values())
    assert found["fits"] and found["hbm_bytes"] > found["arguments"] and not found["sent"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_step_is_compiled_for_two_hosts_of_gpus(tmp_path):
    tree = compiled(tmp_path, "--topology", "h200:2x8", "--set", "mesh.fsdp=8", "--set", "mesh.tensor=2")
    found = tree["compiled"]
    assert {"fsdp", "tensor"} <= set(found["sent"])
    assert {"all-gather", "all-reduce"} <= set(found["sent_by_kind"])
    assert found["arguments"] < 12 * tree["parameters"] / 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_programs_of_a_server_are_compiled_for_a_gpu(tmp_path):
    tree = compiled(tmp_path, "--topology", "h100:1", "--what", "serve", "--set", "serve.max_length=512", "--set", "serve.rows=2")
    prefill, decode = (program["compiled"] for program in tree["programs"])
    # The numbers of the rows and of the programs are small.
    assert prefill["arguments"] == pytest.approx(4 * tree["parameters"], abs=8192)
    assert decode["arguments"] == pytest.approx(4 * tree["parameters"] + tree["held"]["cache"], abs=8192)
    assert tree["peak"] > sum(tree["held"].values())
