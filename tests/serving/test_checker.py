"""A trained checker of subgoals: a real server on a tiny model, asked by `mira label`, and the whole way in miniature."""

import contextlib
import json
import shutil

import msgspec
import numpy as np
import pytest

from mira_jax import train
from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.models.sampler import Sampler
from mira_jax.serving.app import make_app
from mira_jax.serving.engine import Engine
from mira_jax.serving.protocol import Served
from mira_jax.serving.server import Server, bind
from mira_jax.train import TrainConfig
from mira_jax.training.load import load_model
from mira_jax.trajectories.answer_prompts import answer_ids, subgoal_prompt_ids
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader, write_shard
from mira_jax.trajectories.tokenizer import Tokenizer
from rollouts import analyze, label
from rollouts.labels.subgoals import files
from rollouts.labels.subgoals.files import Goal, SubgoalFile
from tests import synthetic

SUITE = {"name": "tests.suites.recorded_suite:RecordedSuite"}
PROMPT = {"version": "compact", "max_tokens": 250}


@pytest.fixture
def raw(tmp_path):
    """Six episodes, of which two were lost."""
    episodes = synthetic.trajectories(6, infra_every=3)
    write_shard(tmp_path / "raw" / "episodes-00000.array_record", episodes)
    return episodes


def run(tmp_path, url, tokenizer, out="labelled", milestones=None, judge=None, **keys):
    trained = {"endpoint": {"base_url": url + "/v1", "retries": 0}, "tokenizer": str(tokenizer), "prompt": PROMPT, **keys}
    milestones = {"checker": {"kind": "trained", "trained": trained}, **(milestones or {})}
    orm = {"kind": "orm", "endpoint": trained["endpoint"], "tokenizer": str(judge or tokenizer), "prompt": PROMPT}
    tree = {"folder": str(tmp_path / "raw"), "out": str(tmp_path / out), "suite": SUITE, "judge": orm, "milestones": milestones}
    return label.main(build(label.LabelConfig, tree))


def rows_by_hand(by_hand, tokenizer, episode, texts, threshold):
    """Every question is asked, and what was done once stays done."""
    prompt, z = PromptConfig(**PROMPT), np.zeros((len(episode.steps), len(texts)), bool)
    for step, row in enumerate(z):
        for number, text in enumerate(texts):
            log_probs = by_hand.log_probs(subgoal_prompt_ids(episode, step, text, prompt, tokenizer))[-1]
            yes, no = (np.exp(np.float64(log_probs[answer])) for answer in answer_ids(tokenizer))
            row[number] = yes / (yes + no) >= threshold
    return [tuple(row) for row in np.maximum.accumulate(z, axis=0).tolist()]


def middle(by_hand, tokenizer, episode, text):
    """A threshold near the probability of one question."""
    log_probs = by_hand.log_probs(subgoal_prompt_ids(episode, 0, text, PromptConfig(**PROMPT), tokenizer))[-1]
    yes, no = (np.exp(np.float64(log_probs[answer])) for answer in answer_ids(tokenizer))
    return float(yes / (yes + no)) - 1e-4


def test_milestones_are_what_the_model_says_of_the_suites_subgoals(server, by_hand, tokenizer, tmp_path, raw, capsys):
    threshold = middle(by_hand, tokenizer, raw[1], raw[1].subgoals[0].text)
    assert run(tmp_path, server.url, tokenizer.path, threshold=threshold) == 0
    assert "0 whose task has no subgoals, 0 that the checker could not decide" in capsys.readouterr().out
    found = []
    for episode, before in zip(ShardReader(tmp_path / "labelled"), raw, strict=True):
        if before.status is Status.INFRA_ERROR:
            assert not episode.subgoals and not any(step.milestones for step in episode.steps)
            continue
        texts = [subgoal.text for subgoal in before.subgoals]
        assert [(subgoal.text, subgoal.check) for subgoal in episode.subgoals] == [(text, "by tiny (c0ffee)") for text in texts]
        rows = rows_by_hand(by_hand, tokenizer, before, texts, threshold)
        assert [step.milestones for step in episode.steps] == rows
        found += [z for row in rows for z in row]
    assert {*found} == {False, True}
    used = json.loads((tmp_path / "labelled" / "usage.json").read_text())["milestones.checker.trained"]
    assert used["requests"] > 0 and used["prompt_tokens"] > 0
    assert run(tmp_path, server.url, tokenizer.path, threshold=threshold) == 0 and "labelled already" in capsys.readouterr().out
    with pytest.raises(UserError, match="labelled with other settings of the suite, the judge or the milestones"):
        run(tmp_path, server.url, tokenizer.path, threshold=0.9)


