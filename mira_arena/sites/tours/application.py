"""The tour agency: a tour is booked leg by leg, and no booking can be changed."""

from pathlib import Path

from mira_arena.sites.application import Application
from mira_arena.sites.tours import pages
from mira_arena.sites.tours.content import make_content
from mira_arena.sites.tours.state import TourState

_HTML = Path(__file__).parent / "html"

APPLICATION = Application(
    name="tours",
    sites={"tours": ""},
    make_content=make_content,
    make_state=TourState,
    routes=pages.ROUTES,
    html=_HTML,
    stylesheet=(_HTML / "style.css").read_text(encoding="utf-8"),
)
