import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mira_jax import export, import_model
from mira_jax.models import huggingface

FIXTURE = Path(__file__).parent / "fixtures" / "gemma3" / "tail"


def run(*settings):
    argv = [part for setting in settings for part in ("--set", setting)]
    return export.COMMAND.run(argv)


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
    assert run(f"checkpoint={FIXTURE}", out, "dtype=bfloat16") == 2 and "already exists" in capsys.readouterr().err
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "out" / "model.safetensors")
    assert run(f"checkpoint={FIXTURE}", out) == 2 and "already exists" in capsys.readouterr().err


def test_bad_input_is_one_message_and_exit_code_2(tmp_path, capsys):
    assert run(f"checkpoint={tmp_path / 'none'}", f"out={tmp_path / 'out'}") == 2
    assert run(f"checkpoint={FIXTURE}", f"out={FIXTURE.parent / 'scaled'}") == 2
    assert run(f"checkpoint={FIXTURE}", f"out={tmp_path / 'out'}", "dtype=int8") == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in errors] == ["error"] * 3
    assert not list(tmp_path.iterdir())


COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)


@pytest.mark.parametrize("name", COPIED)
def test_nothing_outside_the_folder_is_copied(tmp_path, capsys, name):
    """Export and import alike; the vision tower's folder is read for the files of its processor."""
    (tmp_path / "secret").write_text('{"secret": 1}')
    folder = tmp_path / "model"
    shutil.copytree(FIXTURE.parent / "multimodal", folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../secret")
    assert run(f"checkpoint={folder}", f"out={tmp_path / 'out'}") == 2
    argv = ["--set", f"model={folder}", "--set", f"out={tmp_path / 'run'}"]
    assert import_model.COMMAND.run(argv) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    for line in errors:
        assert line.startswith(f"error: {folder / name}: is a link to {tmp_path / 'secret'}, outside of the model's folder")
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "model"}


def test_a_snapshot_in_the_cache_of_the_hub_is_exported(tmp_path):
    """Its files are links to ../../blobs, as huggingface_hub makes them."""
    snapshot, blobs = tmp_path / "models--x--y" / "snapshots" / "0123abcd", tmp_path / "models--x--y" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted((FIXTURE.parent / "multimodal").iterdir())):
        shutil.copyfile(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert run(f"checkpoint={snapshot}", f"out={tmp_path / 'out'}") == 0
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_symlink()]
    assert (tmp_path / "out" / "config.json").is_file()
