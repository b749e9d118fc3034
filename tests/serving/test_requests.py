"""Requests that are refused: status, and a message that names the fault."""

import openai
import pytest

BAD = [
    ({"prompt": "a", "max_tokens": "ten"}, 400, "max_tokens"),
    ({"prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
    ({"prompt": "a", "temperature": -0.5}, 400, "temperature"),
    ({"prompt": "a", "top_p": 0}, 400, "top_p"),
    ({"prompt": "a", "n": 0}, 400, "n"),
    ({"prompt": "a", "logprobs": 100}, 400, "logprobs"),
    ({"prompt": "a", "stop": ""}, 400, "empty"),
    ({"prompt": "a", "stop": [1]}, 400, "stop"),
    ({"prompt": "a", "temprature": 1}, 400, "temprature"),
    ({"prompt": "a", "best_of": 4}, 400, "best_of"),
    ({"prompt": "a", "presence_penalty": 1}, 400, "presence_penalty"),
    ({"prompt": "a", "max_tokens": 0}, 400, "echo"),
    ({"prompt": "a", "stream": True, "echo": True}, 400, "echo"),
    ({"prompt": "a", "stream": True, "logprobs": 0}, 400, "logprobs"),
    ({"prompt": "a", "stream": True, "return_token_ids": True}, 400, "return_token_ids"),
    ({}, 400, "prompt"),
    ({"prompt": []}, 400, "prompt"),
    ({"prompt": [[]]}, 400, "prompt"),
    ({"prompt": [1, "a"]}, 400, "prompt"),
    ({"prompt": [True]}, 400, "prompt"),
    ({"prompt": {"a": 1}}, 400, "prompt"),
    ({"prompt": [5, 100_000]}, 400, "100000"),
    ({"prompt": [5, -1]}, 400, "-1"),
    ({"prompt": [5] * 600}, 400, "maximum length is 512"),
    ({"prompt": "a", "max_tokens": 10**12}, 400, "maximum length is 512"),
    ({"prompt": [[5]] * 100}, 413, "100 completions"),
    ({"prompt": "a", "model": "gpt-4"}, 404, "gpt-4"),
    ({"prompt": "a" * 300_000}, 400, "maximum length is 512"),
    ({"prompt": ["a", "a" * 300_000]}, 400, "maximum length is 512"),
    ({"prompt": ["a"] * 50_000}, 413, "50000 completions"),
    ({"prompt": [5] * 100_000}, 400, "maximum length is 512"),
    ({"prompt": [[5] * 100] * 60, "n": 128, "logprobs": 20, "echo": True}, 413, "7680 completions"),
    ({"prompt": [[5] * 100] * 60, "logprobs": 20, "echo": True}, 400, "log-probabilities"),
    ({"prompt": "a", "stop": ["zq"] * 1000}, 400, "64 strings"),
    ({"prompt": "a", "stop": "a" * 10_000}, 400, "1000 characters"),
    ({"prompt": "a", "model": "m" * 100_000}, 404, "mmm"),
    ({"prompt": "a", "f" * 100_000: 1}, 400, "unknown field"),
    ([], 400, "object"),
]


@pytest.mark.parametrize(("body", "status", "word"), BAD, ids=[str(index) for index in range(len(BAD))])
def test_bad_requests_get_a_status_and_a_message_that_names_the_fault(http, body, status, word):
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == status
    assert word in answer.json()["error"]["message"] and len(answer.content) < 1000


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"prompt": "\\ud800"}', b'{"prompt": ' + b"[" * 50_000])
def test_what_is_not_json_is_refused(http, content):
    answer = http.post("/v1/completions", content=content)
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        ([], "messages"),
        ([{"role": "wizard", "content": "a"}], "wizard"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "text"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "must alternate"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "last"),
        ([{"role": "user", "content": "a", "tool_calls": [{"id": "1"}]}], "tool_calls"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": None}, {"role": "user", "content": "a"}], "content"),
        ([{"role": "user", "content": "a"}, {"role": "tool", "content": "a"}], "tool"),
        ([{"role": "user", "content": "a" * 300_000}], "maximum length is 512"),
        ([{"role": "user", "content": [{"type": "text", "text": "a" * 10_000}] * 30}], "maximum length is 512"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 500, "1000 messages"),
        ([{"role": "system", "content": ""}] * 1000, "1000 messages"),
    ],
)
def test_bad_messages_are_refused(http, messages, word):
    answer = http.post("/v1/chat/completions", json={"messages": messages})
    assert answer.status_code == 400 and word in answer.json()["error"]["message"]


def test_the_openai_client_raises_its_own_errors(client):
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.completions.create(model="gpt-4", prompt="a")
    with pytest.raises(openai.BadRequestError, match="maximum length"):
        client.completions.create(model="tiny", prompt=[5] * 600)


def test_unknown_routes_say_what_is_served(http):
    for answer in (http.get("/v2"), http.get("/v1/completions")):
        assert answer.status_code in (404, 405) and "/v1/chat/completions" in answer.json()["error"]["message"]
