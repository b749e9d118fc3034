"""Task templates and their instances: what is asked, how it is judged, what leads to it."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Task
from rollouts.suites.arena import milestones
from rollouts.suites.arena.content import Content, Line, Order, make_content
from rollouts.suites.arena.milestones import Milestone
from rollouts.suites.arena.moves import Move
from rollouts.suites.arena.site import slug
from rollouts.suites.base import FIRST_SEED, SPLITS, take_turns

SUITE = "arena"
MAX_HORIZON = 30
PLACEHOLDERS = {"shop": "__SHOP__", "shop_admin": "__SHOP_ADMIN__"}
"""Site to placeholder."""

_SEEDS_PER_INSTANCE = 64
_DRAWS_PER_SEED = 32
_TASK_ID = re.compile(r"shop\.(?P<template>[a-z_]+)\.(?P<split>[a-z]+)\.(?P<number>0|[1-9][0-9]{0,11})")
_SPLIT_OF_TENTH = ("test", "test", "validation", *["train"] * 7)


@dataclasses.dataclass(frozen=True)
class Draft:
    """What a template draws for one instance."""

    values: dict[str, Any]
    """Fills the intent."""
    evaluation: dict[str, Any]
    """WebArena's `eval` object."""
    milestones: tuple[Milestone, ...]
    """3 to 6, in the order in which the expert reaches them."""
    moves: tuple[Move, ...]
    """What the expert does."""
    cart: tuple[Line, ...] = ()
    """What is in the cart when the episode begins."""
    signed_in: bool = True
    intent: str = ""
    """In place of the template's, if an instance needs another wording."""


@dataclasses.dataclass(frozen=True)
class Template:
    name: str
    site: str
    """shop or shop_admin."""
    intent: str
    """With `{{value}}` where an instance has a value."""
    draw: Callable[[Random, Content], Draft | None]
    """An instance in a shop of that content; None if this draw came to nothing."""


@dataclasses.dataclass(frozen=True)
class Instance:
    task: Task
    draft: Draft
    number: int
    template: Template

    def webarena(self) -> dict[str, Any]:
        """The task in WebArena's JSON form."""
        return {
            "sites": list(self.task.sites),
            "task_id": self.task.id,
            "require_login": self.draft.signed_in,
            "storage_state": None,
            "start_url": self.task.start_url,
            "geolocation": None,
            "intent_template": self.template.intent,
            "instantiation_dict": self.draft.values,
            "intent": self.task.intent,
            "require_reset": True,
            "eval": self.draft.evaluation,
            "intent_template_id": list(templates()).index(self.template.name),
        }


@functools.cache
def templates() -> dict[str, Template]:
    """Every template, by name."""
    from rollouts.suites.arena import account_templates, admin_templates, buying_templates

    modules = (buying_templates, account_templates, admin_templates)
    return {template.name: template for module in modules for template in module.TEMPLATES}


def task_id(template: str, split: str, number: int) -> str:
    return f"shop.{template}.{split}.{number}"


def instances(split: str, names: Sequence[str] | None, count: int, seed: int) -> list[Instance]:
    """`count` instances, the templates taking turns. Raises UserError for an unknown split or template."""
    drawn = take_turns(list(templates()), names, split, count, seed)
    return [instance(task_id(name, split, number)) for name, number in drawn]


@functools.lru_cache(maxsize=4096)
def instance(identity: str) -> Instance:
    """The instance of a task id, always the same. Raises UserError if there is none.

    Its seed is in a range of its split's own. Draws whose (template, values) hash to another split are passed over,
    so no two splits share an instance, even of the fewest values.
    """
    match = _TASK_ID.fullmatch(identity)
    if not match or match["template"] not in templates() or match["split"] not in SPLITS:
        raise UserError(f"task: no task {identity!r} in the arena")
    template, split, number = templates()[match["template"]], match["split"], int(match["number"])
    random = Random(f"{template.name} {split} {number}")
    for shift in range(_SEEDS_PER_INSTANCE):
        seed = FIRST_SEED[split] + number * _SEEDS_PER_INSTANCE + shift
        content = make_content(seed)
        for _ in range(_DRAWS_PER_SEED):
            draft = template.draw(random, content)
            if draft and split_of(template.name, draft.values) == split:
                return _instance(identity, template, split, number, seed, draft)
    raise RuntimeError(f"{identity}: no draw of the template belongs to the split")


def split_of(template: str, values: dict[str, Any]) -> str:
    """The split that an instance with these values belongs to: 2 in 10 to test, 1 in 10 to validation."""
    digest = hashlib.sha256(json.dumps([template, values], sort_keys=True).encode()).digest()
    return _SPLIT_OF_TENTH[int.from_bytes(digest[:4], "big") % 10]


def _instance(identity: str, template: Template, split: str, number: int, seed: int, draft: Draft) -> Instance:
    intent = draft.intent or template.intent
    for key, value in draft.values.items():
        intent = intent.replace("{{" + key + "}}", str(value))
    task = Task(
        id=identity,
        suite=SUITE,
        sites=(template.site,),
        template=template.name,
        split=split,
        seed=seed,
        intent=intent,
        start_url=PLACEHOLDERS[template.site] + "/",
        horizon=min(MAX_HORIZON, len(draft.moves) * 3 // 2 + 4),
    )
    return Instance(task, draft, number, template)


# Evaluations. A task is judged on the whole of what it could have changed, so that whatever was done beside it counts as a failure.


def html_target(url: str, locator: str, text: str) -> dict[str, Any]:
    """A `program_html` target: that part of that page must read exactly `text`."""
    return {"url": url, "locator": locator, "required_contents": {"exact_match": text}}


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


def evaluation(targets: Sequence[dict[str, Any]], answers: dict[str, Any] | None = None, url: str | None = None) -> dict[str, Any]:
    """WebArena's `eval` object: the targets, and an answer or a last page if they are given."""
    kinds = ["string_match"] * (answers is not None) + ["url_match"] * (url is not None) + ["program_html"]
    return {
        "eval_types": kinds,
        "reference_answers": answers,
        "reference_url": url or "",
        "program_html": list(targets),
        "string_note": "",
        "url_note": "EXACT" if url else "",
    }


# Draws that several templates make.


def pick(random: Random, content: Content, colours: bool = False, sizes: bool = False, other_than: str = "") -> Any:
    """A product with exactly these options, or None."""
    found = [p for p in content.products if bool(p.colours) == colours and bool(p.sizes) == sizes and p.name != other_than]
    return random.choice(found) if found else None


def pending(orders: Sequence[Order]) -> list[Order]:
    return [order for order in orders if order.status == "pending"]


def product_page(name: str) -> str:
    return f"__SHOP__/product/{slug(name)}"


def opened(product: str) -> Milestone:
    return milestones.on_page(f'open "{product}"', product_page(product))


def ordered(content: Content, purchase: Purchase) -> Milestone:
    label = purchase.address[0] if purchase.address else content.addresses[0].label
    return milestones.ordered(purchase.lines, purchase.coupon, purchase.shipping, label)
