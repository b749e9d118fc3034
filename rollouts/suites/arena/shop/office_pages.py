"""The admin panel's pages of reviews, coupons, customers, the shop's pages of text, and reports."""

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from rollouts.suites.arena.shop import words
from rollouts.suites.arena.shop.admin import asked, typed
from rollouts.suites.arena.shop.back_office import is_day
from rollouts.suites.arena.state import Row

if TYPE_CHECKING:
    from rollouts.suites.arena.app import Visit

REVIEW_STATUSES = ("pending", "approved")
"""Those that the list of reviews can be narrowed to."""


def reviews(visit: "Visit") -> Response:
    status, query = asked(visit, "status"), asked(visit, "q")
    status = status if status in REVIEW_STATUSES else ""
    found = visit.paginate(visit.state.all_reviews(status, query))
    return visit.show("admin/reviews.html", status=status, statuses=REVIEW_STATUSES, query=query, **found)


def _review(visit: "Visit") -> Row:
    return visit.found(visit.state.review(visit.path("number")))


def review(visit: "Visit") -> Response:
    return visit.show("admin/review.html", review=_review(visit))


def judge_review(visit: "Visit") -> Response:
    status = visit.form.get("status", "")
    visit.state.judge_review(_review(visit)["id"], status)
    return visit.go("/admin/reviews?status=pending", f"review {status}")


def coupons(visit: "Visit") -> Response:
    return visit.show("admin/coupons.html", **visit.paginate(visit.state.coupons()))


def _coupon(visit: "Visit") -> Row:
    return visit.found(visit.state.coupon(visit.path("slug").replace("-", " ")))


def coupon(visit: "Visit") -> Response:
    return visit.show("admin/coupon.html", coupon=_coupon(visit))


def save_coupon(visit: "Visit") -> Response:
    visit.state.save_coupon(_coupon(visit)["code"], visit.whole_number("percent"), typed(visit, "ends"))
    return visit.go(visit.request.url.path, "coupon saved")


def end_coupon(visit: "Visit") -> Response:
    visit.state.end_coupon(_coupon(visit)["code"])
    return visit.go("/admin/coupons", "coupon ended")


def new_coupon(visit: "Visit") -> Response:
    return visit.show("admin/new_coupon.html")


def add_coupon(visit: "Visit") -> Response:
    visit.state.add_coupon(typed(visit, "code"), visit.whole_number("percent"), typed(visit, "ends"))
    return visit.go("/admin/coupons", "coupon saved")


def customers(visit: "Visit") -> Response:
    query = asked(visit, "q")
    return visit.show("admin/customers.html", query=query, **visit.paginate(visit.state.accounts(query)))


def customer(visit: "Visit") -> Response:
    row = visit.found(visit.state.account(visit.path("slug").replace("-", " ")))
    return visit.show("admin/customer.html", customer=row, **visit.paginate(visit.state.orders_of(row["name"])))


def info_pages(visit: "Visit") -> Response:
    return visit.show("admin/info_pages.html", pages=visit.state.info_pages())


def _info_page(visit: "Visit") -> Row:
    return visit.found(visit.state.info_page(visit.path("slug").replace("-", " ")))


def info_page(visit: "Visit") -> Response:
    return visit.show("admin/info_page.html", page=_info_page(visit))


def save_info_page(visit: "Visit") -> Response:
    visit.state.save_info_page(_info_page(visit)["title"], typed(visit, "text"))
    return visit.go(visit.request.url.path, "page saved")


def reports(visit: "Visit") -> Response:
    return visit.show("admin/reports.html")


def _days(visit: "Visit") -> tuple[str, str, dict[str, Any]]:
    """The first and the last day of a report, and what its page shows of them."""
    first, last = (asked(visit, field) or known for field, known in zip(("from", "to"), visit.state.known_days(), strict=True))
    shown: dict[str, Any] = {"from_day": first, "to_day": last}
    if not (is_day(first) and is_day(last)):
        first = last = ""
        shown["notice"] = "a day is written like 2026-03-28"
    return first, last, shown


def sales(visit: "Visit") -> Response:
    first, last, shown = _days(visit)
    status = visit.query.get("status", "")
    rows = visit.state.sales(first, last, status if status in words.STATUSES else "")
    orders, dollars = (sum(row[key] for row in rows) for key in ("orders", "dollars"))
    return visit.show("admin/sales.html", status=status, statuses=words.STATUSES, rows=rows, orders=orders, dollars=dollars, **shown)


def best_sellers(visit: "Visit") -> Response:
    first, last, shown = _days(visit)
    return visit.show("admin/best_sellers.html", **shown, **visit.paginate(visit.state.best_sellers(first, last)))


def top_customers(visit: "Visit") -> Response:
    first, last, shown = _days(visit)
    return visit.show("admin/top_customers.html", **shown, **visit.paginate(visit.state.top_customers(first, last)))


def low_stock(visit: "Visit") -> Response:
    text = asked(visit, "below")
    below = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    return visit.show("admin/low_stock.html", below=text, **visit.paginate(visit.state.low_stock(below)))


ROUTES = (
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
)
"""Path under the panel's address, method, handler."""
