"""Roles behind servers that answer and refuse as the known APIs do, and what bad answers lead to."""

import asyncio
import json
import sqlite3
from typing import Annotated, Literal

import msgspec
import pytest

from mira_jax.config import build
from mira_jax.errors import ConfigError, UserError
from rollouts.errors import EndpointError
from rollouts.llm.answers import Completion
from rollouts.llm.cache import AnswerCache, question_key
from rollouts.llm.role import LONGEST, NoAnswer, Role, RoleConfig, answer_schema
from rollouts.llm.usage import SpendingLimit
from tests.llm.endpoints import answer, serving


class Verdict(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    verdict: Literal["yes", "no"]


GOOD = json.dumps({"reason": "it is there", "verdict": "yes"})
QUESTION = [{"role": "system", "content": "You check."}, {"role": "user", "content": "Is it there?"}]


def said(content, finish_reason="stop", **message):
    message = {"role": "assistant", "content": content, **message}
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    return answer(tree={"choices": [{"message": message, "finish_reason": finish_reason}], "usage": usage})


def config(url, cache="", answer_format="json_schema", **endpoint):
    endpoint = {"base_url": url, "retries": 1, "backoff": 0.0, "timeout": 5.0, **endpoint}
    return build(RoleConfig, {"endpoint": endpoint, "cache": str(cache), "answer_format": answer_format})


async def ask(url, times=1, **settings):
    async with Role(config(url, **settings), "judge") as role:
        answers = [await role.ask(QUESTION, Verdict, seed=number) for number in range(times)]
    return answers[-1], role.usage


async def test_the_form_is_asked_for_in_words_and_by_schema():
    async with serving(said(GOOD)) as (url, asked):
        found, usage = await ask(url)
        await ask(url, answer_format="json_object")
        await ask(url, answer_format="text")
    assert found == Verdict(reason="it is there", verdict="yes")
    assert (usage.requests, usage.prompt_tokens, usage.response_tokens, usage.repaired) == (1, 1000, 100, 0)
    wanted = {
        "title": "Verdict", "type": "object", "properties": {"reason": {"type": "string"}, "verdict": {"enum": ["no", "yes"]}},
        "required": ["reason", "verdict"], "additionalProperties": False,
    }  # fmt: skip
    assert asked[0]["response_format"] == {"type": "json_schema", "json_schema": {"name": "Verdict", "schema": wanted, "strict": True}}
    assert asked[1]["response_format"] == {"type": "json_object"}
    assert "response_format" not in asked[2]
    assert all(json.dumps(wanted, separators=(",", ":")) in request["messages"][-1]["content"] for request in asked)
    assert all(request["messages"][0] == QUESTION[0] for request in asked)


def test_the_schema_of_a_struct_with_structs_has_an_object_as_its_root():
    class Goal(msgspec.Struct, forbid_unknown_fields=True):
        text: Annotated[str, msgspec.Meta(description="what is done")]

    class Goals(msgspec.Struct, forbid_unknown_fields=True):
        goals: list[Goal]

    schema = answer_schema(Goals)
    assert schema["type"] == "object"
    assert schema["properties"]["goals"]["items"]["$ref"] == "#/$defs/Goal"
    assert schema["$defs"]["Goal"]["properties"]["text"]["description"] == "what is done"


@pytest.mark.parametrize(
    "text",
    [
        f"<think>{{never closed</think>\n{GOOD}",
        f'thoughts without a mark {{"verdict": "no"}}</think>{GOOD}',
        f"Here it is:\n```json\n{GOOD}\n```\nI hope that it helps.",
        f"\ufeff {GOOD} ",
    ],
)
async def test_what_surrounds_an_answer_is_ignored(text):
    async with serving(said(text)) as (url, _):
        found, usage = await ask(url)
    assert found.verdict == "yes"
    assert usage.repaired == 0


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ("garbage", "no JSON object: 'garbage'"),
        ('{"reason": "it', "no JSON object"),
        ('{"reason": "it", "verdict": }', "not valid JSON"),
        ('{"reason": NaN, "verdict": "yes"}', "not valid JSON (NaN"),
        ('{"reason": "da", "verdict": "ja"}', "another form (Invalid enum value 'ja' - at `$.verdict`"),
        ('{"reason": 1, "verdict": "yes"}', "another form (Expected `str`, got `int` - at `$.reason`"),
        ('{"reason": "a", "verdict": "yes", "more": 1}', "another form (Object contains unknown field `more`"),
        ('{"verdict": "yes"}', "missing required field `reason`"),
        ('{"a":' * 15_000 + "1" + "}" * 15_000, "nested too deeply"),
    ],
)
async def test_an_answer_of_another_form_is_repaired_once(first, told):
    async with serving(said(first), said(GOOD)) as (url, asked):
        found, usage = await ask(url)
    assert found.verdict == "yes"
    assert (usage.requests, usage.repaired, usage.invalid) == (2, 1, 0)
    assert [message["role"] for message in asked[1]["messages"]] == ["system", "user", "assistant", "user"]
    assert asked[1]["messages"][2]["content"] == first
    assert told in asked[1]["messages"][3]["content"]
    assert asked[1]["seed"] == asked[0]["seed"] + 1


@pytest.mark.parametrize(
    ("content", "told"), [(None, "no JSON object; it was cut at max_tokens"), ("x" * (LONGEST + 1), "100,001 characters")]
)
async def test_an_empty_or_endless_answer_is_asked_for_again_and_then_no_answer(content, told):
    async with serving(said(content, "length", reasoning_content="hm")) as (url, asked):
        async with Role(config(url), "judge") as role:
            with pytest.raises(NoAnswer, match=told):
                await role.ask(QUESTION, Verdict)
        assert asked[1]["messages"] == asked[0]["messages"]
    assert (role.usage.requests, role.usage.invalid) == (2, 1)


