"""A web application of the arena: its pages over the state of whoever visits, known by cookie."""

import dataclasses
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from rollouts.suites.arena.state import Refused, State

if TYPE_CHECKING:
    from rollouts.suites.arena.world import Visits, World

COOKIE = "visit"
MAX_FORM_BYTES = 16_384
SHARED = Path(__file__).parent / "html"
"""Templates that all applications have."""
PAGE_SIZE = 6
"""Rows on a page of a list."""

Handler = Callable[["Visit"], Response]


@dataclasses.dataclass(frozen=True)
class App:
    """One application, and all that a task needs to know of it."""

    name: str
    sites: Mapping[str, str]
    """The sites that it serves, as tasks name them, each with its path: `{"shop": "", "shop_admin": "/admin"}`."""
    make_content: Callable[[int], Any]
    """What the sites hold before an episode begins, drawn from a seed; always the same."""
    make_state: Callable[[int, Mapping[str, Any]], State]
    """The state of that seed, with a task's own setup."""
    routes: Sequence[tuple[str, str, Handler]]
    """Path, method, handler."""
    html: Path
    """The folder of its Jinja2 templates, `missing.html` among them."""
    stylesheet: str
    script: str = ""
    """Served as `/script.js`, if there is one."""
    shown: Callable[[Any], Mapping[str, Any]] = lambda state: {}
    """What every page shows of the state, beside the visit and the notice."""
    lists: Mapping[str, Callable[[Any, str], bool]] = dataclasses.field(default_factory=dict)
    """The bad habit of opening the first of a list, to what tells a name of that list by the content."""

    def serve(self, visits: "Visits", fallback: "Callable[[], World] | None" = None) -> Starlette:
        """The application over `visits`.

        A request with an unknown cookie gets a 404 page, or, if `fallback` is given, a world of its own made by it.
        """
        loader = jinja2.FileSystemLoader([self.html, SHARED])
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
                visit = Visit(self, request, world[self.name], await _form(request), environment)
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
            return PlainTextResponse(self.stylesheet, media_type="text/css", headers={"Cache-Control": "max-age=3600"})

        async def script(request: Request) -> Response:
            return PlainTextResponse(self.script, media_type="text/javascript", headers={"Cache-Control": "max-age=3600"})

        routes = [Route("/style.css", css), *([Route("/script.js", script)] if self.script else [])]
        routes += [Route(path, endpoint(handler), methods=[method]) for path, method, handler in self.routes]
        return Starlette(routes=routes, exception_handlers={404: missing, 405: missing})


def changes_page(frame: str) -> Handler:
    """What differs from the morning, in the frame of a site's pages: for judgement, so no page needs to lead there."""
    return lambda visit: visit.show("changes.html", frame=frame, changes=visit.state.changes())


class Missing(Exception):
    """There is no such page."""


class Visit:
    """One request by a known visitor: its form and query, the state, and the ways to answer."""

    def __init__(self, app: App, request: Request, state: Any, form: dict[str, str], environment: jinja2.Environment):
        self.request, self.state, self.form = request, state, form
        self._app, self._environment = app, environment
        self.query = request.query_params
        self.back = form.get("back", "/")
        """The page that a refused form returns to."""
        if not self.back.startswith("/") or self.back.startswith("//"):
            self.back = "/"

    def path(self, name: str) -> str:
        return self.request.path_params[name]

    def show(self, template: str, **values: Any) -> Response:
        """A page from a template."""
        state = self.state
        common = {
            "visit": state.visit,
            "notice": state.take_notice(),
            "here": self.request.url.path + ("?" + self.request.url.query if self.request.url.query else ""),
        }
        return HTMLResponse(
            self._environment.get_template(template).render(common | dict(self._app.shown(state)) | values),
            headers={"Cache-Control": "no-store"},
        )

    def go(self, path: str, notice: str = "") -> Response:
        """Sends the browser to another page, which will show `notice`."""
        if notice:
            self.state.say(notice)
        return RedirectResponse(path, status_code=303)

    def found(self, row: Any) -> Any:
        """`row`, unless it is None: then there is no such page."""
        if row is None:
            raise Missing
        return row

    def whole_number(self, field: str) -> int:
        text = self.form.get(field, "").strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 6):
            raise Refused(f"{field.split('-')[0]} must be a whole number")
        return int(text)

    def paginate(self, rows: list[Any]) -> dict[str, Any]:
        """The rows of the page that the query asks for, and the numbers of the pages beside it."""
        text = self.query.get("page", "1")
        last = max(1, -(-len(rows) // PAGE_SIZE))
        page = min(last, max(1, int(text))) if text.isascii() and text.isdigit() and len(text) < 6 else 1
        return {"rows": rows[(page - 1) * PAGE_SIZE : page * PAGE_SIZE], "page": page, "last": last}


def slug(name: str) -> str:
    """A name as it stands in a path: `round lamp` becomes `round-lamp`."""
    return name.replace(" ", "-")


def page_url(path: str, **query: Any) -> str:
    """A path with the query parameters that are not empty."""
    text = urlencode({key: value for key, value in query.items() if value})
    return f"{path}?{text}" if text else path


async def _form(request: Request) -> dict[str, str]:
    if request.method != "POST":
        return {}
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return {}
    try:
        fields = parse_qsl(body.decode("utf-8", "replace"), max_num_fields=100)
    except ValueError:
        return {}
    return {key: " ".join(value.split())[:200] for key, value in fields}
