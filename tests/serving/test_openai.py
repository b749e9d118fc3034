"""What OpenAI's client and its like send: null and default fields, their own message objects; and the bytes of tokens."""

import openai
import pytest
from openai.types.chat import ChatCompletionMessage

USER = {"role": "user", "content": "red"}


def chat(client, messages=(USER,), **options):
    return client.chat.completions.create(model="tiny", messages=list(messages), **{"max_tokens": 8, "temperature": 0, **options})


def prompt_ids(client, messages, **options) -> list[int]:
    return chat(client, messages, extra_body={"return_token_ids": True}, **options).model_extra["prompt_token_ids"]


@pytest.mark.parametrize("form", [lambda message: message, lambda message: message.model_dump()], ids=["object", "dict"])
def test_a_second_turn_takes_the_clients_own_message(client, form):
    answer = chat(client).choices[0].message
    turns = [USER, form(answer), {"role": "user", "content": "and?"}]
    plain = [USER, {"role": "assistant", "content": answer.content}, {"role": "user", "content": "and?"}]
    assert prompt_ids(client, turns) == prompt_ids(client, plain)


def test_a_message_with_all_fields_null_or_empty_is_its_text(client):
    """As OpenAI's servers, and clients that convert between them, fill the fields of a message."""
    answer = ChatCompletionMessage(role="assistant", content="cup", refusal=None, annotations=[], audio=None, function_call=None)
    more = {**answer.model_dump(), "tool_calls": [], "provider_specific_fields": {"refusal": None}, "reasoning_content": ""}
    turns = [{**USER, "name": "ann", "type": "text"}, more, USER]
    assert prompt_ids(client, turns) == prompt_ids(client, [USER, {"role": "assistant", "content": "cup"}, USER])


def test_developer_is_system_and_parts_are_their_text(client):
    texts = [{"role": "system", "content": "be brief"}, USER]
    parts = [
        {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
        {"role": "user", "content": [{"type": "text", "text": "red"}]},
    ]
    assert prompt_ids(client, texts) == prompt_ids(client, parts) != prompt_ids(client, [USER])


NOTHING_ASKED = {
    "audio": None, "frequency_penalty": 0, "function_call": None, "functions": None, "logit_bias": {}, "logprobs": None,
    "max_completion_tokens": 8, "metadata": {"run": "7"}, "modalities": ["text"], "n": 1, "parallel_tool_calls": True, "prediction": None,
    "presence_penalty": 0.0, "prompt_cache_key": "a", "reasoning_effort": None, "response_format": {"type": "text"},
    "safety_identifier": "a", "seed": None, "service_tier": "auto", "stop": None, "store": True, "stream": False, "stream_options": None,
    "temperature": 0, "tool_choice": "none", "tools": [], "top_logprobs": None, "top_p": None, "user": "ann", "verbosity": None,
    "web_search_options": None,
}  # fmt: skip
OF_SERVERS = {"top_k": -1, "min_p": 0, "repetition_penalty": 1.0, "stop_token_ids": [], "skip_special_tokens": True, "echo": False}
"""Defaults that clients of vLLM and SGLang send."""


@pytest.mark.parametrize("extra", [{}, OF_SERVERS, {"no_such_field": None}])
def test_fields_that_ask_for_nothing_change_nothing(client, extra):
    plain = chat(client, max_completion_tokens=8)
    full = client.chat.completions.create(model="tiny", messages=[USER], extra_body={**NOTHING_ASKED, **extra})
    assert full.choices[0] == plain.choices[0] and full.usage == plain.usage


def test_fields_of_completions_that_ask_for_nothing_change_nothing(client):
    plain = client.completions.create(model="tiny", prompt="red", max_tokens=8, temperature=0)
    extra = {
        "best_of": 1, "echo": False, "frequency_penalty": 0, "logit_bias": {}, "logprobs": None, "n": None, "presence_penalty": None,
        "seed": None, "stop": None, "stream": None, "stream_options": None, "suffix": "", "top_p": 1, "user": "ann", **OF_SERVERS,
    }  # fmt: skip
    full = client.completions.create(model="tiny", prompt="red", max_tokens=8, temperature=0, extra_body=extra)
    assert full.choices == plain.choices


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]), ("tool_choice", "required"), ("functions", [{"name": "f"}]),
        ("response_format", {"type": "json_object"}), ("modalities", ["text", "audio"]), ("audio", {"voice": "alloy"}),
        ("presence_penalty", 1), ("frequency_penalty", -0.5), ("logit_bias", {"5": 1}), ("reasoning_effort", "high"),
        ("web_search_options", {}), ("min_p", 0.1), ("repetition_penalty", 1.1), ("ignore_eos", True), ("min_tokens", 3),
        ("stop_token_ids", [5]), ("skip_special_tokens", False), ("echo", True), ("no_such_field", 0), ("moderation", {"model": "m"}),
    ],
)  # fmt: skip
def test_fields_that_ask_for_what_is_not_done_are_refused_by_name(client, name, value):
    with pytest.raises(openai.BadRequestError, match=name):
        chat(client, extra_body={name: value})


