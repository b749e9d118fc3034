"""`mira score --orm` with tiny models that were trained on folds of the tasks."""

import json
import shutil

import numpy as np
import pytest
from flax import nnx

from mira_jax import score, train
from mira_jax.config import build
from mira_jax.data.answers import outcome_examples
from mira_jax.data.steps import tokenize
from mira_jax.errors import UserError
from mira_jax.models import huggingface
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.recipes.labels import fold_of, task_key
from mira_jax.recipes.scoring import score_orm
from mira_jax.score import ScoreConfig
from mira_jax.train import TrainConfig
from mira_jax.training.load import load_model
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic

PROMPT = {"version": "compact", "max_tokens": 250}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Episodes, a policy `sft`, and two ORMs that start from it, one per fold, each trained for two updates."""
    folder = tmp_path_factory.mktemp("runs")
    synthetic.write_folder(folder / "episodes", count=16, infra_every=5)
    tokenizer = synthetic.write_tokenizer(folder / "tokenizer.model")
    sizes = {"width": 32, "layers": 1, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64}
    policy = Gemma3(Gemma3Config(Tokenizer(tokenizer).vocabulary_size, **sizes), rngs=nnx.Rngs(0))
    huggingface.save(policy, folder / "sft", tokenizer)
    data = {"folders": [str(folder / "episodes")], "prompt": PROMPT, "row_length": 512, "rows": 4}
    common = {"data": data, "init_from": str(folder / "sft"), "optimizer": {"learning_rate": 1e-3}, "updates": 2}
    for fold in (0, 1):
        recipe = {"name": "orm", "folds": 2, "fold": fold}
        train.main(build(TrainConfig, {"out": str(folder / f"orm-{fold}"), "recipe": recipe, **common}))
    # Starts from an ORM that has learned from what this one holds out.
    recipe = {"name": "orm", "folds": 2, "fold": 0}
    train.main(build(TrainConfig, {"out": str(folder / "leaking"), "recipe": recipe, **common, "init_from": str(folder / "orm-1")}))
    return folder


def config(folder, **keys):
    return build(ScoreConfig, {"episodes": [str(folder / "episodes")], **keys})


def test_each_episode_is_judged_by_the_model_that_has_not_seen_its_task(folder, tmp_path, capsys):
    runs = [str(folder / f"orm-{fold}") for fold in (0, 1)]
    score.main(config(folder, orm=runs, out=str(tmp_path)))
    printed = capsys.readouterr().out
    table, reader = SideTable.read(tmp_path / "orm.npz"), ShardReader(folder / "episodes")
    sound = [episode for episode in reader if episode.status is not Status.INFRA_ERROR]
    assert list(zip(table.ids, table.steps.tolist(), strict=True)) == [(episode.id, len(episode.steps) - 1) for episode in sound]
    assert [made.fold for made in table.made_by] == ["0 of 2", "1 of 2"] and set(table.columns) == {"success_probability"}
    made = [tokenize(reader, PromptConfig(**PROMPT), Tokenizer(run), outcome_examples, progress=False) for run in runs]
    alone = [score_orm(load_model(run)[0], examples)["success_probability"] for run, examples in zip(runs, made, strict=True)]
    ends = np.cumsum([len(episode.steps) for episode in reader]) - 1
    for end, episode in zip(ends, reader, strict=True):
        if episode.status is not Status.INFRA_ERROR:
            expected = alone[fold_of(task_key(episode.task), 2)][end]
            assert table.lookup("success_probability", episode.id, len(episode.steps) - 1) == pytest.approx(expected, rel=1e-4)

    found = json.loads((tmp_path / "orm.json").read_text())["success_probability"]
    decided, truth = table.columns["success_probability"] >= 0.5, np.array([episode.success for episode in sound])
    assert found["confusion"]["true_positives"] == int((decided & truth).sum())
    assert found["accuracy"]["value"] == pytest.approx((decided == truth).mean(), abs=1e-4)
    assert f"on {len(sound)} episodes of {len(sound)} tasks: accuracy" in printed and "ORM: success" in printed

    score.main(config(folder, orm=runs, out=str(tmp_path)))
    assert "complete" in capsys.readouterr().out


def test_what_is_no_orm_is_refused(folder, tmp_path):
    shutil.copytree(folder / "orm-0", tmp_path / "other")
    settings = tmp_path / "other" / "config.yaml"
    settings.write_text(settings.read_text().replace("name: orm", "name: sft"))
    with pytest.raises(UserError, match=r"orm: .*other was trained by the recipe sft; name a run of the recipe orm"):
        score.main(config(folder, orm=str(tmp_path / "other"), out=str(tmp_path / "scores")))
    with pytest.raises(UserError, match=r"orm: the column success_probability lacks the fold 1 of 2; train that orm and name it too"):
        score.main(config(folder, orm=str(folder / "orm-0"), out=str(tmp_path / "scores")))


def test_an_orm_that_started_from_one_of_the_other_fold_has_seen_its_episodes(folder, tmp_path):
    score.main(config(folder, orm=[str(folder / "leaking"), str(folder / "orm-1")], out=str(tmp_path)))
    assert "it scored episodes that it was trained on" in SideTable.read(tmp_path / "orm.npz").quality["success_probability"]["weak"]
