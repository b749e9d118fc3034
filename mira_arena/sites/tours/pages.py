"""Pages of the tour agency."""

from starlette.responses import Response

from mira_arena.sites.application import changes_page
from mira_arena.sites.visit import Visit


def tour(visit: Visit) -> Response:
    state = visit.state
    booked = state.booked()
    return visit.show("tour.html", legs=state.legs(), leg=len(booked) + 1, offers=state.offers(), booked=booked)


def book(visit: Visit) -> Response:
    visit.state.book(visit.whole_number("leg"), visit.form.get("offer", ""))
    return visit.go("/")


def bookings(visit: Visit) -> Response:
    return visit.show("bookings.html", booked=visit.state.booked())


def conditions(visit: Visit) -> Response:
    return visit.show("conditions.html")


ROUTES = (
    ("/", "GET", tour),
    ("/book", "POST", book),
    ("/bookings", "GET", bookings),
    ("/conditions", "GET", conditions),
    ("/changes", "GET", changes_page("base.html")),
)
"""(path, method, handler) of each route."""
