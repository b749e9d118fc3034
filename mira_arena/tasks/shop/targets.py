"""Evaluation of the shop's tasks: the expected contents of the customer's pages at the end."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mira_arena.sites.shop.content import Line, ShopContent
from mira_arena.tasks.evaluations import html_target


@dataclasses.dataclass(frozen=True)
class Purchase:
    """An expected order."""

    lines: tuple[Line, ...]
    coupon: str = ""
    shipping: str = "standard"
    address: tuple[str, str, str] | None = None
    """(label, street, town). None: the customer's first address."""


def shop_targets(
    content: ShopContent,
    purchase: Purchase | None = None,
    addresses: Sequence[tuple[str, str, str]] | None = None,
    cancelled: Sequence[int] = (),
    reviews: Sequence[tuple[str, int, str]] = (),
) -> list[dict[str, Any]]:
    """The expected contents of the customer's pages at the end. What is not given must be in its initial state.

    Args:
        purchase: the one new order.
        addresses: the complete address book, if it must differ.
        cancelled: numbers of orders.
        reviews: product, stars and text of each review by the customer.
    """
    if addresses is None:
        addresses = [dataclasses.astuple(address) for address in content.addresses]
    listed = [(order.number, order.lines, "cancelled" if order.number in cancelled else order.status) for order in content.own_orders]
    if purchase:
        listed.append((content.orders[-1].number + 1, purchase.lines, "pending"))
    orders = [f"order {number} {', '.join(sorted(line.product for line in lines))} {status}" for number, lines, status in reversed(listed)]
    said = [f"{product} {stars} stars {text}" for product, stars, text in reviews] or ["none yet"]
    targets = [
        html_target("__SHOP__/account/orders", "#orders", " ".join(orders)),
        html_target("__SHOP__/account/addresses", ".what", " | ".join(", ".join(address) for address in addresses)),
        html_target("__SHOP__/account/reviews", "#reviews", " ".join(said)),
    ]
    if purchase:
        lines = sorted(purchase.lines, key=lambda line: (line.product, line.colour, line.size))
        written = [" ".join(filter(None, (str(line.quantity), line.product, line.colour, line.size))) for line in lines]
        latest = "__SHOP__/account/orders/latest"
        targets += [
            html_target(latest, ".line", " | ".join(written)),
            html_target(latest, "#coupon", purchase.coupon),
            html_target(latest, "#shipping", purchase.shipping),
            html_target(latest, "#address", ", ".join(purchase.address or addresses[0])),
        ]
    return targets
