"""Tasks of buying products."""

import dataclasses
from random import Random

from mira_arena.sites.shop import vocabulary
from mira_arena.sites.shop.content import Line, ShopContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import Move
from mira_arena.tasks.shop.draws import pending, pick
from mira_arena.tasks.shop.milestones import at_checkout, coupon_applied, in_cart, not_in_cart, opened, ordered
from mira_arena.tasks.shop.moves import CHECKOUT, PLACE, fill, find, open_order, open_product, ship_by, ship_to, use_coupon
from mira_arena.tasks.shop.targets import Purchase, shop_targets
from mira_arena.tasks.templates import Draft, Template

_EXTRA_SHIPPING = tuple(vocabulary.SHIPPING)[1:]


def _another(random: Random, options: tuple[str, ...]) -> str:
    """Any option except the preselected one."""
    return random.choice(options[1:])


def buy(random: Random, content: ShopContent) -> Draft | None:
    product = pick(random, content)
    if not product:
        return None
    purchase = Purchase((Line(product.name, "", "", 1),))
    return Draft(
        values={"product": product.name},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(opened(product.name), in_cart(purchase.lines[0]), at_checkout(purchase.lines), ordered(content, purchase)),
        moves=(*find(product.name), *fill(purchase.lines[0]), *CHECKOUT, *PLACE),
    )


def buy_option(random: Random, content: ShopContent) -> Draft | None:
    product = pick(random, content, colours=True)
    if not product:
        return None
    line = Line(product.name, _another(random, product.colours), "", random.randrange(2, 7))
    purchase = Purchase((line,))
    return Draft(
        values={"quantity": line.quantity, "product": product.name, "colour": line.colour},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(opened(product.name), in_cart(line), at_checkout((line,)), ordered(content, purchase)),
        moves=(*find(product.name), *fill(line), *CHECKOUT, *PLACE),
    )


def buy_with_coupon(random: Random, content: ShopContent) -> Draft | None:
    product = pick(random, content)
    if not product:
        return None
    line = Line(product.name, "", "", random.randrange(2, 7))
    purchase = Purchase((line,), coupon=random.choice(list(content.coupons)), shipping=random.choice(_EXTRA_SHIPPING))
    return Draft(
        values={"quantity": line.quantity, "product": product.name, "coupon": purchase.coupon, "shipping": purchase.shipping},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            opened(product.name), in_cart(line), coupon_applied(purchase.coupon), at_checkout((line,), purchase.coupon),
            ordered(content, purchase),
        ),
        moves=(*find(product.name), *fill(line), *use_coupon(purchase.coupon), *CHECKOUT, *ship_by(purchase.shipping), *PLACE),
    )  # fmt: skip


def buy_in_full(random: Random, content: ShopContent) -> Draft | None:
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
            opened(product.name), in_cart(line), coupon_applied(purchase.coupon), at_checkout((line,), purchase.coupon),
            ordered(content, purchase),
        ),
        moves=(
            *find(product.name), *fill(line), *use_coupon(purchase.coupon), *CHECKOUT, *ship_by(purchase.shipping),
            *ship_to(address[0]), *PLACE,
        ),
    )  # fmt: skip


def buy_two(random: Random, content: ShopContent) -> Draft | None:
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
            opened(first.name), in_cart(lines[0]), opened(second.name), in_cart(lines[1]), at_checkout(lines),
            ordered(content, purchase),
        ),
        moves=(*find(first.name), *fill(lines[0]), *find(second.name), *fill(lines[1]), *CHECKOUT, *PLACE),
    )  # fmt: skip


def _foremost(content: ShopContent, category: str, sort: str) -> str | None:
    """The first product of the sorted list. None if another has the same price or rating."""
    score = {"cheapest": lambda product: product.price, "best rated": lambda product: -product.rating}[sort]
    ranked = sorted((product for product in content.products if product.category == category), key=score)
    return ranked[0].name if score(ranked[0]) != score(ranked[1]) else None


