"""Random draws shared by templates of the shop."""

from collections.abc import Sequence
from random import Random
from typing import Any

from mira_arena.sites.shop.content import Order, ShopContent


def pick(random: Random, content: ShopContent, colours: bool = False, sizes: bool = False, other_than: str = "") -> Any:
    """Draws a product that has exactly these kinds of options. None if there is none."""
    found = [p for p in content.products if bool(p.colours) == colours and bool(p.sizes) == sizes and p.name != other_than]
    return random.choice(found) if found else None


def pending(orders: Sequence[Order]) -> list[Order]:
    return [order for order in orders if order.status == "pending"]
