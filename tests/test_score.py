"""The commands of offline RL one after another on a tiny model: SFT, critic, score, actor."""

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mira_jax import diagnose, score, train
from mira_jax.config import build
from mira_jax.data.steps import tokenize
from mira_jax.errors import UserError
from mira_jax.recipes import make_recipe
from mira_jax.recipes.labels import fold_of, task_key
from mira_jax.recipes.scoring import score_critic
from mira_jax.score import ScoreConfig
from mira_jax.train import TrainConfig
from mira_jax.training.load import load_model
from mira_jax.training.run_folder import trained_on
from mira_jax.trajectories import diagnostics
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader, StepIndex, write_shard
from mira_jax.trajectories.side_tables import SideTable, check
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic

ACTOR = {"name": "actor", "beta": 0.05}
SHARD = "episodes-00000.array_record"
SIZES = {"width": 32, "layers": 1, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Episodes, a policy `sft` and a critic `critic`, each trained for two updates."""
    folder = tmp_path_factory.mktemp("runs")
    synthetic.write_folder(folder / "episodes", count=16, infra_every=5)
    run(folder, "sft", recipe={"name": "sft"}, model={"sizes": SIZES}, tokenizer={"train": {"vocabulary_size": 320}})
    run(folder, "critic", recipe={"name": "critic"}, init_from=str(folder / "sft"))
    return folder


def run(folder, name, **keys):
    prompt = {"version": "compact", "max_tokens": 200}
    data = {"folders": [str(folder / "episodes")], "prompt": prompt, "row_length": 512, "rows": 4, **keys.pop("data", {})}
    train.main(build(TrainConfig, {"out": str(folder / name), "data": data, "updates": 2, "optimizer": {"learning_rate": 1e-3}, **keys}))


def config(folder, **keys):
    return build(ScoreConfig, {"episodes": [str(folder / "episodes")], **keys})


@pytest.fixture(scope="module")
def scores(folder):
    score.main(config(folder, policy=str(folder / "sft"), critic=str(folder / "critic"), out=str(folder / "scores")))
    return folder / "scores"


def test_every_step_of_a_sound_episode_is_scored(folder, scores):
    policy, critic = SideTable.read(scores / "policy.npz"), SideTable.read(scores / "critic.npz")
    steps = {
        (item.id, step.index)
        for item in synthetic.trajectories(16, infra_every=5)
        if item.status.value != "infra_error"
        for step in item.steps
    }
    for table in (policy, critic):
        assert set(zip(table.ids, table.steps.tolist(), strict=True)) == steps
        assert all(np.isfinite(column).all() for column in table.columns.values())
    assert set(policy.columns) == {"log_prob", "token_count"} and (policy.columns["log_prob"] < 0).all()
    assert set(critic.columns) == {"value", "potential"}
    (by_policy,), (by_critic,) = policy.made_by, critic.made_by
    assert by_policy.checkpoint.endswith("sft@2") and by_critic.checkpoint.endswith("critic@2")
    for made in (by_policy, by_critic):
        assert made.prompt == PromptConfig("compact", 200) and made.dtype == "float32"
        assert made.tokenizer == Tokenizer(folder / "sft").sha256
    assert policy.shards == (hashlib.sha256((folder / "episodes" / SHARD).read_bytes()).hexdigest(),)


def test_an_actor_starts_where_its_reference_is(folder, scores):
    """Read back from disk, scored in other batches: yet the log-ratio of the first update is 0."""
    tables = [str(scores / "policy.npz"), str(scores / "critic.npz")]
    run(
        folder,
        "actor",
        recipe={"name": "actor", "beta": 0.05},
        init_from=str(folder / "sft"),
        data={"side_tables": tables, "accept_weak_critics": True},
    )
    updates = [json.loads(line) for line in (folder / "actor" / "metrics.jsonl").read_text().splitlines()]
    first = next(line for line in updates if "log_ratio" in line)
    assert 0 <= first["log_ratio_squared"] < 1e-5**2
    assert first["moved_up"] == first["moved_down"] == 0


def test_the_diagnostics_of_an_actor_are_those_of_its_tables(folder, scores, tmp_path, capsys):
    tables = [str(scores / "policy.npz"), str(scores / "critic.npz")]
    data = {"side_tables": tables, "accept_weak_critics": True}
    run(folder, "diagnosed", recipe=ACTOR, init_from=str(folder / "sft"), data=data, updates=6)
    assert diagnose.COMMAND.run([str(folder / "diagnosed")]) == 0
    score.main(config(folder, policy=str(folder / "diagnosed"), out=str(tmp_path)))
    before, after = (SideTable.read(path).columns["log_prob"] for path in (scores / "policy.npz", tmp_path / "policy.npz"))
    found = diagnostics.read(folder / "diagnosed")
    assert (found.update, found.steps) == (6, len(before))
    assert found.kl == pytest.approx((before - after).mean(), abs=1e-3) and abs(found.kl) > 1e-4
    groups = [*found.log_ratio.values()]
    assert sum(group.steps for group in groups) == sum(sum(group.counts) for group in groups) == len(before)
    assert sum(group.steps * group.mean for group in groups) / len(before) == pytest.approx((after - before).mean(), abs=1e-3)
    assert 0 < found.entropy < np.log(320)
    assert found.room == 1  # a policy after two updates gives long responses some 100 nats
    assert "log pi - log pi_ref, successes: mean" in capsys.readouterr().out
    for name, message in (("sft", "was trained by the recipe sft"), ("nothing", "no run of `mira train`")):
        assert diagnose.COMMAND.run([str(folder / name)]) == 2
        assert message in capsys.readouterr().err
    shutil.copytree(folder / "diagnosed", tmp_path / "moved")
    made = json.loads((tmp_path / "moved" / "data.json").read_text())
    (tmp_path / "moved" / "data.json").write_text(json.dumps(made | {"init_from": "0" * 64}))
    assert diagnose.COMMAND.run([str(tmp_path / "moved")]) == 2
    assert "the weights have changed since" in capsys.readouterr().err
    (tmp_path / "moved" / "data.json").write_text(json.dumps(made | {"fingerprint": "other columns"}))
    assert diagnose.COMMAND.run([str(tmp_path / "moved")]) == 2
    assert "its episodes, side tables or selections have changed since it was trained" in capsys.readouterr().err


def test_a_table_that_is_there_is_kept(folder, scores, capsys):
    before = (scores / "policy.npz").stat().st_mtime_ns
    score.main(config(folder, policy=str(folder / "sft"), out=str(scores)))
    assert "complete" in capsys.readouterr().out
    assert (scores / "policy.npz").stat().st_mtime_ns == before


def test_a_table_of_other_episodes_is_not_overwritten(folder, scores):
    synthetic.write_folder(folder / "others", count=3, seed=9)
    with pytest.raises(UserError, match=r"policy\.npz: a table of other episodes; choose another out"):
        score.main(build(ScoreConfig, {"episodes": [str(folder / "others")], "policy": str(folder / "sft"), "out": str(scores)}))


def test_a_table_of_another_model_is_not_overwritten(folder, scores):
    run(folder, "twin", recipe={"name": "sft"}, init_from=str(folder / "sft"))
    before = (scores / "policy.npz").read_bytes()
    with pytest.raises(UserError, match=r"policy\.npz: made by .*sft@2; choose another out"):
        score.main(config(folder, policy=str(folder / "twin"), out=str(scores)))
    assert (scores / "policy.npz").read_bytes() == before


def test_a_table_of_weights_that_were_replaced_is_refused_and_scored_anew(folder, scores, tmp_path, capsys):
    """A run that was trained anew in its folder, with another seed and as many updates: its name says the same as before."""
    shutil.copytree(folder / "sft", tmp_path / "sft")
    shutil.copytree(folder / "episodes", tmp_path / "episodes")
    score.main(config(tmp_path, policy=str(tmp_path / "sft"), out=str(tmp_path / "scores")))
    table = tmp_path / "scores" / "policy.npz"
    old = SideTable.read(table)
    shutil.rmtree(tmp_path / "sft")
    again = {"model": {"sizes": SIZES}, "tokenizer": {"path": str(folder / "sft")}, "seed": 1}
    run(tmp_path, "sft", recipe={"name": "sft"}, **again)
    with pytest.raises(UserError, match=r"policy\.npz: the reference, computed by .*sft@2, is not the policy .* \(fingerprint .*--policy"):
        run(tmp_path, "actor", recipe=ACTOR, init_from=str(tmp_path / "sft"), data={"side_tables": [str(table)]})
    assert not (tmp_path / "actor").exists()
    capsys.readouterr()
    score.main(config(tmp_path, policy=str(tmp_path / "sft"), out=str(tmp_path / "scores")))
    assert "policy.npz: stale: fingerprint" in capsys.readouterr().out
    score.main(config(tmp_path, policy=str(tmp_path / "sft"), out=str(tmp_path / "fresh")))
    fresh, new = SideTable.read(tmp_path / "fresh" / "policy.npz"), SideTable.read(table)
    np.testing.assert_array_equal(new.columns["log_prob"], fresh.columns["log_prob"])
    assert not np.allclose(new.columns["log_prob"], old.columns["log_prob"])


def test_tables_made_otherwise_than_the_run_assumes_are_refused(folder, scores, tmp_path):
    """Each time one thing of the run, or of the table, is another."""

    def refused(message, tables=(), **keys):
        tables = [str(path) for path in tables or (scores / "policy.npz", scores / "critic.npz")]
        data = {"side_tables": tables, "accept_weak_critics": True, **keys.pop("data", {})}
        with pytest.raises(UserError, match=message):
            run(folder, "refused", recipe=ACTOR, init_from=str(folder / "sft"), data=data, **keys)
        assert not (folder / "refused").exists()

    shorter = {"prompt": {"version": "compact", "max_tokens": 150}}
    refused(r"policy\.npz: .*prompt\.max_tokens 200, not 150.*score these episodes again", data=shorter)
    refused(r"dtype float32, not bfloat16.*--set dtype=bfloat16", model={"dtype": "bfloat16"})
    other = synthetic.write_tokenizer(tmp_path / "other.model", 400)
    refused(r"policy\.npz: .*tokenizer \w{12}, not \w{12}", tokenizer={"path": str(other)})
    # The same episodes, judged again by another rule: another shard.
    judged = [msgspec.structs.replace(item, created="2026-12-01") for item in synthetic.trajectories(16, infra_every=5)]
    write_shard(tmp_path / "judged" / SHARD, judged)
    refused(r"policy\.npz: log_prob was not computed on these shards, or they have changed", data={"folders": [str(tmp_path / "judged")]})
    old = Path("tests/fixtures/format1")
    refused("format1/policy.npz: does not record which models computed it", [old / "policy.npz"], data={"folders": [str(old)]})


def test_a_table_of_an_older_version_is_scored_anew(folder, tmp_path, capsys):
    old = SideTable.read("tests/fixtures/format1/policy.npz")
    shutil.copy("tests/fixtures/format1/policy.npz", tmp_path)
    score.main(build(ScoreConfig, {"episodes": ["tests/fixtures/format1"], "policy": str(folder / "sft"), "out": str(tmp_path)}))
    assert "does not record which models computed it" in capsys.readouterr().out
    new = SideTable.read(tmp_path / "policy.npz")
    assert set(new.ids) > set(old.ids) and new.made_by[0].checkpoint.endswith("sft@2")


def test_alternatives_are_recorded_and_an_actor_keeps_to_them(folder, tmp_path, capsys):
    keys = {"policy": str(folder / "sft"), "critic": str(folder / "critic"), "out": str(tmp_path)}
    score.main(config(folder, **keys))
    tables = [str(tmp_path / "policy.npz"), str(tmp_path / "critic.npz")]
    plain = SideTable.read(tables[0])
    actor = {
        "recipe": {**ACTOR, "support_weight": 1.0, "support_tokens": 4},
        "init_from": str(folder / "sft"),
        "data": {"side_tables": tables, "accept_weak_critics": True},
    }
    with pytest.raises(UserError, match="none has alternatives; score the policy again with --set alternatives=4"):
        run(folder, "supported", **actor)
    capsys.readouterr()
    score.main(config(folder, **keys, alternatives=4))
    said = capsys.readouterr().out
    assert "policy.npz: stale: alternatives 0, not 4; scored anew" in said and "critic.npz: complete" in said
    table = SideTable.read(tables[0])
    np.testing.assert_array_equal(table.columns["log_prob"], plain.columns["log_prob"])
    np.testing.assert_array_equal(np.diff(table.token_columns["alternatives"].starts), table.columns["token_count"])
    assert table.made_by[0].alternatives == 4
    score.main(config(folder, **keys, alternatives=4))
    assert "policy.npz: complete" in capsys.readouterr().out
    run(folder, "supported", **actor)
    metrics = [json.loads(line) for line in (folder / "supported" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["outside_support"] > 0 for line in metrics)
    score.main(config(folder, **keys, alternatives=3))
    with pytest.raises(UserError, match="has alternatives of 3 tokens, not 4"):
        run(folder, "too few", **actor)
    with pytest.raises(UserError, match=r"alternatives: .*sft has only 320 tokens"):
        score.main(config(folder, **keys, alternatives=321))


def test_models_are_not_mixed_up(folder, tmp_path):
    with pytest.raises(UserError, match="holds a critic"):
        score.main(config(folder, policy=str(folder / "critic"), out=str(tmp_path)))
    with pytest.raises(UserError, match="holds a policy"):
        score.main(config(folder, critic=str(folder / "sft"), out=str(tmp_path)))
    with pytest.raises(UserError, match="another critic has the same weights; name each once"):
        score.main(config(folder, critic=[str(folder / "critic")] * 2, out=str(tmp_path)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keys, message", [({}, "name at least one model"), ({"policy": "nowhere"}, "nowhere")])
def test_what_is_missing_is_said(folder, tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        score.main(config(folder, **{"out": str(tmp_path), **keys}))


def test_a_required_key_that_is_not_set_is_named(capsys):
    assert score.COMMAND.run(["--set", "episodes=[x]", "--policy", "x"]) == 2
    assert capsys.readouterr().err == "error: out: name a folder for the tables\n"


def test_a_run_whose_reference_is_another_policy_stops_at_its_first_update(folder, scores, tmp_path, capsys):
    """A table that says that it is of the policy, of which a column was changed since."""
    table = SideTable.read(scores / "policy.npz")
    columns = {**table.columns, "log_prob": table.columns["log_prob"] + np.float32(0.01)}
    SideTable(table.ids, table.steps, columns, table.made_by, table.shards).write(tmp_path / "policy.npz")
    tables = [str(tmp_path / "policy.npz"), str(scores / "critic.npz")]
    with pytest.raises(
        UserError, match=r"before the first update log pi differs from log_prob by 0\.(01|00999|0100\d) nats a step, more than the 0\.001"
    ):
        run(
            folder,
            "other",
            recipe={"name": "actor"},
            init_from=str(folder / "sft"),
            data={"side_tables": tables, "accept_weak_critics": True},
        )
    assert not list((folder / "other").glob("checkpoints/*")) and not (folder / "other" / "metrics.jsonl").read_text()
    assert "log pi - log pi_ref before the first update" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def fold_critics(folder):
    for fold in (0, 1):
        recipe = {"name": "critic", "potential_from": "all", "milestones": 4, "folds": 2, "fold": fold}
        run(folder, f"critic-{fold}", recipe=recipe, init_from=str(folder / "sft"), seed=fold)
    return [str(folder / f"critic-{fold}") for fold in (0, 1)]


def test_each_step_is_scored_by_the_critic_that_has_not_seen_its_task(folder, fold_critics, tmp_path, capsys):
    score.main(config(folder, critic=fold_critics, out=str(tmp_path)))
    table = SideTable.read(tmp_path / "critic.npz")
    assert set(table.columns) == {"value", "potential", *(f"milestone_{j}" for j in (1, 2, 3, 4))}
    assert [made.fold for made in table.made_by] == ["0 of 2", "1 of 2"]
    reader = ShardReader(folder / "episodes")
    prompt = PromptConfig("compact", 200)
    alone = [score_critic(load_model(run)[0], tokenize(reader, prompt, Tokenizer(run), progress=False)) for run in fold_critics]
    folds = set()
    for record, trajectory in enumerate(reader):
        if trajectory.status is Status.INFRA_ERROR:
            continue
        fold = fold_of(task_key(trajectory.task), 2)
        folds.add(fold)
        for step in trajectory.steps:
            for name in ("value", "milestone_2"):
                expected = alone[fold][name][StepIndex(reader.steps_per_record).start(record) + step.index]
                assert table.lookup(name, trajectory.id, step.index) == pytest.approx(expected, rel=1e-4)
    assert folds == {0, 1}
    quality = json.loads((tmp_path / "critic.json").read_text())
    assert quality == table.quality
    assert quality["value"]["steps"] == len(table) and set(quality) == {"value", "potential", "milestones"}
    assert "V: NLL" in capsys.readouterr().out


def test_an_ensemble_is_the_mean_of_its_critics(folder, tmp_path):
    def critic(name, **recipe):
        run(folder, name, recipe={"name": "critic", "heads": ["value"], **recipe}, init_from=str(folder / "sft"), seed=len(name))
        return str(folder / name)

    def scored(name, critics):
        score.main(config(folder, critic=critics, out=str(tmp_path / name)))
        return SideTable.read(tmp_path / name / "critic.npz")

    one, other = critic("member"), critic("other-member")
    both, alone = scored("both", [one, other]), [scored(name, [run]).columns["value"] for name, run in (("one", one), ("other", other))]
    assert not np.allclose(*alone)
    np.testing.assert_allclose(both.columns["value"], (alone[0] + alone[1]) / 2, rtol=1e-5)
    check([both], both.shards)
    score.main(config(folder, critic=[one, other], out=str(tmp_path / "both")))  # the table is kept
    with pytest.raises(UserError, match="the head value is of critics with different folds: none, 0 of 2"):
        scored("mixed", [one, critic("half", folds=2)])
    with pytest.raises(UserError, match="lacks the fold 1 of 2"):
        scored("uneven", [critic("half-again", folds=2), str(folder / "half"), critic("second-half", folds=2, fold=1)])


def test_a_critic_that_sees_subgoals_serves_an_actor_that_does_not(folder, scores, tmp_path):
    seeing = {"version": "compact", "max_tokens": 200, "subgoals": True}
    run(folder, "seeing", recipe={"name": "critic", "heads": ["value"]}, init_from=str(folder / "sft"), data={"prompt": seeing})
    score.main(config(folder, critic=str(folder / "seeing"), out=str(tmp_path)))
    (made,) = SideTable.read(tmp_path / "critic.npz").made_by
    assert made.prompt == PromptConfig(**seeing)
    tables = [str(scores / "policy.npz"), str(tmp_path / "critic.npz")]
    data = {"side_tables": tables, "accept_weak_critics": True}
    actor = {"recipe": {"name": "actor", "alpha": 0}, "init_from": str(folder / "sft")}
    run(folder, "actor-of-seeing", **actor, data=data)
    with pytest.raises(UserError, match=r"data\.prompt\.subgoals: only critics"):
        run(folder, "cheat", **actor, data=data | {"prompt": seeing})
    with pytest.raises(UserError, match=r"prompt\.subgoals: only critics"):
        score.main(config(folder, policy=str(folder / "sft"), prompt=seeing, out=str(tmp_path / "cheat")))


def test_a_fold_s_critic_holds_out_that_fold(folder, fold_critics):
    trained = [json.loads(Path(run, "data.json").read_text()) for run in fold_critics]
    metrics = [json.loads(line) for line in Path(fold_critics[0], "metrics.jsonl").read_text().splitlines()]
    assert "holdout/value_loss" in metrics[-1] and "holdout/milestones_loss" in metrics[-1]
    assert trained[0]["shards"] == list(ShardReader(folder / "episodes").sha256)
    # Together the two folds have seen every episode with steps, and neither has seen what the other has.
    first, second = (trained_on(run) for run in fold_critics)
    assert first and second and not first & second
    assert first | second == {one.id for one in ShardReader(folder / "episodes") if one.status is not Status.INFRA_ERROR and one.steps}


@pytest.mark.parametrize(
    ("critics", "message"),
    [
        ((0,), "critic: the head milestone_1 lacks the fold 1 of 2; train that critic and name it too"),
        ((0, 1, 1), "another critic has the same weights; name each once"),
    ],
)
def test_folds_must_be_complete(folder, fold_critics, tmp_path, critics, message):
    with pytest.raises(UserError, match=message):
        score.main(config(folder, critic=[fold_critics[number] for number in critics], out=str(tmp_path)))


def test_a_critic_that_scored_its_own_training_data_is_refused(folder, scores):
    """Unless the config accepts it."""
    assert "it scored episodes that it was trained on" in SideTable.read(scores / "critic.npz").quality["value"]["weak"]
    tables = {"side_tables": [str(scores / "policy.npz"), str(scores / "critic.npz")]}
    with pytest.raises(UserError, match=r"critic\.npz: value: it scored episodes .*or set data\.accept_weak_critics=true"):
        run(folder, "weak", recipe=ACTOR, init_from=str(folder / "sft"), data=tables)
    assert not (folder / "weak").exists()
    # A method that does not read the critic is not refused.
    run(folder, "unread", recipe={"name": "actor", "objective": "filtered_bc"}, init_from=str(folder / "sft"), data=tables)


def test_episodes_that_were_labelled_anew_are_still_known(folder, scores, tmp_path):
    """Their shards have other checksums."""
    changed = [msgspec.structs.replace(one, created="2026-01-01T00:00:00Z") for one in ShardReader(folder / "episodes")]
    (tmp_path / "anew").mkdir()
    write_shard(tmp_path / "anew" / "episodes-00000.array_record", changed)
    score.main(config(folder, episodes=[str(tmp_path / "anew")], critic=str(folder / "critic"), out=str(tmp_path / "scores")))
    assert "it scored episodes that it was trained on" in SideTable.read(tmp_path / "scores" / "critic.npz").quality["value"]["weak"]


def test_a_fold_s_critic_that_started_from_a_critic_of_all_episodes_has_seen_them(folder, scores, tmp_path):
    for fold in (0, 1):
        recipe = {"name": "critic", "heads": ["value"], "folds": 2, "fold": fold}
        run(folder, f"leaking-{fold}", recipe=recipe, init_from=str(folder / "critic"), updates=1)
    critics = [str(folder / f"leaking-{fold}") for fold in (0, 1)]
    score.main(config(folder, critic=critics, out=str(tmp_path)))
    assert "it scored episodes that it was trained on" in SideTable.read(tmp_path / "critic.npz").quality["value"]["weak"]


def test_folds_out_of_range_are_refused():
    for folds, fold in ((1, 0), (2, 2), (0, 1)):
        with pytest.raises(UserError, match=r"recipe\.fold: "):
            make_recipe({"name": "critic", "folds": folds, "fold": fold})
