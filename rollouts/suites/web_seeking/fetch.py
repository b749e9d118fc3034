"""Fetches pages, once each, over HTTP or with a browser, and reads their text. What a page holds is data."""

import asyncio
import codecs
import dataclasses
from collections.abc import Mapping
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import msgspec

from mira_jax.config import Count, Natural, Positive
from mira_jax.errors import ConfigError
from mira_jax.files import now
from rollouts.errors import SiteError
from rollouts.llm.cache import AnswerCache, question_key
from rollouts.suites.web_seeking.download import HTML, Download, Downloader, Failed, HttpDownloader, Unread, kind_of
from rollouts.suites.web_seeking.render import Renderer
from rollouts.web import page_text
from rollouts.web.addresses import Refused, Unreachable
from rollouts.web.browser import BrowserConfig

KEY = "suite.options.fetch"
DEAD_HOSTS = 5
"""If no page could be reached at this many hosts in a row, the network of this machine is taken to be down."""


@dataclasses.dataclass(frozen=True)
class FetchConfig:
    browser: BrowserConfig | None = None
    """A browser that fetches the pages, and runs their scripts. Default: pages are fetched by plain HTTP. `contexts` is the number of pages
    at the same time, and `settle_seconds` the time that scripts have after a page has loaded."""
    timeout: Positive = 20.0
    """Maximum seconds of one page, with its redirects."""
    retries: Natural = 1
    """Maximum number of retries after transient failures of a page."""
    max_bytes: Count = 5_000_000
    """Maximum size of a page, uncompressed. A larger one is not shown."""
    concurrency: Count = 16
    """Maximum number of pages that are fetched over HTTP at the same time."""
    user_agent: str = "mira-jax"
    """The User-Agent header of requests over HTTP."""
    allow_hosts: list[str] = dataclasses.field(default_factory=list)
    """`host:port` that pages may be fetched from although they are private. With an entry, the policy can reach this host of your network,
    and the log says so."""

    def __post_init__(self) -> None:
        if self.browser is not None and self.browser.driver != "chromium":
            raise ConfigError("browser.driver", "asgi opens no page of the web; leave it out")
        for host in self.allow_hosts:
            if not host.rpartition(":")[2].isdigit() or "*" in host:
                raise ConfigError("allow_hosts", f"{host!r} is not host:port, such as intranet.example:8080")


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


class Fetcher:
    """Fetches pages, opened with `async with`. Each page is fetched once, as long as the cache has it."""

    def __init__(self, config: FetchConfig, cache: AnswerCache[Fetched]):
        self.config, self._cache = config, cache
        allowed = frozenset(host.lower() for host in config.allow_hosts)
        self._renderer = Renderer(config.browser, config.timeout, config.max_bytes, allowed) if config.browser else None
        http = HttpDownloader(config.timeout, config.max_bytes, config.user_agent, allowed)
        self._downloader: Downloader = self._renderer or http
        self._places = asyncio.Semaphore(config.browser.contexts if config.browser else config.concurrency)
        self._dead: set[str] = set()
        """Hosts of the pages that could not be reached since the last that could."""
        self._open = AsyncExitStack()

    async def __aenter__(self) -> "Fetcher":
        """Raises UserError if the browser does not start."""
        if self._renderer is not None:
            await self._open.enter_async_context(self._renderer)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def fetch(self, url: str) -> Fetched:
        """The page, or why it cannot be read. The latter is kept only if it is a fact about the page, such as a status of 404.

        Raises:
            InfraError: `DEAD_HOSTS` hosts in a row could not be reached, or the browser failed.
        """
        key = question_key(["page", url, self.config.max_bytes, self.config.user_agent, self.config.browser is not None])
        known = self._cache.get(key)
        if known is not None:
            return known
        async with self._places:
            try:
                found = await self._with_retries(url)
            except Refused as refusal:
                return Fetched(url, now(), problem=str(refusal))
            except Failed as failed:
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

    async def _with_retries(self, url: str) -> Fetched:
        """Raises Refused, and Failed after all retries."""
        failure = Failed("it was not fetched")
        for _ in range(self.config.retries + 1):
            try:
                return await _read(await asyncio.wait_for(self._downloader.download(url), self.config.timeout))
            except Unread as unread:
                return Fetched(unread.url, now(), problem=str(unread))
            except Failed as error:
                failure = error
            except TimeoutError:
                failure = Failed(f"it did not answer within {self.config.timeout:g} seconds")
            except Unreachable:
                failure = Failed("its host cannot be reached")
        raise failure


async def _read(got: Download) -> Fetched:
    """Raises Unread, and Failed if this machine is too slow."""
    data, kind = got.data, kind_of(got.header)
    if data.startswith(b"%PDF-"):
        raise Unread(got.url, "it is a PDF, which is not read")
    if b"\0" in data[:1024] and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unread(got.url, "it is no page of text")
    is_html = kind in HTML or (not kind and data.lstrip()[:1] == b"<")
    try:
        found = await page_text.read(data, got.url, got.header, is_html)
    except page_text.Unreadable as error:
        raise Unread(got.url, str(error)) from None
    except TimeoutError:
        raise Failed("it could not be read in time", reached=True) from None
    if not found.paragraphs:
        raise Unread(got.url, "it has no text" if got.rendered else "it has no text without its scripts")
    return Fetched(got.url, now(), found.title, found.paragraphs, tuple((link.text, link.url) for link in found.links))


def describe_allowed(config: FetchConfig) -> Mapping[str, str]:
    """What must be said about the hosts that may be private, by option."""
    allowed = ", ".join(config.allow_hosts)
    return {f"{KEY}.allow_hosts": f"the policy can reach {allowed}, even if private"} if allowed else {}
