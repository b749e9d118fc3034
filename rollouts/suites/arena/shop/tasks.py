"""How the shop's tasks are judged, and the draws that several of its templates make."""

import dataclasses
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from rollouts.suites.arena import milestones
from rollouts.suites.arena.app import slug
from rollouts.suites.arena.facts import change
from rollouts.suites.arena.milestones import Milestone
from rollouts.suites.arena.shop.content import Content, Line, Order
from rollouts.suites.arena.shop.milestones import order_placed
from rollouts.suites.arena.tasks import html_target


@dataclasses.dataclass(frozen=True)
class Purchase:
    """An order as it must be."""

    lines: tuple[Line, ...]
    coupon: str = ""
    shipping: str = "standard"
    address: tuple[str, str, str] | None = None
    """Label, street, town. None is the customer's first."""


def shop_targets(
    content: Content,
    purchase: Purchase | None = None,
    addresses: Sequence[tuple[str, str, str]] | None = None,
    cancelled: Sequence[int] = (),
    reviews: Sequence[tuple[str, int, str]] = (),
) -> list[dict[str, Any]]:
    """What the customer's pages must read at the end: as in the beginning, but for what is given.

    Args:
        purchase: the one new order.
        addresses: the whole address book, if it must differ.
        cancelled: numbers of orders.
        reviews: product, stars and text of each of the customer's.
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


def admin_targets(changes: Sequence[str]) -> list[dict[str, Any]]:
    """What the admin panel's list of changes must read, in its order: `NAME price 5`, `NAME stock 7`, then `order 104 packed`."""
    return [html_target("__SHOP_ADMIN__/changes", "#changes", " ".join(changes) or "none yet")]


def panel_changes(changes: Sequence[str] = (), facts: Mapping[str, str] | None = None) -> list[str]:
    """The admin panel's whole list of changes.

    Args:
        changes: what `ShopState.changes` says, in its order.
        facts: what else differs from the morning, by name (see `BackOffice.facts`).
    """
    return [*changes, *(change(key, value) for key, value in sorted((facts or {}).items()))]


# Draws that several templates make.


def pick(random: Random, content: Content, colours: bool = False, sizes: bool = False, other_than: str = "") -> Any:
    """A product with exactly these options, or None."""
    found = [p for p in content.products if bool(p.colours) == colours and bool(p.sizes) == sizes and p.name != other_than]
    return random.choice(found) if found else None


def pending(orders: Sequence[Order]) -> list[Order]:
    return [order for order in orders if order.status == "pending"]


def product_page(name: str) -> str:
    return f"__SHOP__/product/{slug(name)}"


def panel_page(section: str, *names: object) -> str:
    """A page of the admin panel: `panel_page("orders", 104)`."""
    return "/".join(["__SHOP_ADMIN__", section, *(slug(str(name)) for name in names)])


def opened(product: str) -> Milestone:
    return milestones.on_page(f'open "{product}"', product_page(product))


def ordered(content: Content, purchase: Purchase) -> Milestone:
    label = purchase.address[0] if purchase.address else content.addresses[0].label
    return order_placed(purchase.lines, purchase.coupon, purchase.shipping, label)