def test_subgoals_of_a_file_need_no_checks(server, by_hand, tokenizer, tmp_path, raw, capsys):
    goals = {raw[0].task.id: (Goal("click it"), Goal("stop"))}
    files.write(tmp_path / "subgoals.json", SubgoalFile(made_from={}, subgoals=goals))
    milestones = {"kind": "subgoals", "file": str(tmp_path / "subgoals.json")}
    assert run(tmp_path, server.url, tokenizer.path, milestones=milestones) == 0
    assert "3 whose task has no subgoals, 0 that the checker could not decide" in capsys.readouterr().out
    first, *others = ShardReader(tmp_path / "labelled")
    assert [step.milestones for step in first.steps] == rows_by_hand(by_hand, tokenizer, raw[0], ("click it", "stop"), 0.5)
    assert not any(episode.subgoals for episode in others)


def test_what_cannot_be_asked_is_refused(server, tokenizer, tmp_path, raw):
    with pytest.raises(UserError, match=r"milestones\.checker\.trained\.tokenizer: prompts are sent as tokens"):
        build(label.LabelConfig, {"milestones": {"checker": {"kind": "trained"}}})
    with pytest.raises(UserError, match=r"milestones\.checker\.trained\.prompt\.max_tokens: prompts of 512 tokens and an answer take 513"):
        run(tmp_path, server.url, tokenizer.path, prompt={"version": "compact", "max_tokens": 512})
    dead = {"endpoint": {"base_url": "http://127.0.0.1:9/v1", "retries": 0}}
    with pytest.raises(UserError, match=r"milestones\.checker\.trained\.endpoint\.base_url: .*cannot reach"):
        run(tmp_path, server.url, tokenizer.path, **dead)
    assert not (tmp_path / "labelled").exists()


@contextlib.contextmanager
def served(folder):
    """A server on a run, in this process."""
    tokenizer = Tokenizer(folder)
    model, _ = load_model(folder)
    engine = Engine(Sampler(model, (tokenizer.eos_id, tokenizer.end_of_turn_id), rows=4, max_length=512), tokenizer, queue_limit=256)
    server = Server(make_app(engine, Served("checker", "", "float32")), bind("127.0.0.1", 0))
    try:
        yield server.url
    finally:
        server.stop()
        engine.close()


def test_it_is_trained_served_asked_and_measured(tmp_path, capsys):
    synthetic.write_folder(tmp_path / "episodes", count=24)
    sizes = {"width": 32, "layers": 1, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64}
    tree = {
        "out": str(tmp_path / "checker"),
        "recipe": {"name": "checker", "balanced": True},
        "model": {"sizes": sizes},
        "tokenizer": {"train": {"vocabulary_size": 320, "symbols": list(synthetic.SYMBOLS)}},
        "data": {"folders": [str(tmp_path / "episodes")], "prompt": PROMPT, "row_length": 256, "rows": 2, "holdout": 0},
        "updates": 4,
    }
    train.main(build(TrainConfig, tree))
    held_out = [msgspec.structs.replace(one, outcome=None) for one in synthetic.trajectories(4, seed=1)]
    write_shard(tmp_path / "raw" / "episodes-00000.array_record", held_out)
    write_shard(tmp_path / "truth" / "episodes-00000.array_record", synthetic.trajectories(4, seed=1))
    (tmp_path / "judge").mkdir()
    shutil.copy(tmp_path / "checker" / "tokenizer.model", tmp_path / "judge")  # as of an export, which has no recipe
    with served(tmp_path / "checker") as url:
        assert run(tmp_path, url, tmp_path / "checker", judge=tmp_path / "judge", threshold=0.0) == 0
    capsys.readouterr()
    config = {"analysis": "subgoals", "folder": str(tmp_path / "labelled"), "truth": str(tmp_path / "truth"), "resamples": 100}
    assert analyze.main(build(analyze.AnalyzeConfig, {**config, "out": str(tmp_path / "quality.json")})) == 0
    # At this threshold every subgoal is done, so recall is 1 and precision the share that is done.
    done = [z for one in synthetic.trajectories(4, seed=1) for z in one.steps[-1].milestones]
    figures = json.loads((tmp_path / "quality.json").read_text())["figures"]
    assert figures["recall"]["value"] == 1 and figures["precision"]["value"] == pytest.approx(np.mean(done))
    assert "milestones.checker.trained: " in capsys.readouterr().out
