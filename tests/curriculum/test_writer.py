"""Tasks that a chat model writes, against a real HTTP server whose answers are hostile."""

import asyncio
import json

import pytest

from mira_jax.config import build
from mira_jax.trajectories.records import Task
from rollouts.curriculum import writer
from rollouts.curriculum.writer import WriterConfig, acceptable, is_new, words
from rollouts.llm.role import Role
from tests.llm.endpoints import answer, serving

CONFIG = WriterConfig()


def task(number, intent, site="shopping"):
    return Task(
        id=f"webarena_lite.{number}", suite="webarena_lite", sites=(site,), template=site, split="test", seed=0, intent=intent,
        start_url=f"__{site.upper()}__", horizon=30,
    )  # fmt: skip


FAILED = [task(0, "Find the cheapest red lamp in the shop"), task(1, "Show all my orders of the year 2023")]


def writes(*instructions):
    return says(json.dumps({"instructions": instructions}))


def checks(feasible):
    return says(json.dumps({"reason": "so", "feasible": feasible}))


def says(text):
    return answer(tree={"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})


def test_an_answer_is_bounded():
    written = ["Find a blue\u202e vase\n of   glass", "short", "x" * 401]
    assert acceptable(written, CONFIG) == ["Find a blue vase of glass"]
    assert len(acceptable([f"Find the number {n} of the list" for n in range(50)], CONFIG)) == CONFIG.per_request


def test_instructions_that_say_the_same_are_not_new():
    known = [words("Find the cheapest red lamp.")]
    assert not is_new("find the CHEAPEST red lamp!", known, 0.8) and not is_new("...", [], 0.8)
    # 4 of 6 words are shared.
    assert is_new("Find the cheapest blue lamp", known, 0.8) and not is_new("Find the cheapest blue lamp", known, 0.6)


def write(*answers, count=3, failed=FAILED, **keys):
    async def run():
        async with serving(*answers) as (address, asked):
            config = build(WriterConfig, {"endpoint": {"base_url": address, "retries": 0}, "requests": 4, **keys})
            async with Role(config, "writer") as role:
                return await writer.write(failed, count, role, seed=1, known=["Find the price of a clock here"]), asked

    return asyncio.run(run())


def test_written_tasks_have_sites_and_start_of_failed_ones(tmp_path):
    listed = writes("Find the dearest green rug sold", "find the price of a CLOCK here", "Write a review of the first mug")
    made, asked = write(listed, checks(True), checks(False), listed, count=2, temperature=0.5)
    assert [one.intent for one in made] == ["Find the dearest green rug sold"]
    (one,) = made
    assert (one.suite, one.sites, one.start_url, one.horizon) == ("webarena_lite", ("shopping",), "__SHOPPING__", 30)
    assert (one.template, one.split) == ("written", "train") and one.id.startswith("webarena_lite.written.")
    first = shown(asked[0])
    assert sorted(first["instructions"]) == sorted(task.intent for task in FAILED) and first["sites"] == ["shopping"]
    assert asked[0]["temperature"] == 0.5 and shown(asked[1])["new"] == made[0].intent
    assert asked[1]["temperature"] == 0
    # One request for instructions, two checks of feasibility, and the three requests that are left repeat what is known.
    assert len(asked) == 6


def shown(request):
    """The data in a request, before the words on the form of its answer."""
    return json.loads(request["messages"][1]["content"].partition("\n\n")[0])


def test_the_number_of_tasks_and_of_requests_is_bounded():
    many = writes(*(f"Count the {noun} of the shop" for noun in ("lamps", "rugs", "mugs", "vases", "clocks")))
    made, asked = write(many, count=3, check=False, most_alike=0.9)
    assert len(made) == 3 and len(asked) == 1
    made, asked = write(says("I will not"), check=False)
    # Each of the four questions is asked twice.
    assert made == [] and len(asked) == 8
    made, asked = write(many, failed=[], check=False)
    assert made == [] and asked == []


@pytest.mark.parametrize(
    "text",
    ["no object", '{"instructions": "Find a blue vase of glass"}', '{"instructions": [1]}', '{"a": ["Find a blue vase of glass"]}',
     "[" * 10_000 + "]" * 10_000, '{"instructions": ["unfinished', None, "x" * 10_000_000],
)  # fmt: skip
def test_an_answer_of_another_form_writes_nothing_and_ends_nothing(text):
    many = writes("Count the lamps of the shop", "Count the rugs of the shop")
    made, asked = write(says(text), says(text), many, says(text), says(text), checks(True), count=2, requests=2, most_alike=0.9)
    # The first question and the first check have no valid answer.
    assert [one.intent for one in made] == ["Count the rugs of the shop"]
    assert len(asked) == 6


def test_equal_instructions_get_equal_ids_and_only_those():
    tasks = [writer._task(FAILED[0], text) for text in ("Buy a red lamp", "Buy a red lamp", "Buy a blue lamp")]
    assert tasks[0] == tasks[1] and tasks[0].id != tasks[2].id
    assert writer._task(task(5, "x", "reddit"), "Buy a red lamp").id != tasks[0].id
