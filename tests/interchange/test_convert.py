"""The command `mira convert`: what it refuses, that nothing is half-written, and that an episode counts once."""

import json
import shutil

import msgspec
import pytest

from mira_jax.convert import COMMAND
from mira_jax.files import sole_writer
from mira_jax.trajectories.shards import ShardReader, write_shard
from tests.synthetic import trajectories, write_folder


def atif(tmp_path, count: int = 3):
    """A folder of ATIF files."""
    assert COMMAND.run([str(write_folder(tmp_path / "shards", count)), "--write", "atif", "--out", str(tmp_path / "atif")]) == 0
    return tmp_path / "atif"


def refused(capsys, *command: str) -> str:
    assert COMMAND.run(list(command)) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_bad_file_ends_the_command_and_nothing_is_written(tmp_path, capsys):
    folder = atif(tmp_path)
    (folder / "zz.json").write_text('{"steps": [NaN]}')
    out = tmp_path / "out"
    assert f"error: {folder / 'zz.json'}: " in refused(capsys, str(folder), "--read", "atif", "--out", str(out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["atif", "shards"]
    assert COMMAND.run([str(folder), "--read", "atif", "--out", str(out), "--skip"]) == 0
    assert f"skipped: {folder / 'zz.json'}: " in (printed := capsys.readouterr().out) and "3 episodes, 1 skipped" in printed
    assert len(ShardReader(out)) == 3


def test_an_episode_counts_once(tmp_path, capsys):
    folder = atif(tmp_path)
    first = min(folder.glob("*.json"))
    shutil.copy(first, folder / "zz.json")
    tree = json.loads(first.read_bytes())
    tree["extra"]["mira_jax"]["id"] = "another id, the same key"
    (folder / "zzz.json").write_text(json.dumps(tree))
    message = refused(capsys, str(folder), "--read", "atif", "--out", str(tmp_path / "out"))
    assert f"{folder / 'zz.json'}: the same episode as {first}; an episode counts once" in message
    assert COMMAND.run([str(folder), "--read", "atif", "--out", str(tmp_path / "out"), "--skip"]) == 0
    assert "3 episodes, 2 skipped" in capsys.readouterr().out


def test_episodes_that_json_cannot_hold_are_skipped_or_refused(tmp_path, capsys):
    episodes = trajectories(3)
    step = msgspec.structs.replace(
        episodes[1].steps[0], log_prob=float("nan"), page=msgspec.structs.replace(episodes[1].steps[0].page, screenshot=b"x")
    )
    episodes[1] = msgspec.structs.replace(episodes[1], steps=(step,))
    write_shard(tmp_path / "shards" / "episodes-00000.array_record", episodes)
    out = tmp_path / "out"
    command = [str(tmp_path / "shards"), "--write", "atif", "--out", str(out)]
    assert f"episode {episodes[1].id}: steps[0].log_prob: JSON cannot hold this value" in refused(capsys, *command)
    assert not out.exists()
    assert COMMAND.run([*command, "--skip"]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(f"{episodes[number].id}.json" for number in (0, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shards"], "read and write are both shards"),
        (["nowhere", "--read", "atif"], "nowhere: no such file or folder"),
        (["empty", "--read", "atif"], "empty: holds no ATIF files (*.json)"),
        (["empty", "--read", "webrl"], "empty: holds no training data, traces/ or fixed_traces/"),
        (["empty", "--write", "atif"], "empty: no shards here"),
        (["blank.jsonl", "--read", "browsergym"], "blank.jsonl: holds no episode"),
        (["blank.jsonl", "--read", "browsergym", "--skip"], "blank.jsonl: holds no episode"),
        (["odd.jsonl", "--read", "browsergym", "--skip"], "odd.jsonl: all 2 episodes are refused; odd.jsonl, line 1: "),
        (["shards", "--write", "atif", "--set", "prompt_price=1"], "prompt_price and response_price are given together"),
        (["shards", "--write", "atif", "--set", "tokenizer=empty"], "empty: no tokenizer"),
        (["shards", "--write", "jsonl"], "'jsonl' is none of shards, atif"),
        ([], "input: name the file or folder to read"),
    ],
)
def test_what_the_command_refuses(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "shards", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.jsonl").write_text("\n \n")
    (tmp_path / "odd.jsonl").write_text("{\n{\n")
    before = sorted(tmp_path.iterdir())
    assert message in refused(capsys, *arguments, "--out", "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_in_use_is_refused_and_one_of_a_killed_run_is_completed(tmp_path, capsys):
    folder, out = atif(tmp_path), tmp_path / "out"
    command = [str(folder), "--read", "atif", "--out", str(out)]
    with sole_writer(out, "something"):
        assert f"{out}: another process is writing" in refused(capsys, *command)
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "episodes-00000.array_record").write_bytes(b"half")
    out.mkdir()
    assert COMMAND.run(command) == 0 and len(ShardReader(out)) == 3
    assert not (tmp_path / "out.partial").exists()
    assert f"out: {out}: already exists" in refused(capsys, *command)


def test_a_large_file_is_read(tmp_path):
    """10 MB of page in one episode."""
    folder = atif(tmp_path, 1)
    path = next(folder.glob("*.json"))
    tree = json.loads(path.read_bytes())
    tree["steps"][1]["observation"]["results"][0]["content"] = "é" * 5_000_000
    path.write_text(json.dumps(tree), encoding="utf-8")
    assert COMMAND.run([str(path), "--read", "atif", "--out", str(tmp_path / "out")]) == 0
    assert len(ShardReader(tmp_path / "out")[0].steps[0].page.observation) == 5_000_000
