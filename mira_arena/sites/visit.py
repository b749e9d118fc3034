"""The argument of page handlers: one request by a visitor."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from mira_arena.sites.state import Refused

MAX_FORM_BYTES = 16_384
PAGE_SIZE = 6
"""Number of rows on a page of a list."""


class Missing(Exception):
    """The page does not exist."""


class Visit:
    """One request by a known visitor: its form and query, the state, and the possible responses."""

    def __init__(
        self,
        request: Request,
        state: Any,
        form: dict[str, str],
        environment: jinja2.Environment,
        shown: Callable[[Any], Mapping[str, Any]],
    ):
        """`shown`: see `Application.shown`."""
        self.request, self.state, self.form = request, state, form
        self._environment, self._shown = environment, shown
        self.query = request.query_params
        self.back = form.get("back", "/")
        """The page to which a rejected form returns."""
        if not self.back.startswith("/") or self.back.startswith("//"):
            self.back = "/"

    def path(self, name: str) -> str:
        return self.request.path_params[name]

    def show(self, template: str, **values: Any) -> Response:
        """Renders a template."""
        state = self.state
        common = {
            "visit": state.visit,
            "notice": state.take_notice(),
            "here": self.request.url.path + ("?" + self.request.url.query if self.request.url.query else ""),
        }
        return HTMLResponse(
            self._environment.get_template(template).render(common | dict(self._shown(state)) | values),
            headers={"Cache-Control": "no-store"},
        )

    def go(self, path: str, notice: str = "") -> Response:
        """Redirects to another page, which shows `notice`."""
        if notice:
            self.state.say(notice)
        return RedirectResponse(path, status_code=303)

    def found(self, row: Any) -> Any:
        """Returns `row`. Raises Missing if it is None."""
        if row is None:
            raise Missing
        return row

    def whole_number(self, field: str) -> int:
        text = self.form.get(field, "").strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 6):
            raise Refused(f"{field.split('-')[0]} must be a whole number")
        return int(text)

    def paginate(self, rows: list[Any]) -> dict[str, Any]:
        """Returns the rows of the page that the query selects, its number, and the number of the last page."""
        text = self.query.get("page", "1")
        last = max(1, -(-len(rows) // PAGE_SIZE))
        page = min(last, max(1, int(text))) if text.isascii() and text.isdigit() and len(text) < 6 else 1
        return {"rows": rows[(page - 1) * PAGE_SIZE : page * PAGE_SIZE], "page": page, "last": last}


async def read_form(request: Request) -> dict[str, str]:
    """Reads the fields of a POST, with white space collapsed. Empty if the body is larger than any form of a site."""
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
