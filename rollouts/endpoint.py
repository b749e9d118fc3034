"""The one client for models: an OpenAI-compatible endpoint over HTTP."""

import asyncio
import dataclasses
import email.utils
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from mira_jax.errors import UserError
from rollouts.errors import EndpointError

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_REFUSED = frozenset({401, 403, 404})


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    base_url: str = "http://127.0.0.1:8000/v1"
    model: str = ""
    """Empty: the first that the endpoint lists."""
    api_key_env: str = ""
    """The environment variable that holds the key. Empty: no key is sent."""
    timeout: float = 120.0
    """Seconds that one request may take."""
    retries: int = 5
    """How often a request that failed in passing is sent again."""
    backoff: float = 0.5
    """Seconds before the first retry; doubled each time, with jitter. A Retry-After header goes before it."""
    max_backoff: float = 30.0
    concurrency: int = 64
    """The most requests under way at once."""
    requests_per_minute: float = 0.0
    """The most requests begun in a minute; 0: no limit."""
    prompt_price: float = 0.0
    """USD per million tokens of prompt, for what an evaluation says of cost."""
    response_price: float = 0.0
    """USD per million tokens of response."""

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"endpoint.base_url: {self.base_url!r} is not an http address, such as http://127.0.0.1:8000/v1")
        if self.retries < 0 or self.timeout <= 0 or self.concurrency < 1:
            raise UserError("endpoint: retries must be at least 0, timeout above 0, concurrency at least 1")
        if not all(0 <= price < math.inf for price in (self.prompt_price, self.response_price)):
            raise UserError("endpoint: prompt_price and response_price are USD per million tokens, 0 or more")


@dataclasses.dataclass(frozen=True)
class Completion:
    text: str
    log_prob: float | None
    """Sum over the tokens of the completion, in nats, the end token included; None if the endpoint does not tell."""
    prompt_tokens: int
    tokens: int
    cut: bool = False
    """It was cut at `max_tokens`."""


