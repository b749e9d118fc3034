"""Replay: which steps of earlier phases are selected, and how training uses them."""

import collections
import json

import numpy as np
import pytest

from mira_jax import replay, score, train
from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.replay import ReplayConfig
from mira_jax.rl.replay import limit
from mira_jax.score import ScoreConfig
from mira_jax.train import TrainConfig
from mira_jax.training import setup
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader, write_shard
from mira_jax.trajectories.side_tables import Provenance, SideTable, selected_steps
from mira_jax.trajectories.token_columns import TokenColumn
from tests import synthetic

SHARD = "episodes-00000.array_record"
PROMPT = PromptConfig("compact", 200)
TOKENS = 4


def write_scores(path, reader, probability, fingerprint="actor"):
    """A table of log-probs of TOKENS tokens each: `probability(trajectory, step)` is their geometric mean probability."""
    sound = [one for one in reader if one.status is not Status.INFRA_ERROR]
    keys = [(one.id, step) for one in sound for step in range(len(one.steps))]
    means = np.array([probability(one, step) for one in sound for step in range(len(one.steps))])
    made = Provenance(
        columns=("log_prob", "token_count"), checkpoint="sft@1", fingerprint=fingerprint, prompt=PROMPT, tokenizer="t", dtype="float32",
        param_dtype="float32", precision="highest",
    )  # fmt: skip
    columns = {"log_prob": TOKENS * np.log(means), "token_count": np.full(len(keys), TOKENS)}
    ids = TokenColumn(np.arange(2 * TOKENS * len(keys), dtype=np.int32).reshape(-1, 2), np.arange(len(keys) + 1) * TOKENS)
    table = SideTable(
        [key[0] for key in keys], [key[1] for key in keys], columns, [made], reader.sha256, token_columns={"alternatives": ids}
    )
    table.write(path)
    return str(path)


def probability(trajectory, step):
    """Spread over (0, 1), so that some steps are too easy and some too unlikely."""
    return (hash((trajectory.task.seed, step)) % 97 + 1) / 98


@pytest.fixture
def made(tmp_path):
    """Two earlier phases, in which a task recurs, this phase, and the scores of the earlier ones."""
    for phase, seed in ((1, 0), (2, 7)):
        synthetic.write_folder(tmp_path / f"phase-{phase}", count=40, seed=seed, infra_every=9)
    synthetic.write_folder(tmp_path / "current", count=30, seed=99)
    write_scores(tmp_path / "policy.npz", ShardReader([tmp_path / "phase-1", tmp_path / "phase-2"]), probability)
    return tmp_path


def config(folder, **keys):
    given = {
        "episodes": [str(folder / "phase-1"), str(folder / "phase-2")],
        "scores": [str(folder / "policy.npz")],
        "current": [str(folder / "current")],
        "out": str(folder / "replay"),
    }
    return build(ReplayConfig, given | keys)


def expected(folder, first_per_task):
    """The eligible steps, by loops over the records."""
    steps, tasks = set(), set()
    for phase in (1, 2):
        for one in ShardReader(folder / f"phase-{phase}"):
            task = one.task.id, one.task.seed
            if one.status is Status.INFRA_ERROR or not one.outcome.success or (first_per_task and task in tasks):
                continue
            tasks.add(task)
            steps |= {(one.id, step) for step in range(len(one.steps)) if 0.5 <= probability(one, step) <= 0.95}
    return steps


def selection(folder):
    table = SideTable.read(folder / "replay" / "selection.npz")
    rows = zip(table.ids, table.steps.tolist(), table.columns["keep"].tolist(), strict=True)
    return {(name, step) for name, step, keep in rows if keep}


@pytest.mark.parametrize("first_per_task", [True, False])
def test_the_successful_steps_that_are_neither_too_easy_nor_too_unlikely(made, first_per_task):
    replay.main(config(made, first_per_task=first_per_task, most=100))
    wanted = expected(made, first_per_task)
    assert selection(made) == wanted and len(wanted) > 10
    assert len(expected(made, True)) < len(expected(made, False))


