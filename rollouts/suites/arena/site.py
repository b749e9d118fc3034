"""The arena's web application: the shop at /, its admin panel at /admin. One state per visitor, by cookie."""

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from rollouts.suites.arena import admin, shop
from rollouts.suites.arena.pictures import stylesheet
from rollouts.suites.arena.state import PAGE_SIZE, Refused, ShopState

COOKIE = "visit"
MAX_FORM_BYTES = 16_384
Visits = dict[str, ShopState]
"""Cookie to state: who may see what."""

_PAGES = Path(__file__).parent / "pages"


def make_app(visits: Visits, fallback: Callable[[], ShopState] | None = None) -> Starlette:
    """The application over `visits`.

    A request with an unknown cookie gets a 404 page, or, if `fallback` is given, a visit of its own made by it.
    """
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_PAGES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["slug"] = slug
    environment.globals["page_url"] = page_url
    style = stylesheet((_PAGES / "style.css").read_text(encoding="utf-8"))

    async def missing(request: Request, error: Exception | None = None) -> Response:
        return HTMLResponse(environment.get_template("missing.html").render(), status_code=404)

    def endpoint(handler: Callable[["Visit"], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            state = visits.get(request.cookies.get(COOKIE, ""))
            new = ""
            if state is None:
                if fallback is None:
                    return await missing(request)
                new = secrets.token_urlsafe(16)
                state = visits[new] = fallback()
            visit = Visit(request, state, await _form(request), environment)
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
        return PlainTextResponse(style, media_type="text/css", headers={"Cache-Control": "max-age=3600"})

    routes = [Route("/style.css", css)]
    for path, method, handler in [*shop.ROUTES, *[("/admin" + path, method, handler) for path, method, handler in admin.ROUTES]]:
        routes.append(Route(path, endpoint(handler), methods=[method]))
    return Starlette(routes=routes, exception_handlers={404: missing, 405: missing})


class Missing(Exception):
    """There is no such page."""


class Visit:
    """One request by a known visitor: its form and query, the state, and the ways to answer."""

    def __init__(self, request: Request, state: ShopState, form: dict[str, str], environment: jinja2.Environment):
        self.request, self.state, self.form, self._environment = request, state, form, environment
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
            "in_cart": sum(line["quantity"] for line in state.cart()),
            "here": self.request.url.path + ("?" + self.request.url.query if self.request.url.query else ""),
        }
        return HTMLResponse(self._environment.get_template(template).render(common | values), headers={"Cache-Control": "no-store"})

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
