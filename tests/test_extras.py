"""The rollout side runs where nothing of the training side is installed, and a part that is missing is named with its remedy."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mira_jax import extras

ROOT = Path(__file__).parents[1]
WITHOUT = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from mira_jax.cli import main
sys.exit(main({argv}))
"""
TRAINING = {name.partition(".")[0] for name in extras.MODULES["train"]}


def without(absent: set[str], *argv: str, folder: Path) -> subprocess.CompletedProcess:
    code = WITHOUT.format(absent=absent, argv=list(argv))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, cwd=folder, env=environment
    )


@pytest.mark.parametrize("name", ["collect", "label", "evaluate", "compare", "report", "phases", "arena"])
def test_the_rollout_side_needs_nothing_of_the_training_side(name, tmp_path):
    done = without(TRAINING, name, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: mira {name} ")


@pytest.mark.parametrize("name", ["train", "serve", "demo"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(name, tmp_path):
    done = without(TRAINING, name, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: absl, flax, grain, h11, jax, ") and done.stderr.endswith(
        "not installed; pip install 'mira-jax[train]'\n"
    )


def test_base_requirements_hold_nothing_of_the_training_side():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = " ".join(project["dependencies"])
    assert not [name for name in ("jax", "flax", "optax", "orbax", "grain", "torch") if name in base]
    assert {"mira-jax[train]"} <= set(project["optional-dependencies"]["dev"]) & set(project["optional-dependencies"]["cuda"])


def test_an_unrelated_package_named_rollouts_is_named(tmp_path):
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "__init__.py").write_text('"""Somebody else\'s."""\n')
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "mira_jax", "collect", "--out", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/rollouts: an unrelated distribution named rollouts was installed over this package")
