"""Pages of the shop."""

from starlette.responses import Response

from mira_arena.sites.shop import vocabulary
from mira_arena.sites.shop.content import Address, Line
from mira_arena.sites.shop.state import SORTS
from mira_arena.sites.state import Refused, Row
from mira_arena.sites.visit import Visit


def home(visit: Visit) -> Response:
    return visit.show("home.html", categories=vocabulary.CATEGORIES)


def category(visit: Visit) -> Response:
    name = visit.path("name")
    visit.found(name if name in vocabulary.CATEGORIES else None)
    sort = _sort(visit)
    found = visit.paginate(visit.state.category(name, sort))
    return visit.show("list.html", title=name, path=f"/category/{name}", sort=sort, sorts=SORTS, **found)


def search(visit: Visit) -> Response:
    query, sort = " ".join(visit.query.get("q", "").lower().split())[:60], _sort(visit)
    found = visit.paginate(visit.state.search(query, sort))
    return visit.show("list.html", title=f"results for {query}", query=query, path="/search", sort=sort, sorts=SORTS, **found)


def _sort(visit: Visit) -> str:
    sort = visit.query.get("sort", "")
    return sort if sort in SORTS else next(iter(SORTS))


def _product(visit: Visit) -> Row:
    row = visit.found(visit.state.product(visit.path("slug").replace("-", " ")))
    return visit.found(row if row["status"] == "on sale" else None)


def product(visit: Visit) -> Response:
    row = _product(visit)
    colours, sizes = ([option for option in row[key].split(",") if option] for key in ("colours", "sizes"))
    return visit.show("product.html", product=row, colours=colours, sizes=sizes)


def reviews(visit: Visit) -> Response:
    row = _product(visit)
    return visit.show("reviews.html", product=row, reviews=visit.state.reviews(row["name"]))


def send_review(visit: Visit) -> Response:
    row = _product(visit)
    _need_sign_in(visit)
    visit.state.add_review(row["name"], visit.form.get("stars", ""), visit.form.get("review", "").lower())
    return visit.go(visit.back, "thank you for your review")


def info_page(visit: Visit) -> Response:
    return visit.show("info_page.html", page=visit.found(visit.state.info_page(visit.path("slug").replace("-", " "))))


def add_to_cart(visit: Visit) -> Response:
    form = visit.form
    visit.state.add_to_cart(Line(form.get("product", ""), form.get("colour", ""), form.get("size", ""), visit.whole_number("quantity")))
    return visit.go("/cart", "added to your cart")


def cart(visit: Visit) -> Response:
    subtotal, discount, _ = visit.state.amounts()
    return visit.show("cart.html", lines=visit.state.cart(), discount=discount, total=subtotal - discount)


def update_cart(visit: Visit) -> Response:
    fields = {line["id"]: f"quantity-{line['id']}" for line in visit.state.cart()}
    visit.state.update_cart({line: visit.whole_number(field) for line, field in fields.items() if field in visit.form})
    return visit.go("/cart", "cart updated")


def remove_from_cart(visit: Visit) -> Response:
    visit.state.remove_from_cart(visit.whole_number("line"))
    return visit.go("/cart", "removed")


def apply_coupon(visit: Visit) -> Response:
    visit.state.apply_coupon(visit.form.get("coupon", ""))
    return visit.go("/cart", "coupon applied")


def checkout(visit: Visit) -> Response:
    if not visit.state.visit["signed_in"]:
        return visit.go("/sign-in", "please sign in first")
    if not visit.state.cart():
        return visit.go("/cart")
    subtotal, discount, _ = visit.state.amounts()
    return visit.show("checkout.html", shipping=vocabulary.SHIPPING, addresses=visit.state.addresses(), total=subtotal - discount)


def place_order(visit: Visit) -> Response:
    _need_sign_in(visit)
    number = visit.state.place_order(visit.form.get("shipping", ""), visit.form.get("address", ""))
    return visit.go(f"/account/orders/{number}", "thank you for your order")


def sign_in_page(visit: Visit) -> Response:
    return visit.show("sign_in.html")


def sign_in(visit: Visit) -> Response:
    visit.state.sign_in(visit.form.get("name", "").lower(), visit.form.get("password", "").lower())
    return visit.go("/account", "welcome back")


def sign_out(visit: Visit) -> Response:
    visit.state.sign_out()
    return visit.go("/", "you are signed out")


def account(visit: Visit) -> Response:
    if not visit.state.visit["signed_in"]:
        return visit.go("/sign-in")
    return visit.show("account.html")


