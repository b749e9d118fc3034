"""Fetches pages over HTTP, from public addresses alone, with limits of size and time. What a page holds is data."""

import asyncio
import codecs
import dataclasses
import re
import ssl
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import httpx
import msgspec

from mira_jax.config import Count, Natural, Positive
from mira_jax.files import now
from rollouts.errors import SiteError
from rollouts.llm.cache import AnswerCache, question_key
from rollouts.suites.web_seeking.addresses import Refused, Unreachable, check
from rollouts.web import page_text

KEY = "suite.options.fetch"
HOPS = 10
"""Maximum number of redirects."""
DEAD_HOSTS = 5
"""If no page could be reached at this many hosts in a row, the network of this machine is taken to be down."""
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_PLAIN = re.compile(r"text/.+|application/(json|xml|.+\+xml|.+\+json)")


@dataclasses.dataclass(frozen=True)
class FetchConfig:
    timeout: Positive = 20.0
    """Maximum seconds of one page, with its redirects."""
    retries: Natural = 1
    """Maximum number of retries after transient failures of a page."""
    max_bytes: Count = 5_000_000
    """Maximum size of a page, uncompressed. A larger one is not shown."""
    concurrency: Count = 16
    """Maximum number of pages that are fetched at the same time."""
    user_agent: str = "mira-jax"
    """The User-Agent header."""
    allow_hosts: list[str] = dataclasses.field(default_factory=list)
    """`host:port` that pages may be fetched from although they are private. With an entry, the policy can reach this host of your network,
    and the log says so."""


class Fetched(msgspec.Struct, frozen=True):
    """A page as it is kept in the cache, or why there is none."""

    url: str
    """After redirects."""
    date: str
    title: str = ""
    paragraphs: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """(text, address)."""
    problem: str = ""
    """Why the page cannot be read, in words for the policy. Empty: it was read."""


@dataclasses.dataclass(frozen=True)
class _Download:
    """A page as it was sent."""

    url: str
    data: bytes
    header: str
    """Its Content-Type."""


class _Failed(Exception):
    """The page gave no answer that says anything about it. It may do so later."""

    def __init__(self, problem: str, reached: bool = False):
        super().__init__(problem)
        self.reached = reached
        """Whether its host answered."""


