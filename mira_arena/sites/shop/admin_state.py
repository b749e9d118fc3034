"""State of the admin panel except orders and stock: reviews, coupons, customers, shipments, messages, text pages, reports."""

import datetime
import functools
import re

from mira_arena.sites import facts
from mira_arena.sites.shop import vocabulary
from mira_arena.sites.shop.state import LARGEST, ShopState
from mira_arena.sites.state import Refused, Row

TO_SHIP = ("pending", "packed")
"""Statuses of orders that can be shipped."""

_NAME = re.compile(r"(?=.{1,40}$)[a-z]+( [a-z]+)*")
_TRACKING = re.compile(r"[a-z0-9 ]{1,20}")
_FACTS = (
    ("name", "product", ("description", "status")),
    ("name", "product WHERE added", ("category", "price", "stock")),
    ("'review ' || id", "review WHERE NOT own", ("status",)),
    ("'coupon ' || code", "coupon", ("percent", "ends", "status")),
    ("'page ' || title", "info_page", ("text",)),
    ("'order ' || number", "shipment", ("carrier", "tracking", "note")),
    ("'order ' || number || ' message ' || row_number() OVER (PARTITION BY number ORDER BY id)", "message", ("text",)),
)
"""Sources of facts in addition to the shop's own changes: an SQL expression that names a row, its table, its attributes."""


@functools.lru_cache(maxsize=32)
def _initial_facts(seed: int) -> dict[str, str]:
    return facts.initial(AdminState, AdminState.facts, seed)


