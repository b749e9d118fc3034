"""The command as a process: killed, stopped, started again, given bad input."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mira_jax.files import sole_writer
from mira_jax.models import huggingface
from mira_jax.train import COMMAND
from mira_jax.training.checkpoint import latest_checkpoint
from mira_jax.training.layout import Layout
from mira_jax.training.load import load_model
from mira_jax.training.metrics import read_metrics
from mira_jax.training.setup import ModelConfig, describe_model
from mira_jax.training.state import params_of
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic
from tests.training.runs import all_but_complete, checkpoint_steps, losses, run, start, wait_for


def test_a_run_leaves_what_the_others_read(folder):
    out = folder / "undisturbed"
    complete = json.loads((out / "complete.json").read_text())
    lines = read_metrics(out / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, complete["step"] + 1))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert complete["metrics"]["loss"] == lines[-1]["loss"] and complete["seconds"] > 0
    assert "holdout/loss" in lines[-1] and lines[-1]["holdout/loss"] < lines[0]["loss"]
    assert checkpoint_steps(out) == [complete["step"] // 7 * 7, complete["step"]]
    restart = shlex.split((out / "restart.txt").read_text())
    assert restart == [
        "cd",
        os.getcwd(),
        "&&",
        sys.executable,
        "-m",
        "mira_jax.train",
        "--config",
        str(out / "config.yaml"),
        "--out",
        str(out),
    ]
    assert list((out / "tensorboard").glob("events*"))
    model, config = load_model(out)
    assert config.width == 32 and config.vocabulary_size <= 320
    assert np.isfinite(np.asarray(model.logits(model(np.ones((1, 4), np.int32))))).all()


def test_killed_stopped_and_started_again_it_has_the_losses_of_an_undisturbed_run(folder):
    """Also with other numbers of workers, and without the token cache."""
    out = folder / "disturbed"

    process = start(folder, "disturbed", "data.workers=1")
    try:
        wait_for(lambda: any(step >= 7 for step in checkpoint_steps(out)), process)
    finally:
        process.kill()
        process.communicate()
    assert not (out / "complete.json").exists()

    killed = (out / "metrics.jsonl").stat().st_ino
    process = start(folder, "disturbed", "data.workers=2", "data.cache=''")
    wait_for(lambda: (out / "metrics.jsonl").stat().st_ino != killed and losses(out)[-1][0] > 9, process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    step = int(latest_checkpoint(out).name)
    assert re.search(r"continues after update \d+ of", stderr)
    assert f"stopped after update {step}, which is saved" in stderr and f"--config {out / 'config.yaml'}" in stderr
    assert not (out / "complete.json").exists() and losses(out)[-1][0] == step

    done = subprocess.run(["sh", "-c", (out / "restart.txt").read_text()], cwd="/", capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert losses(out) == losses(folder / "undisturbed")
    ours, theirs = (json.loads((folder / name / "complete.json").read_text())["metrics"] for name in ("disturbed", "undisturbed"))
    assert ours["holdout/loss"] == theirs["holdout/loss"]


def test_a_run_on_a_mesh_has_the_losses_of_one_device_and_goes_on_there(folder):
    out = folder / "mesh"
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    process = start(folder, "mesh", "mesh.data=2", "mesh.fsdp=1", "mesh.tensor=2", environment=flags)
    wait_for(lambda: any(step >= 7 for step in checkpoint_steps(out)), process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert run(folder, "mesh") == 0
    ours, theirs = losses(out), losses(folder / "undisturbed")
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    np.testing.assert_allclose([loss for _, loss in ours], [loss for _, loss in theirs], rtol=2e-3)


def test_a_complete_run_is_not_run_again(folder, capsys):
    before = (folder / "undisturbed" / "metrics.jsonl").stat().st_mtime_ns
    assert run(folder, "undisturbed") == 0
    assert "complete already" in capsys.readouterr().out
    assert (folder / "undisturbed" / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_run_killed_between_its_last_checkpoint_and_its_end_is_finished(folder, capsys):
    out = folder / "all_but_finished"
    shutil.copytree(folder / "undisturbed", out)
    (out / "complete.json").unlink()
    assert run(folder, "all_but_finished") == 0
    ours, theirs = (json.loads((folder / name / "complete.json").read_text()) for name in ("all_but_finished", "undisturbed"))
    assert (ours["step"], ours["metrics"]) == (theirs["step"], theirs["metrics"])
    assert losses(out) == losses(folder / "undisturbed")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rate=1e-4", "optimizer.learning_rate is 0.003 there and 0.0001 now"),
        ("optimizer.learningrate=1", "did you mean optimizer.learning_rate?"),
        ("recipe.name=sgd", "recipe.name: 'sgd' is none of sft, critic, orm, checker, actor"),
        ("recipe.normalise=step", "--set: unknown key recipe.normalise; did you mean recipe.normalize?"),
        ("optimizer.accumulate=3", "2 rows can't be divided into 3 equal parts"),
        ("updates=0", "updates: 0; it must be at least 1"),
        ("log_every=0", "log_every: 0; it must be at least 1"),
        ("epochs=0", "epochs: 0.0; it must be above 0"),
        ("checkpoint.every=0", "checkpoint.every: 0; it must be at least 1"),
        ("data.holdout=-1", "--set: data.holdout: -1.0; it must be at least 0 and below 1"),
        ("mesh.data=-1", "mesh: data and fsdp are -1; only one axis can take the remaining devices"),
    ],
)
def test_a_run_with_another_config_is_refused_and_left_as_it_is(folder, override, message, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "undisturbed").iterdir()}
    assert run(folder, "undisturbed", override) == 2
    assert message in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "undisturbed").iterdir()} == before


def test_bad_data_and_sizes_are_refused_before_anything_is_written(folder, capsys):
    def error(*overrides: str) -> str:
        assert run(folder, "new", *overrides) == 2
        assert not (folder / "new").exists()
        return capsys.readouterr().err

    assert "no such folder of episodes" in error("data.folders=[missing]")
    assert "no such side table" in error("data.side_tables=[missing.npz]")
    assert "steps are longer than 20 tokens" in error("data.row_length=20")
    assert "no such folder of a model" in error("init_from=missing", "model={}")
    assert "sizes come from init_from" in error(f"init_from={folder / 'undisturbed'}")
    assert "has 320 pieces, the model 10 words" in error("model.sizes.vocabulary_size=10")
    assert "can't share 2 kv heads" in error("model.sizes.query_heads=3", "model.sizes.kv_heads=2")


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(folder, capsys, tmp_path):
    huggingface.save(load_model(folder / "undisturbed")[0], tmp_path / "hub", folder / "tokenizer.model")
    tensors = load_file(tmp_path / "hub" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = np.zeros((2, 2), np.float32)
    save_file(tensors, tmp_path / "hub" / "model.safetensors")
    (tmp_path / "unborn").mkdir()
    (tmp_path / "unborn" / "model.json").write_text((folder / "undisturbed" / "model.json").read_text())
    for origin, message in (("hub", "model.layers.1.mlp.up_proj.weight has shape (2, 2)"), ("unborn", "no checkpoint yet")):
        assert run(folder, "new", f"init_from={tmp_path / origin}", "model={}") == 2
        assert message in capsys.readouterr().err
        assert not (folder / "new").exists()


def test_a_critic_starts_on_the_trunk_of_a_policy(folder):
    policy, sizes = load_model(folder / "undisturbed")
    tokenizer = Tokenizer(folder / "undisturbed")
    model = describe_model(ModelConfig(), str(folder / "undisturbed"), ("value",), tokenizer, seed=0)
    params = model.make_params(Layout())
    assert model.config == sizes and list(params["heads"]) == ["value"]
    jax.tree.map(np.testing.assert_array_equal, params["trunk"], params_of(policy))


def test_a_run_that_was_moved_with_what_it_reads_goes_on(folder, tmp_path, capsys, monkeypatch):
    before, newest = all_but_complete(folder, tmp_path / "the moved" / "run")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("the moved")
    shutil.copytree(folder / "data", tmp_path / "data")
    shutil.copyfile(folder / "tokenizer.model", tmp_path / "other name.model")
    for out in (f"{tmp_path}/the moved/run", "the moved/run/", "./the moved/../the moved/run", "link/run"):
        config = ["--config", str(folder / "config.yaml"), "--out", out, "--set", "seed=1"]
        assert COMMAND.run(config) == 2
        assert "another config: seed is 0 there and 1 now; choose" in capsys.readouterr().err
    config = ["--config", str(folder / "config.yaml"), "--out", "link/run/"]
    moved = ["--set", "data.folders=[data]", "--set", "tokenizer.path=other name.model"]
    assert COMMAND.run([*config, *moved]) == 0
    assert f"continues after update {before} of {newest}" in capsys.readouterr().err
    assert losses(tmp_path / "the moved" / "run") == losses(folder / "undisturbed")
    assert sorted(os.listdir(tmp_path)) == ["data", "link", "other name.model", "the moved"]


def test_what_is_said_of_a_run_with_another_config_goes_on_there(folder, tmp_path, capsys):
    before, newest = all_but_complete(folder, tmp_path / "run")
    assert run(folder, str(tmp_path / "run"), "optimizer.learning_rate=1e-4") == 2
    command = capsys.readouterr().err.partition("resume with the old config: ")[2]
    done = subprocess.run(["sh", "-c", command], cwd="/", capture_output=True, text=True, timeout=240)
    assert f"continues after update {before} of {newest}" in done.stderr, done.stderr
    assert losses(tmp_path / "run") == losses(folder / "undisturbed")


def test_other_data_or_another_tokenizer_under_a_new_name_are_refused(folder, tmp_path, capsys):
    all_but_complete(folder, tmp_path / "run")
    synthetic.write_folder(tmp_path / "data", count=31, infra_every=6)
    assert run(folder, str(tmp_path / "run"), f"data.folders=[{tmp_path / 'data'}]") == 2
    assert "use the same inputs as then" in capsys.readouterr().err
    (tmp_path / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes()[:-1])
    assert run(folder, str(tmp_path / "run"), f"tokenizer.path={tmp_path / 'tokenizer.model'}") == 2
    assert "tokenizer.model" in capsys.readouterr().err
    assert run(folder, str(tmp_path / "run"), f"init_from={folder / 'undisturbed'}", "model={}") == 2
    assert "another config" in capsys.readouterr().err


def test_two_trainers_never_share_a_folder(folder, tmp_path, capsys):
    with sole_writer(tmp_path / "run", "a training run"):
        assert run(folder, str(tmp_path / "run")) == 2
    assert f"{tmp_path / 'run'}: another process is writing a training run here" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("every", "log_every", "times"), [(1, 10, 2), (100, 10, 1)])
def test_a_loss_that_is_not_finite_ends_the_run_and_the_last_good_checkpoint_is_kept(folder, tmp_path, every, log_every, times, capsys):
    out = tmp_path / "run"
    divergent = f"checkpoint.every={every}", f"log_every={log_every}", "optimizer.learning_rate=1e30", "updates=20"
    for _ in range(times):
        assert run(folder, str(out), *divergent) == 2
        said = capsys.readouterr().err
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and re.match(r"error: update \d+: .* (is nan|is inf|not finite); training stops", errors[0]), said
        assert "lower optimizer.learning_rate" in errors[0] and not (out / "complete.json").exists()
        kept = checkpoint_steps(out)
        assert (f"the checkpoint of update {kept[-1]} is kept" if kept else "there is no checkpoint yet") in errors[0]
        if kept:
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(params_of(load_model(out)[0]))))
    for line in (out / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