def test_the_folder_holds_whole_episodes_and_the_reference(made):
    replay.main(config(made))
    reader = ShardReader(made / "replay")
    originals = {one.id: one for one in ShardReader([made / "phase-1", made / "phase-2"])}
    assert all(one == originals[one.id] for one in reader) and {one.id for one in reader} == {name for name, _ in selection(made)}
    table, scores = SideTable.read(made / "replay" / "policy.npz"), SideTable.read(made / "policy.npz")
    assert table.shards == reader.sha256 and table.made_by == scores.made_by
    assert len(table) == sum(len(one.steps) for one in reader)
    assert all(table.lookup("log_prob", one.id, 0) == scores.lookup("log_prob", one.id, 0) for one in reader)
    of_scores = dict(zip(zip(scores.ids, scores.steps.tolist(), strict=True), range(len(scores)), strict=True))
    for row, key in enumerate(zip(table.ids, table.steps.tolist(), strict=True)):
        np.testing.assert_array_equal(table.token_columns["alternatives"][row], scores.token_columns["alternatives"][of_scores[key]])
    keep = selected_steps(reader, [SideTable.read(made / "replay" / "selection.npz")])
    assert keep.tolist() == [(one.id, step) in selection(made) for one in reader for step in range(len(one.steps))]
    counts = json.loads((made / "replay" / "replay.json").read_text())["counts"]
    assert counts == {"eligible": len(expected(made, True)), "selected": int(keep.sum()), "episodes": len(reader), "steps": len(table)}


def test_at_most_twice_the_steps_of_this_phase_drawn_without_bias(made):
    """Over many seeds, each eligible step is drawn equally often, whichever its phase: chi-square, 99.99th percentile."""
    write_shard(made / "one" / SHARD, synthetic.trajectories(3, seed=5, most_steps=2))
    room = 2 * sum(len(one.steps) for one in ShardReader(made / "one"))
    eligible, drawn, runs = expected(made, True), collections.Counter(), 400
    assert room < len(eligible)
    reader = ShardReader([made / "phase-1", made / "phase-2"])
    keys = [(one.id, step) for one in reader for step in range(len(one.steps))]
    possible = replay.eligible_steps(reader, [SideTable.read(made / "policy.npz")], config(made))
    assert {keys[j] for j in np.flatnonzero(possible)} == eligible
    for seed in range(runs):
        selected = limit(possible, room // 2, seed=seed)
        assert selected.sum() == room
        drawn.update(keys[j] for j in np.flatnonzero(selected))
    share = room / len(eligible)
    assert set(drawn) == eligible
    # Each count has the variance runs * share * (1 - share), and the counts sum to a constant. The sum of squares is then
    # approximately chi-square with n - 1 degrees of freedom, after division by the variance times n / (n - 1).
    degrees = len(eligible) - 1
    square = sum((drawn[key] - runs * share) ** 2 for key in eligible) / (runs * share * (1 - share)) * degrees / len(eligible)
    assert square < degrees + 3.72 * (2 * degrees) ** 0.5 + 10
    # The mean number of draws of each phase, too, is its share of the eligible steps, within 4 standard errors.
    first = {one.id for one in ShardReader(made / "phase-1")}
    of_first = sum(name in first for name, _ in eligible) / len(eligible)
    error = (of_first * (1 - of_first) / (runs * room)) ** 0.5
    assert abs(sum(count for key, count in drawn.items() if key[0] in first) / (runs * room) - of_first) < 4 * error
    replay.main(config(made, current=[str(made / "one")], seed=1))
    first = selection(made)
    replay.main(config(made, current=[str(made / "one")], seed=1, out=str(made / "again")))
    assert len(first) == room and {*SideTable.read(made / "again" / "selection.npz").ids} == {name for name, _ in first}


def test_the_first_phase_has_nothing_to_replay(made):
    replay.main(config(made, episodes=[]))
    assert len(ShardReader(made / "replay")) == 0 and selection(made) == set()
    assert len(SideTable.read(made / "replay" / "policy.npz").made_by) == 1
    both = ShardReader([made / "current", made / "replay"])
    assert len(both) == 30 and selected_steps(both, [SideTable.read(made / "replay" / "selection.npz")]).all()


def test_a_replay_is_compared_before_it_is_used_again(made, capsys):
    replay.main(config(made))
    capsys.readouterr()
    replay.main(config(made))
    assert "complete" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"made from other inputs \(seed\)"):
        replay.main(config(made, seed=1))
    with pytest.raises(UserError, match=r"made from other inputs \(shards\)"):
        replay.main(config(made, episodes=[str(made / "phase-1")]))
    shard = made / "replay" / SHARD
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match="cut short or altered"):
        replay.main(config(made))
    (made / "thesis").mkdir()
    (made / "thesis" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="exists and is not a replay"):
        replay.main(config(made, out=str(made / "thesis")))


