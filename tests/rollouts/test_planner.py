"""Episodes with a planner: what is recorded is what the policy read, training reads the same prompts, and evaluations are paired."""

import asyncio
import json
import sys

import msgspec
import pytest

from mira_jax.config import build
from mira_jax.data.steps import corpus, tokenize
from mira_jax.errors import ConfigError, UserError
from mira_jax.trajectories import summary
from mira_jax.trajectories.prompts import PromptConfig, prompt_hash
from mira_jax.trajectories.records import Plan, Status
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.tokenizer import Tokenizer, train_tokenizer
from rollouts import collect as collect_command
from rollouts import compare, evaluate
from rollouts.agents.planner import HELD
from rollouts.agents.suite_planner import milestone_texts
from rollouts.engine.pool import RolloutConfig, collect
from rollouts.suites import make_suite
from tests.llm.endpoints import answer, serving
from tests.llm.test_role import said

BASE = {"templates": ["tour_4"], "observation": {"handles": "name", "compact": True}, "browser": {"driver": "asgi", "contexts": 1}}
EXIT = 'exit(message="done")'


def episodes(folder, **settings):
    tally = collect(build(RolloutConfig, BASE | settings), folder)
    assert tally.infra_errors == 0
    return list(ShardReader(folder))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Book a tour: leg 1 harbor, leg 2 mill", EXIT] * 20, folder / "tokenizer.model", 300)
    return Tokenizer(folder)


def test_demonstrations_show_the_plan_as_it_was_then(tmp_path, tokenizer):
    (episode,) = episodes(tmp_path, episodes=1, policy={"kind": "expert"}, planner={"kind": "checklist"})
    plans = [step.plan for step in episode.steps]
    subgoals, reached = make_suite("arena").milestones(episode)
    assert [plan.done for plan in plans] == [(False,) * 4, *reached[:4]]
    assert [plan.current for plan in plans] == [0, 1, 2, 3, None]
    assert {plan.subgoals for plan in plans} == {tuple(subgoal.text for subgoal in subgoals)}
    assert all(step.milestones == () for step in episode.steps) and episode.policy.planner.startswith("checklist ")
    prompts = tokenize([episode], PromptConfig("compact"), tokenizer, progress=False)
    text = tokenizer.decode(prompts.prompt(1))
    assert f"done: 1 of 4\nnow: {subgoals[1].text}\n{episode.steps[1].page.observation}" in text
    assert f"done: 1 of 4\nnow: {subgoals[1].text}\n" in corpus([episode])


def test_a_wrong_choice_leaves_its_subgoal_and_the_exit_is_held_back_once(tmp_path):
    policy = {"kind": "expert", "habits": {"takes_first_other": 1.0}}
    with_hold, without = (
        episodes(tmp_path / str(hold), episodes=1, policy=policy, planner={"kind": "checklist", "hold_exits": hold})[0]
        for hold in (True, False)
    )
    assert len(with_hold.steps) == len(without.steps) + 1 and with_hold.status is without.status is Status.FINISHED
    held, last = with_hold.steps[-2:]
    assert held.action.name == last.action.name == "exit" and held.error == HELD + held.plan.subgoals[0] and last.error is None
    assert with_hold.key != without.key and with_hold.evidence.answer == "done"


def test_an_exit_at_the_horizon_is_not_held_back(tmp_path):
    (episode,) = episodes(tmp_path, episodes=1, policy={"kind": "idle"}, planner={"kind": "checklist"}, limits={"horizon": 1})
    assert episode.status is Status.FINISHED and len(episode.steps) == 1