def orders(visit: Visit) -> Response:
    _need_sign_in(visit)
    rows = visit.state.own_orders()
    return visit.show("orders.html", lines={row["number"]: visit.state.lines(row["number"]) for row in rows}, **visit.paginate(rows))


def latest_order(visit: Visit) -> Response:
    _need_sign_in(visit)
    return _show_order(visit, visit.state.own_orders()[0])


def order(visit: Visit) -> Response:
    return _show_order(visit, _own_order(visit))


def _own_order(visit: Visit) -> Row:
    _need_sign_in(visit)
    row = visit.found(visit.state.order(visit.path("number")))
    return visit.found(row if row["customer"] == visit.state.visit["customer"] else None)


def _show_order(visit: Visit, row: Row) -> Response:
    return visit.show("order.html", order=row, lines=visit.state.lines(row["number"]))


def cancel_order(visit: Visit) -> Response:
    number = _own_order(visit)["number"]
    visit.state.cancel_order(number)
    return visit.go(f"/account/orders/{number}", "your order is cancelled")


def buy_again(visit: Visit) -> Response:
    visit.state.buy_again(_own_order(visit)["number"])
    return visit.go("/cart", "added to your cart")


def own_reviews(visit: Visit) -> Response:
    _need_sign_in(visit)
    return visit.show("own_reviews.html", reviews=visit.state.own_reviews())


def addresses(visit: Visit) -> Response:
    _need_sign_in(visit)
    return visit.show("addresses.html", addresses=visit.state.addresses())


def new_address(visit: Visit) -> Response:
    _need_sign_in(visit)
    return visit.show("address.html", title="new address", address={"label": "", "street": "", "town": ""}, path="/account/addresses/new")


def edit_address(visit: Visit) -> Response:
    row = _address(visit)
    return visit.show("address.html", title=f"edit {row['label']}", address=row, path=f"/account/addresses/{row['label']}")


def _address(visit: Visit) -> Row:
    _need_sign_in(visit)
    label = visit.path("label")
    return visit.found(next((row for row in visit.state.addresses() if row["label"] == label), None))


def save_new_address(visit: Visit) -> Response:
    _need_sign_in(visit)
    visit.state.save_address(_typed_address(visit))
    return visit.go("/account/addresses", "address saved")


def save_address(visit: Visit) -> Response:
    visit.state.save_address(_typed_address(visit), replaces=_address(visit)["label"])
    return visit.go("/account/addresses", "address saved")


def _typed_address(visit: Visit) -> Address:
    label = visit.form.get("label", "").lower()
    if not all(character.isalnum() or character == " " for character in label) or label == "new":
        raise Refused("a name is made of letters")
    return Address(label, visit.form.get("street", "").lower(), visit.form.get("town", "").lower())


def _need_sign_in(visit: Visit) -> None:
    if not visit.state.visit["signed_in"]:
        visit.back = "/sign-in"
        raise Refused("please sign in first")


ROUTES = (
    ("/", "GET", home),
    ("/category/{name}", "GET", category),
    ("/search", "GET", search),
    ("/product/{slug}", "GET", product),
    ("/product/{slug}/reviews", "GET", reviews),
    ("/product/{slug}/reviews", "POST", send_review),
    ("/pages/{slug}", "GET", info_page),
    ("/cart", "GET", cart),
    ("/cart/add", "POST", add_to_cart),
    ("/cart/update", "POST", update_cart),
    ("/cart/remove", "POST", remove_from_cart),
    ("/cart/coupon", "POST", apply_coupon),
    ("/checkout", "GET", checkout),
    ("/checkout", "POST", place_order),
    ("/sign-in", "GET", sign_in_page),
    ("/sign-in", "POST", sign_in),
    ("/sign-out", "POST", sign_out),
    ("/account", "GET", account),
    ("/account/orders", "GET", orders),
    ("/account/orders/latest", "GET", latest_order),
    ("/account/orders/{number:int}", "GET", order),
    ("/account/orders/{number:int}/cancel", "POST", cancel_order),
    ("/account/orders/{number:int}/again", "POST", buy_again),
    ("/account/reviews", "GET", own_reviews),
    ("/account/addresses", "GET", addresses),
    ("/account/addresses/new", "GET", new_address),
    ("/account/addresses/new", "POST", save_new_address),
    ("/account/addresses/{label}", "GET", edit_address),
    ("/account/addresses/{label}", "POST", save_address),
)
"""(path, method, handler) of each route."""
