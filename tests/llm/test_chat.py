"""The chat policy: its messages, the bodies of its requests, and what is taken from answers of several kinds of model."""

import pytest

from mira_jax.config import build
from mira_jax.errors import ConfigError, UserError
from mira_jax.trajectories import actions
from mira_jax.trajectories.actions import FORMS, parse
from mira_jax.trajectories.instructions import INSTRUCTIONS
from mira_jax.trajectories.prompts import OLD_PAGE, Round, chat_messages
from mira_jax.trajectories.records import Task
from rollouts.agents.base import ChatConfig, PolicyConfig
from rollouts.agents.chat import ChatPolicy, split_answer
from rollouts.collect import CollectConfig
from rollouts.errors import EndpointError
from rollouts.llm.endpoint import EndpointConfig
from rollouts.web.observation import Observation
from tests.llm.endpoints import answer, serving

TASK = Task(id="t.1", suite="s", sites=(), template="t", split="test", seed=3, intent="press it", start_url="/", horizon=5)
CLICK = 'do(action="Click", element="7")'


def said(content, finish_reason="stop", **message):
    usage = {"prompt_tokens": 11, "completion_tokens": 5}
    return {"choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish_reason}], "usage": usage}


async def respond(tree, past=(), screenshot=None, endpoint=None, **settings):
    """What the policy makes of an answer, and the request that it sent."""
    async with serving(answer(tree=tree)) as (url, asked):
        address = EndpointConfig(base_url=url, backoff=0.01, retries=0, **endpoint or {})
        async with ChatPolicy(PolicyConfig(kind="chat", endpoint=address, **settings)) as policy:
            page = Observation(text='<button id="7">', url="u", title="", screenshot=screenshot)
            return await policy.agent(TASK, 0).respond(list(past), page), asked[-1], policy.record


async def test_the_request_teaches_the_grammar_and_alternates_turns():
    reply, sent, record = await respond(said(f"I press it.\n{CLICK}"), [Round("go()", "unknown call"), Round("go_backward()")])
    assert reply.text == CLICK
    assert (reply.reasoning, reply.cut, reply.tokens.prompt, reply.tokens.response) == ("I press it.", False, 11, 5)
    assert (record.name, record.prompt_version, record.tokenizer) == ("small", "chat", "")
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "user", "assistant", "user"]
    contents = [message["content"] for message in sent["messages"]]
    assert contents == [
        INSTRUCTIONS,
        f"Task: press it\n\nRound 0\n{OLD_PAGE}",
        "go()",
        f"Error: unknown call\nRound 1\n{OLD_PAGE}",
        "go_backward()",
        'Round 2\n<button id="7">',
    ]
    assert sent["temperature"] == 0 and 0 <= sent["seed"] < 2**31 and "top_p" not in sent and "logprobs" not in sent


def test_the_instructions_show_every_action_as_the_parser_reads_it():
    calls = dict(actions.examples())
    assert {parse(call).name for call in calls} == {*FORMS, "exit"}
    assert all(call in INSTRUCTIONS and about in INSTRUCTIONS for call, about in calls.items())