class Fetcher:
    """Fetches pages. Each page is fetched once, as long as the cache has it."""

    def __init__(self, config: FetchConfig, cache: AnswerCache[Fetched]):
        self.config, self._cache = config, cache
        self.requests = 0
        """Number of requests so far."""
        self._allowed = frozenset(host.lower() for host in config.allow_hosts)
        self._places = asyncio.Semaphore(config.concurrency)
        self._certificates = ssl.create_default_context()
        self._dead: set[str] = set()
        """Hosts of the pages that could not be reached since the last that could."""

    async def fetch(self, url: str) -> Fetched:
        """The page, or why it cannot be read. The latter is kept only if it is a fact about the page, such as a status of 404.

        Raises:
            SiteError: `DEAD_HOSTS` hosts in a row could not be reached.
        """
        key = question_key(["page", url, self.config.max_bytes, self.config.user_agent])
        known = self._cache.get(key)
        if known is not None:
            return known
        async with self._places:
            try:
                got = await self._with_retries(url)
                found = await _read(got) if isinstance(got, _Download) else got
            except Refused as refusal:
                return Fetched(url, now(), problem=str(refusal))
            except _Failed as failed:
                self._count_dead(url, failed.reached)
                return Fetched(url, now(), problem=str(failed))
        self._dead.clear()
        self._cache.put(key, found)
        return found

    def _count_dead(self, url: str, reached: bool) -> None:
        if reached:
            self._dead.clear()
            return
        self._dead.add(urlsplit(url).netloc)
        if len(self._dead) >= DEAD_HOSTS:
            count = len(self._dead)
            self._dead.clear()
            raise SiteError(f"{KEY}: none of the last {count} hosts could be reached; check the network of this machine")

    async def _with_retries(self, url: str) -> _Download | Fetched:
        """Raises Refused, and _Failed after all retries."""
        for attempt in range(self.config.retries + 1):
            try:
                found = await asyncio.wait_for(self._follow(url), self.config.timeout)
            except (_Failed, TimeoutError, Unreachable, httpx.HTTPError) as error:
                if attempt < self.config.retries:
                    continue
                if isinstance(error, _Failed):
                    raise
                slow = isinstance(error, TimeoutError | httpx.TimeoutException)
                problem = f"it did not answer within {self.config.timeout:g} seconds" if slow else "its host cannot be reached"
                raise _Failed(problem) from error
            return found
        raise AssertionError("a try returns or raises")

    async def _follow(self, url: str) -> _Download | Fetched:
        """Every hop is checked like the first address."""
        async with httpx.AsyncClient(
            verify=self._certificates, trust_env=False, timeout=self.config.timeout, limits=httpx.Limits(max_keepalive_connections=0)
        ) as client:
            for _ in range(HOPS + 1):
                found = await self._get(client, url)
                if not isinstance(found, str):
                    return found
                url = found
        raise Refused(f"it redirects more than {HOPS} times")

    async def _get(self, client: httpx.AsyncClient, url: str) -> _Download | Fetched | str:
        """A page, why it cannot be read, or the address that it redirects to."""
        address = await check(url, self._allowed)
        try:
            where = address.origin + httpx.URL(url).raw_path.decode("ascii")
        except httpx.InvalidURL:
            raise Refused("it is not an address of a page") from None
        headers = {"Host": address.host_header, "User-Agent": self.config.user_agent, "Accept": "text/html, text/plain;q=0.9, */*;q=0.1"}
        self.requests += 1
        # The connection goes to the checked address. TLS still verifies the certificate of the name.
        async with client.stream("GET", where, headers=headers, extensions={"sni_hostname": address.host}) as response:
            status = response.status_code
            if status in _REDIRECTS and response.headers.get("location"):
                return _joined(url, response.headers["location"])
            if status in _RETRIED:
                raise _Failed(f"it answered HTTP {status}", reached=True)
            if status != 200:
                return Fetched(url, now(), problem=f"it answered HTTP {status}")
            return await self._download(url, response)

    async def _download(self, url: str, response: httpx.Response) -> _Download | Fetched:
        header = response.headers.get("content-type", "")
        kind = _kind(header)
        if kind == "application/pdf":
            return Fetched(url, now(), problem="it is a PDF, which is not read")
        if kind and kind not in _HTML and not _PLAIN.fullmatch(kind):
            return Fetched(url, now(), problem="it is no page of text")
        parts, size = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > self.config.max_bytes:
                return Fetched(url, now(), problem=f"it is larger than {self.config.max_bytes:,} bytes")
        return _Download(url, b"".join(parts), header)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise Refused("it redirects to no address") from None


def _kind(header: str) -> str:
    return header.partition(";")[0].strip().lower()


async def _read(got: _Download) -> Fetched:
    """Raises _Failed if this machine is too slow."""
    data, kind = got.data, _kind(got.header)
    if data.startswith(b"%PDF-"):
        return Fetched(got.url, now(), problem="it is a PDF, which is not read")
    if b"\0" in data[:1024] and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Fetched(got.url, now(), problem="it is no page of text")
    is_html = kind in _HTML or (not kind and data.lstrip()[:1] == b"<")
    try:
        found = await page_text.read(data, got.url, got.header, is_html)
    except page_text.Unreadable as error:
        return Fetched(got.url, now(), problem=str(error))
    except TimeoutError:
        raise _Failed("it could not be read in time", reached=True) from None
    problem = "" if found.paragraphs else "it has no text without its scripts"
    return Fetched(got.url, now(), found.title, found.paragraphs, tuple((link.text, link.url) for link in found.links), problem)


def describe_allowed(config: FetchConfig) -> Mapping[str, str]:
    """What must be said about the hosts that may be private, by option."""
    allowed = ", ".join(config.allow_hosts)
    return {f"{KEY}.allow_hosts": f"the policy can reach {allowed}, even if private"} if allowed else {}
