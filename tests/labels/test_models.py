"""Subgoals written and checked by a chat model behind a real HTTP server, whose answers are hostile."""

import asyncio
import json
from pathlib import Path

import pytest

from mira_jax.config import build
from mira_jax.errors import ConfigError, UserError
from mira_jax.recipes.labels import read_labels, require_milestones
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader, write_shard
from rollouts import label, subgoals
from rollouts.labels import milestones
from rollouts.labels.checker import CUT, ModelChecker, ModelCheckerConfig
from rollouts.labels.labeller import OpenLabeller, chain
from rollouts.labels.milestones import by_model, by_rules, cleared, of_file
from rollouts.labels.subgoals import files
from rollouts.labels.subgoals.files import Goal, SubgoalFile
from rollouts.llm.role import LONGEST
from rollouts.suites.tasks.items import Check
from tests.labels.episodes import episode, shopping
from tests.llm.endpoints import answer, serving

TEXTS = ["The lamp is found", "The product page is open", "The quantity is typed", "The order is placed"]
CONTENT = SubgoalFile(made_from={}, subgoals={shopping(1).task.id: tuple(map(Goal, TEXTS))})


def said(tree):
    text = tree if isinstance(tree, str) else json.dumps(tree)
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    return answer(tree={"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}], "usage": usage})


def done(*triples):
    return said({"done": [{"subgoal": subgoal, "step": step, "evidence": evidence} for subgoal, step, evidence in triples]})


def written(*texts, numbers=None):
    return said({"subgoals": [{"number": number, "text": text} for number, text in zip(numbers or range(1, 99), texts, strict=False)]})


def endpoint(url, **more):
    return {"base_url": url, "retries": 0, "backoff": 0.0, "timeout": 60.0, "model": "small", **more}


async def check(trajectory, *answers, **keys):
    async with serving(*answers) as (url, asked):
        checker = ModelChecker(build(ModelCheckerConfig, {"endpoint": endpoint(url), **keys}), "milestones.checker.model")
        async with checker.role:
            labelled = await by_model(of_file(CONTENT), checker)(trajectory)
        return labelled, asked, checker.role.usage


async def test_windows_of_steps_are_asked_about_until_all_is_done():
    first = done((1, 1, "search shows it"), (2, 2, "its page"), (1, 2, "again"))
    labelled, asked, usage = await check(
        shopping(1), first, done((2, 3, "again"), (4, 4, "thank you")), done(), window=2, page_characters=9
    )
    assert [step.milestones for step in labelled.steps] == [(1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 0, 0), (1, 1, 0, 1), (1, 1, 0, 1)]
    assert labelled.subgoals[0].text == TEXTS[0] and labelled.subgoals[0].check == "by small"
    questions = [json.loads(request["messages"][1]["content"].partition("\n\n")[0]) for request in asked]
    assert [question["done"] for question in questions] == [[], [1, 2], [1, 2, 4]]
    assert [[step["step"] for step in question["steps"]] for question in questions] == [[1, 2], [3, 4], [5]]
    assert questions[1]["steps"][1]["page_after"] == {"url": "__SHOP__/orders/7", "text": "thank you"}
    assert questions[0]["page_before"]["text"] == "<input id" + CUT and questions[0]["instruction"] == 'Buy 2 of "blue lamp"'
    assert (usage.requests, usage.prompt_tokens, usage.invalid) == (3, 3000, 0)
    everything = done(*((number, 1, "seen") for number in (1, 2, 3, 4)))
    labelled, asked, _ = await check(shopping(1), everything, window=2)
    assert len(asked) == 1 and all(step.milestones == (1, 1, 1, 1) for step in labelled.steps)


WRONG = [
    done((1, 9, "x")),
    done((1, 0, "x")),
    done((5, 1, "x")),
    done((0, 1, "x")),
    done((1, 1, " ")),
    said("garbage"),
    said('{"done": [{"subgoal": 1, "st'),
    said({"done": [{"subgoal": "eins", "schritt": 1, "beweis": "x"}]}),
    said({"erledigt": [1]}),
    said({"done": [{"subgoal": 10**400, "step": 1, "evidence": "x"}]}),
    said("[" * 50_000),
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_answer_is_repaired_once(wrong):
    labelled, asked, usage = await check(shopping(1), wrong, done((1, 1, "seen")))
    assert labelled.steps[0].milestones == (1, 0, 0, 0)
    assert len(asked) == 2 and (usage.repaired, usage.invalid) == (1, 0)


@pytest.mark.parametrize("wrong", [*WRONG[:2], said("x" * (LONGEST + 1)), said("я" * 5_000_000)])
async def test_without_a_valid_answer_the_episode_has_no_milestones_and_no_failure(wrong):
    labelled, asked, usage = await check(shopping(1), wrong)
    assert labelled == shopping(1) and labelled.success
    assert len(asked) == 2 and usage.invalid == 1
    # What needs milestones refuses the episode.
    with pytest.raises(UserError, match="needs milestones"):
        require_milestones(read_labels([labelled]), "recipe.objective")


async def test_tasks_without_subgoals_and_lost_episodes_are_not_asked_about():
    for trajectory in (shopping(2), shopping(1, status=Status.INFRA_ERROR), episode(1)):
        labelled, asked, _ = await check(trajectory, done())
        assert labelled.steps == trajectory.steps and asked == []


async def test_labellers_are_composable_and_concurrent():
    running, most = 0, 0

    async def slow(trajectory):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return trajectory

    both = chain(slow, cleared, by_rules(SubgoalFile(made_from={}, subgoals={"tasks.1": (Goal("all is done", (Check(text="thank"),)),)})))
    old = episode(1, ("u", "page", 'exit(message="")'), milestones=[(True, False)])
    labelled, other = await asyncio.gather(both(old), both(shopping(2)))
    assert most == 2 and [goal.text for goal in labelled.subgoals] == ["all is done"] and labelled.steps[0].milestones == (True,)
    assert other.subgoals == () and other.steps == shopping(2).steps


def test_an_endpoint_that_fails_stops_the_command_and_keeps_the_answers(tmp_path):
    async def dead():
        async with serving(done()) as (url, _):
            return url

    url = asyncio.run(dead())
    config = build(ModelCheckerConfig, {"endpoint": endpoint(url)})
    checker = ModelChecker(config, "milestones.checker.model")
    labels = OpenLabeller(by_model(of_file(CONTENT), checker), milestones.KEY, checker)
    with pytest.raises(UserError, match=r"milestones\.checker\.model.*cannot connect|milestones\.checker\.model"):
        labels.label([shopping(1)])
    labels.close()


def test_files_without_checks_need_a_model_and_bad_keys_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"milestones\.checker\.kind: the subgoals of tasks\.1 have no checks"):
        by_rules(CONTENT)
    for keys, told in (({"kind": "subgoals"}, "file: name the file"), ({"file": "x"}, "kind: suite has its own")):
        with pytest.raises(ConfigError, match=told):
            build(milestones.MilestonesConfig, keys)


# The commands, from a folder of episodes of the suite `tasks` to labels.


EPISODES = [shopping(1), shopping(2, 5, "red vase")]


@pytest.fixture
def shop(tmp_path):
    """Folder of two episodes, and the settings of their suite."""
    items = [
        {"task_id": number, "sites": ["shop"], "start_url": "__SHOP__/", "intent": one.task.intent, "split": "train",
         "template": "buy", "eval": {"eval_types": ["string_match"], "reference_answers": {"exact_match": "done"}}}
        for number, one in enumerate(EPISODES, 1)
    ]  # fmt: skip
    (tmp_path / "tasks.json").write_text(json.dumps(items))
    write_shard(tmp_path / "raw" / "episodes-00000.array_record", EPISODES)
    return {"name": "tasks", "options": {"tasks": str(tmp_path / "tasks.json"), "sites": {"shop": "http://127.0.0.1:9"}}}


async def command(module, tree):
    """Runs a command in a thread, while the endpoint is served."""
    config = build(module.COMMAND.config_type, tree)
    return await asyncio.to_thread(module.main, config)


async def test_subgoals_are_written_checked_and_recorded(tmp_path, shop, capsys):
    out = str(tmp_path / "subgoals.json")
    async with serving(written(*TEXTS), written("Think hard", "x", "The answer is done", "x"), written(*TEXTS)) as (url, asked):
        model = {"endpoint": endpoint(url, concurrency=1, prompt_price=1.0)}
        tree = {"suite": shop, "episodes": [str(tmp_path / "raw")], "out": out, "writer": {"model": model}}
        assert await command(subgoals, tree) == 0
        assert await command(subgoals, tree) == 0
        with pytest.raises(UserError, match="made from other inputs"):
            await command(subgoals, {**tree, "count": 3})
    assert len(asked) == 3
    question = json.loads(asked[0]["messages"][-1]["content"].partition("\n\n")[0])
    assert question == {"sites": ["shop"], "instruction": 'Buy 2 of "blue lamp"', "first_page": '<input id="1" placeholder="search">'}
    assert [message["role"] for message in asked[0]["messages"]] == ["system", *["user", "assistant"] * 2, "user"]
    told = asked[2]["messages"][-1]["content"]
    assert "subgoal 1 begins with 'think'" in told and "subgoal 4 repeats subgoal 2" in told and "reveals 'done'" in told
    found = files.read(out)
    assert [goal.text for goal in found.subgoals["tasks.2"]] == TEXTS and found.left_out == {}
    assert found.usage["requests"] == 3 and found.usage["cost"] == pytest.approx(0.003)
    assert f"{out}: complete" in capsys.readouterr().out
    async with serving(done((1, 1, "seen"))) as (url, asked):
        checker = {"kind": "model", "model": {"endpoint": endpoint(url)}}
        tree = {"folder": str(tmp_path / "raw"), "out": str(tmp_path / "labelled"), "suite": shop,
                "milestones": {"kind": "subgoals", "file": out, "checker": checker}}  # fmt: skip
        assert await command(label, tree) == 0
        assert await command(label, tree) == 0
        assert len(asked) == 2
        # Labelled again, it asks nothing: the answers were kept.
        assert await command(label, {**tree, "overwrite": True}) == 0
        assert len(asked) == 2
    labelled = ShardReader(tmp_path / "labelled")
    assert [one.steps[0].milestones for one in labelled] == [(1, 0, 0, 0)] * 2 and labelled[0].success
    assert "sha256" in (tmp_path / "labelled" / "label.yaml").read_text()
    assert json.loads((tmp_path / "labelled" / "usage.json").read_text())["milestones.checker.model"]["cached"] == 2
    said_by = capsys.readouterr().out
    assert "0 whose task has no subgoals, 0 that the checker could not decide" in said_by and "2,000 + 200 tokens" in said_by
    with pytest.raises(UserError, match="other settings of the suite, the judge or the milestones"):
        await command(label, {**tree, "milestones": {"kind": "suite"}})


@pytest.mark.parametrize(
    "wrong",
    [
        said("garbage"), said('{"subgoals": [{"number": 1, "te'), said({"teilziele": ["Lampe suchen"]}), said("я" * 5_000_000),
        written(*TEXTS[:3]), written(*TEXTS, numbers=[1, 2, 2, 3]), written(*TEXTS[:3], TEXTS[0]), written(*TEXTS[:3], ""),
        written(*TEXTS[:3], "И" * 30 + " ы"),
    ],
)  # fmt: skip
async def test_a_task_without_valid_subgoals_is_left_out_and_counted(wrong, tmp_path, shop, capsys):
    out = str(tmp_path / "subgoals.json")
    async with serving(wrong) as (url, asked):
        tree = {"suite": shop, "tasks": 1, "out": out, "writer": {"model": {"endpoint": endpoint(url)}}}
        assert await command(subgoals, tree) == 0
    found = files.read(out)
    assert len(asked) == 2 and found.subgoals == {} and list(found.left_out) == ["tasks.1"] and found.usage["invalid"] == 1
    assert "subgoals of 0 tasks, 1 left without" in capsys.readouterr().out


async def test_a_run_that_was_stopped_asks_only_for_the_rest(tmp_path, shop, capsys):
    out = str(tmp_path / "subgoals.json")
    tree = {"suite": shop, "tasks": 2, "out": out}
    async with serving(written(*TEXTS), answer(503, text="busy"), written(*TEXTS)) as (url, asked):
        writer = {"writer": {"model": {"endpoint": endpoint(url, concurrency=1)}}}
        with pytest.raises(UserError, match="the answers so far are kept, and the same command continues"):
            await command(subgoals, tree | writer)
        assert not Path(out).exists()
        assert await command(subgoals, tree | writer) == 0
        assert len(asked) == 3
    assert len(files.read(out).subgoals) == 2
    assert "1 from the cache" in capsys.readouterr().out


async def test_rules_need_no_endpoint(tmp_path, shop, capsys):
    out, raw = str(tmp_path / "template.json"), str(tmp_path / "raw")
    assert await command(subgoals, {"generator": "template", "suite": shop, "episodes": [raw], "out": out}) == 0
    tree = {"folder": raw, "out": str(tmp_path / "labelled"), "suite": shop, "milestones": {"kind": "subgoals", "file": out}}
    assert await command(label, tree) == 0
    # The instruction's values are 2, typed at the third step, and the lamp, searched for at the first.
    assert [step.milestones for step in ShardReader(tmp_path / "labelled")[0].steps] == [(0, 1), (0, 1), (1, 1), (1, 1), (1, 1)]
    with pytest.raises(ConfigError, match=r"successes\.episodes"):
        build(subgoals.SubgoalsConfig, {"generator": "successes"})
