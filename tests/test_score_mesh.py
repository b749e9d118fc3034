"""`mira score` on a mesh of four simulated devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mira_jax import score, train
from mira_jax.config import build
from mira_jax.score import ScoreConfig
from mira_jax.train import TrainConfig
from mira_jax.trajectories.side_tables import SideTable
from tests import synthetic

SIZES = {"width": 32, "layers": 3, "query_heads": 4, "kv_heads": 2, "head_dim": 16, "mlp_width": 64, "scan_layers": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Episodes, a policy, adapters on it with a small change, and a critic."""
    folder = tmp_path_factory.mktemp("runs")
    synthetic.write_folder(folder / "episodes", count=8)

    def run(name, **keys):
        data = {"folders": [str(folder / "episodes")], "prompt": {"version": "compact", "max_tokens": 200}, "row_length": 512, "rows": 4}
        train.main(
            build(TrainConfig, {"out": str(folder / name), "data": data, "updates": 2, "optimizer": {"learning_rate": 1e-2}, **keys})
        )

    run("sft", recipe={"name": "sft"}, model={"sizes": SIZES}, tokenizer={"train": {"vocabulary_size": 320}})
    run("adapters", recipe={"name": "sft"}, init_from=str(folder / "sft"), lora={"rank": 2})
    run("critic", recipe={"name": "critic"}, init_from=str(folder / "sft"))
    return folder


def keys(folder, out, **more):
    models = {"policy": str(folder / "adapters"), "critic": str(folder / "critic")}
    return {"episodes": [str(folder / "episodes")], **models, "out": str(folder / out), "rows": 4, **more}


@pytest.fixture(scope="module")
def on_four_devices(folder):
    cases = [
        keys(folder, "sharded", param_dtype="bfloat16", alternatives=3, mesh={"fsdp": 2, "tensor": 2}),
        keys(folder, "split", alternatives=3, mesh={"data": 2, "fsdp": 1, "sequence": 2}),
        keys(folder, "none", mesh={"fsdp": 3}),
        keys(folder, "none", rows=6),
        keys(folder, "none", rows=1, row_length=510, mesh={"fsdp": 1, "sequence": 4}),
    ]
    overrides = [[f"{key}={json.dumps(value)}" for key, value in case.items()] for case in cases]
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "tests.score_on_four_devices", json.dumps(overrides)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("out", "param_dtype"), [("sharded", "bfloat16"), ("split", "float32")])
def test_scores_on_a_mesh_are_those_of_one_device_and_their_tables_are_kept(folder, on_four_devices, out, param_dtype, capsys):
    score.main(build(ScoreConfig, keys(folder, f"one-{param_dtype}", alternatives=3, param_dtype=param_dtype)))
    for kind in ("policy", "critic"):
        ours, theirs = (SideTable.read(folder / name / f"{kind}.npz") for name in (out, f"one-{param_dtype}"))
        assert (ours.ids, ours.made_by, set(ours.columns)) == (theirs.ids, theirs.made_by, set(theirs.columns))
        for name, column in ours.columns.items():
            np.testing.assert_allclose(column, theirs.columns[name], rtol=2e-6, err_msg=name)
        for name, tokens in ours.token_columns.items():
            np.testing.assert_array_equal(tokens.starts, theirs.token_columns[name].starts)
            np.testing.assert_allclose(tokens.values, theirs.token_columns[name].values, rtol=2e-6, err_msg=name)
        assert set(ours.token_columns) == ({"alternatives", "alternative_log_probs"} if kind == "policy" else set())
    capsys.readouterr()
    score.main(build(ScoreConfig, keys(folder, out, alternatives=3, param_dtype=param_dtype)))
    assert capsys.readouterr().out.count("complete") == 2


def test_parameters_are_cast_as_they_are_read_and_no_device_holds_more_than_its_part(on_four_devices):
    loaded = on_four_devices["loaded"]
    assert (loaded["matrices"], loaded["adapters"]) == (["bfloat16"], ["float32"])
    assert loaded["share"] < 0.3, "matrices are divided by four; norms are on every device"


def test_rounded_parameters_give_other_scores(folder, on_four_devices):
    rounded, whole = (SideTable.read(folder / name / "policy.npz").columns["log_prob"] for name in ("sharded", "split"))
    assert np.abs(rounded - whole).max() > 1e-3


def test_a_mesh_that_does_not_fit_is_refused(on_four_devices):
    assert [run["code"] or 0 for run in on_four_devices["runs"]] == [0, 0, 2, 2, 2]
    devices, rows, tokens = (run["error"] for run in on_four_devices["runs"][2:])
    assert "mesh: {'data': 1, 'fsdp': 3, 'tensor': 1, 'sequence': 1} makes 3 devices; there are 4" in devices
    assert "rows: 6 rows at once can't be shared evenly by 4 devices (mesh.data times mesh.fsdp)" in rows
    assert "row_length: 510 tokens can't be split evenly into mesh.sequence=4 parts" in tokens
