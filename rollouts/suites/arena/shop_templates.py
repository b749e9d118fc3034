"""What a customer may be asked to do in the shop."""

import dataclasses
from random import Random

from rollouts.suites.arena import milestones as done
from rollouts.suites.arena import words
from rollouts.suites.arena.content import Content, Line
from rollouts.suites.arena.site import page_url, slug
from rollouts.suites.arena.tasks import Draft, Move, Purchase, Template, evaluation, pending, pick, shop_targets

EXIT = Move("exit", argument="done")
CHECKOUT = (Move("click", "checkout"),)
PLACE = (Move("click", "place order", habit="stops_early"), EXIT)
_EXTRA_SHIPPING = tuple(words.SHIPPING)[1:]


def _find(product: str) -> tuple[Move, ...]:
    return (Move("search", "search", product), Move("open", product))


def _fill(line: Line) -> tuple[Move, ...]:
    """From the product's page to the cart. The option that a page selects by itself needs no move."""
    moves = []
    if line.colour:
        moves.append(Move("choose", "colour", line.colour, "forgets_option"))
    if line.size:
        moves.append(Move("choose", "size", line.size, "forgets_option"))
    if line.quantity > 1:
        moves.append(Move("type", "quantity", str(line.quantity), "forgets_quantity"))
    return (*moves, Move("click", "add to cart"))


def _coupon(code: str) -> tuple[Move, ...]:
    return (Move("type", "coupon code", code, "forgets_coupon"), Move("click", "apply coupon", habit="forgets_coupon"))


def _ship(method: str) -> tuple[Move, ...]:
    return (Move("choose", "shipping method", method, "forgets_shipping"),)


def _to(label: str) -> tuple[Move, ...]:
    return (Move("choose", "ship to", label, "forgets_address"),)


def _page(product: str) -> str:
    return f"__SHOP__/product/{slug(product)}"


def _opened(product: str) -> done.Milestone:
    return done.on_page(f'open "{product}"', _page(product))


def _another(random: Random, options: tuple[str, ...]) -> str:
    """Any but the option that the page selects by itself."""
    return random.choice(options[1:])


def _ordered(content: Content, purchase: Purchase) -> done.Milestone:
    return done.ordered(purchase.lines, purchase.coupon, purchase.shipping, purchase.address[0] if purchase.address else content.addresses[0].label)


def buy(random: Random, content: Content) -> Draft | None:
    product = pick(random, content)
    if not product:
        return None
    purchase = Purchase((Line(product.name, "", "", 1),))
    return Draft(
        values={"product": product.name},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(_opened(product.name), done.in_cart(purchase.lines[0]), done.at_checkout(purchase.lines), _ordered(content, purchase)),
        moves=(*_find(product.name), *_fill(purchase.lines[0]), *CHECKOUT, *PLACE),
    )


def buy_option(random: Random, content: Content) -> Draft | None:
    product = pick(random, content, colours=True)
    if not product:
        return None
    line = Line(product.name, _another(random, product.colours), "", random.randrange(2, 7))
    purchase = Purchase((line,))
    return Draft(
        values={"quantity": line.quantity, "product": product.name, "colour": line.colour},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(_opened(product.name), done.in_cart(line), done.at_checkout((line,)), _ordered(content, purchase)),
        moves=(*_find(product.name), *_fill(line), *CHECKOUT, *PLACE),
    )


def buy_with_coupon(random: Random, content: Content) -> Draft | None:
    product = pick(random, content)
    if not product:
        return None
    line = Line(product.name, "", "", random.randrange(2, 7))
    purchase = Purchase((line,), coupon=random.choice(list(content.coupons)), shipping=random.choice(_EXTRA_SHIPPING))
    return Draft(
        values={"quantity": line.quantity, "product": product.name, "coupon": purchase.coupon, "shipping": purchase.shipping},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            _opened(product.name), done.in_cart(line), done.coupon_applied(purchase.coupon), done.at_checkout((line,), purchase.coupon),
            _ordered(content, purchase),
        ),
        moves=(*_find(product.name), *_fill(line), *_coupon(purchase.coupon), *CHECKOUT, *_ship(purchase.shipping), *PLACE),
    )  # fmt: skip


