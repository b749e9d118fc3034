from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from mira_jax import commands, export
from mira_jax.models import huggingface

FIXTURE = Path(__file__).parent / "fixtures" / "gemma3" / "tail"


def run(*settings):
    argv = [part for setting in settings for part in ("--set", setting)]
    return commands.run(export.main, export.ExportConfig, "", flags=("checkpoint", "out"), argv=argv)


def test_export_gives_the_same_logits(tmp_path):
    assert run(f"checkpoint={FIXTURE}", f"out={tmp_path / 'out'}") == 0
    expected = np.load(FIXTURE / "expected.npz")
    model = huggingface.load(tmp_path / "out")
    logits = model.logits(model(jnp.asarray(expected["tokens"])))
    assert np.abs(logits - expected["logits"]).max() < 2e-4


def test_an_export_that_is_there_is_left_and_another_is_refused(tmp_path, capsys):
    out = f"out={tmp_path / 'out'}"
    assert run(f"checkpoint={FIXTURE}", out) == 0
    written = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert run(f"checkpoint={FIXTURE}", out) == 0 and "complete already" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == written
    assert run(f"checkpoint={FIXTURE}", out, "dtype=bfloat16") == 2 and "is already there" in capsys.readouterr().err
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "out" / "model.safetensors")
    assert run(f"checkpoint={FIXTURE}", out) == 2 and "is already there" in capsys.readouterr().err


def test_bad_input_is_one_message_and_exit_code_2(tmp_path, capsys):
    assert run(f"checkpoint={tmp_path / 'none'}", f"out={tmp_path / 'out'}") == 2
    assert run(f"checkpoint={FIXTURE}", f"out={FIXTURE.parent / 'scaled'}") == 2
    assert run(f"checkpoint={FIXTURE}", f"out={tmp_path / 'out'}", "dtype=int8") == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in errors] == ["error"] * 3
    assert not list(tmp_path.iterdir())
