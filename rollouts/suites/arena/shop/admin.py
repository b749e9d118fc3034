"""The admin panel's pages: orders, products, stock."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from rollouts.suites.arena.shop import words
from rollouts.suites.arena.state import Row

if TYPE_CHECKING:
    from rollouts.suites.arena.app import Visit

OPEN_STATUSES = ("pending", "packed", "shipped")
"""The statuses that the list of orders can be narrowed to."""


def dashboard(visit: "Visit") -> Response:
    waiting = len(visit.state.orders("pending"))
    return visit.show("admin/dashboard.html", waiting=waiting, products=len(visit.state.products()))


def orders(visit: "Visit") -> Response:
    status = visit.query.get("status", "")
    status = status if status in words.STATUSES else ""
    return visit.show("admin/orders.html", status=status, statuses=OPEN_STATUSES, **visit.paginate(visit.state.orders(status)))


def _order(visit: "Visit") -> Row:
    return visit.found(visit.state.order(visit.path("number")))


def order(visit: "Visit") -> Response:
    row = _order(visit)
    return visit.show("admin/order.html", order=row, lines=visit.state.lines(row["number"]), statuses=words.STATUSES)


def save_order(visit: "Visit") -> Response:
    number = _order(visit)["number"]
    visit.state.set_status(number, visit.form.get("status", ""))
    return visit.go(f"/admin/orders/{number}", "order saved")


def products(visit: "Visit") -> Response:
    query = " ".join(visit.query.get("q", "").lower().split())[:60]
    rows = visit.state.search(query, "popular") if query else visit.state.products()
    return visit.show("admin/products.html", query=query, **visit.paginate(rows))


def _product(visit: "Visit") -> Row:
    return visit.found(visit.state.product(visit.path("slug").replace("-", " ")))


def product(visit: "Visit") -> Response:
    return visit.show("admin/product.html", product=_product(visit))


def save_product(visit: "Visit") -> Response:
    visit.state.save_product(_product(visit)["name"], visit.whole_number("price"), visit.whole_number("stock"))
    return visit.go(visit.request.url.path, "product saved")


def changes(visit: "Visit") -> Response:
    return visit.show("admin/changes.html", changes=visit.state.changes())


ROUTES = (
    ("", "GET", dashboard),
    ("/", "GET", dashboard),
    ("/orders", "GET", orders),
    ("/orders/{number:int}", "GET", order),
    ("/orders/{number:int}", "POST", save_order),
    ("/products", "GET", products),
    ("/products/{slug}", "GET", product),
    ("/products/{slug}", "POST", save_product),
    ("/changes", "GET", changes),
)
"""Path under the panel's address, method, handler."""
