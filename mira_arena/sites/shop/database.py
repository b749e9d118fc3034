"""The database schema of the shop and its admin panel, and their initial rows."""

import dataclasses
import functools
import sqlite3
from collections.abc import Sequence

from mira_arena.sites.shop import vocabulary
from mira_arena.sites.shop.admin_content import AdminContent, make_admin_content
from mira_arena.sites.shop.content import ShopContent, make_content
from mira_arena.sites.state import make_image

_SCHEMA = """
CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT UNIQUE, category TEXT, price INTEGER, stock INTEGER, initial_price INTEGER,
    initial_stock INTEGER, popularity INTEGER, rating REAL, colours TEXT, sizes TEXT, description TEXT DEFAULT '',
    status TEXT DEFAULT 'on sale', added INTEGER DEFAULT 0);
CREATE TABLE review (id INTEGER PRIMARY KEY, product TEXT, author TEXT, stars INTEGER, text TEXT, own INTEGER,
    status TEXT DEFAULT 'approved');
CREATE TABLE coupon (code TEXT PRIMARY KEY, percent INTEGER, ends TEXT, status TEXT);
CREATE TABLE address (id INTEGER PRIMARY KEY, label TEXT, street TEXT, town TEXT);
CREATE TABLE orders (number INTEGER PRIMARY KEY, customer TEXT, status TEXT, initial_status TEXT, shipping TEXT, label TEXT, street TEXT,
    town TEXT, coupon TEXT, subtotal INTEGER, discount INTEGER, total INTEGER, day TEXT, placed INTEGER);
CREATE TABLE order_line (id INTEGER PRIMARY KEY, number INTEGER, product TEXT, colour TEXT, size TEXT, quantity INTEGER, price INTEGER);
CREATE TABLE cart_line (id INTEGER PRIMARY KEY, product TEXT, colour TEXT, size TEXT, quantity INTEGER);
CREATE TABLE visit (customer TEXT, password TEXT, day TEXT, signed_in INTEGER, coupon TEXT, notice TEXT);
"""
_ADMIN_SCHEMA = """
CREATE TABLE account (name TEXT PRIMARY KEY, email TEXT, phone TEXT, "group" TEXT);
CREATE TABLE info_page (title TEXT PRIMARY KEY, text TEXT);
CREATE TABLE shipment (number INTEGER PRIMARY KEY, carrier TEXT, tracking TEXT, note TEXT);
CREATE TABLE message (id INTEGER PRIMARY KEY, number INTEGER, text TEXT);
CREATE TABLE past_order (number INTEGER PRIMARY KEY, customer TEXT, status TEXT, day TEXT, product TEXT, quantity INTEGER, total INTEGER);
CREATE TABLE books (seed INTEGER, first_day TEXT, today TEXT);
CREATE VIEW sale AS SELECT number, customer, status, day, total FROM past_order UNION ALL
    SELECT number, customer, status, substr(today, 1, 8) || printf('%02d', CAST(day AS INTEGER)), total FROM orders, books;
CREATE VIEW sold AS SELECT number, product, quantity FROM past_order UNION ALL SELECT number, product, quantity FROM order_line;
"""
"""Tables that only the admin panel shows, and views for reports. A sale is an order with its full date."""


@functools.lru_cache(maxsize=32)
def image(seed: int) -> bytes:
    """Serialised database of the shop with the content of `seed`."""

    def fill(database: sqlite3.Connection) -> None:
        _fill(database, make_content(seed))
        _fill_admin(database, seed, make_admin_content(seed))

    return make_image(_SCHEMA + _ADMIN_SCHEMA, fill)


def _fill(database: sqlite3.Connection, content: ShopContent) -> None:
    for product in content.products:
        database.execute(
            "INSERT INTO product (name, category, price, stock, initial_price, initial_stock, popularity, rating, colours, sizes) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (product.name, product.category, product.price, product.stock, product.price, product.stock, product.popularity, product.rating,
             ",".join(product.colours), ",".join(product.sizes)),
        )  # fmt: skip
        for review in product.reviews:
            row = (product.name, review.author, review.stars, review.text)
            database.execute("INSERT INTO review (product, author, stars, text, own) VALUES (?, ?, ?, ?, 0)", row)
    for address in content.addresses:
        database.execute("INSERT INTO address (label, street, town) VALUES (?, ?, ?)", (address.label, address.street, address.town))
    for order in content.orders:
        prices = [content.by_name[line.product].price for line in order.lines]
        percent = content.coupons.get(order.coupon, 0)
        items = [(price, line.quantity) for price, line in zip(prices, order.lines, strict=True)]
        subtotal, discount, total = order_amounts(items, percent, order.shipping)
        where = order.address
        database.execute(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (order.number, order.customer, order.status, order.status, order.shipping, where.label, where.street, where.town, order.coupon,
             subtotal, discount, total, order.day),
        )  # fmt: skip
        for line, price in zip(order.lines, prices, strict=True):
            row = (order.number, line.product, line.colour, line.size, line.quantity, price)
            database.execute("INSERT INTO order_line (number, product, colour, size, quantity, price) VALUES (?, ?, ?, ?, ?, ?)", row)
    database.execute("INSERT INTO visit VALUES (?, ?, ?, 1, '', '')", (content.customer, content.password, content.day))


def _fill_admin(database: sqlite3.Connection, seed: int, admin: AdminContent) -> None:
    for table, rows in (
        ("account", admin.accounts), ("past_order", admin.past_orders), ("coupon", admin.coupons),
    ):  # fmt: skip
        for row in map(dataclasses.astuple, rows):
            database.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
    for review in admin.reviews:
        row = (review.number, review.product, review.author, review.stars, review.text)
        database.execute("INSERT INTO review VALUES (?, ?, ?, ?, ?, 0, 'pending')", row)
    database.executemany("INSERT INTO info_page VALUES (?, ?)", admin.info_pages.items())
    database.execute("INSERT INTO books VALUES (?, ?, ?)", (seed, admin.first_day, admin.day))


def order_amounts(items: Sequence[tuple[int, int]], percent: int, shipping: str) -> tuple[int, int, int]:
    """Subtotal, discount and total in dollars of (price, quantity) pairs. The discount is rounded down, and not applied to shipping."""
    subtotal = sum(price * quantity for price, quantity in items)
    discount = subtotal * percent // 100
    return subtotal, discount, subtotal - discount + vocabulary.SHIPPING[shipping]
