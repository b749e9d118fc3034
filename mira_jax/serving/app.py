"""The HTTP application: OpenAI's routes over an engine."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mira_jax.errors import UserError
from mira_jax.models.gemma3 import Gemma3
from mira_jax.serving import protocol, responses
from mira_jax.serving.engine import Engine, EngineStopped, Generation, Job, QueueFull
from mira_jax.serving.metrics import Counted, Metrics
from mira_jax.serving.protocol import ChatRequest, CompletionRequest, Limits, RequestError, Served

Result = TypeVar("Result")
WORKERS = 2
"""Number of threads that parse requests, tokenize and build responses, so that the event loop is not blocked."""
GONE = "the client closed the connection"
ROUTES = "POST /v1/completions, POST /v1/chat/completions, GET /v1/models, GET /health and GET /metrics"


def make_app(engine: Engine, model: Served, load: Callable[[], tuple[Gemma3, str]] | None = None) -> Starlette:
    """`load`: the newest weights of the model and their fingerprint. Without it, POST /reload is not served."""
    service = _Service(engine, model, load)
    routes = [
        Route("/v1/completions", service.completions, methods=["POST"]),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/v1/models/{name:path}", service.one_model),
        Route("/health", service.health),
        Route("/metrics", lambda http: Response(metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)),
        *([Route("/reload", service.reload, methods=["POST"])] if load else []),
    ]
    metrics = Metrics(engine, frozenset(route.path for route in routes))
    counted = [Middleware(Counted, metrics=metrics)]
    return Starlette(routes=routes, middleware=counted, exception_handlers=HANDLERS)


class _Service:
    def __init__(self, engine: Engine, model: Served, load: Callable[[], tuple[Gemma3, str]] | None):
        self._engine, self._first, self._load = engine, model, load
        self._tokenizer, self._limits = engine.tokenizer, Limits.of(engine)
        self._workers = ThreadPoolExecutor(WORKERS, "worker")
        self._reloading = asyncio.Lock()

    @property
    def _model(self) -> Served:
        """With the fingerprint of the weights in use."""
        return msgspec.structs.replace(self._first, fingerprint=self._engine.fingerprint or self._first.fingerprint)

    def _of(self, completions: Sequence[Generation]) -> Served:
        """With the fingerprint of the weights that made the completions. Raises RequestError if they were replaced in between."""
        made = {completion.fingerprint for completion in completions}
        if len(made) > 1:
            raise RequestError("the weights were replaced during this request; send it again", status=503, retry_after=0)
        return msgspec.structs.replace(self._first, fingerprint=made.pop() or self._first.fingerprint)

    @property
    def _card(self) -> dict[str, Any]:
        model = self._model
        return {
            "id": model.name, "object": "model", "created": 0, "owned_by": "mira_jax",
            "max_model_len": self._engine.max_length, "fingerprint": model.fingerprint, "dtype": model.dtype,
        }  # fmt: skip

    async def completions(self, http: Request) -> Response:
        body = await self._body(http)
        request = await self._in_worker(lambda: protocol.parse(CompletionRequest, body))
        self._check_model(request.model)
        prompts = await self._in_worker(lambda: protocol.completion_prompts(request, self._limits, self._tokenizer.vocabulary_size))
        # One task per text, so that a request with many long texts does not occupy a worker for long.
        ids = [await self._in_worker(lambda text=prompt: self._ids(text)) if isinstance(prompt, str) else prompt for prompt in prompts]
        jobs = protocol.completion_jobs(request, ids, self._limits)
        if request.stream:
            return self._stream(request, ids, jobs, chat=False)
        completions = await self._complete(http, jobs)
        write = responses.completion_response
        return await self._json(lambda: write(request, self._of(completions), prompts, jobs, completions, self._tokenizer))

    async def chat(self, http: Request) -> Response:
        body = await self._body(http)
        request = await self._in_worker(lambda: protocol.parse(ChatRequest, body))
        self._check_model(request.model)
        protocol.check_messages(request.messages, self._limits)
        prompt = await self._in_worker(lambda: protocol.chat_prompt(request.messages, self._tokenizer))
        jobs = protocol.chat_jobs(request, prompt, self._limits)
        if request.stream:
            return self._stream(request, [prompt], jobs, chat=True)
        completions = await self._complete(http, jobs)
        model = self._of(completions)
        return await self._json(lambda: responses.chat_response(request, model, prompt, completions, self._tokenizer))

    async def reload(self, http: Request) -> Response:
        """Reads the newest weights of the model that is served, from its own folder, and uses them. Returns the card of the model."""
        assert self._load is not None
        async with self._reloading:
            try:
                weights = await asyncio.to_thread(self._load)
                await asyncio.wrap_future(self._engine.replace_weights(*weights))
            except UserError as error:
                raise RequestError(str(error), status=409) from None
            except ValueError as error:
                raise RequestError(f"the weights do not fit the model that is served: {error}", status=409) from None
            except EngineStopped as error:
                raise RequestError(str(error), status=503) from None
        return JSONResponse(self._card)

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
        """Reads the whole body even if it is too long, because a client that is still writing would not see the response."""
        body, size = bytearray(), 0
        try:
            async for part in http.stream():
                size += len(part)
                if size <= self._limits.body:
                    body += part
        except ClientDisconnect:
            raise RequestError(GONE, status=499) from None
        if size > self._limits.body:
            raise RequestError(f"the request has {size} bytes; this server takes {self._limits.body}", status=413)
        return bytes(body)

    async def _in_worker(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    async def _json(self, write: Callable[[], dict[str, Any]]) -> Response:
        return Response(await self._in_worker(lambda: msgspec.json.encode(write())), media_type="application/json")

    def _ids(self, text: str) -> list[int]:
        return [self._tokenizer.bos_id, *self._tokenizer.encode(text)]

    def _check_model(self, name: str | None) -> None:
        if name not in (None, self._model.name):
            raise RequestError(f"the model {name!r} is not served here; {self._model.name!r} is", 404, "model", "model_not_found")

    def _submit(self, jobs: Sequence[Job]) -> list[asyncio.Future[Generation]]:
        try:
            return [asyncio.wrap_future(future) for future in self._engine.submit(jobs)]
        except QueueFull as error:
            raise RequestError(str(error), status=429, retry_after=1) from None
        except EngineStopped as error:
            raise RequestError(str(error), status=503) from None

    async def _complete(self, http: Request, jobs: Sequence[Job]) -> list[Generation]:
        """Waits for all completions. If the client disconnects, its prompts are removed from the engine."""
        try:
            return await _cancel_on_disconnect(http, asyncio.gather(*self._submit(jobs)))
        except (RequestError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise _failed(error) from None

    def _stream(self, request: Any, prompts: Sequence[Sequence[int]], jobs: Sequence[Job], chat: bool) -> Response:
        loop, events = asyncio.get_running_loop(), asyncio.Queue()

        def tell(index: int) -> Callable[[str], None]:
            return lambda text: loop.call_soon_threadsafe(events.put_nowait, (index, text))

        futures = self._submit([dataclasses.replace(job, progress=tell(index)) for index, job in enumerate(jobs)])
        for index, future in enumerate(futures):
            # The engine reports the last text before it sets the result. Both go through the event loop, which preserves their order.
            future.add_done_callback(lambda done, index=index: events.put_nowait((index, done)))
        chunk = responses.stream_chunks(self._model, chat)

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
                        yield _event(_failed(EngineStopped("the server is stopping") if event.cancelled() else event.exception()).body)
                        return
                    yield _event(chunk(index, "", event.result().finish_reason))
                if request.stream_options and request.stream_options.include_usage:
                    totals = responses.usage(prompts, [future.result() for future in futures])
                    yield _event({**chunk(0, ""), "choices": [], "usage": totals})
                yield "data: [DONE]\n\n"
            finally:
                for future in futures:
                    future.cancel()

        return StreamingResponse(parts(), media_type="text/event-stream")


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


async def _cancel_on_disconnect(http: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled if the client disconnects first."""

    async def disconnected() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError(GONE, status=499)
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


def _failed(error: BaseException) -> RequestError:
    if isinstance(error, EngineStopped):
        return RequestError(str(error), status=503)
    return RequestError(f"the model failed: {type(error).__name__}: {error}", status=500)


def _refused(http: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse(error.body, status_code=error.status, headers=headers)


def _no_route(http: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    message = f"{http.method} {http.url.path} is not served here; {ROUTES} are"
    return JSONResponse(RequestError(message, status).body, status_code=status)


def _broken(http: Request, error: Exception) -> Response:
    """Handles an internal error: logs the traceback and returns a readable response to the client."""
    return JSONResponse(RequestError(f"internal error: {type(error).__name__}", 500).body, status_code=500)


HANDLERS = {RequestError: _refused, 404: _no_route, 405: _no_route, Exception: _broken}
