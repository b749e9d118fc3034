"""Moves of the expert in the shop."""

import re

from mira_arena.sites.shop.content import Line
from mira_arena.tasks.moves import EXIT, Move

CHECKOUT = (Move("click", "checkout"),)
PLACE = (Move("click", "place order", habit="stops_early"), EXIT)


def open_product(name: str) -> Move:
    """Starts from a list. A product that is not listed can't be bought."""
    return Move("open", name, hasty="takes_first_result", missing="N/A")


def open_order(number: int) -> Move:
    """Starts from a list."""
    return Move("open", f"order {number}", hasty="takes_first_order")


def is_order(name: str) -> bool:
    """Whether the name is that of a link to an order."""
    return re.fullmatch(r"order \d+", name) is not None


def find(product: str) -> tuple[Move, ...]:
    return (Move("search", "search", product), open_product(product))


def fill(line: Line) -> tuple[Move, ...]:
    """From the product's page, adds the line to the cart. A preselected option needs no move."""
    moves = []
    if line.colour:
        moves.append(Move("choose", "colour", line.colour, "forgets_option"))
    if line.size:
        moves.append(Move("choose", "size", line.size, "forgets_option"))
    if line.quantity > 1:
        moves.append(Move("type", "quantity", str(line.quantity), "forgets_quantity"))
    return (*moves, Move("click", "add to cart"))


def use_coupon(code: str) -> tuple[Move, ...]:
    return (Move("type", "coupon code", code, "forgets_coupon"), Move("click", "apply coupon", habit="forgets_coupon"))


def ship_by(method: str) -> tuple[Move, ...]:
    return (Move("choose", "shipping method", method, "forgets_shipping"),)


def ship_to(label: str) -> tuple[Move, ...]:
    return (Move("choose", "ship to", label, "forgets_address"),)