def buy_foremost(random: Random, content: ShopContent) -> Draft | None:
    category, sort = random.choice(vocabulary.CATEGORIES), random.choice(("cheapest", "best rated"))
    name = _foremost(content, category, sort)
    if name is None or content.by_name[name].colours or content.by_name[name].sizes:
        return None
    address = dataclasses.astuple(random.choice(content.addresses[1:]))
    purchase = Purchase((Line(name, "", "", 1),), shipping=random.choice(_EXTRA_SHIPPING), address=address)
    return Draft(
        values={"sort": sort, "category": category, "shipping": purchase.shipping, "address": address[0]},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            done.on_page(f'open "{category}"', f"__SHOP__/category/{category}"), opened(name), in_cart(purchase.lines[0]),
            at_checkout(purchase.lines), ordered(content, purchase),
        ),
        moves=(
            Move("click", category), Move("click", sort, habit="takes_first_result"), open_product(name),
            *fill(purchase.lines[0]), *CHECKOUT, *ship_by(purchase.shipping), *ship_to(address[0]), *PLACE,
        ),
    )  # fmt: skip


def settle_cart(random: Random, content: ShopContent) -> Draft | None:
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
            done.on_page("open the cart", "__SHOP__/cart"), in_cart(line), not_in_cart(dropped.name), at_checkout((line,)),
            ordered(content, purchase),
        ),
        moves=(
            Move("click", "cart"), Move("type", f"quantity of {kept.name}", str(line.quantity), "forgets_quantity"),
            Move("click", "update cart", habit="forgets_quantity"), Move("click", f"remove {dropped.name}", habit="forgets_removal"),
            *CHECKOUT, *ship_by(purchase.shipping), *PLACE,
        ),
        setup={"shop": {"cart": cart}},
    )  # fmt: skip


def buy_again(random: Random, content: ShopContent) -> Draft:
    order = random.choice(content.own_orders)
    address = dataclasses.astuple(random.choice(content.addresses[1:]))
    purchase = Purchase(order.lines, shipping=random.choice(_EXTRA_SHIPPING), address=address)
    name = f"order {order.number}"
    return Draft(
        values={"order": name, "shipping": purchase.shipping, "address": address[0]},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            done.on_page("open the orders", "__SHOP__/account/orders"),
            done.on_page(f'open "{name}"', f"__SHOP__/account/orders/{order.number}"),
            at_checkout(order.lines), ordered(content, purchase),
        ),
        moves=(
            Move("click", "account"), Move("click", "orders"), open_order(order.number), Move("click", "buy again"), *CHECKOUT,
            *ship_by(purchase.shipping), *ship_to(address[0]), *PLACE,
        ),
    )  # fmt: skip


def buy_if_sold(random: Random, content: ShopContent) -> Draft | None:
    """In half of the instances the shop does not sell the product. Then the correct result is to report this."""
    if random.random() < 0.5:
        return buy(random, content)
    category = random.choice(vocabulary.CATEGORIES)
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
        moves=(*find(name), *fill(Line(name, "", "", 1)), *CHECKOUT, *PLACE),
    )


def sign_in_and_buy(random: Random, content: ShopContent) -> Draft | None:
    product = pick(random, content)
    if not product:
        return None
    purchase = Purchase((Line(product.name, "", "", 1),), shipping=random.choice(_EXTRA_SHIPPING))
    return Draft(
        values={"customer": content.customer, "password": content.password, "product": product.name, "shipping": purchase.shipping},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(
            done.exactly(f'sign in as "{content.customer}"', "shop", "signed_in", True),
            opened(product.name), in_cart(purchase.lines[0]), at_checkout(purchase.lines), ordered(content, purchase),
        ),
        moves=(
            Move("click", "sign in"), Move("type", "your name", content.customer), Move("type", "password", content.password),
            Move("click", "continue"), *find(product.name), *fill(purchase.lines[0]), *CHECKOUT, *ship_by(purchase.shipping), *PLACE,
        ),
        setup={"shop": {"signed_in": False}},
    )  # fmt: skip


