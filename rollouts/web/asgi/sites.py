"""Calls ASGI applications in process, with cookies, redirects and a cache of style sheets and scripts.

Source: ASGI 3.0, "HTTP connection scope".
"""

import dataclasses
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from rollouts.errors import SiteError, UnsupportedError
from rollouts.web.asgi.dom import parse
from rollouts.web.asgi.page import Page, Request
from rollouts.web.asgi.urls import host, join

MAX_REDIRECTS = 20
"""Chromium's limit (net/url_request/url_request.h)."""
MAX_BYTES = 8_000_000
"""Maximum size of a response."""

App = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
Script = Callable[[Page], None]


@dataclasses.dataclass(frozen=True)
class Sites:
    """The applications of a suite, for the driver `asgi`."""

    apps: Mapping[str, App]
    """`host:port` to application."""
    scripts: Mapping[str, Script] = dataclasses.field(default_factory=dict)
    """SHA-256 of the text of a script to its counterpart in Python, which is called once with each page that loads the script."""


@dataclasses.dataclass(frozen=True)
class Response:
    url: str
    """Address after redirects."""
    status: int
    headers: dict[str, str]
    body: bytes
    posted: bool = False
    """Whether it is the answer to a POST, not to a redirect from one."""

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class Context:
    """The cookies and the cache of one episode. `add_cookies` is that of Playwright's `BrowserContext`."""

    def __init__(self, sites: Sites, width: int):
        self.sites, self.width = sites, width
        self._cookies: dict[str, str] = {}
        self._cache: dict[str, str] = {}

    async def add_cookies(self, cookies: list[dict[str, Any]]) -> None:
        for cookie in cookies:
            self._cookies[cookie["name"]] = cookie["value"]

    async def load(self, request: Request) -> tuple[Page, bool]:
        """Requests a page. Returns it, and whether it was the answer to a form sent by POST.

        Raises:
            SiteError: the application failed.
            UnsupportedError: the response is no page that this driver knows.
        """
        response = await self._follow(request)
        if not response.headers.get("content-type", "").startswith("text/html"):
            raise UnsupportedError(f"{response.url} answered {response.headers.get('content-type', 'no type')!r}, which is no page")
        if "refresh" in response.headers:
            raise UnsupportedError(f"{response.url} refreshes itself")
        try:
            document = parse(response.text)
            sheets, scripts = [], []
            for node in document.elements():
                if node.tag == "link" and node.get("rel").lower() == "stylesheet":
                    sheets.append(await self._resource(join(response.url, node.get("href"))))
                elif node.tag == "script":
                    scripts.append(
                        self._counterpart(
                            await self._resource(join(response.url, node.get("src"))) if node.get("src") else node.text_content
                        )
                    )
                elif node.tag == "style":
                    sheets.append(node.text_content)
            page = Page(document, response.url, response.status, sheets, self.width)
            for script in scripts:
                script(page)
        except UnsupportedError as error:
            raise UnsupportedError(f"{response.url} has {error.args[0]}, which this driver does not support") from error
        return page, response.posted

    async def fetch(self, url: str) -> str:
        """The text of a response, for a script."""
        return (await self._follow(Request(url))).text

    def _counterpart(self, text: str) -> Script:
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest not in self.sites.scripts:
            raise UnsupportedError(f"a script without a counterpart (sha256 {digest[:12]})")
        return self.sites.scripts[digest]

    async def _resource(self, url: str) -> str:
        if url not in self._cache:
            response = await self._follow(Request(url))
            if response.status != 200:
                raise SiteError(f"{url} answered HTTP {response.status}")
            self._cache[url] = response.text
        return self._cache[url]

    async def _follow(self, request: Request) -> Response:
        url, body = request.url, request.body
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._call(url, body)
            if response.status not in (301, 302, 303, 307, 308) or "location" not in response.headers:
                if response.status >= 500 or response.status in (204, 205) or response.status < 200:
                    raise SiteError(f"{url} answered HTTP {response.status}")
                return response
            if response.status in (307, 308) and body is not None:
                raise UnsupportedError(f"{url} answered a form with HTTP {response.status}")
            target, body = join(url, response.headers["location"]), None
            fragment = url.partition("#")[2]
            url = f"{target}#{fragment}" if fragment and "#" not in target else target
        raise SiteError(f"{request.url} redirects more than {MAX_REDIRECTS} times")

    async def _call(self, url: str, body: str | None) -> Response:
        app = self.sites.apps.get(host(url))
        if app is None:
            raise UnsupportedError(f"{url} is outside of the suite's applications")
        parts = urlsplit(url)
        headers = [(b"host", parts.netloc.encode()), (b"accept", b"text/html")]
        if self._cookies:
            headers.append((b"cookie", "; ".join(f"{name}={value}" for name, value in self._cookies.items()).encode()))
        data = b"" if body is None else body.encode()
        if body is not None:
            headers += [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", str(len(data)).encode())]
        name, _, port = parts.netloc.partition(":")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET" if body is None else "POST",
            "scheme": "http",
            "path": unquote(parts.path),
            "raw_path": parts.path.encode(),
            "root_path": "",
            "query_string": parts.query.encode(),
            "headers": headers,
            "client": ("127.0.0.1", 0),
            "server": (name, int(port or 80)),
        }
        sent = [{"type": "http.request", "body": data, "more_body": False}]
        status, received, chunks, size = 0, dict[str, str](), list[bytes](), 0

        async def receive() -> Any:
            return sent.pop() if sent else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                for key, value in message["headers"]:
                    if key.lower() == b"set-cookie":
                        self._keep(value.decode("latin-1"))
                    received[key.decode("latin-1").lower()] = value.decode("latin-1")
            elif message["type"] == "http.response.body":
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > MAX_BYTES:
                    raise SiteError(f"{url} sent more than {MAX_BYTES} bytes")
                chunks.append(chunk)

        try:
            await app(scope, receive, send)
        except (SiteError, UnsupportedError):
            raise
        except Exception as error:
            raise SiteError(f"{url}: {type(error).__name__}: {error}") from error
        return Response(url, status, received, b"".join(chunks), posted=body is not None)

    def _keep(self, cookie: str) -> None:
        pair, *attributes = (part.strip() for part in cookie.split(";"))
        name, _, value = pair.partition("=")
        for attribute in attributes:
            if not re.fullmatch(r"(?i)path=/|httponly|samesite=(lax|strict)", attribute):
                raise UnsupportedError(f"a cookie with {attribute!r}")
        self._cookies[name] = value
