"""The client of a search API: key, limits, retries, and a cache of results with their dates."""

import asyncio
import contextlib
import os
import random
import time
import weakref
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from mira_jax.errors import ConfigError
from mira_jax.files import now, parse_json
from rollouts.errors import SiteError
from rollouts.llm.answers import failure, read_limited, retry_after
from rollouts.llm.cache import AnswerCache, question_key
from rollouts.suites.web_seeking.apis import NoList, Result, SearchConfig, fill, read_results
from rollouts.text import scrub
from rollouts.web.addresses import is_public

KEY = "suite.options.search"
MAX_BYTES = 8 << 20
"""Maximum size of an answer."""
MAX_BACKOFF = 30.0
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_QUERY_REFUSED = frozenset({400, 414, 422})
_SHOWN = 300


class Results(msgspec.Struct, frozen=True):
    """The results of one query, as they are kept in the cache."""

    date: str
    """When the API gave them."""
    results: tuple[Result, ...]


class QueryRefused(Exception):
    """The API does not accept this query, although it accepted others."""


def read_key(config: SearchConfig) -> str:
    """Raises ConfigError if the variable is not set, without showing its value."""
    name = config.api_key_env
    key = os.environ.get(name, "").strip() if name else ""
    if name and not key:
        raise ConfigError(f"{KEY}.api_key_env", f"the environment variable {name} is not set; export it")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{KEY}.api_key_env", f"the environment variable {name} contains characters that a key cannot have")
    return key


class Search:
    """A search API, opened with `async with`. Equal queries are sent once."""

    def __init__(self, config: SearchConfig, cache: AnswerCache[Results]):
        self.config, self._cache = config, cache
        self.requests = 0
        """Number of requests so far."""
        self._key = ""
        self._client: httpx.AsyncClient | None = None
        self._places = asyncio.Semaphore(config.concurrency)
        self._next_start = 0.0
        self._answered = self._listed = False
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def __aenter__(self) -> "Search":
        """Raises ConfigError."""
        if self.config.api == "none":
            raise ConfigError(f"{KEY}.api", "none; name the search API that episodes use (docs/seeking-real.md)")
        self._key = read_key(self.config)
        self._client = httpx.AsyncClient(timeout=self.config.timeout, trust_env=not _is_local(self.config.form.url))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def search(self, query: str) -> Results:
        """Raises SiteError if the API gives no usable answer after all retries, and QueryRefused."""
        form = self.config.form
        key = question_key(["search", form.url, form.method, form.parameters, form.results, query, self.config.count])
        # Equal queries at the same time wait for the first one.
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._cache.get(key)
            if known is None:
                known = Results(now(), await self._ask(query))
                self._cache.put(key, known)
            return known

    async def _ask(self, query: str) -> tuple[Result, ...]:
        problem = ""
        for attempt in range(self.config.retries + 1):
            wait = 0.0
            try:
                async with self._places:
                    await self._pace()
                    self.requests += 1
                    response = await asyncio.wait_for(self._send(query), self.config.timeout)
                if response.status_code == 200:
                    return self._read(response)
                problem = failure(response)
                if response.status_code in _QUERY_REFUSED and self._answered:
                    raise QueryRefused(f"HTTP {response.status_code}")
                if response.status_code not in _RETRIED:
                    raise SiteError(self._shown(problem))
                wait = retry_after(response)
            except TimeoutError:
                problem = f"no complete answer within {self.config.timeout:g} s"
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
            except ValueError as error:
                problem = f"not an answer of this API: {error}"
            if attempt < self.config.retries:
                await asyncio.sleep(wait or min(MAX_BACKOFF, self.config.backoff * 2**attempt) * random.uniform(0.5, 1.0))
        raise SiteError(f"{self._shown(problem)} (the last of {self.config.retries + 1} requests)")

    def _read(self, response: httpx.Response) -> tuple[Result, ...]:
        """Raises ValueError."""
        tree = parse_json(response.content)
        try:
            found = read_results(tree, self.config.form, self.config.count)
        except NoList:
            # Some APIs leave the list out if nothing is found. Before the first list, the path may as well be wrong.
            if not self._listed:
                raise ValueError(f"no {self.config.form.results} in it; check {KEY}.request.results") from None
            return ()
        self._answered = self._listed = True
        return found

    async def _send(self, query: str) -> httpx.Response:
        """Raises ValueError if the answer is longer than `MAX_BYTES`."""
        assert self._client is not None
        form, values = self.config.form, {"query": query, "key": self._key, "count": self.config.count}
        parameters, headers = fill(form.parameters, values), {"Accept": "application/json", **fill(form.headers, values)}
        sent: Mapping[str, Any] = {"json": parameters} if form.method == "POST" else {"params": parameters}
        async with self._client.stream(form.method or "GET", form.url, headers=headers, **sent) as response:
            return await read_limited(response, MAX_BYTES)

    async def _pace(self) -> None:
        if self.config.requests_per_minute > 0:
            at = time.monotonic()
            start = max(at, self._next_start)
            self._next_start = start + 60.0 / self.config.requests_per_minute
            await asyncio.sleep(start - at)

    def _shown(self, text: str) -> str:
        """A text of the API or the HTTP library, without the key."""
        return f"{KEY} ({self.config.form.url}): {scrub(text, [self._key] if self._key else [])[:_SHOWN]}"


def _is_local(url: str) -> bool:
    host = httpx.URL(url).host
    with contextlib.suppress(ValueError):
        return not is_public(host)
    return host == "localhost"