def test_the_oldest_rounds_are_left_out_and_then_the_page_is_cut():
    past = [Round("x" * 400, "wrong") for _ in range(10)]
    whole = chat_messages("press", past, "p" * 500, 100_000)
    assert len(whole) == 2 + 2 * 10
    for limit in (2300, 2600, 3500, 5000):
        messages = chat_messages("press", past, "p" * 500, limit)
        assert sum(len(message["content"]) for message in messages) <= limit
        assert messages[1]["content"].startswith("Task: press\n\n[earlier rounds left out]\n")
        assert messages[-1]["content"].endswith("Round 10\n" + "p" * 500)
        assert [message["role"] for message in messages[1:]] == ["user", "assistant"] * (len(messages) // 2 - 1) + ["user"]
    cut = chat_messages("press", past, "p" * 5000, 2300)
    assert len(cut) == 2 and cut[-1]["content"].endswith("p\n[page cut]") and sum(len(one["content"]) for one in cut) <= 2300
    with pytest.raises(ConfigError, match=r"policy\.chat\.max_characters: 1500 leaves no room .* the task 'press'"):
        chat_messages("press", [], "p", 1500)


@pytest.mark.parametrize(
    ("text", "thoughts", "response"),
    [
        (CLICK, "", CLICK),
        (f"<think>do(action=\"Wait\")?\nno</think>\n{CLICK}", 'do(action="Wait")?\nno', CLICK),
        (f"First I look.\n```python\n{CLICK}\n```\nThen more.", "First I look.\nThen more.", CLICK),
        (f"The call is\n`{CLICK}`", "The call is", CLICK),
        ('exit(message="a) or b)")', "", 'exit(message="a) or b)")'),
        ('do(\n  action="Click",\n  element="7"\n)', "", 'do(\n  action="Click",\n  element="7"\n)'),
        # A call that can't be read is the response, not one of the thoughts before it.
        ('I could\ngo_backward()\nbut rather\ndo(action=Click)', "I could\ngo_backward()\nbut rather", "do(action=Click)"),
        # Two calls in a row are two actions, which the parser refuses.
        (f"{CLICK}\ngo_backward()", "", f"{CLICK}\ngo_backward()"),
        ("I am sorry, I can't.", "", "I am sorry, I can't."),
        ("<think>never ends", "never ends", ""),
        (f"hm, go_backward()?\n</think>\n\n{CLICK}", "hm, go_backward()?", CLICK),
        ("", "", ""),
    ],
)  # fmt: skip
def test_the_response_is_the_last_call_of_an_answer(text, thoughts, response):
    assert split_answer(text) == (thoughts, response)


def test_an_answer_of_many_parentheses_is_read_in_reasonable_time():
    assert split_answer('do(action="' + ")" * 200_000)[1].startswith('do(action="')


async def test_reasoning_fields_empty_contents_and_parts():
    reply, _, _ = await respond(said(CLICK, reasoning_content="I think."))
    assert (reply.text, reply.reasoning) == (CLICK, "I think.")
    reply, _, _ = await respond(said(None, finish_reason="length", reasoning="all tokens went into thought"))
    assert (reply.text, reply.reasoning, reply.cut) == ("", "all tokens went into thought", True)
    reply, _, _ = await respond(said([{"type": "text", "text": "ok\n"}, {"type": "text", "text": CLICK}]))
    assert (reply.text, reply.reasoning) == (CLICK, "ok")
    reply, _, _ = await respond(said(f"{CLICK}\nand then I", finish_reason="length"))
    assert (reply.text, reply.cut) == (CLICK, False)


async def test_fields_are_renamed_added_and_left_out():
    names = {"rename": {"max_tokens": "max_completion_tokens"}, "body": {"temperature": None, "seed": None, "reasoning_effort": "low"}}
    _, sent, _ = await respond(said(CLICK), endpoint=names, max_tokens=99, top_p=0.9, temperature=1.0)
    assert sent["max_completion_tokens"] == 99 and sent["reasoning_effort"] == "low" and sent["top_p"] == 0.9
    assert not {"max_tokens", "temperature", "seed"} & set(sent)
    with pytest.raises(ConfigError, match="body: names api_key; keys are read from the variable"):
        EndpointConfig(body={"api_key": "x"})
    for field in ({"temperature": 0.5}, {"model": None}, {"n": 2}):
        with pytest.raises(ConfigError, match="which the command sets itself and records"):
            EndpointConfig(body=field)
    with pytest.raises(ConfigError, match=r"temperature: requests leave it out .*set it to 1"):
        PolicyConfig(kind="chat", endpoint=EndpointConfig(body={"temperature": None}))


async def test_the_screenshot_is_sent_if_asked_for():
    _, sent, _ = await respond(said(CLICK), screenshot=b"\xff\xd8picture", chat=ChatConfig(images=True))
    text, image = sent["messages"][-1]["content"]
    assert text["text"].startswith("Task: press it") and image["image_url"]["url"] == "data:image/jpeg;base64,/9hwaWN0dXJl"
    with pytest.raises(ConfigError, match=r"policy\.chat\.images: there is no screenshot"):
        await respond(said(CLICK), chat=ChatConfig(images=True))
    with pytest.raises(ConfigError, match=r"policy\.chat\.images: needs the pictures of the pages; set browser\.screenshots=true"):
        build(CollectConfig, {"policy": {"kind": "chat", "chat": {"images": True}}})


@pytest.mark.parametrize("settings", [{"tokenizer": "x"}, {"top_k": 3}])
def test_what_a_chat_policy_does_not_use_is_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        PolicyConfig(kind="chat", **settings)


async def test_a_refused_request_ends_the_run_if_none_was_answered_before():
    refusal = answer(400, {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'."}})
    long = answer(400, {"error": {"message": "This model's maximum context length is 8192 tokens."}})
    page = Observation(text="", url="u", title="")
    async with (
        serving(refusal, answer(tree=said(CLICK)), long) as (url, _),
        ChatPolicy(PolicyConfig(kind="chat", endpoint=EndpointConfig(base_url=url, retries=0))) as policy,
    ):
        with pytest.raises(UserError, match=r"'max_completion_tokens'\.; if the API names a field .*policy\.endpoint\.rename"):
            await policy.agent(TASK, 0).respond([], page)
        await policy.agent(TASK, 0).respond([], page)
        with pytest.raises(EndpointError, match="maximum context length"):
            await policy.agent(TASK, 0).respond([], page)
