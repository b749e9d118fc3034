"""The admin panel's pages of orders and products. Its other pages are in `office_pages`."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from rollouts.suites.arena.app import changes_page, slug
from rollouts.suites.arena.shop import words
from rollouts.suites.arena.shop.back_office import TO_SHIP
from rollouts.suites.arena.state import Row

if TYPE_CHECKING:
    from rollouts.suites.arena.app import Visit

OPEN_STATUSES = ("pending", "packed", "shipped")
"""The statuses that the list of orders can be narrowed to."""


def asked(visit: "Visit", field: str) -> str:
    """What the address says of a field of a search or report."""
    return " ".join(visit.query.get(field, "").lower().split())[:60]


def typed(visit: "Visit", field: str) -> str:
    """What was typed into a field of the form."""
    return visit.form.get(field, "").lower()


def dashboard(visit: "Visit") -> Response:
    waiting = len(visit.state.orders("pending"))
    return visit.show("admin/dashboard.html", waiting=waiting, products=sum(row["status"] == "on sale" for row in visit.state.products()))


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


def shipment(visit: "Visit") -> Response:
    row = _order(visit)
    shown = {"shipment": visit.state.shipment(row["number"]), "carriers": words.CARRIERS, "open": row["status"] in TO_SHIP}
    return visit.show("admin/shipment.html", order=row, **shown)


def ship(visit: "Visit") -> Response:
    number = _order(visit)["number"]
    visit.state.ship(number, visit.form.get("carrier", ""), typed(visit, "tracking"), typed(visit, "note"))
    return visit.go(visit.request.url.path, "order shipped")


def messages(visit: "Visit") -> Response:
    row = _order(visit)
    return visit.show("admin/messages.html", order=row, messages=visit.state.messages(row["number"]))


def send_message(visit: "Visit") -> Response:
    visit.state.send_message(_order(visit)["number"], typed(visit, "message"))
    return visit.go(visit.request.url.path, "message sent")


def products(visit: "Visit") -> Response:
    query = asked(visit, "q")
    rows = visit.state.search(query, "popular", off_sale=True) if query else visit.state.products()
    return visit.show("admin/products.html", query=query, **visit.paginate(rows))


def _product(visit: "Visit") -> Row:
    return visit.found(visit.state.product(visit.path("slug").replace("-", " ")))


def product(visit: "Visit") -> Response:
    return visit.show("admin/product.html", product=_product(visit))


def save_product(visit: "Visit") -> Response:
    visit.state.save_product(_product(visit)["name"], visit.whole_number("price"), visit.whole_number("stock"))
    return visit.go(visit.request.url.path, "product saved")


def about_product(visit: "Visit") -> Response:
    return visit.show("admin/about_product.html", product=_product(visit), statuses=words.SALE_STATUSES)


def save_about_product(visit: "Visit") -> Response:
    visit.state.describe_product(_product(visit)["name"], typed(visit, "description"), visit.form.get("status", ""))
    return visit.go(visit.request.url.path, "product saved")


def new_product(visit: "Visit") -> Response:
    return visit.show("admin/new_product.html", categories=words.CATEGORIES)


def add_product(visit: "Visit") -> Response:
    name, price, stock = typed(visit, "name"), visit.whole_number("price"), visit.whole_number("stock")
    visit.state.add_product(name, visit.form.get("category", ""), price, stock, typed(visit, "description"))
    return visit.go(f"/admin/products/{slug(name)}", "product added")


ROUTES = (
    ("", "GET", dashboard),
    ("/", "GET", dashboard),
    ("/orders", "GET", orders),
    ("/orders/{number:int}", "GET", order),
    ("/orders/{number:int}", "POST", save_order),
    ("/orders/{number:int}/shipment", "GET", shipment),
    ("/orders/{number:int}/shipment", "POST", ship),
    ("/orders/{number:int}/messages", "GET", messages),
    ("/orders/{number:int}/messages", "POST", send_message),
    ("/products", "GET", products),
    ("/products/new", "GET", new_product),
    ("/products/new", "POST", add_product),
    ("/products/{slug}", "GET", product),
    ("/products/{slug}", "POST", save_product),
    ("/products/{slug}/about", "GET", about_product),
    ("/products/{slug}/about", "POST", save_about_product),
    ("/changes", "GET", changes_page("admin/base.html")),
)
"""Path under the panel's address, method, handler."""
