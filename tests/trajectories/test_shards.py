"""Spool, shards, sidecars and side tables: nothing lost, nothing doubled, damage named."""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_jax.errors import UserError
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import FORMAT, Action, Outcome, Page, Policy, Status, Step, Task, TokenCounts, Trajectory, decode, encode
from mira_jax.trajectories.shards import ShardReader, Spool, StepIndex, pack, write_shard
from mira_jax.trajectories.side_tables import Provenance, SideTable, check
from mira_jax.trajectories.token_columns import TokenColumn
from tests import synthetic

TASK = Task(
    id="shop.buy.train.1",
    suite="arena",
    sites=("shop",),
    template="buy",
    split="train",
    seed=1,
    intent="Buy",
    start_url="__SHOP__/",
    horizon=5,
)


MADE = Provenance(
    columns=("value",), checkpoint="run@7", fingerprint="f", base="b", prompt=PromptConfig("compact", 240), tokenizer="t",
    dtype="float32", param_dtype="float32", precision="highest",
)  # fmt: skip


def episode(attempt: int, steps: int = 2, text: str = "page") -> Trajectory:
    turns = tuple(
        Step(index=i, page=Page(url="/", observation=text), response="exit()", action=Action(name="exit"), state={"cart": [1]})
        for i in range(steps)
    )
    outcome = Outcome(success=True, score=1.0, source="rule")
    return Trajectory(
        id=f"e{attempt}", task=TASK, attempt=attempt, policy=Policy(name="p"), steps=turns, status=Status.FINISHED, outcome=outcome
    )


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=200), steps=st.integers(0, 5))
def test_a_record_survives_the_round_trip(text, steps):
    assert decode(encode(episode(3, steps, text))) == episode(3, steps, text)


def test_a_shard_of_format_1_is_read(tmp_path):
    """Written by the version before format 2; the episodes are made up by a function that has not changed since."""
    reader = ShardReader("tests/fixtures/format1")
    assert len(reader) == 7 and reader.steps_per_record.tolist() == [len(item.steps) for item in reader]
    made = synthetic.trajectories(6, infra_every=3)
    assert [msgspec.structs.replace(item, format=FORMAT) for item in reader[:6]] == made
    assert all(item.format == 1 for item in reader)
    explored = reader[6]
    assert explored.key == "synthetic.copy.train.0|0|2|small@sft|t0.7s3" and explored.evidence.answer == "done"
    assert explored.steps[0].page.screenshot == b"\xff\xd8" and explored.steps[0].tokens == TokenCounts(prompt=90, response=12)
    step, policy = explored.steps[0], explored.policy
    assert step.token_ids is step.log_probs is step.sampling_log_probs is None and step.prompt_hash == policy.fingerprint == ""
    assert reader.ids() == [*(item.id for item in made), explored.id]
    assert set(Spool("tests/fixtures/format1").fingerprints().values()) == {""}
    # Written again, the record says what it was, and its sidecar says more.
    write_shard(tmp_path / "e-00000.array_record", reader[:])
    assert list(ShardReader(tmp_path)) == list(reader) and ShardReader(tmp_path).ids() == reader.ids()


def test_what_was_drawn_survives_the_round_trip():
    drawn = {"prompt_hash": "ab", "token_ids": (5, 106), "log_probs": (-0.5, -0.25), "sampling_log_probs": None}
    step = msgspec.structs.replace(episode(0).steps[0], **drawn)
    whole = msgspec.structs.replace(episode(0), steps=(step,))
    assert decode(encode(whole)) == whole


