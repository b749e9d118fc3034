"""mira rubric: versions of a rubric from balanced batches, by a scripted chat model."""

import asyncio
import json

import pytest
import yaml

from mira_jax.config import build
from mira_jax.errors import ConfigError, UserError
from mira_jax.trajectories.plan_grades import DIMENSIONS
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import write_shard
from rollouts import rubric
from rollouts.labels import rubrics
from rollouts.labels.rubric_update import draw_batch, usable
from tests.labels.planned import planned
from tests.llm.endpoints import answer, serving

EPISODES = [
    *(planned(number, right=attempt == 0, attempt=attempt) for number in range(3) for attempt in range(2)),
    *(planned(number, right=number % 2 == 0, template="chain_2") for number in range(10)),
]
"""Three tasks with a success and a failure, and ten with one of both."""


def said(tree):
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    text = tree if isinstance(tree, str) else json.dumps(tree)
    return answer(tree={"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage})


def proposed(text="better", **changes):
    one = {"description": text, **{f"grade_{grade}": f"{text} {grade}" for grade in range(6)}}
    return {"reason": "clearer", **dict.fromkeys(DIMENSIONS, one), **changes}


def is_update(request):
    return request["response_format"]["json_schema"]["name"] == "ProposedRubric"


def data(request):
    return json.loads(request["messages"][1]["content"].partition("\n\nAnswer with one JSON object")[0])


def scripted(update=None, insights=("Name each hop.",)):
    return lambda request: said((update or proposed()) if is_update(request) else {"insights": list(insights)})


@pytest.fixture
def tree(tmp_path):
    write_shard(tmp_path / "labelled" / "episodes-00000.array_record", EPISODES)
    return {"out": str(tmp_path / "rubrics"), "episodes": [str(tmp_path / "labelled")], "batch": 8}


async def run(url, tree, **model):
    config = {**tree, "model": {"endpoint": {"base_url": url, "retries": 0}, **model}}
    return await asyncio.to_thread(rubric.main, build(rubric.RubricConfig, config))


def test_batches_are_balanced_have_pairs_and_depend_on_seed_and_version_only():
    batch = draw_batch(EPISODES, 8, 0, 1)
    assert sum(one.success for one in batch.episodes) == 4 == len(batch.episodes) / 2
    assert len(batch.pairs) == 2 and all(one.task == other.task and one.success and not other.success for one, other in batch.pairs)
    assert len({one.id for one in batch.episodes}) == 8
    assert draw_batch(EPISODES[::-1], 8, 0, 1) == batch
    assert draw_batch(EPISODES, 8, 0, 2) != batch != draw_batch(EPISODES, 8, 1, 1)
    # Three successes and one failure: one of each.
    few = draw_batch([planned(number, right=number > 0, template="chain_2") for number in range(4)], 8, 0, 1)
    assert [one.success for one in few.episodes] == [True, False]
    with pytest.raises(UserError, match="a batch needs successes and failures"):
        draw_batch([planned(number) for number in range(4)], 8, 0, 1)


def test_lost_and_forced_episodes_are_not_used():
    assert not usable([planned(0, status=Status.INFRA_ERROR), planned(1, forced_plan="right")])


async def test_versions_are_written_recorded_and_never_changed(tmp_path, tree, capsys):
    folder = tmp_path / "rubrics"
    (tmp_path / "people.yaml").write_text(
        yaml.safe_dump({"format": 1, "plans": {one.id: {"grades": {"order": 1}, "comment": "unclear order"} for one in EPISODES}})
    )
    tree["corrections"] = str(tmp_path / "people.yaml")
    async with serving(scripted()) as (url, asked):
        await run(url, tree)
        assert sorted(path.name for path in folder.iterdir()) == ["rubric-0000.yaml", "rubric-0001.json", "rubric-0001.yaml"]
        assert rubrics.read(folder / "rubric-0000.yaml") == rubrics.read(rubrics.DEFAULT)
        first = (folder / "rubric-0001.yaml").read_bytes()
        # Two pairs and four single episodes, then the rubric.
        assert [is_update(one) for one in asked] == [False] * 6 + [True]
        assert sorted(len(data(one)["episodes"]) for one in asked[:6]) == [1, 1, 1, 1, 2, 2]
        assert "SECRET" not in json.dumps(asked)
        last = data(asked[6])
        assert last["insights"] == ["Name each hop."] and len(last["episodes"]) == 8
        assert last["episodes"][0]["comment_of_people"] == "unclear order" and last["episodes"][0]["grades_of_people"] == {"order": 1}
        # The same command has nothing to do, and more updates add to what is there.
        await run(url, tree)
        assert len(asked) == 7 and "has 1 versions after the first already" in capsys.readouterr().out
        await run(url, {**tree, "updates": 2})
        assert len(asked) > 8 and is_update(asked[-1]) and data(asked[-1])["rubric"][0]["description"] == "better"
        assert (folder / "rubric-0001.yaml").read_bytes() == first
        for other in ({"seed": 1}, {"batch": 4}, {"corrections": ""}):
            with pytest.raises(UserError, match=r"rubric-0001\.yaml: was made from other episodes, corrections or settings"):
                await run(url, {**tree, **other})
    new = rubrics.read(folder / "rubric-0001.yaml")
    assert new.dimensions[3].anchors[2] == "better 2" and new.weights == rubrics.read(rubrics.DEFAULT).weights
    origins = [json.loads((folder / f"rubric-000{number}.json").read_text()) for number in (1, 2)]
    assert origins[0]["reason"] == "clearer" and len(origins[0]["episodes"]) == 8 and set(origins[0]["tasks"]) <= set(origins[1]["tasks"])
    assert origins[1]["made_from"]["previous"] == new.sha256
    with pytest.raises(UserError, match="begin with another rubric"):
        await run("http://127.0.0.1:1/v1", {**tree, "rubric": str(folder / "rubric-0001.yaml")})


@pytest.mark.parametrize(
    "wrong",
    [
        "prose", {"reason": "x"}, proposed(order={"description": "x"}), proposed(text=""), proposed(text="x" * 501),
        proposed(style={"description": "x"}), proposed(text=" \u202e "),
    ],
    ids=lambda wrong: str(wrong)[:30],
)  # fmt: skip
async def test_a_rubric_of_another_form_is_not_written_and_the_answers_are_kept(wrong, tmp_path, tree):
    folder = tmp_path / "rubrics"
    async with serving(lambda request: said(wrong if is_update(request) else {"insights": ["a"]})) as (url, asked):
        with pytest.raises(ConfigError, match=r"model: .*the same command continues"):
            await run(url, tree)
        assert [path.name for path in folder.iterdir()] == ["rubric-0000.yaml"]
        count = len(asked)
        with pytest.raises(ConfigError):
            await run(url, tree)
        assert len(asked) == count  # All answers were kept.


async def test_insights_without_a_valid_answer_are_counted(tmp_path, tree):
    def reply(request):
        if is_update(request):
            return said(proposed())
        return said("prose" if len(data(request)["episodes"]) == 2 else {"insights": ["b", "b", " \n", "c", "d"]})

    async with serving(reply) as (url, asked):
        await run(url, tree)
    origin = json.loads((tmp_path / "rubrics" / "rubric-0001.json").read_text())
    assert origin["unanswered"] == 2 and origin["insights"] == ["b"] and data(asked[-1])["insights"] == ["b"]
