"""What is read of the TPU compiler's refusals, of which the first is that of libtpu 0.0.42, and train steps compiled with it."""

import jax
import pytest

from mira_jax import config as configs
from mira_jax.models.config import GLOBAL, LOCAL
from mira_jax.models.sharding import make_mesh
from mira_jax.recipes import make_recipe
from mira_jax.sizing.chips import parse_topology
from mira_jax.sizing.compiled import read_exhausted, tpu_devices
from mira_jax.sizing.plan import make_plan, make_workload
from mira_jax.train import TrainConfig


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
    plan = make_plan(config, recipe, make_workload(recipe, 4, 1, 1024, 400, 40), tpu=True)
    with jax.default_matmul_precision(config.model.precision):
        text = plan.lower(make_mesh(config.mesh, tpu_devices(parse_topology(topology)))).compile().as_text()
    kernels = [line for line in text.splitlines() if "tpu_custom_call" in line]
    for kernel in ("splash_mha_fwd_segmented", "splash_mha_dq_segmented", "splash_mha_dkv_segmented"):
        assert any(kernel in line for line in kernels), kernel
