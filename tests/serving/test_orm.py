"""An outcome reward model as judge: a real server on a tiny model, asked by `mira label`."""

import contextlib

import msgspec
import numpy as np
import pytest

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.trajectories.answer_prompts import answer_ids, outcome_prompt_ids
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader, write_shard
from rollouts import label
from rollouts.labels.judge import JudgeConfig, OutcomeRewardModel
from rollouts.llm.endpoint import EndpointConfig
from tests import synthetic
from tests.json_server import serving_json

SUITE = {"name": "tests.suites.recorded_suite:RecordedSuite"}
COMPACT = {"version": "compact", "max_tokens": 300}


def judge(url, tokenizer, prompt=COMPACT, **keys):
    endpoint = EndpointConfig(base_url=url + "/v1", backoff=0.01, retries=0)
    return OutcomeRewardModel(
        JudgeConfig(kind="orm", endpoint=endpoint, tokenizer=str(tokenizer.path), prompt=PromptConfig(**prompt), **keys)
    )


def probability(by_hand, tokenizer, episode, prompt):
    """P(YES) / (P(YES) + P(NO)) from one forward pass in this process."""
    log_probs = by_hand.log_probs(outcome_prompt_ids(episode, PromptConfig(**prompt), tokenizer))[-1]
    yes, no = (np.exp(np.float64(log_probs[answer])) for answer in answer_ids(tokenizer))
    return yes / (yes + no)


@pytest.mark.parametrize("prompt", [COMPACT, {"version": "webrl", "max_tokens": 511}], ids=lambda prompt: prompt["version"])
def test_the_probability_through_the_server_is_that_of_the_model(server, by_hand, tokenizer, prompt):
    episodes = synthetic.trajectories(6, infra_every=3)
    found = list(judge(server.url, tokenizer, prompt).outcomes(episodes))
    for episode, outcome in zip(episodes, found, strict=True):
        if episode.status is Status.INFRA_ERROR:
            assert outcome is None
            continue
        expected = probability(by_hand, tokenizer, episode, prompt)
        assert (outcome.source, outcome.success) == ("orm", expected >= 0.5)
        assert outcome.score == pytest.approx(expected, abs=1e-4)
        assert outcome.detail == f"P(YES) {outcome.score:.6f}, threshold 0.5, by tiny (c0ffee)"


def test_labels_by_an_orm(server, by_hand, tokenizer, tmp_path, capsys):
    episodes = [msgspec.structs.replace(episode, outcome=None) for episode in synthetic.trajectories(5, infra_every=5)]
    write_shard(tmp_path / "raw" / "episodes-00000.array_record", episodes)
    expected = [probability(by_hand, tokenizer, episode, COMPACT) for episode in episodes[:4]]
    threshold = float(np.sort(expected)[1:3].mean())

    def run(**keys):
        endpoint = {"base_url": server.url + "/v1"}
        orm = {"kind": "orm", "endpoint": endpoint, "tokenizer": str(tokenizer.path), "prompt": COMPACT, "threshold": threshold, **keys}
        tree = {"folder": str(tmp_path / "raw"), "out": str(tmp_path / "labelled"), "suite": SUITE, "judge": orm}
        return label.main(build(label.LabelConfig, tree))

    assert run() == 0
    assert "5 episodes labelled, 2 of 4 judged a success" in capsys.readouterr().out
    labelled = list(ShardReader(tmp_path / "labelled"))
    assert [episode.outcome and episode.outcome.success for episode in labelled] == [*(p >= threshold for p in expected), None]
    assert [episode.steps for episode in labelled[:4]] == [before.steps for before in episodes[:4]]
    # The lost episode gets no labels, and keeps no old ones.
    assert not labelled[4].subgoals and not any(step.milestones for step in labelled[4].steps)
    assert run() == 0 and "labelled already" in capsys.readouterr().out
    with pytest.raises(UserError, match="labelled with other settings of the suite, the judge or the milestones"):
        run(threshold=0.25)


def test_a_model_of_too_short_a_context_is_refused(server, tokenizer):
    with pytest.raises(UserError, match=r"judge\.prompt\.max_tokens: prompts of 512 tokens and an answer take 513, but tiny takes 512"):
        next(judge(server.url, tokenizer, {"version": "compact", "max_tokens": 512}).outcomes(synthetic.trajectories(1)))


def test_an_endpoint_that_is_not_there_is_named(tokenizer):
    with pytest.raises(UserError, match=r"judge\.endpoint\.base_url: .*cannot reach .*the same command judges them"):
        next(judge("http://127.0.0.1:9", tokenizer).outcomes(synthetic.trajectories(1)))


def test_the_tokenizer_is_required():
    with pytest.raises(UserError, match=r"judge\.tokenizer: prompts are sent as tokens"):
        build(label.LabelConfig, {"judge": {"kind": "orm"}})


@contextlib.contextmanager
def engine_without(log_probs):
    """An endpoint that answers with the given `token_logprobs` for each prompt."""

    def post(asked):
        return 200, {"choices": [{"index": index, "text": "", "logprobs": log_probs} for index in range(len(asked["prompt"]))]}

    with serving_json(post, models=["other"]) as url:
        yield url


@pytest.mark.parametrize(
    ("log_probs", "message"),
    [
        (None, "judge: .*no log-probabilities of the prompt"),
        ({"token_logprobs": [None, -1.0]}, "judge: .*does not report the log-probability of each token of an echoed prompt"),
    ],
)
def test_an_engine_that_does_not_echo_log_probs_is_refused(tokenizer, log_probs, message):
    with engine_without(log_probs) as url, pytest.raises(UserError, match=message):
        next(judge(url, tokenizer).outcomes(synthetic.trajectories(1)))
