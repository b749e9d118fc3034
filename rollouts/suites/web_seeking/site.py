"""The site that stands between a policy and the web: a search, results, and the text of pages in parts. It has no state.

A policy acts on it as on the site of the suite seeking, and sees its pages through either driver.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from mira_arena.seeking.site import HTML, MAX_QUERY
from rollouts.errors import SiteError
from rollouts.suites.web_seeking.apis import MAX_URL
from rollouts.suites.web_seeking.fetch import Fetched
from rollouts.suites.web_seeking.search import QueryRefused, Results
from rollouts.text import sanitize

LINKS = 40
"""Number of links on one page of links."""
log = logging.getLogger(__name__)


class Web(Protocol):
    """What the site shows."""

    async def search(self, query: str) -> Results:
        """Raises SiteError and QueryRefused."""
        ...

    async def fetch(self, url: str) -> Fetched:
        """Raises SiteError."""
        ...


def serve(web: Web, part_characters: int) -> Starlette:
    """Creates the ASGI application. `part_characters`: maximum characters of one part of a page's text.

    A failure of the search API or of the network is answered with 503, which both drivers take for a failure of the site.
    """
    loader = jinja2.FileSystemLoader([Path(__file__).parent / "html", HTML])
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"home": "", "to_page": _to_page, "to_links": _to_links, "host": lambda url: urlsplit(url).netloc}
    stylesheet = (HTML / "style.css").read_text(encoding="utf-8")

    def show(template: str, status: int = 200, **values: object) -> Response:
        return HTMLResponse(environment.get_template(template).render(values), status_code=status)

    def say(title: str, message: str, status: int = 200) -> Response:
        return show("message.html", status, title=title, message=message)

    async def missing(request: Request, error: Exception) -> Response:
        return say("not found", "there is no such page", 404)

    def endpoint(respond: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                return await respond(request)
            except SiteError as error:
                log.warning("%s", error)
                return say("not available", "the service does not answer", 503)

        return guarded

    async def home(request: Request) -> Response:
        return show("home.html")

    async def search(request: Request) -> Response:
        asked = request.query_params.get("q", "").strip()
        if asked.startswith(("http://", "https://")) and " " not in asked and len(asked) <= MAX_URL:
            return Response(status_code=303, headers={"location": _to_page(asked)})
        query = " ".join(sanitize(asked).split())[:MAX_QUERY]
        if not query:
            return say("no query", "type what to search for")
        try:
            found = await web.search(query)
        except QueryRefused as refusal:
            return say("no results", f"the search does not accept this query ({refusal}); type another")
        return show("found.html", query=query, found=found.results)

    async def page(request: Request) -> Response:
        url, number = _asked(request)
        found = await web.fetch(url)
        if found.problem:
            return say("the page cannot be read", f"{_shown(url)}: {found.problem}")
        parts = _parts(found.paragraphs, part_characters)
        number = min(number, len(parts))
        return show(
            "part.html", title=found.title or _shown(url), url=url, part=number, parts=len(parts), paragraphs=parts[number - 1],
            links=found.links,
        )  # fmt: skip

    async def links(request: Request) -> Response:
        url, number = _asked(request)
        found = await web.fetch(url)
        parts = max(1, -(-len(found.links) // LINKS))
        number = min(number, parts)
        shown = found.links[(number - 1) * LINKS : number * LINKS]
        return show("links.html", title=found.title or _shown(url), url=url, part=number, parts=parts, links=shown)

    async def css(request: Request) -> Response:
        return PlainTextResponse(stylesheet, media_type="text/css", headers={"Cache-Control": "max-age=3600"})

    routes = [Route(path, endpoint(one)) for path, one in (("/", home), ("/search", search), ("/page", page), ("/links", links))]
    return Starlette(routes=[*routes, Route("/style.css", css)], exception_handlers={404: missing, 405: missing})


def _asked(request: Request) -> tuple[str, int]:
    """The address and the number of the part."""
    number = request.query_params.get("part", "")[:6]
    return request.query_params.get("url", ""), max(1, int(number)) if number.isascii() and number.isdigit() else 1


def _to_page(url: str, part: int = 1) -> str:
    return f"/page?url={quote(url, safe='')}" + (f"&part={part}" if part > 1 else "")


def _to_links(url: str, part: int = 1) -> str:
    return f"/links?url={quote(url, safe='')}" + (f"&part={part}" if part > 1 else "")


def _shown(url: str) -> str:
    return sanitize(url)[:200]


def _parts(paragraphs: Sequence[str], most: int) -> list[list[str]]:
    """Parts of at most `most` characters, or one paragraph."""
    parts, size = list[list[str]](), 0
    for paragraph in paragraphs:
        if not parts or size + len(paragraph) > most:
            parts.append([])
            size = 0
        parts[-1].append(paragraph)
        size += len(paragraph)
    return parts or [[]]