def buy_in_full(random: Random, content: Content) -> Draft | None:
    product = pick(random, content, colours=True, sizes=True)
    if not product:
        return None
    line = Line(product.name, _another(random, product.colours), _another(random, product.sizes), random.randrange(2, 7))
    address = dataclasses.astuple(random.choice(content.addresses[1:]))
    purchase = Purchase((line,), random.choice(list(content.coupons)), random.choice(_EXTRA_SHIPPING), address)
    return Draft(
        values={
            "quantity": line.quantity, "product": line.product, "colour": line.colour, "size": line.size, "coupon": purchase.coupon,
            "shipping": purchase.shipping, "address": address[0],
        },
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            _opened(product.name), done.in_cart(line), done.coupon_applied(purchase.coupon), done.at_checkout((line,), purchase.coupon),
            _ordered(content, purchase),
        ),
        moves=(
            *_find(product.name), *_fill(line), *_coupon(purchase.coupon), *CHECKOUT, *_ship(purchase.shipping), *_to(address[0]), *PLACE,
        ),
    )  # fmt: skip


def buy_two(random: Random, content: Content) -> Draft | None:
    first = pick(random, content, colours=True)
    second = pick(random, content)
    if not (first and second):
        return None
    lines = (Line(first.name, _another(random, first.colours), "", 1), Line(second.name, "", "", random.randrange(2, 7)))
    purchase = Purchase(lines)
    return Draft(
        values={"first": first.name, "colour": lines[0].colour, "quantity": lines[1].quantity, "second": second.name},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            _opened(first.name), done.in_cart(lines[0]), _opened(second.name), done.in_cart(lines[1]), done.at_checkout(lines), _ordered(content, purchase),
        ),
        moves=(*_find(first.name), *_fill(lines[0]), *_find(second.name), *_fill(lines[1]), *CHECKOUT, *PLACE),
    )  # fmt: skip


def _foremost(content: Content, category: str, sort: str) -> str | None:
    """The product that leads the list, None if another is as cheap or as well rated."""
    score = {"cheapest": lambda product: product.price, "best rated": lambda product: -product.rating}[sort]
    ranked = sorted((product for product in content.products if product.category == category), key=score)
    return ranked[0].name if score(ranked[0]) != score(ranked[1]) else None


def buy_foremost(random: Random, content: Content) -> Draft | None:
    category, sort = random.choice(words.CATEGORIES), random.choice(("cheapest", "best rated"))
    name = _foremost(content, category, sort)
    if name is None or content.by_name[name].colours or content.by_name[name].sizes:
        return None
    purchase = Purchase((Line(name, "", "", 1),), shipping=random.choice(_EXTRA_SHIPPING), address=dataclasses.astuple(random.choice(content.addresses[1:])))
    return Draft(
        values={"sort": sort, "category": category, "shipping": purchase.shipping, "address": purchase.address[0]},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            done.on_page(f'open "{category}"', f"__SHOP__/category/{category}"), _opened(name), done.in_cart(purchase.lines[0]),
            done.at_checkout(purchase.lines), _ordered(content, purchase),
        ),
        moves=(
            Move("click", category), Move("click", sort, habit="takes_first_result"), Move("open", name), *_fill(purchase.lines[0]), *CHECKOUT,
            *_ship(purchase.shipping), *_to(purchase.address[0]), *PLACE,
        ),
    )  # fmt: skip


def show_sorted(random: Random, content: Content) -> Draft:
    name, sort = random.choice(content.products).name, random.choice(("cheapest", "best rated"))
    return Draft(
        values={"product": name, "sort": sort},
        evaluation=evaluation(shop_targets(content), url=page_url("__SHOP__/search", q=name, sort=sort)),
        milestones=(
            done.on_page("search", "__SHOP__/search"),
            done.on_query(f'search for "{name}"', "__SHOP__/search", q=name),
            done.on_query(f'sort by "{sort}"', "__SHOP__/search", q=name, sort=sort),
        ),
        moves=(Move("search", "search", name), Move("click", sort, habit="stops_early"), EXIT),
    )