def test_bad_inputs_are_refused(made):
    with pytest.raises(UserError, match="scores: name the side table"):
        replay.main(config(made, scores=[]))
    with pytest.raises(UserError, match="current: name the folder"):
        replay.main(config(made, current=[]))
    write_scores(made / "part.npz", ShardReader(made / "phase-1"), probability)
    with pytest.raises(UserError, match="log_prob was not computed on these shards"):
        replay.main(config(made, scores=[str(made / "part.npz")]))
    write_scores(made / "other.npz", ShardReader(made / "phase-2"), probability, "another")
    with pytest.raises(UserError, match="by different actors"):
        replay.main(config(made, scores=[str(made / "part.npz"), str(made / "other.npz")]))
    assert not (made / "replay").exists()


def test_a_policy_is_trained_on_the_selected_steps_and_those_of_this_phase(tmp_path, monkeypatch):
    """The whole way on a tiny model: scores, replay, and the actor with the reference that the replay hands on."""
    for name, seed in (("earlier", 0), ("current", 9)):
        synthetic.write_folder(tmp_path / name, count=16, seed=seed)
    sizes = {"width": 32, "layers": 1, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64}
    folders = {name: str(tmp_path / name) for name in ("earlier", "current", "replay")}

    def run(out, names, **keys):
        data = {"folders": [folders[name] for name in names], "prompt": {"version": "compact", "max_tokens": 200}, "row_length": 512}
        tree = {"out": str(tmp_path / out), "updates": 2, "data": data | keys.pop("data", {})} | keys
        return train.main(build(TrainConfig, tree))

    run("sft", ["earlier"], model={"sizes": sizes}, tokenizer={"train": {"vocabulary_size": 320}})
    sft = str(tmp_path / "sft")
    score.main(build(ScoreConfig, {"episodes": [folders["current"], folders["earlier"]], "policy": sft, "out": str(tmp_path / "scores")}))
    table = str(tmp_path / "scores" / "policy.npz")
    # So young a policy gives every step a high perplexity.
    wide = {"episodes": [folders["earlier"]], "scores": [table], "current": [folders["current"]], "highest": 1e6, "most": 0.25}
    replay.main(build(ReplayConfig, wide | {"out": folders["replay"]}))
    given = []
    pack = setup.pack_data
    monkeypatch.setattr(setup, "pack_data", lambda *arguments, **options: given.append(arguments) or pack(*arguments, **options))
    data = {
        "side_tables": [table, str(tmp_path / "replay" / "policy.npz")],
        "selections": [str(tmp_path / "replay" / "selection.npz")],
    }
    run("actor", ["current", "replay"], init_from=sft, recipe={"name": "actor", "objective": "filtered_bc", "percentile": 0}, data=data)
    current, replayed = (ShardReader(folders[name]) for name in ("current", "replay"))
    keep, steps = given[0][2], int(current.steps_per_record.sum())
    succeeded = [trajectory.success for trajectory in current for _ in trajectory.steps]
    assert keep[:steps].tolist() == succeeded and keep[steps:].sum() == int(0.25 * steps) < int(replayed.steps_per_record.sum())
    with pytest.raises(UserError, match="selects steps of shards that are not in the folders"):
        run("other", ["current"], init_from=sft, recipe={"name": "actor", "objective": "filtered_bc", "percentile": 0}, data=data)
    with pytest.raises(UserError, match=r"data\.selections: critics learn from whole episodes"):
        run("critic", ["current"], init_from=sft, recipe={"name": "critic"}, data=data)
