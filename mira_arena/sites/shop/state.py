"""State of the shop in one episode: an SQLite database in memory, with its queries and changes."""

from collections.abc import Mapping
from typing import Any

from mira_arena.sites.shop import vocabulary
from mira_arena.sites.shop.content import Address, Line
from mira_arena.sites.shop.database import image, order_amounts
from mira_arena.sites.state import Refused, Row, State

SEARCH_RESULTS = 5
MAX_QUANTITY = 99
SORTS = {
    "popular": "popularity DESC",
    "cheapest": "price, popularity DESC",
    "best rated": "rating DESC, popularity DESC",
}

LARGEST = 2**63 - 1
"""Largest SQLite integer."""


class ShopState(State):
    """The shop, with the orders and products of its admin panel. The rest of the panel is in `AdminState`."""

    def __init__(self, seed: int, setup: Mapping[str, Any] | None = None):
        """`setup` may contain `cart` (a list of initial `Line`s of the cart) and `signed_in` (a boolean)."""
        super().__init__(image(seed))
        setup = setup or {}
        for line in setup.get("cart", ()):
            self.add_to_cart(line)
        self._do("UPDATE visit SET signed_in = ?, notice = ''", int(setup.get("signed_in", True)))

    def copy(self) -> "ShopState":
        """An independent copy in which the customer is signed in, so that all pages can be read."""
        copy = super().copy()
        copy._do("UPDATE visit SET signed_in = 1")
        return copy

    # The visit

    def sign_in(self, customer: str, password: str) -> None:
        visit = self.visit
        if (customer, password) != (visit["customer"], visit["password"]):
            raise Refused("name or password is wrong")
        self._do("UPDATE visit SET signed_in = 1")

    def sign_out(self) -> None:
        self._do("UPDATE visit SET signed_in = 0")

    # The catalogue

    def category(self, category: str, sort: str) -> list[Row]:
        return self._all(f"SELECT * FROM product WHERE category = ? AND status = 'on sale' ORDER BY {SORTS[sort]}", category)

    def products(self) -> list[Row]:
        return self._all("SELECT * FROM product ORDER BY name")

    def search(self, query: str, sort: str, off_sale: bool = False) -> list[Row]:
        """The best matching products, at most SEARCH_RESULTS, in the order of `sort`. Includes products off sale if `off_sale`."""
        wanted = set(query.lower().split())
        found = []
        for row in self._all("SELECT * FROM product WHERE status = 'on sale' OR ?", off_sale):
            matches = len(wanted & {*row["name"].split(), row["category"]})
            if matches:
                found.append((-matches, -row["popularity"], row["id"]))
        best = [product for _, _, product in sorted(found)[:SEARCH_RESULTS]]
        marks = ",".join("?" * len(best))
        return self._all(f"SELECT * FROM product WHERE id IN ({marks}) ORDER BY {SORTS[sort]}", *best)

    def product(self, name: str) -> Row | None:
        return self._one("SELECT * FROM product WHERE name = ?", name)

    def reviews(self, product: str) -> list[Row]:
        return self._all("SELECT * FROM review WHERE product = ? AND status = 'approved' ORDER BY id", product)

    def own_reviews(self) -> list[Row]:
        return self._all("SELECT * FROM review WHERE own ORDER BY id")

    def add_review(self, product: str, stars: str, text: str) -> None:
        if stars not in ("1", "2", "3", "4", "5"):
            raise Refused("stars must be 1 to 5")
        if not text:
            raise Refused("a review needs some words")
        if self._one("SELECT 1 FROM review WHERE own AND product = ?", product):
            raise Refused("you have reviewed this already")
        author = self.visit["customer"].split()[0]
        self._do("INSERT INTO review (product, author, stars, text, own) VALUES (?, ?, ?, ?, 1)", product, author, int(stars), text)

    # The cart

    def cart(self) -> list[Row]:
        return self._all(
            "SELECT cart_line.*, product.price, product.stock FROM cart_line JOIN product ON product.name = product ORDER BY cart_line.id"
        )

    def add_to_cart(self, line: Line) -> None:
        product = self.product(line.product)
        if product is None or product["status"] != "on sale":
            raise Refused("we do not sell that")
        if line.colour not in (product["colours"] or "").split(",") or line.size not in (product["sizes"] or "").split(","):
            raise Refused("please choose from the options")
        same = self._one(
            "SELECT id, quantity FROM cart_line WHERE product = ? AND colour = ? AND size = ?", line.product, line.colour, line.size
        )
        self._check_quantity(line.quantity + (same["quantity"] if same else 0), product)
        if same:
            self._do("UPDATE cart_line SET quantity = quantity + ? WHERE id = ?", line.quantity, same["id"])
        else:
            row = (line.product, line.colour, line.size, line.quantity)
            self._do("INSERT INTO cart_line (product, colour, size, quantity) VALUES (?, ?, ?, ?)", *row)

    def update_cart(self, quantities: Mapping[int, int]) -> None:
        """Sets the quantities of cart lines, by line id. 0 removes a line."""
        for line in self.cart():
            quantity = quantities.get(line["id"], line["quantity"])
            if quantity:
                self._check_quantity(quantity, line)
        for line_id, quantity in quantities.items():
            if quantity:
                self._do("UPDATE cart_line SET quantity = ? WHERE id = ?", quantity, line_id)
            else:
                self.remove_from_cart(line_id)

    def remove_from_cart(self, line_id: int) -> None:
        self._do("DELETE FROM cart_line WHERE id = ?", line_id)

    @staticmethod
    def _check_quantity(quantity: int, product: Row) -> None:
        if not 1 <= quantity <= MAX_QUANTITY:
            raise Refused(f"quantity must be 1 to {MAX_QUANTITY}")
        if quantity > product["stock"]:
            raise Refused(f"only {product['stock']} in stock")

    def apply_coupon(self, code: str) -> None:
        code = " ".join(code.lower().split())
        if not self._one("SELECT 1 FROM coupon WHERE code = ? AND status = 'active'", code):
            raise Refused("no such coupon")
        self._do("UPDATE visit SET coupon = ?", code)

    def amounts(self, shipping: str = next(iter(vocabulary.SHIPPING))) -> tuple[int, int, int]:
        """Subtotal, discount and total of the cart with that shipping method."""
        coupon = self._one("SELECT percent FROM coupon WHERE code = ? AND status = 'active'", self.visit["coupon"])
        return order_amounts([(line["price"], line["quantity"]) for line in self.cart()], coupon["percent"] if coupon else 0, shipping)

    def place_order(self, shipping: str, label: str) -> int:
        """Converts the cart into an order and returns its number."""
        lines, visit = self.cart(), self.visit
        address = self._one("SELECT * FROM address WHERE label = ?", label)
        if not lines:
            raise Refused("your cart is empty")
        if shipping not in vocabulary.SHIPPING or address is None:
            raise Refused("please choose from the options")
        for line in lines:
            self._check_quantity(line["quantity"], line)
        number = self._row("SELECT MAX(number) + 1 AS number FROM orders")["number"]
        self._do(
            "INSERT INTO orders VALUES (?, ?, 'pending', 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
            number, visit["customer"], shipping, label, address["street"], address["town"], visit["coupon"], *self.amounts(shipping),
            visit["day"],
        )  # fmt: skip
        for line in lines:
            row = (number, line["product"], line["colour"], line["size"], line["quantity"], line["price"])
            self._do("INSERT INTO order_line (number, product, colour, size, quantity, price) VALUES (?, ?, ?, ?, ?, ?)", *row)
            sold = (line["quantity"], line["quantity"], line["product"])
            self._do("UPDATE product SET stock = stock - ?, initial_stock = initial_stock - ? WHERE name = ?", *sold)
        self._do("DELETE FROM cart_line")
        self._do("UPDATE visit SET coupon = ''")
        return number

    # Orders and addresses

    def orders(self, status: str = "") -> list[Row]:
        """Orders, newest first, optionally of one status."""
        return self._all("SELECT * FROM orders WHERE status = ? OR ? = '' ORDER BY number DESC", status, status)

    def own_orders(self) -> list[Row]:
        return self._all("SELECT * FROM orders WHERE customer = ? ORDER BY number DESC", self.visit["customer"])

    def order(self, number: int) -> Row | None:
        return self._one("SELECT * FROM orders WHERE number = ?", min(number, LARGEST))

    def lines(self, number: int) -> list[Row]:
        return self._all("SELECT * FROM order_line WHERE number = ? ORDER BY product, colour, size", number)

    def cancel_order(self, number: int) -> None:
        order = self.order(number)
        if order is None or order["status"] != "pending":
            raise Refused("only a pending order can be cancelled")
        self.set_status(number, "cancelled")

    def set_status(self, number: int, status: str) -> None:
        if status not in vocabulary.STATUSES:
            raise Refused("please choose from the options")
        self._do("UPDATE orders SET status = ? WHERE number = ?", status, number)

    def buy_again(self, number: int) -> None:
        """Adds the products of the order to the cart."""
        for line in self.lines(number):
            self.add_to_cart(Line(line["product"], line["colour"], line["size"], line["quantity"]))

    def addresses(self) -> list[Row]:
        """Addresses of the customer. The first is the default."""
        return self._all("SELECT * FROM address ORDER BY id")

    def save_address(self, address: Address, replaces: str = "") -> None:
        """Adds an address, or replaces the one labelled `replaces`."""
        if not (address.label and address.street and address.town):
            raise Refused("please fill in every field")
        if address.label != replaces and self._one("SELECT 1 FROM address WHERE label = ?", address.label):
            raise Refused(f"there is an address named {address.label} already")
        row = (address.label, address.street, address.town)
        if replaces:
            self._do("UPDATE address SET label = ?, street = ?, town = ? WHERE label = ?", *row, replaces)
        else:
            self._do("INSERT INTO address (label, street, town) VALUES (?, ?, ?)", *row)

    # The admin panel

    def save_product(self, name: str, price: int, stock: int) -> None:
        self.check_product(price, stock)
        self._do("UPDATE product SET price = ?, stock = ? WHERE name = ?", price, stock, name)

    @staticmethod
    def check_product(price: int, stock: int) -> None:
        if not (1 <= price <= 9999 and 0 <= stock <= 9999):
            raise Refused("price and stock must be whole numbers up to 9999")

    def changes(self) -> list[str]:
        """Lists the differences from the initial state, one line each, in a fixed order. Sales are not included."""
        said = []
        for row in self._all("SELECT * FROM product WHERE price != initial_price OR stock != initial_stock ORDER BY name"):
            if row["price"] != row["initial_price"]:
                said.append(f"{row['name']} price {row['price']}")
            if row["stock"] != row["initial_stock"]:
                said.append(f"{row['name']} stock {row['stock']}")
        for row in self._all("SELECT * FROM orders WHERE status != initial_status ORDER BY number"):
            said.append(f"order {row['number']} {row['status']}")
        return said

    # For milestones

    def snapshot(self) -> dict[str, Any]:
        """The data that milestones check, as plain data."""
        visit = self.visit
        return {
            "signed_in": bool(visit["signed_in"]),
            "coupon": visit["coupon"],
            "cart": [_plain(line) for line in self.cart()],
            "orders": [self._plain_order(row) for row in self._all("SELECT * FROM orders WHERE placed ORDER BY number")],
            "addresses": [[row["label"], row["street"], row["town"]] for row in self.addresses()],
            "reviews": [[row["product"], row["stars"], row["text"]] for row in self.own_reviews()],
            "changes": self.changes(),
        }

    def _plain_order(self, row: Row) -> dict[str, Any]:
        lines = [_plain(line) for line in self.lines(row["number"])]
        return {key: row[key] for key in ("number", "coupon", "shipping", "label", "total")} | {"lines": lines}


def _plain(line: Row) -> list[Any]:
    return [line["product"], line["colour"], line["size"], line["quantity"]]
