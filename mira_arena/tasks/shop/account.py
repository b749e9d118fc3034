"""Tasks of finding information, changing the account, and writing."""

import dataclasses
from random import Random

from mira_arena.sites.paths import page_url
from mira_arena.sites.shop import vocabulary
from mira_arena.sites.shop.content import Line, ShopContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.shop.draws import pending, pick
from mira_arena.tasks.shop.milestones import at_checkout, in_cart, opened, ordered, product_page
from mira_arena.tasks.shop.moves import CHECKOUT, PLACE, fill, find, open_order, ship_to
from mira_arena.tasks.shop.targets import Purchase, shop_targets
from mira_arena.tasks.templates import Draft, Template


def show_sorted(random: Random, content: ShopContent) -> Draft:
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


def cancel_order(random: Random, content: ShopContent) -> Draft | None:
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
            done.exactly(f"cancel order {order.number}", "shop", "changes", [f"order {order.number} cancelled"]),
        ),
        moves=(
            Move("click", "account"), Move("click", "orders"), open_order(order.number),
            Move("click", "cancel order", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def tell_total(random: Random, content: ShopContent) -> Draft:
    order = random.choice(content.own_orders)
    prices = sum(content.by_name[line.product].price * line.quantity for line in order.lines)
    total = prices - prices * content.coupons.get(order.coupon, 0) // 100 + vocabulary.SHIPPING[order.shipping]
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
        moves=(Move("click", "account"), Move("click", "orders"), open_order(order.number), Move("tell", argument=r"total \$\s*(\d+)")),
    )


def tell_reviewer(random: Random, content: ShopContent) -> Draft:
    product = random.choice(content.products)
    review = random.choice(product.reviews)
    return Draft(
        values={"product": product.name, "stars": review.stars},
        evaluation=evaluation(shop_targets(content), answers={"exact_match": review.author}),
        milestones=(
            done.on_page("search", "__SHOP__/search", product_page(product.name)), opened(product.name),
            done.on_page("open the reviews", product_page(product.name) + "/reviews"),
            done.answered("answer with the name", review.author),
        ),
        moves=(*find(product.name), Move("click", "reviews"), Move("tell", argument=rf"([a-z]+)\s+{review.stars} stars")),
    )  # fmt: skip


def write_review(random: Random, content: ShopContent) -> Draft:
    product = random.choice(content.products)
    stars = random.randrange(1, 5)
    text = random.choice(vocabulary.REVIEWS[stars])
    page = product_page(product.name)
    return Draft(
        values={"product": product.name, "stars": stars, "text": text},
        evaluation=evaluation(shop_targets(content, reviews=[(product.name, stars, text)])),
        milestones=(
            opened(product.name), done.on_page("open the reviews", page + "/reviews"),
            done.in_snapshot("send the review", "shop", "reviews", [product.name, stars, text]),
        ),
        moves=(
            *find(product.name), Move("click", "reviews"), Move("choose", "stars", str(stars), "forgets_option"),
            Move("type", "your review", text), Move("click", "send review", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def _new_address(random: Random, content: ShopContent) -> tuple[str, str, str]:
    labels = [label for label in vocabulary.ADDRESS_LABELS if label not in {address.label for address in content.addresses}]
    return random.choice(labels), f"{random.choice(vocabulary.STREETS)} {random.randrange(1, 100)}", random.choice(vocabulary.TOWNS)


def _enter_address(address: tuple[str, str, str]) -> tuple[Move, ...]:
    fields = [Move("type", field, text) for field, text in zip(("name", "street", "town"), address, strict=True)]
    way = [Move("click", name) for name in ("account", "address book", "add address")]
    return (*way, *fields, Move("click", "save address", habit="stops_early"))


def add_address(random: Random, content: ShopContent) -> Draft:
    address = _new_address(random, content)
    book = [*(dataclasses.astuple(known) for known in content.addresses), address]
    return Draft(
        values=dict(zip(("name", "street", "town"), address, strict=True)),
        evaluation=evaluation(shop_targets(content, addresses=book)),
        milestones=(
            done.on_page("open the address book", "__SHOP__/account/addresses"),
            done.on_page("open the form", "__SHOP__/account/addresses/new"),
            done.in_snapshot(f'save "{address[0]}"', "shop", "addresses", list(address)),
        ),
        moves=(*_enter_address(address), EXIT),
    )


def change_address(random: Random, content: ShopContent) -> Draft | None:
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
            done.in_snapshot("save the address", "shop", "addresses", list(new)),
        ),
        moves=(
            Move("click", "account"), Move("click", "address book"), Move("click", f"edit {old.label}"), Move("type", "street", street),
            Move("type", "town", town, "forgets_address"), Move("click", "save address", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def buy_to_new_address(random: Random, content: ShopContent) -> Draft | None:
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
            done.in_snapshot(f'save "{address[0]}"', "shop", "addresses", list(address)),
            opened(product.name), in_cart(purchase.lines[0]), at_checkout(purchase.lines), ordered(content, purchase),
        ),
        moves=(*_enter_address(address), *find(product.name), *fill(purchase.lines[0]), *CHECKOUT, *ship_to(address[0]), *PLACE),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, ("shop",), intent, draw)
    for draw, intent in (
        (show_sorted, 'Search for "{{product}}" and show the results sorted by "{{sort}}".'),
        (cancel_order, 'Cancel the pending order of "{{product}}".'),
        (tell_total, 'What is the total of "{{order}}" in dollars? Answer with the number.'),
        (tell_reviewer, 'Who gave "{{product}}" {{stars}} of 5 stars? Answer with the name.'),
        (write_review, 'Review "{{product}}" with {{stars}} of 5 stars and the words "{{text}}".'),
        (add_address, 'Add the address "{{name}}" with street "{{street}}" and town "{{town}}".'),
        (
            buy_to_new_address,
            'Add the address "{{name}}" with street "{{street}}" and town "{{town}}", then buy "{{product}}" and ship to it.',
        ),
        (change_address, 'Change the address "{{name}}" to street "{{street}}" and town "{{town}}".'),
    )
)
