"""The client for models, against a real HTTP server that misbehaves on order."""

import asyncio
import time

import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from mira_jax.config import build
from mira_jax.errors import UserError
from rollouts.errors import EndpointError
from rollouts.llm.endpoint import Endpoint, EndpointConfig
from tests.llm.endpoints import GOOD, VLLM_MODELS, answer, as_vllm, serving


async def ask(url, **settings):
    async with Endpoint(EndpointConfig(base_url=url, backoff=0.01, **settings)) as endpoint:
        return await endpoint.complete([2, 5, 7], max_tokens=9, temperature=0.5, seed=11)


async def test_a_completion_is_asked_for_by_tokens_and_scored():
    async with serving(answer()) as (url, asked):
        completion = await ask(url)
    assert completion.text == "go_backward()" and completion.tokens == 3 and not completion.cut
    assert completion.log_prob == pytest.approx(-0.75)
    assert asked == [
        {
            "model": "small", "prompt": [2, 5, 7], "max_tokens": 9, "temperature": 0.5, "top_p": 1.0, "top_k": 0, "seed": 11,
            "logprobs": 0, "return_token_ids": True, "key": None,
        }
    ]  # fmt: skip


async def test_a_chat_is_asked_for_by_messages():
    said = {
        "choices": [{"message": {"role": "assistant", "content": "correct"}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 2},
    }
    messages = [{"role": "user", "content": "Is it?"}]
    silent = {"choices": [{"message": {"role": "assistant", "content": None}}]}
    async with (
        serving(answer(tree=silent), answer(tree=said)) as (url, asked),
        Endpoint(EndpointConfig(base_url=url, backoff=0.01)) as endpoint,
    ):
        empty = await endpoint.chat(messages, max_tokens=9, temperature=0.0, seed=3)
        reply = await endpoint.chat(messages, max_tokens=9, temperature=0.0, seed=3)
        assert empty.text == ""  # a model that only thought or refused
    assert reply.text == "correct" and reply.tokens == 2 and reply.log_prob is None
    assert asked == [{"model": "small", "messages": messages, "max_tokens": 9, "temperature": 0.0, "seed": 3, "key": None}] * 2


async def test_passing_failures_are_retried_and_retry_after_is_honoured():
    async with serving(
        answer(429, {"error": {"message": "slow"}}, retry_after="0.3"), answer(503), answer(200, text="<html>"), answer()
    ) as (
        url,
        asked,
    ):
        began = time.monotonic()
        assert (await ask(url)).text == "go_backward()"
        assert len(asked) == 4 and time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    "garbage",
    [
        answer(200, text="not json"),
        answer(200, {}),
        answer(200, {"choices": []}),
        answer(200, {"choices": [{"text": None}]}),
        answer(200, [1]),
    ],
)
async def test_garbage_is_an_endpoint_error_after_bounded_retries(garbage):
    async with serving(garbage) as (url, asked):
        with pytest.raises(EndpointError, match="not a completion"):
            await ask(url, retries=2)
    assert len(asked) == 3


async def test_a_bad_request_is_not_repeated_and_a_refused_key_ends_the_run():
    async with serving(answer(400, {"error": {"message": "too long"}})) as (url, asked):
        with pytest.raises(EndpointError, match="HTTP 400: too long"):
            await ask(url)
        assert len(asked) == 1
    async with serving(answer(401, {"error": {"message": "no"}})) as (url, asked):
        with pytest.raises(UserError, match="HTTP 401: no"):
            await ask(url)
        assert len(asked) == 1


async def test_an_endpoint_out_of_reach_is_named_at_once():
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/v1/models: cannot reach the endpoint"):
        await ask("http://127.0.0.1:9/v1")
    async with serving(answer(), models=PlainTextResponse("hello")) as (url, _):
        with pytest.raises(UserError, match="not an OpenAI-compatible endpoint"):
            await ask(url)
    with pytest.raises(UserError, match="is not an http address"):
        build(EndpointConfig, {"base_url": "localhost:80"})


