"""A small training run, and functions that start it and read what it wrote."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mira_jax.train import COMMAND
from mira_jax.training.metrics import read_metrics

ROOT = Path(__file__).parents[2]


CONFIG = {
    "recipe": {"name": "sft"},
    "data": {"row_length": 192, "rows": 2, "prompt": {"version": "compact"}, "holdout": 0.1},
    "model": {"sizes": {"width": 32, "layers": 2, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64, "window": 32}},
    "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.01},
    "epochs": 3,
    "checkpoint": {"every": 7, "keep": 2},
    "log_every": 3,
}


def arguments(folder: Path, out: str, *overrides: str) -> list[str]:
    sets = [part for override in overrides for part in ("--set", override)]
    return ["--config", str(folder / "config.yaml"), "--out", str(folder / out), *sets]


def run(folder: Path, out: str, *overrides: str) -> int:
    """The exit code of the command, in this process."""
    return COMMAND.run(arguments(folder, out, *overrides))


def start(folder: Path, out: str, *overrides: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "mira_jax.train", *arguments(folder, out, *overrides)]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, process: subprocess.Popen, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)


def losses(run_folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(run_folder / "metrics.jsonl")]


def checkpoint_steps(run_folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (run_folder / "checkpoints").glob("*") if path.name.isdigit())


def all_but_complete(folder: Path, out: Path) -> tuple[int, int]:
    """Copies the undisturbed run without its end to `out`; the steps of (the checkpoint that is left, the last update)."""
    shutil.copytree(folder / "undisturbed", out)
    (out / "complete.json").unlink()
    before, newest = checkpoint_steps(out)
    shutil.rmtree(out / "checkpoints" / str(newest))
    return before, newest