@pytest.mark.parametrize(
    ("field", "value"), [("refusal", "no"), ("tool_calls", [{"id": "1"}]), ("audio", {"id": "1"}), ("function_call", {"name": "f"})]
)
def test_fields_of_messages_are_refused_by_name_too(client, field, value):
    with pytest.raises(openai.BadRequestError, match=field):
        chat(client, [USER, {"role": "assistant", "content": "cup", field: value}, USER])


def test_the_bytes_of_tokens_are_those_of_the_text(client, tokenizer):
    """Drawn at a high temperature, so that byte tokens and marks come up; compared with Python's own decoder of UTF-8."""
    seen_bytes = seen_marks = 0
    for seed in range(12):
        choice = chat(client, max_tokens=60, temperature=3, seed=seed, logprobs=True, top_logprobs=20).choices[0]
        items = choice.logprobs.content
        said = b"".join(bytes(item.bytes) for item in items if item.bytes is not None)
        # SentencePiece writes one U+FFFD for each byte that is part of no character, Python one for some pairs.
        assert said.decode(errors="replace").replace("\ufffd", "") == choice.message.content.replace("\ufffd", "")
        for item in [*items, *(alternative for drawn in items for alternative in drawn.top_logprobs)]:
            if item.token.startswith("<0x"):
                seen_bytes += 1
                assert item.bytes == [int(item.token[3:5], 16)]
            elif item.token in ("<end_of_turn>", "<eos>", "<bos>", "<pad>", "<start_of_turn>"):
                seen_marks += 1
                assert item.bytes is None
            elif item.token != "<unk>":
                assert bytes(item.bytes).decode() == item.token
    assert seen_bytes > 50 and seen_marks > 5


@pytest.mark.parametrize("text", ["€ 5", "日本語", "a🙂b", "naïve \ufffd", "🙂"])
def test_characters_of_several_byte_tokens_are_whole_in_bytes_and_in_streams(text, tokenizer, scripted):
    tokens = tokenizer.encode(text)
    assert any(tokenizer.piece(token).startswith("<0x") for token in tokens)
    with scripted([*tokens, tokenizer.end_of_turn_id]) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        choice = chat(client, logprobs=True, max_tokens=100).choices[0]
        pieces = [part.choices[0].delta.content for part in chat(client, stream=True, max_tokens=100)]
        parts = client.completions.create(model="tiny", prompt="a", max_tokens=100, stream=True)
        assert "".join(part.choices[0].text for part in parts) == text
    assert choice.message.content == "".join(pieces) == text
    assert all("\ufffd" not in piece or "\ufffd" in text for piece in pieces)
    *said, end = choice.logprobs.content
    assert b"".join(bytes(item.bytes) for item in said) == text.encode()
    assert (end.token, end.bytes) == ("<end_of_turn>", None)
