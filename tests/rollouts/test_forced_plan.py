"""A policy whose first response is given: what is sampled, what is recorded, and what is refused."""

import asyncio

import pytest

from mira_jax.config import build
from mira_jax.data.steps import step_examples
from mira_jax.errors import ConfigError, UserError
from mira_jax.needs import Needs
from mira_jax.trajectories.plan_grades import is_right
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Policy, Status, episode_key
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.tokenizer import Tokenizer, train_tokenizer
from rollouts import collect
from rollouts.agents.base import PolicyConfig
from rollouts.agents.policy import make_policy
from rollouts.engine.needs import rollout_needs
from rollouts.suites import make_suite
from rollouts.suites.seeking.suite import SeekingSuite
from tests.llm.endpoints import answer, as_vllm, serving

ANSWER = 'exit(message="N/A")'


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(
        ["What is the seat of the publisher?", ANSWER, 'do(action="Search", argument="")'] * 20, folder / "tokenizer.model", 300
    )
    return folder


async def run(tokenizer, out, kind, url, **changes):
    policy = {"tokenizer": str(tokenizer), "name": "m", "temperature": 1.0, "forced_plan": kind, "prompt": {"max_tokens": 4000},
              "endpoint": {"base_url": url, "retries": 0}}  # fmt: skip
    config = {
        "suite": {"name": "seeking"}, "split": "train", "episodes": 3, "templates": ["chain_3"], "policy": policy, "out": str(out),
        "observation": {"handles": "name", "compact": True}, "browser": {"driver": "asgi", "contexts": 1}, **changes,
    }  # fmt: skip
    assert await asyncio.to_thread(collect.main, build(collect.CollectConfig, config)) == 0
    return list(ShardReader(out))


async def test_the_suite_writes_the_first_response_and_the_policy_the_rest(tokenizer, tmp_path, capsys):
    model = Tokenizer(tokenizer)
    ids = [*model.encode(ANSWER), model.end_of_turn_id]

    def reply(request):
        return answer(tree=as_vllm(ids, [-0.1] * len(ids), request["prompt"], text=ANSWER))

    suite, episodes = SeekingSuite(), {}
    async with serving(reply) as (url, asked):
        for kind in ("right", "wrong", "none"):
            begin = len(asked)
            episodes[kind] = await run(tokenizer, tmp_path / kind, kind, url)
            assert len(asked) - begin == 3
            assert collect.UNTOKENISED not in capsys.readouterr().out
        seeds = [request["seed"] for request in asked]
        with pytest.raises(UserError, match=r"other settings \(policy\.forced_plan\)"):
            await run(tokenizer, tmp_path / "right", "wrong", url)
        # The later responses of both kinds are sampled with the same seeds, and those of a policy left alone begin with others.
        assert sorted(seeds[:3]) == sorted(seeds[3:6]) != sorted(seeds[6:])
    for kind in ("right", "wrong"):
        for one in episodes[kind]:
            first, second = one.steps
            assert one.policy.forced_plan == kind and first.response.startswith("# Plan: 1 ") and first.error is None
            assert (first.token_ids, first.log_probs, first.sampling_log_probs, first.log_prob) == (None, None, None, None)
            assert second.response == ANSWER and second.token_ids == tuple(ids) and one.status is Status.FINISHED
            assert is_right(suite.grade_plan(one)) == (kind == "right")
            with pytest.raises(UserError, match=f"not the policy's own but a {kind} plan"):
                list(step_examples(one, PromptConfig(max_tokens=4000), model))
    assert all(one.policy.forced_plan == "" and len(one.steps) == 1 for one in episodes["none"])
    keys = [one.key for kind in episodes for one in episodes[kind]]
    assert len(set(keys)) == 9
    assert list(step_examples(episodes["none"][0], PromptConfig(max_tokens=4000), model))


def test_keys_without_a_forced_plan_are_as_before():
    task = SeekingSuite().tasks("train", ["chain_2"], 1, 0)[0]
    own = episode_key(task, 0, Policy(name="p", planner="x"))
    assert own == f"{task.id}|{task.seed}|0|p@|t0s0|x"
    assert episode_key(task, 0, Policy(name="p", planner="x", forced_plan="right")) == f"{own}|right plan"


def test_what_reads_no_plan_or_knows_none_is_refused(tokenizer):
    for kind in ("expert", "random", "idle"):
        with pytest.raises(ConfigError, match=r"forced_plan: a policy of kind .* reads no plan"):
            build(PolicyConfig, {"kind": kind, "forced_plan": "right"})
    with pytest.raises(ConfigError, match=r"policy\.forced_plan: the suite miniwob knows no plans"):
        make_policy(PolicyConfig(tokenizer=str(tokenizer), forced_plan="right"), make_suite("miniwob"))
    joint = {"policy": {"kind": "chat", "forced_plan": "wrong"}, "planner": {"kind": "joint"}}
    with pytest.raises(ConfigError, match=r"policy\.forced_plan: the response has no checklist"):
        build(collect.CollectConfig, joint)
    found = Needs()
    config = {"suite": {"name": "miniwob"}, "policy": {"kind": "chat", "forced_plan": "wrong"}}
    rollout_needs(build(collect.CollectConfig, config), found)
    assert any(check.key == "policy.forced_plan" for check in found.checks)
