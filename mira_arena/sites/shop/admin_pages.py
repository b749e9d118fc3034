"""Pages of the admin panel."""

from typing import Any

from starlette.responses import Response

from mira_arena.sites.application import changes_page
from mira_arena.sites.paths import slug
from mira_arena.sites.shop import vocabulary
from mira_arena.sites.shop.admin_state import TO_SHIP, is_day
from mira_arena.sites.state import Row
from mira_arena.sites.visit import Visit

OPEN_STATUSES = ("pending", "packed", "shipped")
"""Statuses by which the list of orders can be filtered."""
REVIEW_STATUSES = ("pending", "approved")
"""Statuses by which the list of reviews can be filtered."""


def asked(visit: Visit, field: str) -> str:
    """Value of a search or report field in the query string."""
    return " ".join(visit.query.get(field, "").lower().split())[:60]


def typed(visit: Visit, field: str) -> str:
    """Value of a form field."""
    return visit.form.get(field, "").lower()


def dashboard(visit: Visit) -> Response:
    waiting = len(visit.state.orders("pending"))
    return visit.show("admin/dashboard.html", waiting=waiting, products=sum(row["status"] == "on sale" for row in visit.state.products()))


def orders(visit: Visit) -> Response:
    status = visit.query.get("status", "")
    status = status if status in vocabulary.STATUSES else ""
    return visit.show("admin/orders.html", status=status, statuses=OPEN_STATUSES, **visit.paginate(visit.state.orders(status)))


def _order(visit: Visit) -> Row:
    return visit.found(visit.state.order(visit.path("number")))


def order(visit: Visit) -> Response:
    row = _order(visit)
    return visit.show("admin/order.html", order=row, lines=visit.state.lines(row["number"]), statuses=vocabulary.STATUSES)


def save_order(visit: Visit) -> Response:
    number = _order(visit)["number"]
    visit.state.set_status(number, visit.form.get("status", ""))
    return visit.go(f"/admin/orders/{number}", "order saved")


def shipment(visit: Visit) -> Response:
    row = _order(visit)
    shown = {"shipment": visit.state.shipment(row["number"]), "carriers": vocabulary.CARRIERS, "open": row["status"] in TO_SHIP}
    return visit.show("admin/shipment.html", order=row, **shown)


def ship(visit: Visit) -> Response:
    number = _order(visit)["number"]
    visit.state.ship(number, visit.form.get("carrier", ""), typed(visit, "tracking"), typed(visit, "note"))
    return visit.go(visit.request.url.path, "order shipped")


def messages(visit: Visit) -> Response:
    row = _order(visit)
    return visit.show("admin/messages.html", order=row, messages=visit.state.messages(row["number"]))


def send_message(visit: Visit) -> Response:
    visit.state.send_message(_order(visit)["number"], typed(visit, "message"))
    return visit.go(visit.request.url.path, "message sent")


def products(visit: Visit) -> Response:
    query = asked(visit, "q")
    rows = visit.state.search(query, "popular", off_sale=True) if query else visit.state.products()
    return visit.show("admin/products.html", query=query, **visit.paginate(rows))


def _product(visit: Visit) -> Row:
    return visit.found(visit.state.product(visit.path("slug").replace("-", " ")))


def product(visit: Visit) -> Response:
    return visit.show("admin/product.html", product=_product(visit))


def save_product(visit: Visit) -> Response:
    visit.state.save_product(_product(visit)["name"], visit.whole_number("price"), visit.whole_number("stock"))
    return visit.go(visit.request.url.path, "product saved")


def about_product(visit: Visit) -> Response:
    return visit.show("admin/about_product.html", product=_product(visit), statuses=vocabulary.SALE_STATUSES)


def save_about_product(visit: Visit) -> Response:
    visit.state.describe_product(_product(visit)["name"], typed(visit, "description"), visit.form.get("status", ""))
    return visit.go(visit.request.url.path, "product saved")


def new_product(visit: Visit) -> Response:
    return visit.show("admin/new_product.html", categories=vocabulary.CATEGORIES)


def add_product(visit: Visit) -> Response:
    name, price, stock = typed(visit, "name"), visit.whole_number("price"), visit.whole_number("stock")
    visit.state.add_product(name, visit.form.get("category", ""), price, stock, typed(visit, "description"))
    return visit.go(f"/admin/products/{slug(name)}", "product added")


def reviews(visit: Visit) -> Response:
    status, query = asked(visit, "status"), asked(visit, "q")
    status = status if status in REVIEW_STATUSES else ""
    found = visit.paginate(visit.state.all_reviews(status, query))
    return visit.show("admin/reviews.html", status=status, statuses=REVIEW_STATUSES, query=query, **found)


def _review(visit: Visit) -> Row:
    return visit.found(visit.state.review(visit.path("number")))


def review(visit: Visit) -> Response:
    return visit.show("admin/review.html", review=_review(visit))


