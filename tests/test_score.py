"""The commands of offline RL one after another on a tiny model: SFT, critic, score, actor."""

import json

import numpy as np
import pytest

from mira_jax import score, train
from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.score import ScoreConfig
from mira_jax.train import TrainConfig
from mira_jax.trajectories.side_tables import SideTable
from tests import synthetic

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
    assert policy.checkpoint.endswith("sft@2") and critic.checkpoint.endswith("critic@2")


def test_an_actor_starts_where_its_reference_is(folder, scores):
    """Read back from disk, scored in other batches: yet the log-ratio of the first update is 0."""
    tables = [str(scores / "policy.npz"), str(scores / "critic.npz")]
    run(folder, "actor", recipe={"name": "actor", "beta": 0.05}, init_from=str(folder / "sft"), data={"side_tables": tables})
    updates = [json.loads(line) for line in (folder / "actor" / "metrics.jsonl").read_text().splitlines()]
    first = next(line for line in updates if "log_ratio" in line)
    assert first["log_ratio"] == pytest.approx(0, abs=1e-3)
    assert first["moved_up"] == first["moved_down"] == 0


def test_a_table_that_is_there_is_kept(folder, scores, capsys):
    before = (scores / "policy.npz").stat().st_mtime_ns
    score.main(config(folder, policy=str(folder / "sft"), out=str(scores)))
    assert "complete" in capsys.readouterr().out
    assert (scores / "policy.npz").stat().st_mtime_ns == before


def test_a_table_of_other_episodes_is_not_overwritten(folder, scores):
    synthetic.write_folder(folder / "others", count=3, seed=9)
    with pytest.raises(UserError, match=r"policy\.npz: made with .*sft@2, or of other episodes; remove it or choose another out"):
        score.main(build(ScoreConfig, {"episodes": [str(folder / "others")], "policy": str(folder / "sft"), "out": str(scores)}))


def test_models_are_not_mixed_up(folder, tmp_path):
    with pytest.raises(UserError, match="holds a critic"):
        score.main(config(folder, policy=str(folder / "critic"), out=str(tmp_path)))
    with pytest.raises(UserError, match="holds a policy"):
        score.main(config(folder, critic=str(folder / "sft"), out=str(tmp_path)))
    with pytest.raises(UserError, match="both have the head potential"):
        score.main(config(folder, critic=[str(folder / "critic")] * 2, out=str(tmp_path)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "keys, message", [({}, "name at least one model"), ({"policy": "x", "out": ""}, "out: name"), ({"policy": "nowhere"}, "nowhere")]
)
def test_what_is_missing_is_said(folder, tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        score.main(config(folder, **{"out": str(tmp_path), **keys}))
