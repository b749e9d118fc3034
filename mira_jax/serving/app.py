"""The HTTP side: OpenAI's routes over an engine."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mira_jax.serving import protocol
from mira_jax.serving.engine import Completion, Engine, Job, QueueFull
from mira_jax.serving.metrics import Counted, Metrics
from mira_jax.serving.protocol import ChatRequest, CompletionRequest, RequestError, Served

Result = TypeVar("Result")
MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request: far more than the longest prompt."""
ROUTES = "POST /v1/completions, POST /v1/chat/completions, GET /v1/models, GET /health and GET /metrics"


def make_app(engine: Engine, model: Served, max_body: int = MAX_BODY) -> Starlette:
    service = _Service(engine, model, max_body)
    routes = [
        Route("/v1/completions", service.completions, methods=["POST"]),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/v1/models/{name:path}", service.one_model),
        Route("/health", service.health),
        Route("/metrics", lambda http: Response(metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)),
    ]
    metrics = Metrics(engine, frozenset(route.path for route in routes))
    counted = [Middleware(Counted, metrics=metrics)]
    return Starlette(routes=routes, middleware=counted, exception_handlers={RequestError: _refused, 404: _no_route, 405: _no_route})


class _Service:
    def __init__(self, engine: Engine, model: Served, max_body: int):
        self._engine, self._model, self._max_body = engine, model, max_body
        self._tokenizer = engine.tokenizer
        self._card = {
            "id": model.name, "object": "model", "created": 0, "owned_by": "mira_jax",
            "max_model_len": engine.max_length, "fingerprint": model.fingerprint, "dtype": model.dtype,
        }  # fmt: skip

    async def completions(self, http: Request) -> Response:
        request = protocol.parse(CompletionRequest, await self._body(http))
        self._check_model(request.model)
        prompts = protocol.completion_prompts(request, self._tokenizer)
        jobs = protocol.completion_jobs(request, prompts, self._engine.max_length)
        if request.stream:
            return self._stream(request, prompts.ids, jobs, chat=False)
        completions = await self._complete(http, jobs)
        return JSONResponse(protocol.completion_response(request, self._model, prompts, jobs, completions, self._tokenizer))

    async def chat(self, http: Request) -> Response:
        request = protocol.parse(ChatRequest, await self._body(http))
        self._check_model(request.model)
        prompt = protocol.chat_prompt(request.messages, self._tokenizer)
        jobs = protocol.chat_jobs(request, prompt, self._engine.max_length)
        if request.stream:
            return self._stream(request, [prompt], jobs, chat=True)
        completions = await self._complete(http, jobs)
        return JSONResponse(protocol.chat_response(request, self._model, prompt, completions, self._tokenizer))

    async def models(self, http: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card]})

    async def one_model(self, http: Request) -> Response:
        self._check_model(http.path_params["name"])
        return JSONResponse(self._card)

    async def health(self, http: Request) -> Response:
        engine = self._engine
        state = {"status": "ok" if engine.alive else "stopped", "model": self._model.name}
        counts = {"waiting": engine.waiting, "running": engine.running, **dataclasses.asdict(engine.counters)}
        return JSONResponse({**state, **counts}, status_code=200 if engine.alive else 503)

    async def _body(self, http: Request) -> bytes:
        body = bytearray()
        async for part in http.stream():
            body += part
            if len(body) > self._max_body:
                raise RequestError(f"the request is longer than {self._max_body} bytes", status=413)
        return bytes(body)

    def _check_model(self, name: str | None) -> None:
        if name not in (None, self._model.name):
            raise RequestError(f"the model {name!r} is not served here; {self._model.name!r} is", 404, "model", "model_not_found")

    def _submit(self, jobs: Sequence[Job]) -> list[asyncio.Future[Completion]]:
        if len(jobs) > self._engine.queue_limit:
            raise RequestError(f"{len(jobs)} completions in one request; this server takes {self._engine.queue_limit}", 413, "prompt")
        try:
            return [asyncio.wrap_future(future) for future in self._engine.submit(jobs)]
        except QueueFull as error:
            raise RequestError(str(error), status=429, retry_after=1) from None

    async def _complete(self, http: Request, jobs: Sequence[Job]) -> list[Completion]:
        """All completions, unless the client hangs up: then its prompts leave the engine."""
        try:
            return await _unless_gone(http, asyncio.gather(*self._submit(jobs)))
        except (RequestError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise RequestError(f"the model failed: {type(error).__name__}: {error}", status=500) from None

    def _stream(self, request: Any, prompts: Sequence[Sequence[int]], jobs: Sequence[Job], chat: bool) -> Response:
        loop, events = asyncio.get_running_loop(), asyncio.Queue()

        def tell(index: int) -> Callable[[str], None]:
            return lambda text: loop.call_soon_threadsafe(events.put_nowait, (index, text))

        futures = self._submit([dataclasses.replace(job, progress=tell(index)) for index, job in enumerate(jobs)])
        for index, future in enumerate(futures):
            # The engine tells its last text before it sets the result, and both come by way of the loop, in order.
            future.add_done_callback(lambda done, index=index: events.put_nowait((index, done)))
        chunk = protocol.stream_chunks(request, self._model, chat)

        async def parts() -> AsyncIterator[str]:
            try:
                left = len(futures)
                while left:
                    index, event = await events.get()
                    if isinstance(event, str):
                        yield _event(chunk(index, event))
                        continue
                    left -= 1
                    if event.cancelled() or event.exception():
                        yield _event(RequestError(f"the model failed: {'' if event.cancelled() else event.exception()}", 500).body)
                        return
                    yield _event(chunk(index, "", event.result().finish_reason))
                if request.stream_options and request.stream_options.include_usage:
                    totals = protocol.usage(prompts, [future.result() for future in futures])
                    yield _event({**chunk(0, ""), "choices": [], "usage": totals})
                yield "data: [DONE]\n\n"
            finally:
                for future in futures:
                    future.cancel()

        return StreamingResponse(parts(), media_type="text/event-stream")


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


async def _unless_gone(http: Request, work: Awaitable[Result]) -> Result:
    """The work's result; cancels it when the client hangs up first."""

    async def hung_up() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError("the client closed the connection", status=499)
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


def _refused(http: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse(error.body, status_code=error.status, headers=headers)


def _no_route(http: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    message = f"{http.method} {http.url.path} is not served here; {ROUTES} are"
    return JSONResponse(RequestError(message, status).body, status_code=status)