class AdminState(ShopState):
    """The shop and its complete admin panel."""

    # Reviews

    def all_reviews(self, status: str, query: str) -> list[Row]:
        """Reviews, latest first, optionally of one status and with these words in author or product."""
        wanted = set(query.split())
        rows = self._all("SELECT * FROM review WHERE status != 'deleted' AND (status = ? OR ? = '') ORDER BY id DESC", status, status)
        return [row for row in rows if wanted <= {row["author"], *row["product"].split()}]

    def review(self, number: int) -> Row | None:
        return self._one("SELECT * FROM review WHERE id = ? AND status != 'deleted'", min(number, LARGEST))

    def judge_review(self, number: int, status: str) -> None:
        """Approves a review, so that the shop shows it, or deletes it."""
        if status not in ("approved", "deleted"):
            raise Refused("please choose from the options")
        self._do("UPDATE review SET status = ? WHERE id = ?", status, number)

    # Coupons

    def coupons(self) -> list[Row]:
        return self._all("SELECT * FROM coupon ORDER BY code")

    def coupon(self, code: str) -> Row | None:
        return self._one("SELECT * FROM coupon WHERE code = ?", code)

    def add_coupon(self, code: str, percent: int, ends: str) -> None:
        if not _NAME.fullmatch(code) or code == "new":
            raise Refused("a code is made of letters")
        if self.coupon(code):
            raise Refused(f"there is a coupon {code} already")
        self._check_coupon(percent, ends)
        self._do("INSERT INTO coupon VALUES (?, ?, ?, 'active')", code, percent, ends)

    def save_coupon(self, code: str, percent: int, ends: str) -> None:
        self._check_coupon(percent, ends)
        self._do("UPDATE coupon SET percent = ?, ends = ? WHERE code = ?", percent, ends, code)

    def end_coupon(self, code: str) -> None:
        self._do("UPDATE coupon SET status = 'ended' WHERE code = ?", code)

    @staticmethod
    def _check_coupon(percent: int, ends: str) -> None:
        if not 1 <= percent <= 90:
            raise Refused("percent must be 1 to 90")
        if not is_day(ends):
            raise Refused("a day is written like 2026-03-28")

    # Customers and their orders

    def accounts(self, query: str) -> list[Row]:
        """Accounts ordered by name, whose name, e-mail address or phone number contains the query."""
        return self._all("SELECT * FROM account WHERE instr(name || char(10) || email || char(10) || phone, ?) ORDER BY name", query)

    def account(self, name: str) -> Row | None:
        return self._one("SELECT * FROM account WHERE name = ?", name)

    def orders_of(self, customer: str) -> list[Row]:
        return self._all("SELECT * FROM orders WHERE customer = ? ORDER BY number DESC", customer)

    def shipment(self, number: int) -> Row | None:
        return self._one("SELECT * FROM shipment WHERE number = ?", number)

    def ship(self, number: int, carrier: str, tracking: str, note: str) -> None:
        if carrier not in vocabulary.CARRIERS:
            raise Refused("please choose from the options")
        if not _TRACKING.fullmatch(tracking):
            raise Refused("a shipment needs a tracking number")
        order = self.order(number)
        if order is None or order["status"] not in TO_SHIP:
            raise Refused("only a pending or packed order can be shipped")
        self._do("INSERT OR REPLACE INTO shipment VALUES (?, ?, ?, ?)", number, carrier, tracking, note)
        self.set_status(number, "shipped")

    def messages(self, number: int) -> list[str]:
        return [text for (text,) in self._all("SELECT text FROM message WHERE number = ? ORDER BY id", number)]

    def send_message(self, number: int, text: str) -> None:
        if not text:
            raise Refused("a message needs some words")
        self._do("INSERT INTO message (number, text) VALUES (?, ?)", number, text)

    # Products and text pages

    def add_product(self, name: str, category: str, price: int, stock: int, description: str) -> None:
        if not _NAME.fullmatch(name) or name == "new":
            raise Refused("a name is made of letters")
        if category not in vocabulary.CATEGORIES:
            raise Refused("please choose a category")
        if self.product(name):
            raise Refused(f"there is a product {name} already")
        self.check_product(price, stock)
        self._do(
            "INSERT INTO product (name, category, price, stock, popularity, rating, colours, sizes, description, added) "
            "SELECT ?, ?, ?, ?, MIN(popularity) - 1, 0, '', '', ?, 1 FROM product",
            name, category, price, stock, description,
        )  # fmt: skip

    def describe_product(self, name: str, description: str, status: str) -> None:
        if status not in vocabulary.SALE_STATUSES:
            raise Refused("please choose from the options")
        self._do("UPDATE product SET description = ?, status = ? WHERE name = ?", description, status, name)

    def info_pages(self) -> list[Row]:
        return self._all("SELECT * FROM info_page ORDER BY title")

    def info_page(self, title: str) -> Row | None:
        return self._one("SELECT * FROM info_page WHERE title = ?", title)

    def save_info_page(self, title: str, text: str) -> None:
        if not text:
            raise Refused("a page needs some words")
        self._do("UPDATE info_page SET text = ? WHERE title = ?", text, title)

    # Reports on the days from `first` to `last`

    def known_days(self) -> tuple[str, str]:
        """First day covered by reports, and the current day."""
        books = self._row("SELECT * FROM books")
        return books["first_day"], books["today"]

    def sales(self, first: str, last: str, status: str) -> list[Row]:
        """(month, number of orders, dollars), optionally for one status."""
        return self._all(
            "SELECT substr(day, 1, 7) AS month, COUNT(*) AS orders, SUM(total) AS dollars FROM sale "
            "WHERE day BETWEEN ? AND ? AND (status = ? OR ? = '') GROUP BY month ORDER BY month",
            first, last, status, status,
        )  # fmt: skip

    def best_sellers(self, first: str, last: str) -> list[Row]:
        """Products by decreasing number sold. Cancelled orders are not counted."""
        return self._all(
            "SELECT product, SUM(quantity) AS sold FROM sold JOIN sale USING (number) "
            "WHERE day BETWEEN ? AND ? AND status != 'cancelled' GROUP BY product ORDER BY sold DESC, product",
            first, last,
        )  # fmt: skip

    def top_customers(self, first: str, last: str) -> list[Row]:
        """Customers by decreasing number of orders. Cancelled orders are not counted."""
        return self._all(
            "SELECT customer, COUNT(*) AS orders, SUM(total) AS dollars FROM sale "
            "WHERE day BETWEEN ? AND ? AND status != 'cancelled' GROUP BY customer ORDER BY orders DESC, customer",
            first, last,
        )  # fmt: skip

    def low_stock(self, below: int) -> list[Row]:
        return self._all("SELECT * FROM product WHERE stock < ? ORDER BY name", below)

    # For evaluation and milestones of tasks

    def facts(self) -> dict[str, str]:
        """All attributes that the panel can change in addition to the shop's own changes, by name: `review 312 status` to `pending`."""
        return facts.read(self._database, _FACTS)

    def changes(self) -> list[str]:
        """Lists the shop's own changes, then all other differences from the initial state, ordered by name."""
        return super().changes() + facts.changes(_initial_facts(self._row("SELECT seed FROM books")["seed"]), self.facts())


def is_day(text: str) -> bool:
    """Whether the text is a date such as 2026-03-28."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