def settle_cart(random: Random, content: Content) -> Draft | None:
    kept = pick(random, content)
    dropped = pick(random, content, other_than=kept.name) if kept else None
    if not dropped:
        return None
    before = (Line(kept.name, "", "", 1), Line(dropped.name, "", "", random.randrange(1, 4)))
    line = Line(kept.name, "", "", random.randrange(2, 7))
    purchase = Purchase((line,), shipping=random.choice(_EXTRA_SHIPPING))
    cart = before if random.random() < 0.5 else before[::-1]
    return Draft(
        values={"quantity": line.quantity, "kept": kept.name, "dropped": dropped.name, "shipping": purchase.shipping},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            done.on_page("open the cart", "__SHOP__/cart"), done.in_cart(line), done.not_in_cart(dropped.name), done.at_checkout((line,)),
            _ordered(content, purchase),
        ),
        moves=(
            Move("click", "cart"), Move("type", f"quantity of {kept.name}", str(line.quantity), "forgets_quantity"),
            Move("click", "update cart", habit="forgets_quantity"), Move("click", f"remove {dropped.name}", habit="forgets_removal"),
            *CHECKOUT, *_ship(purchase.shipping), *PLACE,
        ),
        cart=cart,
    )  # fmt: skip


def buy_again(random: Random, content: Content) -> Draft:
    order = random.choice(content.own_orders)
    address = dataclasses.astuple(random.choice(content.addresses[1:]))
    purchase = Purchase(order.lines, shipping=random.choice(_EXTRA_SHIPPING), address=address)
    name = f"order {order.number}"
    return Draft(
        values={"order": name, "shipping": purchase.shipping, "address": address[0]},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            done.on_page("open the orders", "__SHOP__/account/orders"), done.on_page(f'open "{name}"', f"__SHOP__/account/orders/{order.number}"),
            done.at_checkout(order.lines), _ordered(content, purchase),
        ),
        moves=(
            Move("click", "account"), Move("click", "orders"), Move("open_order", name), Move("click", "buy again"), *CHECKOUT,
            *_ship(purchase.shipping), *_to(address[0]), *PLACE,
        ),
    )  # fmt: skip