async def test_a_response_without_end_is_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr("rollouts.llm.endpoint.LONGEST", 10_000)
    async with serving(said("x" * 20_000)) as (url, _):
        with pytest.raises(EndpointError, match=r"judge\.endpoint .*more than 0 MiB"):
            await ask(url)


# How APIs differ. Each refusal has the text of the API.
OPENAI = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
OPENAI_TEMPERATURE = "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is supported."
GEMINI = 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'
SCHEMA = "response_format.type must be text"


@pytest.mark.parametrize(
    ("refusal", "settings", "sent", "left_out"),
    [
        (OPENAI, {"rename": {"max_tokens": "max_completion_tokens"}}, "max_completion_tokens", "max_tokens"),
        (OPENAI_TEMPERATURE, {"body": {"temperature": None, "reasoning_effort": "low"}}, "reasoning_effort", "temperature"),
        (GEMINI, {"body": {"seed": None, "extra_body": {"google": {"thinking_config": {"thinking_budget": 0}}}}}, "extra_body", "seed"),
        (SCHEMA, {"answer_format": "text"}, "messages", "response_format"),
    ],
)
async def test_a_refused_parameter_is_named_with_its_remedy(refusal, settings, sent, left_out):
    async with serving(answer(400, {"error": {"message": refusal}})) as (url, _):
        with pytest.raises(UserError, match=r"judge\.endpoint\.rename and judge\.endpoint\.body") as error:
            await ask(url)
        assert left_out in str(error.value)
    async with serving(said(GOOD)) as (url, asked):
        await ask(url, **settings)
    assert sent in asked[0]
    assert left_out not in asked[0]


async def test_limits_of_rate_are_waited_for_and_servers_that_are_down_are_named():
    async with serving(answer(429, {"error": {"message": "slow down"}}, retry_after="0.01"), said(GOOD)) as (url, asked):
        await ask(url)
        assert len(asked) == 2
    async with serving(answer(503, text="down")) as (url, _):
        with pytest.raises(EndpointError, match=r"judge\.endpoint \(http://.*\): no answer after 2 requests; the last: HTTP 503: down"):
            await ask(url)


async def test_answers_are_kept_on_disk_and_for_equal_questions_only(tmp_path):
    cache = tmp_path / "answers" / "judge.sqlite"
    async with serving(said(GOOD)) as (url, asked):
        await ask(url, times=2, cache=cache)
        _, usage = await ask(url, times=2, cache=cache)
        assert len(asked) == 2
        assert (usage.requests, usage.cached, usage.cost) == (0, 2, 0)
        await ask(url, cache=cache, body={"reasoning_effort": "low"})
        await ask(url, cache=cache, model="large")
        await ask(url, cache=cache, answer_format="text")
        assert len(asked) == 5


async def test_equal_questions_at_once_are_sent_once():
    async with serving(said(GOOD)) as (url, asked):
        async with Role(config(url), "judge") as role:
            found = await asyncio.gather(*(role.ask(QUESTION, Verdict) for _ in range(10)))
        assert len(asked) == 1
    assert [one.verdict for one in found] == ["yes"] * 10
    assert (role.usage.requests, role.usage.cached) == (1, 9)


@pytest.mark.parametrize("kind", ["version", "text", "folder", "other"])
async def test_another_cache_is_refused_by_its_name(tmp_path, kind):
    cache = tmp_path / "judge.sqlite"
    if kind == "folder":
        cache.mkdir()
    elif kind == "text":
        cache.write_text("not a database, " * 500)
    else:
        database = sqlite3.connect(cache)
        database.execute("CREATE TABLE answers (key TEXT)")
        database.execute(f"PRAGMA user_version = {7 if kind == 'version' else 0}")
        database.close()
    async with serving(said(GOOD)) as (url, asked):
        with pytest.raises(UserError, match=r"judge\.sqlite: .*name another file"):
            await ask(url, cache=cache)
    assert not asked


def test_a_damaged_answer_is_named(tmp_path):
    cache = AnswerCache(tmp_path / "judge.sqlite", Completion)
    cache._database.execute("INSERT INTO answers VALUES (?, ?)", (question_key(1), b"{}"))
    with pytest.raises(UserError, match="a damaged answer"):
        cache.get(question_key(1))
    cache.close()


async def test_the_spending_limit_stops_and_the_cache_continues(tmp_path):
    prices = {"prompt_price": 10.0, "response_price": 20.0}
    settings = {"cache": tmp_path / "judge.sqlite", **prices}
    async with serving(said(GOOD)) as (url, asked):
        # Each answer costs 1,000 x 10 + 100 x 20 millionths of a dollar.
        with pytest.raises(SpendingLimit, match=r"judge\.endpoint\.max_cost: 0\.0240 USD of 0\.02 are spent \(2 requests, .*same command"):
            await ask(url, times=5, max_cost=0.02, **settings)
        assert len(asked) == 2
        found, usage = await ask(url, times=4, max_cost=0.03, **settings)
        assert found.verdict == "yes"
        assert len(asked) == 4
    assert str(usage) == "2 requests, 2 from the cache, 2,000 + 200 tokens, 0.0240 USD"


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="max_cost: costs are unknown without"):
        config("http://127.0.0.1/v1", max_cost=1.0)
    with pytest.raises(ConfigError, match="temperature"):
        build(RoleConfig, {"endpoint": {"body": {"temperature": None}}, "temperature": 0.5})
