"""What the expert does, in the terms of a page: the moves that make up a task."""

import dataclasses

from rollouts.suites.arena.content import Line


@dataclasses.dataclass(frozen=True)
class Move:
    """One thing the expert does. A bad habit named here, if it was drawn, makes the expert leave the move out."""

    kind: str
    """search, open, open_order, click, choose, type, exit, or tell: exit with what the pattern `argument` finds on the page."""
    element: str = ""
    """The name of the element, as in its handle."""
    argument: str = ""
    habit: str = ""


EXIT = Move("exit", argument="done")
CHECKOUT = (Move("click", "checkout"),)
PLACE = (Move("click", "place order", habit="stops_early"), EXIT)


def find(product: str) -> tuple[Move, ...]:
    return (Move("search", "search", product), Move("open", product))


def fill(line: Line) -> tuple[Move, ...]:
    """From the product's page to the cart. The option that a page selects by itself needs no move."""
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
