"""Serves an application for several visitors. A cookie selects the visitor's world."""

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from mira_arena.sites.application import Application, Handler
from mira_arena.sites.paths import page_url, slug
from mira_arena.sites.state import Refused
from mira_arena.sites.visit import Missing, Visit, read_form
from mira_arena.sites.world import Visits, World

COOKIE = "visit"
SHARED = Path(__file__).parent / "html"
"""Folder of the templates that all applications share."""


def serve(application: Application, visits: Visits, fallback: Callable[[], World] | None = None) -> Starlette:
    """Creates the ASGI application for `visits`.

    A request with an unknown cookie gets a 404 page, or, if `fallback` is given, a new world created by it.
    """
    loader = jinja2.FileSystemLoader([application.html, SHARED])
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["slug"] = slug
    environment.globals["page_url"] = page_url

    async def missing(request: Request, error: Exception | None = None) -> Response:
        return HTMLResponse(environment.get_template("missing.html").render(), status_code=404)

    def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            world = visits.get(request.cookies.get(COOKIE, ""))
            new = ""
            if world is None:
                if fallback is None:
                    return await missing(request)
                new = secrets.token_urlsafe(16)
                world = visits[new] = fallback()
            visit = Visit(request, world[application.name], await read_form(request), environment, application.shown)
            try:
                response = handler(visit)
            except Refused as refusal:
                response = visit.go(visit.back, str(refusal))
            except Missing:
                response = await missing(request)
            if new:
                response.set_cookie(COOKIE, new, httponly=True)
            return response

        return respond

    async def css(request: Request) -> Response:
        return PlainTextResponse(application.stylesheet, media_type="text/css", headers={"Cache-Control": "max-age=3600"})

    async def script(request: Request) -> Response:
        return PlainTextResponse(application.script, media_type="text/javascript", headers={"Cache-Control": "max-age=3600"})

    routes = [Route("/style.css", css), *([Route("/script.js", script)] if application.script else [])]
    routes += [Route(path, endpoint(handler), methods=[method]) for path, method, handler in application.routes]
    return Starlette(routes=routes, exception_handlers={404: missing, 405: missing})
