"""The description of a web application: its content, its state and its pages."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.responses import Response

from mira_arena.sites.state import State
from mira_arena.sites.visit import Visit

Handler = Callable[[Visit], Response]


@dataclasses.dataclass(frozen=True)
class Application:
    """An application, which may serve several sites from one state. `mira_arena.sites.server` serves it."""

    name: str
    sites: Mapping[str, str]
    """Sites that it serves, by the names used in tasks, each with its path: `{"shop": "", "shop_admin": "/admin"}`."""
    make_content: Callable[[int], Any]
    """Creates the initial content of the sites from a seed. Deterministic."""
    make_state: Callable[[int, Mapping[str, Any]], State]
    """Creates the state of a seed, with a task's setup."""
    routes: Sequence[tuple[str, str, Handler]]
    """(path, method, handler) of each route."""
    html: Path
    """Folder of its Jinja2 templates, including `missing.html`."""
    stylesheet: str
    script: str = ""
    """JavaScript served as `/script.js`. Empty: none."""
    shown: Callable[[Any], Mapping[str, Any]] = lambda state: {}
    """Template variables that every page gets from the state, in addition to the visit and the notice."""


def changes_page(frame: str) -> Handler:
    """A page with the differences from the initial state, in the frame of a site's pages. Evaluators read it; no page links to it."""
    return lambda visit: visit.show("changes.html", frame=frame, changes=visit.state.changes())