def cancel_order(random: Random, content: Content) -> Draft | None:
    order = random.choice(pending(content.own_orders))
    product = random.choice(order.lines).product
    if sum(line.product == product for other in pending(content.own_orders) for line in other.lines) != 1:
        return None
    page = f"__SHOP__/account/orders/{order.number}"
    return Draft(
        values={"product": product},
        evaluation=evaluation(shop_targets(content, cancelled=(order.number,))),
        milestones=(
            done.on_page("open the orders", "__SHOP__/account/orders"), done.on_page(f"open order {order.number}", page),
            done.exactly(f"cancel order {order.number}", "changes", [f"order {order.number} cancelled"]),
        ),
        moves=(
            Move("click", "account"), Move("click", "orders"), Move("open_order", f"order {order.number}"),
            Move("click", "cancel order", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def tell_total(random: Random, content: Content) -> Draft:
    order = random.choice(content.own_orders)
    prices = sum(content.by_name[line.product].price * line.quantity for line in order.lines)
    total = prices - prices * content.coupons.get(order.coupon, 0) // 100 + words.SHIPPING[order.shipping]
    name = f"order {order.number}"
    return Draft(
        values={"order": name},
        evaluation=evaluation(shop_targets(content), answers={"exact_match": str(total)}),
        milestones=(
            done.on_page("open the account", "__SHOP__/account", "__SHOP__/account/orders"),
            done.on_page("open the orders", "__SHOP__/account/orders"),
            done.on_page(f'open "{name}"', f"__SHOP__/account/orders/{order.number}"),
            done.answered("answer with the total", str(total)),
        ),
        moves=(Move("click", "account"), Move("click", "orders"), Move("open_order", name), Move("exit", argument=str(total))),
    )


def tell_reviewer(random: Random, content: Content) -> Draft:
    product = random.choice(content.products)
    review = random.choice(product.reviews)
    return Draft(
        values={"product": product.name, "stars": review.stars},
        evaluation=evaluation(shop_targets(content), answers={"exact_match": review.author}),
        milestones=(
            done.on_page("search", "__SHOP__/search", _page(product.name)), _opened(product.name),
            done.on_page("open the reviews", _page(product.name) + "/reviews"), done.answered("answer with the name", review.author),
        ),
        moves=(*_find(product.name), Move("click", "reviews"), Move("exit", argument=review.author)),
    )  # fmt: skip


def write_review(random: Random, content: Content) -> Draft:
    product = random.choice(content.products)
    stars = random.randrange(1, 5)
    text = random.choice(words.REVIEWS[stars])
    page = _page(product.name)
    return Draft(
        values={"product": product.name, "stars": stars, "text": text},
        evaluation=evaluation(shop_targets(content, reviews=[(product.name, stars, text)])),
        milestones=(
            _opened(product.name), done.on_page("open the reviews", page + "/reviews"),
            done.in_snapshot("send the review", "reviews", [product.name, stars, text]),
        ),
        moves=(
            *_find(product.name), Move("click", "reviews"), Move("choose", "stars", str(stars), "forgets_option"), Move("type", "your review", text),
            Move("click", "send review", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def buy_if_sold(random: Random, content: Content) -> Draft | None:
    """Half of the instances are of a product that the shop doesn't sell: then the one right thing is to say so."""
    if random.random() < 0.5:
        return buy(random, content)
    category = random.choice(words.CATEGORIES)
    nouns = [product.name.split()[1] for product in content.products if product.category == category]
    name = f"{random.choice(content.products).name.split()[0]} {random.choice(nouns)}"
    if name in content.by_name:
        return None
    return Draft(
        values={"product": name},
        evaluation=evaluation(shop_targets(content), answers={"fuzzy_match": "N/A"}),
        milestones=(
            done.on_page("search", "__SHOP__/search"),
            done.on_query(f'search for "{name}"', "__SHOP__/search", q=name),
            done.answered('answer "N/A"', "N/A"),
        ),
        moves=(*_find(name), *_fill(Line(name, "", "", 1)), *CHECKOUT, *PLACE),
    )


def _new_address(random: Random, content: Content) -> tuple[str, str, str]:
    labels = [label for label in words.ADDRESS_LABELS if label not in {address.label for address in content.addresses}]
    return random.choice(labels), f"{random.choice(words.STREETS)} {random.randrange(1, 100)}", random.choice(words.TOWNS)


def _enter_address(address: tuple[str, str, str]) -> tuple[Move, ...]:
    fields = [Move("type", field, text) for field, text in zip(("name", "street", "town"), address, strict=True)]
    return (Move("click", "account"), Move("click", "address book"), Move("click", "add address"), *fields, Move("click", "save address", habit="stops_early"))


def add_address(random: Random, content: Content) -> Draft:
    address = _new_address(random, content)
    book = [*(dataclasses.astuple(known) for known in content.addresses), address]
    return Draft(
        values=dict(zip(("name", "street", "town"), address, strict=True)),
        evaluation=evaluation(shop_targets(content, addresses=book)),
        milestones=(
            done.on_page("open the address book", "__SHOP__/account/addresses"),
            done.on_page("open the form", "__SHOP__/account/addresses/new"),
            done.in_snapshot(f'save "{address[0]}"', "addresses", list(address)),
        ),
        moves=(*_enter_address(address), EXIT),
    )


def change_address(random: Random, content: Content) -> Draft | None:
    old = random.choice(content.addresses)
    _, street, town = _new_address(random, content)
    if street == old.street or town == old.town:
        return None
    new = (old.label, street, town)
    book = [new if known is old else dataclasses.astuple(known) for known in content.addresses]
    return Draft(
        values={"name": old.label, "street": street, "town": town},
        evaluation=evaluation(shop_targets(content, addresses=book)),
        milestones=(
            done.on_page("open the address book", "__SHOP__/account/addresses"),
            done.on_page(f'open "{old.label}"', f"__SHOP__/account/addresses/{old.label}"),
            done.in_snapshot("save the address", "addresses", list(new)),
        ),
        moves=(
            Move("click", "account"), Move("click", "address book"), Move("click", f"edit {old.label}"), Move("type", "street", street),
            Move("type", "town", town, "forgets_address"), Move("click", "save address", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def buy_to_new_address(random: Random, content: Content) -> Draft | None:
    product, address = pick(random, content), _new_address(random, content)
    if not product:
        return None
    purchase = Purchase((Line(product.name, "", "", 1),), address=address)
    book = [*(dataclasses.astuple(known) for known in content.addresses), address]
    return Draft(
        values=dict(zip(("name", "street", "town"), address, strict=True)) | {"product": product.name},
        evaluation=evaluation(shop_targets(content, purchase, addresses=book)),
        milestones=(
            done.on_page("open the form", "__SHOP__/account/addresses/new"),
            done.in_snapshot(f'save "{address[0]}"', "addresses", list(address)),
            _opened(product.name), done.in_cart(purchase.lines[0]), done.at_checkout(purchase.lines), _ordered(content, purchase),
        ),
        moves=(*_enter_address(address), *_find(product.name), *_fill(purchase.lines[0]), *CHECKOUT, *_to(address[0]), *PLACE),
    )  # fmt: skip


def sign_in_and_buy(random: Random, content: Content) -> Draft | None:
    product = pick(random, content)
    if not product:
        return None
    purchase = Purchase((Line(product.name, "", "", 1),), shipping=random.choice(_EXTRA_SHIPPING))
    return Draft(
        values={"customer": content.customer, "password": content.password, "product": product.name, "shipping": purchase.shipping},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            done.exactly(f'sign in as "{content.customer}"', "signed_in", True),
            _opened(product.name), done.in_cart(purchase.lines[0]), done.at_checkout(purchase.lines), _ordered(content, purchase),
        ),
        moves=(
            Move("click", "sign in"), Move("type", "your name", content.customer), Move("type", "password", content.password), Move("click", "continue"),
            *_find(product.name), *_fill(purchase.lines[0]), *CHECKOUT, *_ship(purchase.shipping), *PLACE,
        ),
        signed_in=False,
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, "shop", intent, draw)
    for draw, intent in (
        (buy, 'Buy "{{product}}".'),
        (buy_option, 'Buy {{quantity}} of "{{product}}" in colour "{{colour}}".'),
        (buy_with_coupon, 'Buy {{quantity}} of "{{product}}" with coupon "{{coupon}}" and "{{shipping}}" shipping.'),
        (buy_in_full, 'Buy {{quantity}} of "{{product}}" in colour "{{colour}}" and size "{{size}}" with coupon "{{coupon}}" and "{{shipping}}" shipping to "{{address}}".'),
        (buy_two, 'Buy "{{first}}" in colour "{{colour}}" and {{quantity}} of "{{second}}" in one order.'),
        (buy_foremost, 'Buy the "{{sort}}" product in "{{category}}" with "{{shipping}}" shipping to "{{address}}".'),
        (show_sorted, 'Search for "{{product}}" and show the results sorted by "{{sort}}".'),
        (settle_cart, 'In the cart, set the quantity of "{{kept}}" to {{quantity}} and remove "{{dropped}}", then order with "{{shipping}}" shipping.'),
        (buy_again, 'Buy again what is in "{{order}}" with "{{shipping}}" shipping to "{{address}}".'),
        (cancel_order, 'Cancel the pending order of "{{product}}".'),
        (tell_total, 'What is the total of "{{order}}" in dollars? Answer with the number.'),
        (tell_reviewer, 'Who gave "{{product}}" {{stars}} of 5 stars? Answer with the name.'),
        (write_review, 'Review "{{product}}" with {{stars}} of 5 stars and the words "{{text}}".'),
        (buy_if_sold, 'Buy "{{product}}". If the shop does not sell it, answer "N/A".'),
        (add_address, 'Add the address "{{name}}" with street "{{street}}" and town "{{town}}".'),
        (change_address, 'Change the address "{{name}}" to street "{{street}}" and town "{{town}}".'),
        (buy_to_new_address, 'Add the address "{{name}}" with street "{{street}}" and town "{{town}}", then buy "{{product}}" and ship to it.'),
        (sign_in_and_buy, 'Sign in as "{{customer}}" with password "{{password}}", then buy "{{product}}" with "{{shipping}}" shipping.'),
    )
)
