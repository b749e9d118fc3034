"""Milestones of the shop's tasks, and the addresses of its pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from mira_arena.sites.paths import slug
from mira_arena.sites.shop.content import Line, ShopContent
from mira_arena.tasks import milestones
from mira_arena.tasks.milestones import After, Milestone
from mira_arena.tasks.shop.targets import Purchase
from mira_jax.trajectories.records import Subgoal


def _shop(after: After) -> Mapping[str, Any]:
    return after.state["shop"]


def in_cart(line: Line) -> Milestone:
    """The cart, or an order placed since, contains exactly that line."""
    wanted = [line.product, line.colour, line.size, line.quantity]
    text = f'{line.quantity} of "{line.product}"' + "".join(f' "{option}"' for option in (line.colour, line.size) if option)
    return Milestone(
        Subgoal(text=f"put {text} in the cart", check=f"cart or order holds {wanted}"),
        lambda after: wanted in _shop(after)["cart"] or any(wanted in order["lines"] for order in _shop(after)["orders"]),
    )


def not_in_cart(product: str) -> Milestone:
    """The cart is not empty and does not contain the product, or an order was placed without it."""
    return Milestone(
        Subgoal(text=f'remove "{product}" from the cart', check=f"cart or order holds no {product}"),
        lambda after: any(
            lines and all(line[0] != product for line in lines)
            for lines in (_shop(after)["cart"], *(order["lines"] for order in _shop(after)["orders"]))
        ),
    )


def coupon_applied(code: str) -> Milestone:
    return Milestone(
        Subgoal(text=f'apply coupon "{code}"', check=f"coupon of cart or order is {code}"),
        lambda after: _shop(after)["coupon"] == code or any(order["coupon"] == code for order in _shop(after)["orders"]),
    )


def at_checkout(lines: Sequence[Line], coupon: str = "") -> Milestone:
    """The checkout is open with exactly those lines and that coupon, or an order of them was placed."""
    wanted = _sorted_lines(lines)
    return Milestone(
        Subgoal(
            text="go to the checkout with the right cart",
            check=f"page is __SHOP__/checkout, cart is {wanted}, coupon is {coupon or 'none'}",
        ),
        lambda after: (
            (after.path == "__SHOP__/checkout" and sorted(_shop(after)["cart"]) == wanted and _shop(after)["coupon"] == coupon)
            or any(sorted(order["lines"]) == wanted and order["coupon"] == coupon for order in _shop(after)["orders"])
        ),
    )


def order_placed(lines: Sequence[Line], coupon: str, shipping: str, label: str) -> Milestone:
    """Exactly one order was placed, and all of its details are correct."""
    wanted = {"coupon": coupon, "shipping": shipping, "label": label}
    wanted_lines = _sorted_lines(lines)
    return Milestone(
        Subgoal(text=f'place the order: "{shipping}" shipping to "{label}"', check=f"one new order, of {wanted_lines}, {wanted}"),
        lambda after: (
            len(_shop(after)["orders"]) == 1
            and sorted(_shop(after)["orders"][0]["lines"]) == wanted_lines
            and all(_shop(after)["orders"][0][key] == value for key, value in wanted.items())
        ),
    )


def _sorted_lines(lines: Sequence[Line]) -> list[list[Any]]:
    return sorted([line.product, line.colour, line.size, line.quantity] for line in lines)


def product_page(name: str) -> str:
    return f"__SHOP__/product/{slug(name)}"


def opened(product: str) -> Milestone:
    return milestones.on_page(f'open "{product}"', product_page(product))


def ordered(content: ShopContent, purchase: Purchase) -> Milestone:
    label = purchase.address[0] if purchase.address else content.addresses[0].label
    return order_placed(purchase.lines, purchase.coupon, purchase.shipping, label)