def judge_review(visit: Visit) -> Response:
    status = visit.form.get("status", "")
    visit.state.judge_review(_review(visit)["id"], status)
    return visit.go("/admin/reviews?status=pending", f"review {status}")


def coupons(visit: Visit) -> Response:
    return visit.show("admin/coupons.html", **visit.paginate(visit.state.coupons()))


def _coupon(visit: Visit) -> Row:
    return visit.found(visit.state.coupon(visit.path("slug").replace("-", " ")))


def coupon(visit: Visit) -> Response:
    return visit.show("admin/coupon.html", coupon=_coupon(visit))


def save_coupon(visit: Visit) -> Response:
    visit.state.save_coupon(_coupon(visit)["code"], visit.whole_number("percent"), typed(visit, "ends"))
    return visit.go(visit.request.url.path, "coupon saved")


def end_coupon(visit: Visit) -> Response:
    visit.state.end_coupon(_coupon(visit)["code"])
    return visit.go("/admin/coupons", "coupon ended")


def new_coupon(visit: Visit) -> Response:
    return visit.show("admin/new_coupon.html")


def add_coupon(visit: Visit) -> Response:
    visit.state.add_coupon(typed(visit, "code"), visit.whole_number("percent"), typed(visit, "ends"))
    return visit.go("/admin/coupons", "coupon saved")


def customers(visit: Visit) -> Response:
    query = asked(visit, "q")
    return visit.show("admin/customers.html", query=query, **visit.paginate(visit.state.accounts(query)))


def customer(visit: Visit) -> Response:
    row = visit.found(visit.state.account(visit.path("slug").replace("-", " ")))
    return visit.show("admin/customer.html", customer=row, **visit.paginate(visit.state.orders_of(row["name"])))


def info_pages(visit: Visit) -> Response:
    return visit.show("admin/info_pages.html", pages=visit.state.info_pages())


def _info_page(visit: Visit) -> Row:
    return visit.found(visit.state.info_page(visit.path("slug").replace("-", " ")))


def info_page(visit: Visit) -> Response:
    return visit.show("admin/info_page.html", page=_info_page(visit))


def save_info_page(visit: Visit) -> Response:
    visit.state.save_info_page(_info_page(visit)["title"], typed(visit, "text"))
    return visit.go(visit.request.url.path, "page saved")


def reports(visit: Visit) -> Response:
    return visit.show("admin/reports.html")


def _days(visit: Visit) -> tuple[str, str, dict[str, Any]]:
    """First and last day of a report, and the template variables for them."""
    first, last = (asked(visit, field) or known for field, known in zip(("from", "to"), visit.state.known_days(), strict=True))
    shown: dict[str, Any] = {"from_day": first, "to_day": last}
    if not (is_day(first) and is_day(last)):
        first = last = ""
        shown["notice"] = "a day is written like 2026-03-28"
    return first, last, shown


def sales(visit: Visit) -> Response:
    first, last, shown = _days(visit)
    status = visit.query.get("status", "")
    rows = visit.state.sales(first, last, status if status in vocabulary.STATUSES else "")
    orders, dollars = (sum(row[key] for row in rows) for key in ("orders", "dollars"))
    return visit.show("admin/sales.html", status=status, statuses=vocabulary.STATUSES, rows=rows, orders=orders, dollars=dollars, **shown)


def best_sellers(visit: Visit) -> Response:
    first, last, shown = _days(visit)
    return visit.show("admin/best_sellers.html", **shown, **visit.paginate(visit.state.best_sellers(first, last)))


def top_customers(visit: Visit) -> Response:
    first, last, shown = _days(visit)
    return visit.show("admin/top_customers.html", **shown, **visit.paginate(visit.state.top_customers(first, last)))


def low_stock(visit: Visit) -> Response:
    text = asked(visit, "below")
    below = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    return visit.show("admin/low_stock.html", below=text, **visit.paginate(visit.state.low_stock(below)))


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
    ("/reviews", "GET", reviews),
    ("/reviews/{number:int}", "GET", review),
    ("/reviews/{number:int}", "POST", judge_review),
    ("/coupons", "GET", coupons),
    ("/coupons/new", "GET", new_coupon),
    ("/coupons/new", "POST", add_coupon),
    ("/coupons/{slug}", "GET", coupon),
    ("/coupons/{slug}", "POST", save_coupon),
    ("/coupons/{slug}/end", "POST", end_coupon),
    ("/customers", "GET", customers),
    ("/customers/{slug}", "GET", customer),
    ("/pages", "GET", info_pages),
    ("/pages/{slug}", "GET", info_page),
    ("/pages/{slug}", "POST", save_info_page),
    ("/reports", "GET", reports),
    ("/reports/sales", "GET", sales),
    ("/reports/best-sellers", "GET", best_sellers),
    ("/reports/top-customers", "GET", top_customers),
    ("/reports/low-stock", "GET", low_stock),
    ("/changes", "GET", changes_page("admin/base.html")),
)
"""(path below the panel's address, method, handler) of each route."""