def test_a_folder_named_twice_is_refused_however_it_is_spelled(tmp_path, monkeypatch):
    Spool(tmp_path / "a").add(episode(0))
    pack(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    for other in ("a", "a/", "./a", "a/../a", str(tmp_path / "a"), "link"):
        with pytest.raises(UserError, match="are the same folder"):
            ShardReader(["a", other])


def test_an_episode_in_two_folders_is_refused(tmp_path):
    def written(name, *episodes):
        write_shard(tmp_path / name / "e-00000.array_record", episodes)
        return tmp_path / name

    def by(weights, id):
        return msgspec.structs.replace(episode(0), id=id, policy=Policy(name="p", fingerprint=weights))

    first, other = written("first", by("w1", "x"), episode(1)), written("other", by("w2", "y"), episode(2))
    assert len(ShardReader([first, other])) == 4  # one key, by weights that are known to differ
    for name, copy in (("id", by("w2", "x")), ("key", by("w1", "z")), ("unknown", by("", "z"))):
        with pytest.raises(UserError, match=r"e-00000\.array_record both hold the episode of (id x|key shop\.buy\.train\.1\|1\|0\|p@)"):
            ShardReader([first, written(name, copy)])
    with pytest.raises(UserError, match=r"both hold the episode of key .*name only one of the two folders"):
        ShardReader([Path("tests/fixtures/format1"), written("again", *ShardReader("tests/fixtures/format1"))])


def test_tables_that_do_not_fit_what_is_read_are_named():
    def table(name="t", shards=("s1", "s2"), **other):
        return SideTable(["a"], np.array([0]), {"value": np.array([0.1])}, [dataclasses.replace(MADE, **other)], shards, name)

    check([table()], ["s1"], MADE.prompt, MADE.tokenizer)
    check([table(shards=["s1"]), table(shards=["s2"], fingerprint="of another fold")], ["s1", "s2"])
    for tables, shards, message in (
        ([table()], ["s1", "s3"], "t: value was not computed on these shards"),
        ([table(), table("u", fingerprint="g")], ["s1"], "t and u: both have value of the same episodes, by different models"),
        ([table(prompt=PromptConfig("webrl", 240))], ["s1"], "prompt.version webrl, not compact"),
        ([table(tokenizer="x" * 64)], ["s1"], f"tokenizer {'x' * 12}, not t"),
    ):
        with pytest.raises(UserError, match=message):
            check(tables, shards, MADE.prompt, MADE.tokenizer)


def test_a_critic_may_have_seen_subgoals_and_a_policy_not():
    seen = dataclasses.replace(MADE, prompt=dataclasses.replace(MADE.prompt, subgoals=True))
    for columns, accepted in ((("value",), True), (("log_prob", "token_count"), False)):
        made = dataclasses.replace(seen, columns=columns)
        table = SideTable(["a"], np.array([0]), dict.fromkeys(columns, np.array([0.1])), [made], ["s1"], "t")
        if accepted:
            check([table], ["s1"], MADE.prompt, MADE.tokenizer)
        else:
            with pytest.raises(UserError, match=r"prompt\.subgoals"):
                check([table], ["s1"], MADE.prompt, MADE.tokenizer)


def test_a_newer_format_is_refused():
    record = msgspec.to_builtins(episode(0)) | {"format": FORMAT + 1}
    with pytest.raises(UserError, match=f"format {FORMAT + 1} is newer than {FORMAT}"):
        decode(msgspec.msgpack.encode(record), "x")


def test_packing_keeps_every_episode_once(tmp_path):
    spool = Spool(tmp_path)
    for attempt in range(5):
        spool.add(episode(attempt, steps=attempt))
    spool.add(episode(2, steps=2))
    assert len(pack(tmp_path, per_shard=2)) == 3
    reader = ShardReader(tmp_path)
    assert sorted(trajectory.attempt for trajectory in reader) == [0, 1, 2, 3, 4]
    assert not spool.paths() and spool.keys() == set(reader.keys())
    spool.add(episode(9))
    pack(tmp_path)
    assert sorted(trajectory.attempt for trajectory in ShardReader(tmp_path)) == [0, 1, 2, 3, 4, 9]


def test_a_packer_that_died_before_emptying_the_spool_doubles_nothing(tmp_path):
    spool = Spool(tmp_path)
    for attempt in range(3):
        spool.add(episode(attempt))
    write_shard(tmp_path / "episodes-00000.array_record", list(spool.trajectories()))
    assert len(spool.paths()) == 3
    assert pack(tmp_path) == [] and not spool.paths()
    assert len(ShardReader(tmp_path)) == 3


def test_a_shard_without_sidecar_is_not_read(tmp_path):
    Spool(tmp_path).add(episode(0))
    pack(tmp_path)
    (tmp_path / "episodes-00001.array_record").write_bytes(b"half a shard of a killed writer")
    assert len(ShardReader(tmp_path)) == 1


def test_packing_killed_at_any_moment_loses_nothing(tmp_path):
    spool = Spool(tmp_path)
    for attempt in range(200):
        spool.add(episode(attempt))
    code = f"from mira_jax.trajectories.shards import pack; print('go', flush=True); pack({str(tmp_path)!r}, per_shard=7)"
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    pack(tmp_path)
    assert sorted(trajectory.attempt for trajectory in ShardReader(tmp_path)) == list(range(200))


@pytest.mark.parametrize("damage", ["cut", "alter"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    Spool(tmp_path).add(episode(0))
    (shard,) = pack(tmp_path)
    data = bytearray(shard.read_bytes())
    if damage == "alter":
        data[len(data) // 2] ^= 1
    shard.write_bytes(data if damage == "alter" else data[:-100])
    with pytest.raises(UserError, match=r"episodes-00000\.array_record: the shard is cut short or altered"):
        ShardReader(tmp_path)


def test_sidecars_of_a_newer_format_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        ShardReader(tmp_path / "none")
    with pytest.raises(UserError, match="no shards here"):
        ShardReader(tmp_path)
    Spool(tmp_path).add(episode(0))
    (shard,) = pack(tmp_path)
    sidecar = shard.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"format": FORMAT + 1}))
    with pytest.raises(UserError, match="newer"):
        ShardReader(tmp_path)


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    """The limit on file size makes writes fail as a full disk does."""
    spool = Spool(tmp_path)
    spool.add(episode(0, text=os.urandom(200_000).hex()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(UserError, match="free some disk space"):
            spool.add(episode(1, text=os.urandom(200_000).hex()))
        with pytest.raises(UserError, match="free some disk space"):
            pack(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["spool"] and len(list((tmp_path / "spool").iterdir())) == 1
    pack(tmp_path)
    assert len(ShardReader(tmp_path)) == 1


def test_a_disk_that_is_full_when_the_sidecar_comes_keeps_no_shard(tmp_path):
    """Its keys are long and all alike: the shard is compressed, the sidecar is not."""
    long = msgspec.structs.replace(TASK, id="a" * 5_000)
    for attempt in range(100):
        Spool(tmp_path).add(msgspec.structs.replace(episode(attempt), task=long))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        with pytest.raises(UserError, match=r"episodes-00000\.json: could not write .* free some disk space"):
            pack(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["spool"] and len(Spool(tmp_path).paths()) == 100
    pack(tmp_path)
    assert len(ShardReader(tmp_path)) == 100


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=10))
def test_step_index_counts_as_a_plain_loop_does(steps):
    expected = [(record, step) for record, count in enumerate(steps) for step in range(count)]
    index = StepIndex(np.array(steps, np.int32))
    assert [index[i] for i in range(len(index))] == expected


def test_side_tables_keep_numbers_per_token(tmp_path):
    tokens = TokenColumn(np.arange(6, dtype=np.int32).reshape(3, 2), np.array([0, 1, 3]))
    SideTable(["a", "b"], np.array([0, 0]), {}, [MADE], ["a1"], token_columns={"x": tokens}).write(tmp_path / "t.npz")
    found = SideTable.read(tmp_path / "t.npz").token_columns["x"]
    assert found.values.dtype == np.int32 and found[0].tolist() == [[0, 1]] and found[1].tolist() == [[2, 3], [4, 5]]
    # A file whose steps do not divide its tokens is damaged.
    arrays = dict(np.load(tmp_path / "t.npz"))
    np.savez(tmp_path / "t.npz", **{**arrays, "starts:x": np.array([0, 1, 2])})
    with pytest.raises(UserError, match=r"t\.npz: not a side table: the starts of the steps do not divide 3 tokens"):
        SideTable.read(tmp_path / "t.npz")


def test_side_tables_are_looked_up_by_trajectory_and_step(tmp_path):
    SideTable(["a", "a", "b"], np.array([0, 1, 0]), {"value": np.array([0.1, 0.2, 0.3])}, [MADE], ["a1"]).write(tmp_path / "t.npz")
    table = SideTable.read(tmp_path / "t.npz")
    assert table.lookup("value", "a", 1) == pytest.approx(0.2) and table.made_by == (MADE,) and table.shards == ("a1",)
    with pytest.raises(UserError, match="no row for step 1 of trajectory b"):
        table.lookup("value", "b", 1)
    with pytest.raises(UserError, match="no column potential"):
        table.lookup("potential", "a", 0)
    with pytest.raises(ValueError, match="token column x: 2 steps, expected 1"):
        SideTable(["a"], np.array([0]), {}, token_columns={"x": TokenColumn.of([[1.0], [2.0]])})
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match="not a side table"):
        SideTable.read(tmp_path / "bad.npz")
    with pytest.raises(UserError, match="no such side table"):
        SideTable.read(tmp_path / "none.npz")