class Endpoint:
    """`async with` opens it: the endpoint is asked for its models, so that a wrong address is found at once."""

    def __init__(self, config: EndpointConfig):
        self.config = config
        self.model = config.model
        self._client: httpx.AsyncClient | None = None
        self._places = asyncio.Semaphore(config.concurrency)
        self._next_start = 0.0

    async def __aenter__(self) -> "Endpoint":
        self._client = httpx.AsyncClient(
            base_url=self.config.base_url.rstrip("/") + "/",
            headers=self._headers(),
            timeout=self.config.timeout,
            limits=httpx.Limits(max_connections=self.config.concurrency, max_keepalive_connections=self.config.concurrency),
            trust_env=not _is_loopback(self.config.base_url),
        )
        try:
            await self._find_model()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def complete(
        self, prompt: str | Sequence[int], *, max_tokens: int, temperature: float, seed: int, stop: Sequence[str] = ()
    ) -> Completion:
        """One completion of a text or of token ids.

        Raises:
            EndpointError: no usable answer after all retries.
            UserError: the endpoint refuses the key or the model.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "logprobs": 0,
        }
        if stop:
            body["stop"] = list(stop)
        return await self._send("completions", body, _completion)

    async def chat(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int, temperature: float, seed: int) -> Completion:
        """The answer to a conversation, without its log-probability.

        Raises:
            EndpointError, UserError: as for `complete`.
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        return await self._send("chat/completions", body, _answer)

    async def _send(self, path: str, body: Mapping[str, Any], read: Callable[[httpx.Response], Completion]) -> Completion:
        failure = ""
        for attempt in range(self.config.retries + 1):
            wait = 0.0
            try:
                async with self._places:
                    await self._pace()
                    # The client's own limit is on silence: an answer that trickles in would never end.
                    response = await asyncio.wait_for(self._open().post(path, json=body), self.config.timeout)
                if response.status_code == 200:
                    return read(response)
                failure = _failure(response)
                if response.status_code in _REFUSED:
                    raise UserError(f"{self.config.base_url}: {failure}")
                if response.status_code not in _RETRIED:
                    raise EndpointError(failure)
                wait = _retry_after(response)
            except TimeoutError:
                failure = f"no whole answer within {self.config.timeout:g} s"
            except httpx.HTTPError as error:
                failure = f"{type(error).__name__}: {error}".rstrip(": ")
            except ValueError as error:
                failure = f"not a completion: {error}"
            if attempt < self.config.retries:
                await asyncio.sleep(wait or self._delay(attempt))
        raise EndpointError(f"{self.config.base_url}: no answer after {self.config.retries + 1} requests; the last: {failure}")

    def _headers(self) -> dict[str, str]:
        name = self.config.api_key_env
        if not name:
            return {}
        key = os.environ.get(name, "").strip()
        if not key:
            raise UserError(f"endpoint.api_key_env: the environment variable {name} is not set")
        if not (key.isascii() and key.isprintable()):
            # Said here, without the key: the HTTP library's own message would show it.
            raise UserError(f"endpoint.api_key_env: the environment variable {name} holds characters that no key has")
        return {"Authorization": f"Bearer {key}"}

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            raise RuntimeError("the endpoint is not open")
        return self._client

    async def _find_model(self) -> None:
        url = self.config.base_url.rstrip("/") + "/models"
        failure = ""
        for attempt in range(3):
            try:
                response = await self._open().get("models", timeout=min(10.0, self.config.timeout))
                if response.status_code == 200:
                    listed = [str(model["id"]) for model in response.json()["data"]]
                    break
                failure = _failure(response)
                if response.status_code not in _RETRIED:
                    hint = "; base_url should end with /v1" if not self.config.base_url.rstrip("/").endswith("/v1") else ""
                    raise UserError(f"{url}: {failure}{hint}")
            except httpx.HTTPError as error:
                failure = f"{type(error).__name__}: {error}".rstrip(": ")
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{url}: this is no OpenAI-compatible endpoint: the answer is no list of models") from None
            if attempt < 2:
                await asyncio.sleep(self._delay(attempt))
        else:
            raise UserError(
                f"{url}: cannot reach the endpoint ({failure}); start it (`python -m mira_jax.serve`), or set policy.endpoint.base_url"
            )
        if not self.model:
            if not listed:
                raise UserError(f"{url}: the endpoint lists no model; set policy.endpoint.model")
            self.model = listed[0]

    async def _pace(self) -> None:
        if self.config.requests_per_minute > 0:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + 60.0 / self.config.requests_per_minute
            await asyncio.sleep(start - now)

    def _delay(self, attempt: int) -> float:
        longest = min(self.config.max_backoff, self.config.backoff * 2**attempt)
        return longest * random.uniform(0.5, 1.0)


def _is_loopback(url: str) -> bool:
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")


def _completion(response: httpx.Response) -> Completion:
    """Raises ValueError."""
    return _read(response, lambda choice: choice["text"])


def _answer(response: httpx.Response) -> Completion:
    """Raises ValueError."""
    return _read(response, lambda choice: choice["message"]["content"])


def _read(response: httpx.Response, text_of: Callable[[Any], Any]) -> Completion:
    """Raises ValueError."""
    try:
        tree = response.json()
        choice = tree["choices"][0]
        text = text_of(choice)
        if not isinstance(text, str):
            raise TypeError("text is not a string")
        told = (choice.get("logprobs") or {}).get("token_logprobs")
        log_probs = None if told is None else [float(value) for value in told if value is not None]
        usage = tree.get("usage") or {}
        tokens = int(usage.get("completion_tokens") or (len(log_probs) if log_probs else 0))
        return Completion(
            # Half of a surrogate pair, which JSON may name, is no text that can be kept.
            text=text.encode("utf-8", "replace").decode(),
            log_prob=sum(log_probs) if log_probs and all(map(math.isfinite, log_probs)) else None,
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            tokens=tokens,
            cut=choice.get("finish_reason") == "length",
        )
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} {error} in {response.text[:200]!r}") from None


def _failure(response: httpx.Response) -> str:
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = response.text
    return f"HTTP {response.status_code}: {str(message)[:300]}"


def _retry_after(response: httpx.Response) -> float:
    """Seconds, at most 120; 0 if the header is absent or makes no sense."""
    value = response.headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), 120.0) if not math.isnan(seconds) else 0.0
