"""The site that stands between a policy and the web: a search, results, and the text of pages in parts.

A policy acts on it as on the site of the suite seeking, and sees its pages through either driver. The only state of an episode is the first
failure of the search API or the network that it met.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from mira_arena.seeking.site import HTML, MAX_QUERY
from rollouts.errors import InfraError
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
        """Raises InfraError."""
        ...


def serve(web: Web, part_characters: int, failures: MutableMapping[str, str]) -> Starlette:
    """Creates the ASGI application.

    Args:
        part_characters: maximum characters of one part of a page's text.
        failures: the episodes that are served, by the first part of their paths, with the failure that they met, or "". After a failure
            the answer is 503, and the session has to end the episode: a browser shows such a page.
    """
    loader = jinja2.FileSystemLoader([Path(__file__).parent / "html", HTML])
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"to_page": _to_page, "to_links": _to_links, "host": lambda url: urlsplit(url).netloc}
    stylesheet = (HTML / "style.css").read_text(encoding="utf-8")

    def show(template: str, status: int = 200, **values: object) -> Response:
        return HTMLResponse(environment.get_template(template).render(values), status_code=status)

    def say(home: str, title: str, message: str, status: int = 200) -> Response:
        return show("message.html", status, home=home, title=title, message=message)

    async def missing(request: Request, error: Exception | None = None) -> Response:
        return say("", "not found", "there is no such page", 404)

    def endpoint(respond: Callable[[Request, str], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            episode = request.path_params["episode"]
            if episode not in failures:
                return await missing(request)
            try:
                return await respond(request, f"/{episode}")
            except InfraError as error:
                log.warning("%s", error)
                failures[episode] = failures.get(episode) or str(error.args[0])
                return say(f"/{episode}", "not available", "the service does not answer", 503)

        return guarded

    async def home_page(request: Request, home: str) -> Response:
        return show("home.html", home=home)

    async def search(request: Request, home: str) -> Response:
        asked = request.query_params.get("q", "").strip()
        if asked.startswith(("http://", "https://")) and " " not in asked and len(asked) <= MAX_URL:
            return Response(status_code=303, headers={"location": _to_page(home, asked)})
        query = " ".join(sanitize(asked).split())[:MAX_QUERY]
        if not query:
            return say(home, "no query", "type what to search for")
        try:
            found = await web.search(query)
        except QueryRefused as refusal:
            return say(home, "no results", f"the search does not accept this query ({refusal}); type another")
        return show("found.html", home=home, query=query, found=found.results)

    async def page(request: Request, home: str) -> Response:
        url, number = _asked(request)
        found = await web.fetch(url)
        if found.problem:
            return say(home, "the page cannot be read", f"{_shown(url)}: {found.problem}")
        parts = _parts(found.paragraphs, part_characters)
        number = min(number, len(parts))
        return show(
            "part.html", home=home, title=found.title or _shown(url), url=url, part=number, parts=len(parts), paragraphs=parts[number - 1],
            links=found.links,
        )  # fmt: skip

    async def links(request: Request, home: str) -> Response:
        url, number = _asked(request)
        found = await web.fetch(url)
        parts = max(1, -(-len(found.links) // LINKS))
        number = min(number, parts)
        shown = found.links[(number - 1) * LINKS : number * LINKS]
        return show("links.html", home=home, title=found.title or _shown(url), url=url, part=number, parts=parts, links=shown)

    async def css(request: Request) -> Response:
        return PlainTextResponse(stylesheet, media_type="text/css", headers={"Cache-Control": "max-age=3600"})

    parts = (("", home_page), ("/search", search), ("/page", page), ("/links", links))
    routes = [Route("/style.css", css), *(Route("/{episode}" + path, endpoint(one)) for path, one in parts)]
    return Starlette(routes=routes, exception_handlers={404: missing, 405: missing})


def _asked(request: Request) -> tuple[str, int]:
    """The address and the number of the part."""
    number = request.query_params.get("part", "")[:6]
    return request.query_params.get("url", ""), max(1, int(number)) if number.isascii() and number.isdigit() else 1


def _to_page(home: str, url: str, part: int = 1) -> str:
    return f"{home}/page?url={quote(url, safe='')}" + (f"&part={part}" if part > 1 else "")


def _to_links(home: str, url: str, part: int = 1) -> str:
    return f"{home}/links?url={quote(url, safe='')}" + (f"&part={part}" if part > 1 else "")


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