async def test_a_slow_answer_is_given_up_in_time():
    async with serving(answer()) as (url, _):
        endpoint = Endpoint(EndpointConfig(base_url=url, timeout=0.2, retries=1, backoff=0.01))
        async with endpoint:
            for talk in (b"", b"x"):
                # Silent, or a byte now and then: no pause is long, but the whole is.
                async def serve(_, writer, talk=talk):
                    for _ in range(100):
                        writer.write(talk or b"")
                        await asyncio.sleep(0.05)

                server = await asyncio.start_server(serve, "127.0.0.1", 0)
                endpoint._client.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
                began = time.monotonic()
                with pytest.raises(EndpointError, match=r"ReadTimeout|no complete response within 0.2 s"):
                    await endpoint.complete("hi", max_tokens=1, temperature=0, seed=0)
                assert time.monotonic() - began < 2
                server.close()


async def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("ROLLOUT_KEY", "secret")
    async with serving(answer()) as (url, asked):
        await ask(url, api_key_env="ROLLOUT_KEY")
        assert asked[0]["key"] == "Bearer secret"
        monkeypatch.setenv("ROLLOUT_KEY", "secret\n")
        await ask(url, api_key_env="ROLLOUT_KEY")
        assert asked[1]["key"] == "Bearer secret"
        for unusable in ("sec\nret", "secr\u00e9t"):
            monkeypatch.setenv("ROLLOUT_KEY", unusable)
            with pytest.raises(UserError, match="ROLLOUT_KEY contains characters that a key cannot have") as refusal:
                await ask(url, api_key_env="ROLLOUT_KEY")
            assert "sec" not in str(refusal.value)
    with pytest.raises(UserError, match="ABSENT_KEY is not set"):
        await ask(url, api_key_env="ABSENT_KEY")


async def test_requests_are_paced():
    async with serving(answer()) as (url, asked):
        async with Endpoint(EndpointConfig(base_url=url, requests_per_minute=600)) as endpoint:
            began = time.monotonic()
            await asyncio.gather(*[endpoint.complete("x", max_tokens=1, temperature=0, seed=0) for _ in range(4)])
        assert len(asked) == 4 and time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    "mode, sampling, raw, drawn",
    [
        # Which of the two vLLM's numbers are depends on how it was started; at temperature 1 with nothing cut off they are both.
        ("", {"temperature": 1.0}, True, True),
        ("", {"temperature": 0.7}, False, False),
        ("raw", {"temperature": 0.7}, True, False),
        ("processed", {"temperature": 0.7}, False, True),
        ("raw", {"temperature": 1.0, "top_p": 0.9}, True, False),
        ("processed", {"temperature": 1.0, "top_k": 20}, False, True),
        ("processed", {"temperature": 0.0}, False, False),
        ("raw", {"temperature": 0.0}, True, False),
    ],
)
async def test_the_tokens_of_vllm_and_what_is_known_of_their_probabilities(mode, sampling, raw, drawn):
    numbers = (-0.5, -0.25, -0.125)
    async with (
        serving(answer(tree=as_vllm([40, 41, 106], numbers)), models=JSONResponse(VLLM_MODELS)) as (url, asked),
        Endpoint(EndpointConfig(base_url=url, log_probs=mode)) as endpoint,
    ):
        found = await endpoint.complete([2, 5, 7], max_tokens=9, seed=11, **sampling)
    assert (
        asked[0]["return_token_ids"] is True
        and asked[0]["top_p"] == sampling.get("top_p", 1)
        and asked[0]["top_k"] == sampling.get("top_k", 0)
    )
    assert endpoint.card.max_length == 320 and endpoint.card.fingerprint == ""
    assert found.token_ids == (40, 41, 106) and found.prompt_token_ids == (2, 5, 7)
    assert found.log_prob == pytest.approx(-0.875)
    assert found.log_probs == (numbers if raw else None) and found.sampling_log_probs == (numbers if drawn else None)