@pytest.mark.parametrize("version", ["webrl", "compact", "instructed"])
async def test_training_rebuilds_the_prompts_of_a_policy_with_a_plan(tmp_path, tokenizer, version):
    def told(text):
        return answer(tree={"choices": [{"text": text, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}})

    async with serving(told("nothing"), told('do(action="Wait")'), told(EXIT)) as (url, asked):
        prompt = {"version": version, "max_tokens": 4096}
        policy = {"kind": "endpoint", "tokenizer": str(tokenizer.path.parent), "prompt": prompt, "endpoint": {"base_url": url}}
        found = await asyncio.to_thread(episodes, tmp_path, episodes=1, policy=policy, planner={"kind": "checklist"})
    (episode,) = found
    assert [step.error is None for step in episode.steps] == [False, True, False, True]
    config = PromptConfig(**prompt)
    examples = tokenize(found, config, tokenizer, progress=False)
    for number, step in enumerate(episode.steps):
        assert examples.prompt(number).tolist() == asked[number]["prompt"]
        assert prompt_hash(examples.prompt(number)) == step.prompt_hash
        assert step.plan.subgoals[0] in tokenizer.decode(examples.prompt(number))
    other = msgspec.structs.replace(episode.steps[1], plan=msgspec.structs.replace(episode.steps[1].plan, current=1))
    for changed in (other, msgspec.structs.replace(other, plan=None)):
        steps = (episode.steps[0], changed, *episode.steps[2:])
        with pytest.raises(UserError, match="the prompt of step 1 is not the one that the policy read"):
            tokenize([msgspec.structs.replace(episode, steps=steps)], config, tokenizer, progress=False)
    # A critic that is shown the labels sees them in place of the plan.
    labelled = [msgspec.structs.replace(step, milestones=(True, False, False, False)) for step in episode.steps]
    subgoals, _ = make_suite("arena").milestones(episode)
    labelled = msgspec.structs.replace(episode, subgoals=subgoals, steps=tuple(labelled))
    critics = tokenize([labelled], PromptConfig(**prompt, subgoals=True), tokenizer, progress=False)
    assert ("done: none" if version == "compact" else "[ ] ") in tokenizer.decode(critics.prompt(0))
    assert "now: " not in (text := tokenizer.decode(critics.prompt(1))) and "[>]" not in text


async def test_a_planner_that_never_answers_ends_no_episode_and_is_counted(tmp_path):
    async with serving(said("garbage")) as (url, _):
        model = {"endpoint": {"base_url": url, "retries": 0}}
        found = await asyncio.to_thread(
            episodes, tmp_path, episodes=1, policy={"kind": "expert"}, planner={"kind": "model", "model": model}
        )
    (episode,) = found
    assert episode.status is Status.FINISHED and all(step.plan == Plan(unanswered=True) for step in episode.steps)
    assert [step.planner_tokens.prompt for step in episode.steps] == [2000] * 5
    assert all(step.seconds.planner > 0 for step in episode.steps)


async def test_a_planner_that_is_down_loses_the_episode_to_an_infrastructure_error(tmp_path):
    async with serving(answer(503, text="down")) as (url, _):
        settings = {"planner": {"kind": "model", "model": {"endpoint": {"base_url": url, "retries": 0}}}, "policy": {"kind": "expert"}}
        config = build(RolloutConfig, BASE | settings | {"episodes": 1, "limits": {"tries": 1}})
        tally = await asyncio.to_thread(collect, config, tmp_path)
    assert tally.status == {"infra_error": 1}


JOINT = "Subgoals:\n1. [{}] book the first leg\n2. [ ] end\nCurrent: {}\n{}"


async def test_a_chat_policy_writes_its_checklist_into_its_answers(tmp_path):
    wait = 'do(action="Wait")'
    answers = [said(JOINT.format(" ", 1, wait)), said(JOINT.format("x", 2, wait)), said(wait), said(JOINT.format("x", 2, EXIT))]
    async with serving(*answers) as (url, asked):
        policy = {"kind": "chat", "endpoint": {"base_url": url}}
        (episode,) = await asyncio.to_thread(episodes, tmp_path, episodes=1, policy=policy, planner={"kind": "joint"})
    plans = [step.plan for step in episode.steps]
    assert [plan.current for plan in plans] == [None, 0, 1, 1, 1] and [plan.unanswered for plan in plans] == [False] * 3 + [True, False]
    assert episode.steps[3].error == HELD + "end" and episode.steps[4].error is None
    assert [step.response for step in episode.steps] == [wait] * 3 + [EXIT] * 2
    assert "Directly before the call, write a checklist" in asked[0]["messages"][0]["content"]
    assert "[x] book the first leg\n[>] end\n" in asked[2]["messages"][-1]["content"]
    with pytest.raises(ConfigError, match=r"planner\.kind: joint needs a policy that writes checklists, of kind chat, not expert"):
        build(RolloutConfig, {"policy": {"kind": "expert"}, "planner": {"kind": "joint"}})


def run(command, *arguments, **settings):
    sets = (part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}"))
    return command.COMMAND.run([*map(str, arguments), *sets])


def test_evaluations_with_and_without_a_planner_are_paired_and_never_mixed(tmp_path, capsys):
    settings = BASE | {"episodes": 4, "policy": {"kind": "expert", "habits": {"takes_first_other": 0.3}}}
    for kind in ("none", "checklist"):
        assert run(evaluate, "--out", tmp_path / kind, **settings, planner={"kind": kind}) == 0
    assert "planner: 0." in capsys.readouterr().out
    assert run(compare, tmp_path / "none", tmp_path / "checklist") == 0
    assert "4 tasks: 0 wins, 0 losses, 4 ties" in capsys.readouterr().out
    assert run(evaluate, "--out", tmp_path / "none", **settings, planner={"kind": "checklist"}) != 0
    assert "holds an evaluation with other settings (planner)" in capsys.readouterr().err
    (without,) = summary.read(tmp_path / "none" / "summary.json").methods.values()
    (method,) = summary.read(tmp_path / "checklist" / "summary.json").methods.values()
    assert set(method.seconds) - set(without.seconds) == {"planner"} and without.planned is None
    assert method.planned == summary.Planned(unanswered=0, replans=0, held_exits=4 - round(4 * method.success_rate.mean))
    assert method.policies[0].planner.startswith("checklist ") and method.cost.planner_usd == 0
    page = (tmp_path / "checklist" / "evaluation.html").read_text()
    assert "exits held back" in page and 'id="planner"' not in (tmp_path / "none" / "evaluation.html").read_text()
    assert run(collect_command, "--out", tmp_path / "collected", **settings | {"episodes": 1}) == 0
    assert run(collect_command, "--out", tmp_path / "collected", **settings | {"episodes": 1}, planner={"kind": "checklist"}) != 0
    assert "collected with other settings (planner)" in capsys.readouterr().err


def test_what_a_planner_needs_is_checked_before_the_run(tmp_path, capsys):
    settings = BASE | {"episodes": 2, "policy": {"kind": "expert"}}
    assert run(evaluate, "--out", tmp_path / "new", "--dry-run", **settings, planner={"kind": "checklist"}) == 0
    assert "planner    checklist\n" in capsys.readouterr().out
    goals = tmp_path / "goals.json"
    goals.write_text("[]")
    model = {"endpoint": {"base_url": "http://127.0.0.1:1/v1", "model": "none"}}
    planner = {"kind": "model", "subgoals": str(goals), "model": model}
    assert run(evaluate, "--out", tmp_path / "new", "--dry-run", **settings, planner=planner) != 0
    shown = capsys.readouterr().out
    assert f"failed   planner.subgoals: {goals}" in shown and "cannot reach the endpoint" in shown
    goals.write_text("{}")
    assert run(evaluate, "--out", tmp_path / "new", **settings, planner=planner) != 0
    assert "goals.json lacks 2 of 2 tasks: tours.tour_4.test.0, tours.tour_4.test.1; add them" in capsys.readouterr().err


def test_a_task_without_milestones_has_no_checklist():
    class Bare:
        def milestones(self, trajectory):
            return (), []

    (task,) = make_suite("arena").tasks("test", ["tour_4"], 1, 0)
    with pytest.raises(ConfigError, match=r"planner\.kind: the task tours.* has no milestones"):
        milestone_texts(Bare(), task)


async def test_the_benchmark_of_budgets_writes_a_page_and_a_table(tmp_path):
    goals = said(json.dumps({"subgoals": ["a", "b"]}))
    config = tmp_path / "config.yaml"
    async with serving(goals) as (url, asked):
        model = {"endpoint": {"base_url": url, "retries": 0}}
        config.write_text(json.dumps(BASE | {"episodes": 2, "policy": {"kind": "expert"}, "planner": {"kind": "model", "model": model}}))
        command = [
            sys.executable,
            "benchmarks/planner.py",
            "--config",
            str(config),
            "--budgets",
            "256",
            "64",
            "--out",
            str(tmp_path / "out"),
        ]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        shown = (await process.communicate())[0].decode()
    assert process.returncode == 0
    rows = json.loads((tmp_path / "out" / "budgets.json").read_text())
    assert [row["tokens"] for row in rows] == [64, 256] and [row["rate"]["mean"] for row in rows] == [1.0, 1.0]
    # The first plan is an answer. All checks have another form: those after four steps, and that of the exit, which is held back.
    assert [row["unanswered"] for row in rows] == [10, 10]
    assert {request["max_tokens"] for request in asked} == {64, 256}
    page = (tmp_path / "out" / "budgets.html").read_text()
    assert "Not measured here" in page and "100.0 %" in page
    assert "      64  100.0 %" in shown
