"""Training stops when the holdout loss no longer falls. What is kept is the model of the lowest."""

import json

import jax
import numpy as np
import pytest
import yaml

from mira_jax.train import COMMAND
from mira_jax.training.checkpoint import latest_checkpoint
from mira_jax.training.load import load_model
from mira_jax.training.metrics import read_metrics
from mira_jax.training.state import params_of
from tests import synthetic

SIZES = {"width": 32, "layers": 1, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64, "window": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that soon overfits: few episodes, many epochs, a high rate."""
    folder = tmp_path_factory.mktemp("early")
    synthetic.write_folder(folder / "data", count=16)
    synthetic.write_tokenizer(folder / "tokenizer.model")
    config = {
        "recipe": {"name": "sft"},
        "data": {"folders": [str(folder / "data")], "row_length": 192, "rows": 2, "prompt": {"version": "compact"}, "holdout": 0.3},
        "model": {"sizes": SIZES},
        "tokenizer": {"path": str(folder / "tokenizer.model")},
        "optimizer": {"learning_rate": 2e-2, "schedule": "constant", "warmup": 0},
        "epochs": 40,
        "early_stopping": {"every": 4, "patience": 3},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert run(folder, "stopped") == 0
    return folder


def run(folder, out, *overrides):
    sets = [part for override in overrides for part in ("--set", override)]
    return COMMAND.run(["--config", str(folder / "config.yaml"), "--out", str(folder / out), *sets])


def holdout(folder, out):
    return {line["step"]: line["holdout/loss"] for line in read_metrics(folder / out / "metrics.jsonl") if "holdout/loss" in line}


def leaves(path):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params_of(load_model(path)[0]))]


def test_the_checkpoint_kept_is_that_of_the_lowest_holdout_loss(folder):
    measured = holdout(folder, "stopped")
    best = min(measured, key=measured.get)
    assert list(measured) == list(range(4, best + 13, 4))
    assert best < max(measured)
    assert latest_checkpoint(folder / "stopped").name == str(best)
    complete = json.loads((folder / "stopped" / "complete.json").read_text())
    assert complete["step"] == best and complete["metrics"]["holdout/loss"] == measured[best]


def test_its_parameters_are_those_of_a_run_of_as_many_updates(folder):
    best = int(latest_checkpoint(folder / "stopped").name)
    assert run(folder, "plain", f"updates={best}", "early_stopping=null") == 0
    ours, theirs = leaves(folder / "stopped"), leaves(folder / "plain")
    assert ours
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_command_again_changes_nothing(folder, capsys):
    assert run(folder, "stopped") == 0
    assert "complete already" in capsys.readouterr().out


def test_without_a_holdout_it_is_refused(folder, capsys):
    assert run(folder, "none", "data.holdout=0") == 2
    assert "early_stopping: there is no holdout to measure" in capsys.readouterr().err
