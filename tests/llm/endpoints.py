"""An HTTP server that gives prepared answers, as an endpoint."""

import asyncio
import contextlib
import inspect

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

GOOD = {
    "choices": [{"text": "go_backward()", "logprobs": {"token_logprobs": [-0.5, -0.25, None]}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 3},
}


def answer(status=200, tree=GOOD, text=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return PlainTextResponse(text, status, headers) if text is not None else JSONResponse(tree, status, headers)


@contextlib.asynccontextmanager
async def serving(*answers, models=None):
    """An endpoint that gives `answers` in turn, the last one for ever; each is a response, or a function of the request that returns one.
    Yields its address and the requests."""
    asked: list[dict] = []

    async def completions(request: Request):
        asked.append({**await request.json(), "key": request.headers.get("authorization")})
        found = answers[min(len(asked), len(answers)) - 1]
        return found(asked[-1]) if inspect.isfunction(found) else found

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


def as_vllm(ids, log_probs, prompt_ids=(2, 5, 7), finish_reason="stop", text="go_backward()"):
    """A completion in the fields of vLLM's CompletionResponse and CompletionResponseChoice (vllm/entrypoints/openai/completion/
    protocol.py and serving.py): the end token is among `token_ids` and has a log-probability, and no list names the distribution."""
    logprobs = {
        "text_offset": [0] * len(ids), "token_logprobs": log_probs, "tokens": ["x"] * len(ids),
        "top_logprobs": [{"x": log_prob} for log_prob in log_probs],
    }  # fmt: skip
    choice = {
        "index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish_reason, "stop_reason": 106, "token_ids": list(ids),
        "prompt_logprobs": None, "prompt_token_ids": list(prompt_ids), "routed_experts": None,
    }  # fmt: skip
    usage = {"prompt_tokens": len(prompt_ids), "total_tokens": len(prompt_ids) + len(ids), "completion_tokens": len(ids)}
    return {
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "small", "choices": [choice], "service_tier": None,
        "system_fingerprint": "vllm-0.20.0-tp1-1234", "usage": {**usage, "prompt_tokens_details": None}, "kv_transfer_params": None,
    }  # fmt: skip


VLLM_MODELS = {
    "object": "list",
    "data": [{"id": "small", "object": "model", "created": 1, "owned_by": "vllm", "root": "/m", "parent": None, "max_model_len": 320}],
}
