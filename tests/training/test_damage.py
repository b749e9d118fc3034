"""Damaged, odd and foreign files in the folder of a run: each is one message that names the file and a remedy that works."""

import contextlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mira_jax.data.pipeline import Batches
from mira_jax.errors import UserError
from mira_jax.train import TrainConfig
from mira_jax.training.checkpoint import Checkpoints, latest_checkpoint
from mira_jax.training.load import load_model
from mira_jax.training.run_folder import RunFolder
from mira_jax.training.state import TrainState, params_of
from mira_jax.trajectories.tokenizer import Tokenizer
from tests.training.runs import all_but_complete, checkpoint_steps, losses, run


def test_a_full_disk_is_one_message(tmp_path):
    folder = RunFolder(tmp_path / "run", TrainConfig())
    for error in (OSError(28, "No space left on device"), ValueError("RESOURCE_EXHAUSTED: ... [os_error_code='28']")):
        with pytest.raises(UserError, match=r"No space left on device.* resumes from the last checkpoint"), folder.writing():
            raise error
    with pytest.raises(ValueError, match="another"), folder.writing():
        raise ValueError("another")


def test_a_checkpoint_that_can_not_be_written_is_one_message_and_leaves_nothing(tmp_path, monkeypatch, caplog):
    for hook in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    state = TrainState({"embedding": jax.random.normal(jax.random.key(0), (1000, 1000))}, {}, jnp.zeros((), jnp.int32))
    checkpoints = Checkpoints(tmp_path, keep=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"could not write .*File too large"), RunFolder(tmp_path / "new", None).writing():
            checkpoints.save(1, state, Batches([{}]))
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "checkpoints").iterdir())
    assert not caplog.records


@pytest.mark.parametrize("part", ["params", "optimizer", "data"])
@pytest.mark.parametrize("complete", [True, False])
def test_a_damaged_newest_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(folder, tmp_path, part, complete, capsys):
    out = tmp_path / "damaged"
    shutil.copytree(folder / "undisturbed", out)
    if not complete:
        (out / "complete.json").unlink()
    before, newest = checkpoint_steps(out)
    flip(largest(out / "checkpoints" / str(newest) / part), 77)
    with pytest.raises(UserError, match=f"{newest}: the checkpoint is damaged") if part == "params" else contextlib.nullcontext():
        load_model(out)
    assert run(folder, str(out)) == 0
    said = capsys.readouterr().err
    assert f"{newest}: the checkpoint is damaged: {part}/" in said and "differs from its checksum" in said
    assert f"it is now {newest}.damaged, and the run resumes from update {before}" in said
    assert losses(out) == losses(folder / "undisturbed")
    assert checkpoint_steps(out) == [before, newest] and (out / "checkpoints" / f"{newest}.damaged").is_dir()
    ours, theirs = (params_of(load_model(run)[0]) for run in (out, folder / "undisturbed"))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_what_is_said_of_a_damaged_checkpoint_works(folder, tmp_path):
    out = tmp_path / "it's damaged"
    shutil.copytree(folder / "undisturbed", out)
    before, newest = checkpoint_steps(out)
    flip(largest(out / "checkpoints" / str(newest) / "params"), 5)
    with pytest.raises(UserError) as refusal:
        load_model(out)
    command = str(refusal.value).partition(f"to use the one before it, of update {before}, run: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert latest_checkpoint(out).name == str(before)
    load_model(out)


def test_a_run_never_begins_again_because_all_its_checkpoints_are_damaged(folder, tmp_path, capsys):
    out = tmp_path / "damaged"
    shutil.copytree(folder / "undisturbed", out)
    for step in checkpoint_steps(out):
        flip(largest(out / "checkpoints" / str(step) / "params"), 5)
    kept = sorted(path for path in out.rglob("*") if path.is_file() and path.suffix != ".yaml")
    assert run(folder, str(out)) == 2
    assert "every checkpoint is damaged" in capsys.readouterr().err
    assert sorted(path for path in out.rglob("*") if path.is_file() and path.suffix != ".yaml") == kept


def test_a_checkpoint_that_another_update_is_named_after_is_refused(folder, tmp_path, capsys):
    out = tmp_path / "renamed"
    shutil.copytree(folder / "undisturbed", out)
    newest = checkpoint_steps(out)[-1]
    (out / "complete.json").unlink()
    (out / "checkpoints" / str(newest)).rename(out / "checkpoints" / str(newest - 1))
    (out / "checkpoints" / str(newest - 1) / "checksums.json").unlink()
    assert run(folder, str(out)) == 2
    assert f"{newest - 1}: holds update {newest} and batch {newest}, not those of its name" in capsys.readouterr().err


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("text", [b"", b'{"step": NaN}', b'{"st', b"[1]", b"\xff\x00", b"null", b"{}"])
@pytest.mark.parametrize("name", ["complete.json", "data.json", "config.yaml", "metrics.jsonl", "model.json"])
def test_odd_files_in_a_run_are_one_message_that_names_them(folder, tmp_path, name, text, capsys):
    out = tmp_path / "run"
    if name == "complete.json":
        shutil.copytree(folder / "undisturbed", out)
    else:
        all_but_complete(folder, out)
    (out / name).write_bytes(text + (b"\n{}\n" if name == "metrics.jsonl" and text else b""))
    if name == "model.json":
        with pytest.raises(UserError, match=r"model\.json: .*; restore a copy"):
            load_model(out)
        return
    if (name, text) in {("metrics.jsonl", b""), ("data.json", b"{}")}:
        return
    assert run(folder, str(out)) == 2
    said = capsys.readouterr().err
    assert sum(line.startswith("error: ") for line in said.splitlines()) == 1 and str(out / name) in said, said
    if name == "complete.json" and text == b"":
        assert "remove it and run the same command again" in said
        (out / name).unlink()
        assert run(folder, str(out)) == 0
        assert json.loads((out / name).read_text())["step"] == checkpoint_steps(out)[-1]


@pytest.mark.parametrize("name", ["model.json", "tokenizer.model"])
def test_a_flipped_bit_in_a_small_file_of_a_run_is_found(folder, tmp_path, name):
    """Most of them would read as another model, or as another tokenizer of the same size."""
    out = tmp_path / "run"
    shutil.copytree(folder / "undisturbed", out)
    whole, draw = (out / name).read_bytes(), random.Random(0)
    for _ in range(20):
        (out / name).write_bytes(whole)
        flip(out / name, draw.randrange(8 * len(whole)))
        with pytest.raises(UserError, match=rf"{re.escape(name)}: was damaged or changed after the run wrote it.* restore a copy"):
            Tokenizer(out) if name == "tokenizer.model" else load_model(out)
    (out / name).write_bytes(whole)
    Tokenizer(out), load_model(out)


def test_a_folder_that_is_no_run_is_left_alone(folder, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="not the folder of a training run"):
        RunFolder(tmp_path, None)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_run_killed_while_its_folder_was_made_begins_again(tmp_path):
    (tmp_path / ".config.yaml.77.part").write_text("half a con")
    RunFolder(tmp_path, TrainConfig()).create()
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "restart.txt"]


def test_load_model_says_what_is_missing(folder, tmp_path):
    with pytest.raises(UserError, match="no model here"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text((folder / "undisturbed" / "model.json").read_text())
    with pytest.raises(UserError, match="no checkpoint yet"):
        load_model(tmp_path)