async def test_engines_that_know_only_openais_fields_are_asked_without_the_others():
    def unknown(name):
        return answer(400, {"error": {"message": f"Unrecognized request argument supplied: {name}"}})

    async with (
        serving(unknown("return_token_ids"), unknown("top_k"), answer()) as (url, asked),
        Endpoint(EndpointConfig(base_url=url)) as endpoint,
    ):
        found = [await endpoint.complete([2], max_tokens=9, temperature=0.7, seed=1) for _ in range(2)]
    sent = [("return_token_ids" in one, "top_k" in one) for one in asked]
    assert sent == [(True, True), (False, True), (False, False), (False, False)]
    assert [one.token_ids for one in found] == [None, None]
    async with serving(unknown("top_k"), answer()) as (url, asked), Endpoint(EndpointConfig(base_url=url)) as endpoint:
        with pytest.raises(UserError, match=r"has no top_k .*set policy\.top_k=0"):
            await endpoint.complete([2], max_tokens=9, temperature=0.7, seed=1, top_k=5)


async def test_an_endpoint_that_changes_its_weights_ends_the_run():
    first, second = ({**GOOD, "system_fingerprint": mark * 64} for mark in "ab")
    models = JSONResponse({"data": [{"id": "small", "fingerprint": "a" * 64}]})
    async with (
        serving(answer(tree=first), answer(tree=second), models=models) as (url, _),
        Endpoint(EndpointConfig(base_url=url)) as endpoint,
    ):
        await endpoint.complete("x", max_tokens=1, temperature=0, seed=0)
        with pytest.raises(UserError, match=r"serves other weights than when the run began \(fingerprint b{12}, was a{12}\)"):
            await endpoint.complete("x", max_tokens=1, temperature=0, seed=0)


KEY = "sk-SECRET-0123456789"


@pytest.mark.parametrize("status, kind", [(401, UserError), (400, EndpointError), (500, EndpointError)])
async def test_a_key_that_the_endpoint_repeats_is_in_no_message(monkeypatch, status, kind):
    monkeypatch.setenv("ROLLOUT_KEY", KEY)
    # Once whole, once with a terminal's escape inside, once where the shown part ends; and in an address.
    words = f"Bearer {KEY} \x1b]0;pwned\x07 sk-SECRET\u200b-0123456789 https://u:{KEY}@h/?api_key=topsecret " + "x" * 150 + KEY
    async with serving(answer(status, {"error": {"message": words}})) as (url, _):
        with pytest.raises(kind, match=f"HTTP {status}: Bearer \\[hidden\\]") as refusal:
            await ask(url, api_key_env="ROLLOUT_KEY", retries=1)
    said = str(refusal.value)
    assert "SECRET" not in said and "0123" not in said and "topsecret" not in said and said.isprintable()


async def test_a_key_in_any_other_answer_is_not_kept(monkeypatch):
    monkeypatch.setenv("ROLLOUT_KEY", KEY)
    for reply in (answer(200, text=f"no json but {KEY}"), answer(tree={**GOOD, "choices": [{"text": f"go {KEY}"}]})):
        async with serving(reply) as (url, _):
            with pytest.raises(EndpointError) as refusal:
                await ask(url, api_key_env="ROLLOUT_KEY", retries=1)
            assert "SECRET" not in str(refusal.value)
    async with serving(answer(), models=JSONResponse({"error": {"message": KEY}}, 403)) as (url, _):
        with pytest.raises(UserError, match=r"HTTP 403: \[hidden\]"):
            await ask(url, api_key_env="ROLLOUT_KEY")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"base_url": "https://user:URLSECRET@host/v1"}, "holds a user name or password"),
        ({"base_url": "https://URLSECRET@host/v1"}, "holds a user name or password"),
        ({"base_url": "https://host/v1?api_key=URLSECRET"}, "put the key into a variable and name it in policy.endpoint.api_key_env"),
        ({"base_url": "https://host/v1#URLSECRET"}, "put the key into a variable and name it in policy.endpoint.api_key_env"),
        ({"api_key_env": "sk-URLSECRET"}, "give the name, not the key itself"),
        ({"log_probs": "some"}, "policy.endpoint.log_probs: 'some' is none of unknown, raw, processed"),
    ],
)
def test_secrets_in_a_config_are_refused_and_not_shown(settings, message):
    with pytest.raises(UserError, match=message) as refusal:
        build(EndpointConfig, settings, prefix="policy.endpoint.")
    assert "URLSECRET" not in str(refusal.value)
