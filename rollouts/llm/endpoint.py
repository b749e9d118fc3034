"""Client for models behind an OpenAI-compatible HTTP endpoint."""

import asyncio
import dataclasses
import math
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import httpx

from mira_jax.config import Count, Natural, NonNegative, Positive
from mira_jax.errors import ConfigError, UserError
from rollouts.errors import EndpointError
from rollouts.llm import answers
from rollouts.llm.answers import Card, Completion
from rollouts.llm.usage import Usage
from rollouts.text import scrub

Answer = TypeVar("Answer")
OWN_FIELDS = frozenset({
    "model", "prompt", "messages", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "logprobs", "echo", "n", "stream",
    "return_token_ids",
})  # fmt: skip
"""Fields that requests have, or whose change would make the records wrong."""
MAY_LACK = frozenset({"temperature", "seed", "max_tokens"})
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_REFUSED = frozenset({401, 403, 404})
_INVALID = frozenset({400, 422})
LONGEST = 64 << 20
"""Maximum bytes of a response. The token ids and log-probabilities of long prompts take megabytes."""
_SHOWN = 300
"""Maximum characters of a server's message that are shown."""


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    base_url: str = "http://127.0.0.1:8000/v1"
    """Base URL, up to and including /v1."""
    model: str = ""
    """Name of the model. Empty: the first model that the endpoint lists."""
    api_key_env: str = ""
    """Environment variable that contains the API key. Empty: no key is sent."""
    timeout: Positive = 120.0
    """Maximum seconds of one request."""
    retries: Natural = 5
    """Maximum number of retries after transient failures."""
    backoff: NonNegative = 0.5
    """Seconds before the first retry, doubled for each further one, with jitter. A Retry-After header takes precedence."""
    max_backoff: NonNegative = 30.0
    """Maximum seconds between two retries."""
    concurrency: Count = 64
    """Maximum number of concurrent requests."""
    requests_per_minute: NonNegative = 0.0
    """Maximum number of requests started per minute. 0: no limit."""
    log_probs: Literal["unknown", "raw", "processed"] = "unknown"
    """Meaning of the endpoint's `logprobs`, if it does not report it as mira_jax.serve does. raw: under the model at temperature 1
    (vLLM's default, OpenAI). processed: under the sampling distribution (vLLM with --logprobs-mode processed_logprobs).
    unknown: log-probabilities are kept only if both are equal."""
    body: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields to set in the body of every request, for example {reasoning_effort: low}. null leaves a field out: some models refuse
    `temperature` or `seed`."""
    rename: dict[str, str] = dataclasses.field(default_factory=dict)
    """Fields to send under another name, for example {max_tokens: max_completion_tokens}."""
    prompt_price: NonNegative = 0.0
    """USD per million prompt tokens."""
    response_price: NonNegative = 0.0
    """USD per million response tokens."""
    max_cost: NonNegative = 0.0
    """Maximum USD that one run of the command may spend, by the prices above. At the limit the command stops, and the same command
    continues its work. Requests in flight are paid beyond it. With `pool=ray` it is the limit of each worker. 0: no limit."""

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError("base_url", f"{self.base_url!r} is not an http address, such as http://127.0.0.1:8000/v1")
        url = httpx.URL(self.base_url)
        # Neither message shows the URL, since it contains the secret.
        if url.userinfo:
            raise ConfigError("base_url", "holds a user name or password; put the key into a variable and name it in $.api_key_env")
        if url.query or url.fragment:
            raise ConfigError("base_url", "ends in ?... or #...; put the key into a variable and name it in $.api_key_env")
        if self.max_cost and not (self.prompt_price or self.response_price):
            raise ConfigError("max_cost", "costs are unknown without $.prompt_price and $.response_price")
        for name, value in self.body.items():
            if name.lower() in ("api_key", "authorization", "key"):
                raise ConfigError("body", f"names {name}; keys are read from the variable that $.api_key_env names")
            if name in OWN_FIELDS and (value is not None or name not in MAY_LACK):
                raise ConfigError("body", f"names {name}, which the command sets itself and records")
        if self.api_key_env and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env, re.ASCII):
            raise ConfigError("api_key_env", "is not the name of an environment variable; give the name, not the key itself")


class InvalidRequest(EndpointError):
    """The endpoint rejects the request as invalid."""


class Endpoint:
    """A client, opened with `async with`. Opening lists the endpoint's models, so that a wrong address fails at once."""

    def __init__(self, config: EndpointConfig, key: str = "endpoint"):
        """`key`: path of `config` in the run's config, for messages."""
        self.config = config
        self.key = key
        self.model = config.model
        self.card = Card(config.model)
        """The model as the endpoint lists it, once open."""
        self.listed: tuple[str, ...] = ()
        """Names of all models that the endpoint lists, once open."""
        self.usage = Usage(config.prompt_price, config.response_price)
        self._client: httpx.AsyncClient | None = None
        self._places = asyncio.Semaphore(config.concurrency)
        self._next_start = 0.0
        self._secrets: tuple[str, ...] = ()
        self._unsupported: set[str] = set()
        self._chatted = False
        """Whether a chat request was answered."""

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
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_p: float = 1.0,
        top_k: int = 0,
        stop: Sequence[str] = (),
    ) -> Completion:
        """Completes a text or token ids. Returns the tokens and their log-probabilities if the endpoint reports them.

        top_p and top_k are always sent, even if they are off, since an engine may take other defaults from the model's folder.

        Raises:
            EndpointError: no usable response after all retries.
            UserError: the endpoint rejects the key or the model, does not support `top_k`, or serves other weights than when opened; or
                the spending limit is reached.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "logprobs": 0,
        }
        if stop:
            body["stop"] = list(stop)
        found = await self._extended(body, {"top_k": top_k, "return_token_ids": True})
        if self.card.fingerprint and found.fingerprint and found.fingerprint != self.card.fingerprint:
            raise UserError(
                f"{self.config.base_url}: serves other weights than when the run began (fingerprint {found.fingerprint[:12]}, "
                f"was {self.card.fingerprint[:12]}); run the same command with another out"
            )
        raw, drawn = self._distributions(found, temperature, top_p, top_k)
        return dataclasses.replace(found, log_probs=raw, sampling_log_probs=drawn)

    async def _extended(self, body: dict[str, Any], extensions: Mapping[str, Any]) -> Completion:
        """Sends a request with extensions to OpenAI's API, except those that the endpoint has rejected before."""
        while True:
            asked = {name: value for name, value in extensions.items() if name not in self._unsupported}
            try:
                return await self._send("completions", body | asked, answers.completion)
            except InvalidRequest as error:
                refused = next((name for name in asked if name in str(error)), None)
                if refused is None:
                    raise
                if refused == "top_k" and asked["top_k"]:
                    raise UserError(f"{self.config.base_url}: has no top_k ({error}); set policy.top_k=0") from None
                self._unsupported.add(refused)

    def _distributions(
        self, found: Completion, temperature: float, top_p: float, top_k: int
    ) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """Log-probabilities at temperature 1 over the whole vocabulary, and under the sampling distribution. None if unknown."""
        if found.sampling_log_probs is not None:
            return found.log_probs, found.sampling_log_probs
        if temperature == 1 and top_p == 1 and not top_k:
            return found.log_probs, found.log_probs
        raw = found.log_probs if self.config.log_probs == "raw" else None
        # Greedy decoding does not sample. The probability of its token is 1, which vLLM does not report.
        return raw, found.log_probs if self.config.log_probs == "processed" and temperature > 0 else None

    async def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_p: float = 1.0,
        fields: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Returns the answer to a conversation, without its log-probability. top_p is sent unless it is 1, which is the default of chat
        APIs. `fields`: further fields of the request.

        Raises:
            EndpointError: no usable response after all retries, or the request is refused although others were not.
            UserError: the endpoint rejects the key, the model, or the first request.
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            **({"top_p": top_p} if top_p != 1 else {}),
            **(fields or {}),
        }
        try:
            found = await self._send("chat/completions", body, answers.answer)
        except InvalidRequest as error:
            if self._chatted:
                raise
            raise UserError(
                f"{self.config.base_url}: {error}; if the API names a field of the request, rename it or leave it out with "
                f"{self.key}.rename and {self.key}.body"
            ) from None
        self._chatted = True
        return found

    async def last_log_probs(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of the last token of each prompt, given the tokens before it, in nats, at temperature 1.

        Nothing is sampled: the prompts are echoed with their log-probabilities.

        Raises:
            EndpointError: no usable response after all retries.
            UserError: the endpoint rejects the key or the model, or does not report one log-probability per token.
        """
        ids = [list(prompt) for prompt in prompts]
        body = {"model": self.model, "prompt": ids, "max_tokens": 0, "temperature": 1.0, "echo": True, "logprobs": 0}
        found = await self._send("completions", body, answers.echoed)
        self.usage.add(sum(map(len, ids)), 0)
        last = [values[-1] if len(values) == len(prompt) else None for values, prompt in zip(found, ids, strict=False)]
        numbers = [value for value in last if value is not None and math.isfinite(value)]
        if len(numbers) < len(ids):
            raise UserError(f"{self.config.base_url}: does not report the log-probability of each token of an echoed prompt")
        return numbers

    async def _send(self, path: str, body: Mapping[str, Any], read: Callable[[httpx.Response], Answer]) -> Answer:
        failure, body = "", self._body(body)
        for attempt in range(self.config.retries + 1):
            wait = 0.0
            try:
                async with self._places:
                    await self._pace()
                    self.usage.refuse_beyond(self.config.max_cost, self.key)
                    # The client's own timeout limits only the time between two reads, so a slow stream of bytes would never time out.
                    response = await asyncio.wait_for(self._post(path, body), self.config.timeout)
                if response.status_code == 200:
                    found = read(response)
                    if not isinstance(found, Completion):
                        return found
                    self.usage.add(found.prompt_tokens, found.tokens)
                    return self._without_key(found)
                failure = self._shown(answers.failure(response))
                if response.status_code in _REFUSED:
                    raise UserError(f"{self.config.base_url}: {failure}")
                if response.status_code in _INVALID:
                    raise InvalidRequest(failure)
                if response.status_code not in _RETRIED:
                    raise EndpointError(failure)
                wait = answers.retry_after(response)
            except TimeoutError:
                failure = f"no complete response within {self.config.timeout:g} s"
            except httpx.HTTPError as error:
                failure = self._shown(f"{type(error).__name__}: {error}".rstrip(": "))
            except ValueError as error:
                failure = self._shown(f"not a completion: {error}")
            if attempt < self.config.retries:
                await asyncio.sleep(wait or self._delay(attempt))
        raise EndpointError(f"{self.key} ({self.config.base_url}): no answer after {self.config.retries + 1} requests; the last: {failure}")

    async def _post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """Raises ValueError if the response is longer than `LONGEST`."""
        async with self._open().stream("POST", path, json=body) as response:
            return await answers.read_limited(response, LONGEST)

    def _body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body by `body` and `rename` of the config."""
        renamed = {self.config.rename.get(name, name): value for name, value in body.items()} | self.config.body
        left_out = {name for name, value in self.config.body.items() if value is None}
        return {name: value for name, value in renamed.items() if name not in left_out}

    def _headers(self) -> dict[str, str]:
        name = self.config.api_key_env
        if not name:
            return {}
        key = os.environ.get(name, "").strip()
        if not key:
            raise ConfigError(f"{self.key}.api_key_env", f"the environment variable {name} is not set")
        if not (key.isascii() and key.isprintable()):
            # Raised here without the key: the HTTP library's own message would contain it.
            raise ConfigError(f"{self.key}.api_key_env", f"the environment variable {name} contains characters that a key cannot have")
        self._secrets = (key,)
        return {"Authorization": f"Bearer {key}"}

    def _shown(self, text: str) -> str:
        """Returns a server's text in a form that is safe for messages and records."""
        return scrub(text, self._secrets)[:_SHOWN]

    def _without_key(self, found: Completion) -> Completion:
        if any(secret in found.text for secret in self._secrets):
            raise EndpointError(f"{self.config.base_url}: the completion holds the key of {self.config.api_key_env}; it is not kept")
        return found

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
                    listed = answers.read_cards(response)
                    break
                failure = self._shown(answers.failure(response))
                if response.status_code not in _RETRIED:
                    hint = self._key_hint() if response.status_code in (401, 403) else ""
                    if not self.config.base_url.rstrip("/").endswith("/v1"):
                        hint += "; the address should end with /v1"
                    raise ConfigError(f"{self.key}.base_url", f"{url}: {failure}{hint}")
            except httpx.HTTPError as error:
                failure = self._shown(f"{type(error).__name__}: {error}".rstrip(": "))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ConfigError(
                    f"{self.key}.base_url", f"{url}: not an OpenAI-compatible endpoint: the response is not a list of models"
                ) from None
            if attempt < 2:
                await asyncio.sleep(self._delay(attempt))
        else:
            raise ConfigError(
                f"{self.key}.base_url", f"{url}: cannot reach the endpoint ({failure}); start it (`mira serve`), or give another address"
            )
        self.listed = tuple(card.name for card in listed)
        if not self.model:
            if not listed:
                raise ConfigError(f"{self.key}.model", f"{url}: the endpoint lists no model; name one")
            self.model = listed[0].name
        self.card = next((card for card in listed if card.name == self.model), self.card)

    def _key_hint(self) -> str:
        name = self.config.api_key_env
        return f"; check the key in {name}" if name else f"; name the environment variable of the key in {self.key}.api_key_env"

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
