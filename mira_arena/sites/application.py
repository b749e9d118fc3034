"""What describes a web application: its content, its state and its pages."""

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
    """One application, which may serve several sites from one state. `mira_arena.sites.server` serves it."""

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
    """Template variables that every page gets from the state, in addition to the visit and the notice."""


def changes_page(frame: str) -> Handler:
    """The differences from the initial state, in the frame of a site's pages. Evaluation reads it; no page links to it."""
    return lambda visit: visit.show("changes.html", frame=frame, changes=visit.state.changes())
