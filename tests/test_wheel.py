"""The wheel, installed in an environment of its own, in an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The environment: the wheel, and what this environment has beside mira_jax."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT, folder / "source", symlinks=True, ignore=shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__")
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(folder / "source")], check=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    assert {"mira_jax/configs/demo/phases.yaml", "mira_jax/py.typed", "rollouts/py.typed"} <= set(zipfile.ZipFile(wheel).namelist())
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True, timeout=300)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv"


def mira(installed: Path, folder: Path, *argv: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    command = [str(installed / "bin" / "mira"), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=folder, env=environment)


def test_the_commands_start_in_an_empty_folder(installed, tmp_path):
    shown = mira(installed, tmp_path, "demo", "--help")
    assert shown.returncode == 0 and shown.stdout.startswith("usage: mira demo ")
    stage = ["collect", "--config", "configs/shop/demonstrate.yaml", "--set", "episodes=2", "--out", "runs/shop/demonstrations"]
    done = mira(installed, tmp_path, *stage)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("runs/shop/demonstrations: 2 episodes wanted")
    labelled = mira(installed, tmp_path, "label", "--folder", "runs/shop/demonstrations", "--out", "runs/shop/labelled")
    assert labelled.returncode == 0 and "2 episodes labelled" in labelled.stdout


def test_another_rollouts_over_ours_is_named(installed, tmp_path):
    (package,) = installed.glob("lib/python*/site-packages/rollouts")
    own = (package / "__init__.py").read_text()
    (package / "__init__.py").write_text("from collections import abc\n")
    try:
        done = mira(installed, tmp_path, "collect", "--out", "x")
    finally:
        (package / "__init__.py").write_text(own)
    assert done.returncode == 2 and f"error: {package}: an unrelated distribution named rollouts" in done.stderr
