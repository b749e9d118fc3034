"""The client for models, against a real HTTP server that misbehaves on order."""

import asyncio
import contextlib
import time

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Task
from mira_jax.trajectories.tokenizer import train_tokenizer
from rollouts.agents.policy import EndpointPolicy, PolicyConfig, step_seed
from rollouts.endpoint import Endpoint, EndpointConfig
from rollouts.errors import EndpointError
from rollouts.web.observation import Observation

GOOD = {
    "choices": [{"text": "go_backward()", "logprobs": {"token_logprobs": [-0.5, -0.25, None]}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 3},
}


def answer(status=200, tree=GOOD, text=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return PlainTextResponse(text, status, headers) if text is not None else JSONResponse(tree, status, headers)


@contextlib.asynccontextmanager
async def serving(*answers, models=None):
    """An endpoint that gives `answers` in turn, the last one for ever. Yields its address and the requests."""
    asked: list[dict] = []

    async def completions(request: Request):
        asked.append({**await request.json(), "key": request.headers.get("authorization")})
        return answers[min(len(asked), len(answers)) - 1]

    async def listed(request: Request):
        return models or JSONResponse({"data": [{"id": "small"}]})

    routes = [Route(path, completions, methods=["POST"]) for path in ("/v1/completions", "/v1/chat/completions")]
    app = Starlette(routes=[*routes, Route("/v1/models", listed)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, log_level="critical", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1", asked
    finally:
        server.should_exit = True
        await task


async def ask(url, **settings):
    async with Endpoint(EndpointConfig(base_url=url, backoff=0.01, **settings)) as endpoint:
        return await endpoint.complete([2, 5, 7], max_tokens=9, temperature=0.5, seed=11)


async def test_a_completion_is_asked_for_by_tokens_and_scored():
    async with serving(answer()) as (url, asked):
        completion = await ask(url)
    assert completion.text == "go_backward()" and completion.tokens == 3 and not completion.cut
    assert completion.log_prob == pytest.approx(-0.75)
    assert asked == [{"model": "small", "prompt": [2, 5, 7], "max_tokens": 9, "temperature": 0.5, "seed": 11, "logprobs": 0, "key": None}]


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
        reply = await endpoint.chat(messages, max_tokens=9, temperature=0.0, seed=3)
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
        with pytest.raises(UserError, match="no OpenAI-compatible endpoint"):
            await ask(url)
    with pytest.raises(UserError, match="is not an http address"):
        EndpointConfig(base_url="localhost:80")


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
                with pytest.raises(EndpointError, match=r"ReadTimeout|no whole answer within 0.2 s"):
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
            with pytest.raises(UserError, match="ROLLOUT_KEY holds characters that no key has") as refusal:
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


async def test_the_policy_sends_the_training_prompt_with_a_seed_of_its_own_per_step(tmp_path):
    train_tokenizer(["press the button", 'do(action="Click")'] * 20, tmp_path / "tokenizer.model", 300)
    task = Task(id="t.1", suite="s", sites=(), template="t", split="test", seed=3, intent="press", start_url="/", horizon=5)
    long = {**GOOD, "choices": [{**GOOD["choices"][0], "finish_reason": "length"}]}
    async with serving(answer(), answer(tree=long), answer()) as (url, asked):
        config = PolicyConfig(tokenizer=str(tmp_path), temperature=1.0, endpoint=EndpointConfig(base_url=url))
        async with EndpointPolicy(config) as policy:
            assert (policy.record.name, policy.record.checkpoint, policy.record.temperature) == ("small", "small", 1.0)
            page = Observation(text='<a id="press">', url="u", title="")
            replies = [await policy.agent(task, attempt).respond([], page) for attempt in (0, 1, 0)]
    assert replies[0].log_prob == pytest.approx(-0.75)
    assert replies[0].tokens.prompt == len(asked[0]["prompt"])
    assert [reply.cut for reply in replies] == [False, True, False]
    seeds = [request["seed"] for request in asked]
    assert seeds[0] == seeds[2] != seeds[1] and all(0 <= seed < 2**31 for seed in seeds)
    assert step_seed("key", 0) != step_seed("key", 1)
    text = policy.tokenizer.decode(asked[0]["prompt"])
    assert "Task Instruction: press" in text and '<a id="press">' in text
