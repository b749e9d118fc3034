"""Several processes that train as one: the command itself, on simulated devices."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.models.sharding import MeshConfig, make_mesh
from mira_jax.train import COMMAND
from mira_jax.training.layout import Layout
from mira_jax.training.metrics import read_metrics
from mira_jax.training.processes import DistributedConfig, together
from tests import synthetic

ROOT = Path(__file__).parents[2]
CONFIG = {
    "recipe": {"name": "sft"},
    "data": {"row_length": 192, "rows": 8, "prompt": {"version": "compact"}},
    "model": {"sizes": {"width": 32, "layers": 2, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64, "window": 32}},
    "optimizer": {"learning_rate": 3e-3, "accumulate": 2},
    "updates": 60,
    "checkpoint": {"every": 40},
    "log_every": 3,
}
TWO_DEVICES = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a tokenizer and a config."""
    folder = tmp_path_factory.mktemp("processes")
    synthetic.write_folder(folder / "data", count=30)
    synthetic.write_tokenizer(folder / "tokenizer.model")
    config = {**CONFIG, "tokenizer": {"path": str(folder / "tokenizer.model")}}
    config["data"] = {**CONFIG["data"], "folders": [str(folder / "data")]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def start(folder):
    """Starts two processes of two devices each: (out, overrides of the second alone). None outlives the test."""
    started: list[subprocess.Popen] = []

    def start(out: str, *of_second: str) -> list[subprocess.Popen]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        for process in range(2):
            sets = ["mesh.data=2", "distributed.enabled=true", f"distributed.coordinator={coordinator}", "distributed.processes=2"]
            sets += [f"distributed.process={process}", *(of_second if process else ())]
            command = [sys.executable, "-m", "mira_jax.train", "--config", str(folder / "config.yaml"), "--out", str(folder / out)]
            command += [part for key in sets for part in ("--set", key)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, **TWO_DEVICES}, **pipes))
        return started[-2:]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """(exit code, all output) of each."""
    ended = [process.communicate() for process in processes]
    return [(process.returncode, out + err) for process, (out, err) in zip(processes, ended, strict=True)]


def alone(folder: Path, out: str) -> int:
    """The exit code of the command in this process, on its one device."""
    return COMMAND.run(["--config", str(folder / "config.yaml"), "--out", str(folder / out)])


def losses(run: Path) -> dict[int, float]:
    lines = read_metrics(run / "metrics.jsonl")
    assert len({line["step"] for line in lines}) == len(lines)
    return {line["step"]: line["loss"] for line in lines}


def test_two_processes_stop_as_one_and_go_on_as_two_or_as_one_with_the_losses_of_one(folder, start):
    two = start("two")
    # The metrics file is made before the first update is compiled. JAX looks once a second for a SIGTERM: while the run goes on.
    while not (folder / "two" / "metrics.jsonl").exists() and two[0].poll() is None:
        time.sleep(0.05)
    two[1].send_signal(signal.SIGTERM)
    (first, said), (second, said_second) = finish(two)
    assert (first, second) == (130, 130), said + said_second
    saved = [int(path.name) for path in (folder / "two" / "checkpoints").iterdir()]
    assert f"stopped after update {saved[-1]}, which is saved" in said and "stopped after" not in said_second
    assert 1 <= saved[-1] < CONFIG["updates"] and list(losses(folder / "two")) == list(range(1, saved[-1] + 1))

    shutil.copytree(folder / "two", folder / "then_one")
    config = folder / "then_one" / "config.yaml"
    config.write_text(config.read_text().replace(str(folder / "two"), str(folder / "then_one")))
    two = start("two")
    assert alone(folder, "one") == 0
    assert alone(folder, "then_one") == 0
    (first, said), (second, said_second) = finish(two)
    assert (first, second) == (0, 0), said + said_second
    assert f"continues after update {saved[-1]} of" in said and "continues after" not in said_second
    expected = losses(folder / "one")
    for name in ("two", "then_one"):
        ours = losses(folder / name)
        assert list(ours) == list(expected) == list(range(1, CONFIG["updates"] + 1))
        np.testing.assert_allclose(list(ours.values()), list(expected.values()), rtol=1e-3)
        assert json.loads((folder / name / "complete.json").read_text())["step"] == CONFIG["updates"]
    assert yaml.safe_load((folder / "two" / "config.yaml").read_text())["distributed"]["process"] is None


def test_what_fails_in_one_process_ends_both(folder, start):
    (first, said), (second, said_second) = finish(start("failing", "data.folders=[missing]"))
    assert (first, second) == (2, 2), said + said_second
    assert "error: distributed: process 1 of 2 failed; its own message says why" in said
    assert "no such folder of episodes" in said_second
    assert not (folder / "failing").exists()


def test_rows_of_a_batch_are_put_part_by_part_where_they_are_computed():
    layout = Layout(make_mesh(MeshConfig()))
    assert layout.rows(8, parts=2).tolist() == list(range(8))
    batch = {"tokens": np.arange(2 * 4 * 3).reshape(2, 4, 3)}
    np.testing.assert_array_equal(layout.put_batch(batch, rows=4)["tokens"], batch["tokens"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"coordinator": "host:1"}, "coordinator: has no effect without distributed.enabled=true"),
        ({"enabled": True, "coordinator": "host"}, "'host' is not HOST:PORT"),
        ({"enabled": True, "processes": 2, "process": 2}, "of 2 processes it is 0 to 1"),
    ],
)
def test_how_processes_meet_is_checked(keys, message):
    with pytest.raises(UserError, match=message):
        build(DistributedConfig, keys, prefix="distributed.")


def test_alone_what_fails_together_fails_as_it_is():
    with pytest.raises(KeyError), together():
        raise KeyError("a")
