"""Preflight of configs, files and stage lists: everything that is wrong is listed at once, and nothing is written."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mira_jax import cli, needs
from mira_jax.config import build_leniently
from mira_jax.needs import Needs
from mira_jax.train import TrainConfig

ROOT = Path(__file__).parents[1]


def preflight(*arguments):
    return cli.main(["preflight", *map(str, arguments)])


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_all_errors_of_a_config_are_found():
    tree = {
        "uptades": 3,
        "optimizer": {"learning_rate": "fast", "beta1": 2, "accumulate": 3},
        "data": {"rows": 8, "folders": ["a", 5], "prompt": {"version": "new"}},
        "recipe": {"name": "actor", "objective": "mira", "beta": -1, "gama": 1},
        "out": "gs://bucket/run",
    }
    config, errors = build_leniently(TrainConfig, tree)
    assert sorted(error.path for error in errors) == [
        "data.folders.1", "data.prompt.version", "optimizer.accumulate", "optimizer.beta1", "optimizer.learning_rate", "out",
        "recipe.beta", "recipe.gama", "uptades",
    ]  # fmt: skip
    assert config.data.rows == 8 and config.optimizer.accumulate == 3, "values that are not refused are kept"
    assert config.optimizer.beta1 == TrainConfig().optimizer.beta1
    assert build_leniently(TrainConfig, {"updates": 3}) == (TrainConfig(updates=3), [])


def test_config_files_and_required_keys_are_listed_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "c.yaml").write_text("{data: {folders: [gone, empty]}, init_from: nowhere, log_every: 0, tokenizer: {path: none}}")
    before = sorted(tmp_path.rglob("*"))
    assert preflight("train", "--config", "c.yaml", "--set", "updates=few") == 2
    assert lines(capsys) == [
        "failed   log_every (c.yaml): 0; it must be at least 1",
        "failed   updates (--set): 'few'; expected: integer or null, at least 1",
        "missing  out: not set; give the folder of the run, for example --out runs/sft",
        "missing  data.folders.0: gone: no such file or folder; create it, or correct the path",
        "missing  data.folders.1: empty: contains no shards (*.array_record); name a folder written by mira collect or mira label",
        "missing  tokenizer.path: none: no such file or folder; create it, or correct the path",
        "missing  init_from: nowhere: no such file or folder; create it, or correct the path",
        "0 ok, 5 missing, 2 failed",
    ]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stage_list_knows_what_earlier_stages_write(tmp_path, capsys):
    stages = [
        {"name": "sft", "module": "mira_jax.train", "set": {"out": "{out}/sft", "data.folders": ["{out}/labels"], "seed": "{seed}"}},
        {"name": "score", "module": "mira_jax.score", "set": {"out": "{out}/scores", "episodes": ["{out}/l"], "policy": "{out}/sft"}},
        {"name": "odd", "module": "no.such.module"},
        {"name": "typo", "module": "mira_jax.train", "set": {"out": "{out}/b", "data.rws": 3}},
    ]
    (tmp_path / "phases.yaml").write_text(json.dumps({"out": str(tmp_path / "run"), "stages": stages}))
    assert preflight("phases", "--config", tmp_path / "phases.yaml") == 2
    shown = [line.replace(str(tmp_path), "TMP") for line in lines(capsys)]
    assert shown[0].startswith("ok       out: TMP/run: ") and shown[0].endswith("of disk space free")
    gone = "no such file or folder; create it, or correct the path"
    assert shown[1:] == [
        f"missing  sft: data.folders.0: TMP/run/labels: {gone}",
        f"missing  score: episodes.0: TMP/run/l: {gone}",
        "ok       score: policy: TMP/run/sft: written by an earlier stage",
        "failed   odd: no.such.module has no COMMAND (No module named 'no'), so its settings are not checked",
        "failed   typo: data.rws (set by the stage): unknown key data.rws; did you mean data.rows?",
        "missing  typo: data.folders: not set; give at least one folder of episodes",
        "2 ok, 3 missing, 2 failed",
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("stored", "failed"), [(31, 1), (32, 0)])
def test_a_stage_list_stores_the_alternatives_that_its_actor_reads(tmp_path, capsys, stored, failed):
    actor = {"out": "{out}/actor", "recipe": {"name": "actor", "support_weight": 1.0}, "data.side_tables": ["{out}/scores/policy.npz"]}
    stages = [
        {"name": "score", "module": "mira_jax.score", "set": {"out": "{out}/scores", "policy": "{out}/sft", "alternatives": stored}},
        {"name": "actor", "module": "mira_jax.train", "set": {**actor, "data.folders": ["{out}/labels"]}},
    ]
    (tmp_path / "phases.yaml").write_text(json.dumps({"out": str(tmp_path / "run"), "stages": stages}))
    preflight("phases", "--config", tmp_path / "phases.yaml")
    found = [line for line in lines(capsys) if line.startswith("failed")]
    assert len(found) == failed and all(
        "actor: data.side_tables.0: " in line and line.endswith("needs 32; set alternatives=32 there") for line in found
    )


def test_the_demo_lacks_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert preflight("--offline", "demo") == 0
    shown = lines(capsys)
    assert all(line.startswith("ok ") for line in shown[:-1]) and shown[-1].endswith("0 missing, 0 failed; 1 questions not asked")
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named(tmp_path):
    """In a process that has no JAX, as on a host that drives browsers."""
    code = "import sys; sys.modules['jax'] = None; from mira_jax import cli; sys.exit(cli.main(sys.argv[1:]))"
    (tmp_path / "p.yaml").write_text(json.dumps({"out": "run", "stages": [{"name": "sft", "module": "mira_jax.train"}]}))
    for arguments, key in ((["train"], "train"), (["phases", "--config", "p.yaml"], "sft")):
        command = [sys.executable, "-c", code, "preflight", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 2, done.stderr
        assert f"failed   {key}: jax: not installed; pip install 'mira-jax[train]'" in done.stdout


def test_space_permissions_ports_and_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("SET_KEY", "secret")
    monkeypatch.delenv("UNSET_KEY", raising=False)
    (tmp_path / "file").touch()
    found = Needs()
    found.output("a", str(tmp_path / "new" / "run"), 10**18)
    found.output("b", str(tmp_path / "file" / "run"))
    found.variable("c", "SET_KEY")
    found.variable("d", "UNSET_KEY")
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        found.port("e", "127.0.0.1", port)
    found.port("f", "127.0.0.1", 0)
    texts = {check.key: (check.result, check.text) for check in found.checks}
    assert texts["a"][0] == "failed" and texts["a"][1].endswith("931322574.6 GiB needed; free some, or choose another disk")
    assert texts["b"] == ("failed", f"{tmp_path / 'file' / 'run'}: {tmp_path / 'file'} is a file; choose another path")
    assert texts["c"] == ("ok", "the environment variable SET_KEY is set")
    assert texts["d"] == ("missing", "the environment variable UNSET_KEY is not set; export it")
    assert texts["e"][0] == "failed" and texts["e"][1].startswith(f"127.0.0.1:{port}: ") and "f" not in texts


async def test_questions_are_asked_at_the_same_time_and_end():
    both = asyncio.Barrier(2)

    async def meet(stack):
        await both.wait()
        return "met"

    async def never(stack):
        await asyncio.sleep(60)

    async def broken(stack):
        raise ZeroDivisionError("a defect")

    questions = [needs.Question(str(n), ask) for n, ask in enumerate((meet, meet, never, broken))]
    checks = await needs.answers(questions, seconds=1.0)
    assert [check.result for check in checks] == ["ok", "ok", "failed", "failed"]
    assert checks[2].text.startswith("no answer within 1 s") and checks[3].text == "ZeroDivisionError: a defect"
    assert needs.report(checks) == 2 and needs.report(checks[:2]) == 0


@pytest.mark.parametrize("arguments", [["trian"], ["train", "--config", "none.yaml"]])
def test_a_command_or_file_that_does_not_exist(arguments, capsys):
    assert preflight(*arguments) == 2
    shown = capsys.readouterr()
    assert "no such command; did you mean mira train" in shown.err or "none.yaml: cannot read the config" in shown.out
