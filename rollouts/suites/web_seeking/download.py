"""Downloads pages by plain HTTP, only from public addresses, with limits of size and time."""

import dataclasses
import re
import ssl
from collections.abc import Collection
from typing import Protocol
from urllib.parse import urljoin

import httpx

from rollouts.web.addresses import Refused, check

HOPS = 10
"""Maximum number of redirects."""
HTML = frozenset({"text/html", "application/xhtml+xml"})
_PLAIN = re.compile(r"text/.+|application/(json|xml|.+\+xml|.+\+json)")
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclasses.dataclass(frozen=True)
class Download:
    """A page as it was sent, or as a browser has rendered it."""

    url: str
    """After redirects."""
    data: bytes
    header: str
    """Its Content-Type."""
    rendered: bool = False


class Unread(Exception):
    """The page cannot be read, which is a fact about it. The message can be shown to the policy."""

    def __init__(self, url: str, problem: str):
        super().__init__(problem)
        self.url = url


class Failed(Exception):
    """The page gave no answer that says anything about it. It may do so later."""

    def __init__(self, problem: str, reached: bool = False):
        super().__init__(problem)
        self.reached = reached
        """Whether its host answered."""


class Downloader(Protocol):
    async def download(self, url: str) -> Download:
        """Raises Refused, Unreachable, Unread, Failed and TimeoutError."""
        ...


def kind_of(header: str) -> str:
    """The media type in a Content-Type header."""
    return header.partition(";")[0].strip().lower()


def check_answer(url: str, status: int, header: str) -> None:
    """Raises Failed for a status that may pass, and Unread if the answer is no page of text."""
    if status in _RETRIED:
        raise Failed(f"it answered HTTP {status}", reached=True)
    if status != 200:
        raise Unread(url, f"it answered HTTP {status}")
    kind = kind_of(header)
    if kind == "application/pdf":
        raise Unread(url, "it is a PDF, which is not read")
    if kind and kind not in HTML and not _PLAIN.fullmatch(kind):
        raise Unread(url, "it is no page of text")


def too_large(url: str, max_bytes: int) -> Unread:
    return Unread(url, f"it is larger than {max_bytes:,} bytes")


class HttpDownloader:
    def __init__(self, timeout: float, max_bytes: int, user_agent: str, allowed: Collection[str]):
        """`allowed`: `host:port` that may be private."""
        self._timeout, self._max_bytes, self._user_agent, self._allowed = timeout, max_bytes, user_agent, allowed
        self._certificates = ssl.create_default_context()

    async def download(self, url: str) -> Download:
        """See `Downloader`. Every hop of a redirect is checked like the first address."""
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(verify=self._certificates, trust_env=False, timeout=self._timeout, limits=limits) as client:
            for _ in range(HOPS + 1):
                try:
                    found = await self._get(client, url)
                except httpx.TimeoutException:
                    raise TimeoutError from None
                except httpx.HTTPError:
                    raise Failed("its host cannot be reached") from None
                if isinstance(found, Download):
                    return found
                url = found
        raise Refused(f"it redirects more than {HOPS} times")

    async def _get(self, client: httpx.AsyncClient, url: str) -> Download | str:
        """A page, or the address that it redirects to."""
        address = await check(url, self._allowed)
        try:
            where = address.origin + httpx.URL(url).raw_path.decode("ascii")
        except httpx.InvalidURL:
            raise Refused("it is not an address of a page") from None
        headers = {"Host": address.host_header, "User-Agent": self._user_agent, "Accept": "text/html, text/plain;q=0.9, */*;q=0.1"}
        # The connection goes to the checked address. TLS still verifies the certificate of the name.
        async with client.stream("GET", where, headers=headers, extensions={"sni_hostname": address.host}) as response:
            if response.status_code in _REDIRECTS and response.headers.get("location"):
                return _joined(url, response.headers["location"])
            header = response.headers.get("content-type", "")
            check_answer(url, response.status_code, header)
            parts, size = [], 0
            async for part in response.aiter_bytes():
                parts.append(part)
                size += len(part)
                if size > self._max_bytes:
                    raise too_large(url, self._max_bytes)
            return Download(url, b"".join(parts), header)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise Refused("it redirects to no address") from None