def buy_the_cheaper(random: Random, content: ShopContent) -> Draft | None:
    first = pick(random, content)
    second = pick(random, content, other_than=first.name) if first else None
    if not second or first.price == second.price:
        return None
    wanted = min(first, second, key=lambda product: product.price)
    line = Line(wanted.name, "", "", random.randrange(2, 7))
    purchase = Purchase((line,), shipping=random.choice(_EXTRA_SHIPPING))
    price = r"\$\s*(\d+)"
    back = () if wanted is second else (Move("search", "search", first.name, note=price), open_product(first.name))
    return Draft(
        values={"quantity": line.quantity, "first": first.name, "second": second.name, "shipping": purchase.shipping},
        evaluation=evaluation(shop_targets(content, purchase)),
        milestones=(opened(first.name), opened(second.name), in_cart(line), at_checkout((line,)), ordered(content, purchase)),
        moves=(
            *find(first.name), Move("search", "search", second.name, note=price), open_product(second.name), *back, *fill(line),
            *CHECKOUT, *ship_by(purchase.shipping), *PLACE,
        ),
    )  # fmt: skip


def replace_order(random: Random, content: ShopContent) -> Draft | None:
    order = random.choice(pending(content.own_orders))
    old, new = random.choice(order.lines).product, pick(random, content)
    if not new or sum(line.product == old for other in pending(content.own_orders) for line in other.lines) != 1:
        return None
    line, label = Line(new.name, "", "", random.randrange(2, 7)), random.choice(content.addresses[1:])
    purchase = Purchase((line,), shipping=random.choice(_EXTRA_SHIPPING), address=dataclasses.astuple(label))
    return Draft(
        values={
            "old": old, "quantity": line.quantity, "new": new.name, "shipping": purchase.shipping, "address": label.label,
        },
        evaluation=evaluation(shop_targets(content, purchase, cancelled=(order.number,))),
        milestones=(
            done.on_page(f"open order {order.number}", f"__SHOP__/account/orders/{order.number}"),
            done.exactly(f"cancel order {order.number}", "shop", "changes", [f"order {order.number} cancelled"]),
            opened(new.name), in_cart(line), at_checkout((line,)), ordered(content, purchase),
        ),
        moves=(
            Move("click", "account"), Move("click", "orders"), open_order(order.number),
            Move("click", "cancel order", habit="forgets_removal"), *find(new.name), *fill(line), *CHECKOUT,
            *ship_by(purchase.shipping), *ship_to(label.label), *PLACE,
        ),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, ("shop",), intent, draw)
    for draw, intent in (
        (buy, 'Buy "{{product}}".'),
        (buy_option, 'Buy {{quantity}} of "{{product}}" in colour "{{colour}}".'),
        (buy_with_coupon, 'Buy {{quantity}} of "{{product}}" with coupon "{{coupon}}" and "{{shipping}}" shipping.'),
        (
            buy_in_full,
            'Buy {{quantity}} of "{{product}}" in colour "{{colour}}" and size "{{size}}" '
            'with coupon "{{coupon}}" and "{{shipping}}" shipping to "{{address}}".',
        ),
        (buy_two, 'Buy "{{first}}" in colour "{{colour}}" and {{quantity}} of "{{second}}" in one order.'),
        (buy_foremost, 'Buy the "{{sort}}" product in "{{category}}" with "{{shipping}}" shipping to "{{address}}".'),
        (
            settle_cart,
            'In the cart, set the quantity of "{{kept}}" to {{quantity}} and remove "{{dropped}}", '
            'then order with "{{shipping}}" shipping.',
        ),
        (buy_again, 'Buy again what is in "{{order}}" with "{{shipping}}" shipping to "{{address}}".'),
        (buy_if_sold, 'Buy "{{product}}". If the shop does not sell it, answer "N/A".'),
        (sign_in_and_buy, 'Sign in as "{{customer}}" with password "{{password}}", then buy "{{product}}" with "{{shipping}}" shipping.'),
        (buy_the_cheaper, 'Buy {{quantity}} of "{{first}}" or of "{{second}}", whichever is cheaper, with "{{shipping}}" shipping.'),
        (
            replace_order,
            'Cancel the pending order of "{{old}}" and order {{quantity}} of "{{new}}" instead, '
            'with "{{shipping}}" shipping to "{{address}}".',
        ),
    )
)
