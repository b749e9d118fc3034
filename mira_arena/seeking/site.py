"""The site of a world: a home page, a search, and the pages. It has no state, so all episodes share it."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from mira_arena.seeking.pages import Page, make_pages
from mira_arena.seeking.search import make_index
from mira_arena.seeking.world import World

MAX_QUERY = 200
"""A longer query is cut."""

HTML = Path(__file__).parent / "html"
"""Templates and the style sheet of the site."""
_Shown = Callable[[Request, World, Mapping[str, Page]], Response]


def serve(worlds: Mapping[str, World]) -> Starlette:
    """Creates the ASGI application. `worlds`: the worlds that it serves, by `World.key`, the first part of their paths."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HTML), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    stylesheet = (HTML / "style.css").read_text(encoding="utf-8")

    def show(template: str, status: int = 200, **values: object) -> Response:
        return HTMLResponse(environment.get_template(template).render(values), status_code=status)

    async def missing(request: Request, error: Exception | None = None) -> Response:
        return show("missing.html", 404)

    def endpoint(shown: _Shown) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            world = worlds.get(request.path_params["world"])
            if world is None:
                return await missing(request)
            return shown(request, world, make_pages(world.split, world.number))

        return respond

    def home(request: Request, world: World, pages: Mapping[str, Page]) -> Response:
        return show("home.html", home=f"/{world.key}", count=len(pages))

    def search(request: Request, world: World, pages: Mapping[str, Page]) -> Response:
        query = " ".join(request.query_params.get("q", "").split())[:MAX_QUERY]
        found = [pages[slug] for slug in make_index(world.split, world.number).search(query)]
        return show("results.html", home=f"/{world.key}", query=query, found=found)

    def page(request: Request, world: World, pages: Mapping[str, Page]) -> Response:
        shown = pages.get(request.path_params["slug"])
        if shown is None:
            return show("missing.html", 404)
        return show("page.html", home=f"/{world.key}", page=shown)

    async def css(request: Request) -> Response:
        return PlainTextResponse(stylesheet, media_type="text/css", headers={"Cache-Control": "max-age=3600"})

    routes = [
        Route("/style.css", css),
        Route("/{world}", endpoint(home)),
        Route("/{world}/search", endpoint(search)),
        Route("/{world}/page/{slug}", endpoint(page)),
    ]
    return Starlette(routes=routes, exception_handlers={404: missing, 405: missing})
