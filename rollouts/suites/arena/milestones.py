"""What tells that a part of a task is done: tests of the shop's snapshot and of the page after a step."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from mira_jax.trajectories.records import Page, Subgoal, Trajectory
from rollouts.suites.arena.content import Line
from rollouts.suites.evaluators import clean


@dataclasses.dataclass(frozen=True)
class After:
    """What is known after a step."""

    state: dict[str, Any]
    """See `ShopState.snapshot`."""
    path: str
    """The page's address with placeholder, without query."""
    query: dict[str, str]
    answer: str | None
    """The message, if the step was exit()."""


Test = Callable[[After], bool]


@dataclasses.dataclass(frozen=True)
class Milestone:
    subgoal: Subgoal
    test: Test


def reached(milestones: Sequence[Milestone], trajectory: Trajectory) -> list[tuple[bool, ...]]:
    """For each step, whether each milestone has been reached by the end of that step. What is once reached stays so.

    The page after a step is the page before the next one, or the last page.
    """
    pages: list[Page | None] = [step.page for step in trajectory.steps[1:]] + [trajectory.evidence.page]
    done, table = [False] * len(milestones), []
    for step, page in zip(trajectory.steps, pages, strict=False):
        if step.state is not None:
            answer = (step.action.argument or "") if step.action and step.action.name == "exit" else None
            after = After(step.state, *_split(page.url if page else ""), answer)
            done = [before or milestone.test(after) for before, milestone in zip(done, milestones, strict=True)]
        table.append(tuple(done))
    return table


def _split(url: str) -> tuple[str, dict[str, str]]:
    path, _, query = url.split("#")[0].partition("?")
    return path.rstrip("/"), dict(parse_qsl(query))


def on_page(text: str, *urls: str) -> Milestone:
    """One of the pages is open. `urls` have placeholders and no query."""
    places = {url.rstrip("/") for url in urls}
    return Milestone(Subgoal(text=text, check="page is " + " or ".join(urls)), lambda after: after.path in places)


def on_query(text: str, url: str, **query: str) -> Milestone:
    """The page is open, and its query has these values."""
    return Milestone(
        Subgoal(text=text, check=f"page is {url} with {query}"),
        lambda after: after.path == url and all(after.query.get(key) == value for key, value in query.items()),
    )


def answered(text: str, answer: str) -> Milestone:
    return Milestone(
        Subgoal(text=text, check=f"exit with {answer!r}"), lambda after: after.answer is not None and clean(after.answer) == clean(answer)
    )


def in_cart(line: Line) -> Milestone:
    """The cart, or an order placed since, holds exactly that line."""
    wanted = [line.product, line.colour, line.size, line.quantity]
    text = f'{line.quantity} of "{line.product}"' + "".join(f' "{option}"' for option in (line.colour, line.size) if option)
    return Milestone(
        Subgoal(text=f"put {text} in the cart", check=f"cart or order holds {wanted}"),
        lambda after: wanted in after.state["cart"] or any(wanted in order["lines"] for order in after.state["orders"]),
    )


def not_in_cart(product: str) -> Milestone:
    """The cart is not empty, and has no such product; or an order was placed without it."""
    return Milestone(
        Subgoal(text=f'remove "{product}" from the cart', check=f"cart or order holds no {product}"),
        lambda after: any(
            lines and all(line[0] != product for line in lines)
            for lines in (after.state["cart"], *(order["lines"] for order in after.state["orders"]))
        ),
    )


def coupon_applied(code: str) -> Milestone:
    return Milestone(
        Subgoal(text=f'apply coupon "{code}"', check=f"coupon of cart or order is {code}"),
        lambda after: after.state["coupon"] == code or any(order["coupon"] == code for order in after.state["orders"]),
    )


def at_checkout(lines: Sequence[Line], coupon: str = "") -> Milestone:
    """The checkout is open, with exactly those lines and that coupon; or an order of them is placed."""
    wanted = _sorted_lines(lines)
    return Milestone(
        Subgoal(
            text="go to the checkout with the right cart",
            check=f"page is __SHOP__/checkout, cart is {wanted}, coupon is {coupon or 'none'}",
        ),
        lambda after: (
            (after.path == "__SHOP__/checkout" and sorted(after.state["cart"]) == wanted and after.state["coupon"] == coupon)
            or any(sorted(order["lines"]) == wanted and order["coupon"] == coupon for order in after.state["orders"])
        ),
    )


def ordered(lines: Sequence[Line], coupon: str, shipping: str, label: str) -> Milestone:
    """One order was placed, and it is exactly right."""
    wanted = {"coupon": coupon, "shipping": shipping, "label": label}
    wanted_lines = _sorted_lines(lines)
    return Milestone(
        Subgoal(text=f'place the order: "{shipping}" shipping to "{label}"', check=f"one new order, of {wanted_lines}, {wanted}"),
        lambda after: (
            len(after.state["orders"]) == 1
            and sorted(after.state["orders"][0]["lines"]) == wanted_lines
            and all(after.state["orders"][0][key] == value for key, value in wanted.items())
        ),
    )


def in_snapshot(text: str, key: str, value: Any) -> Milestone:
    """`value` is in the snapshot's list `key`."""
    return Milestone(Subgoal(text=text, check=f"{key} holds {value}"), lambda after: value in after.state[key])


def exactly(text: str, key: str, value: Any) -> Milestone:
    """The snapshot's `key` is `value`."""
    return Milestone(Subgoal(text=text, check=f"{key} is {value}"), lambda after: after.state[key] == value)


def _sorted_lines(lines: Sequence[Line]) -> list[list[Any]]:
    return sorted([line.product, line.colour, line.size, line.quantity] for line in lines)
