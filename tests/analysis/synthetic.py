"""Evaluations, side tables and runs written through the contract, as a real phase would leave them."""

import json
import math
import random
import struct
import zlib
from pathlib import Path

from msgspec.structs import replace

from mira_jax.trajectories import diagnostics
from mira_jax.trajectories.diagnostics import Diagnostics, Distribution
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import (
    Action,
    Evidence,
    Outcome,
    Page,
    Policy,
    Seconds,
    Status,
    Step,
    Subgoal,
    Task,
    TokenCounts,
    Trajectory,
)
from mira_jax.trajectories.shards import ShardReader, Spool, pack
from mira_jax.trajectories.side_tables import Provenance, SideTable

CRITIC = Provenance(
    columns=("value", "potential"), checkpoint="runs/critic@9", fingerprint="c", prompt=PromptConfig(), tokenizer="t",
    dtype="float32", param_dtype="float32", precision="highest",
)  # fmt: skip
TEMPLATES = (
    "buy_cheapest_in_category",
    "buy_with_coupon",
    "buy_two_products",
    "change_delivery_address",
    "cancel_last_order",
    "review_a_product",
    "count_orders_over_price",
    "find_best_rated",
    "restock_product",
    "set_price",
    "ship_oldest_order",
    "reorder_past_purchase",
    "buy_on_sale",
    "buy_unknown_product",
)
SUBGOALS = (
    ('the product page of "blue lamp" is open', "url"),
    ('two of "blue lamp" are in the cart', "cart"),
    ('the coupon "spring" is applied', "cart"),
    ("the order is placed with express shipping", "order"),
)
PAGES = (
    '<a id="home"> home </a> <a id="lighting"> lighting </a>\n<input id="search box" value="">\n<button id="search"> search </button>',
    '<h1> lighting </h1>\n<a id="blue lamp"> 12.50 </a> in stock, rated 4.5\n<a id="red lamp"> 10.90 </a> in stock, rated 3.9\n'
    '<a id="desk lamp"> 31.00 </a> out of stock\n<select id="sort by"> price | name | rating </select>\n<a id="next page"> 2 of 3 </a>',
    '<h1> blue lamp </h1> 12.50\n<select id="quantity"> 1 | 2 | 3 </select>\n<button id="add to cart"> add to cart </button>\n'
    "A lamp with a shade of blue linen. Reviews: 12.\nships in 2 days",
    '<h1> cart </h1>\nblue lamp, 2 at 12.50 = 25.00\n<input id="coupon" value="">\n<button id="apply"> apply </button>\n'
    '<button id="checkout"> checkout </button>',
)
RESPONSES = (
    ("Click", None, "lighting"),
    ("Click", None, "blue lamp"),
    ("Select Dropdown Option", "2", "quantity"),
    ("Click", None, "add to cart"),
    ("Type", "spring", "coupon"),
    ("Click", None, "apply"),
    ("Click", None, "checkout"),
    ("Click", None, "place order"),
)
DONE_AFTER = (2, 4, 6, 8)
"""Steps after which an expert has done each subgoal."""


__all__ = ["PAGES", "evaluation", "png", "replace", "task", "trajectory", "write_evaluation", "write_run", "write_scores"]


def task(template, number, horizon=14):
    return Task(
        id=f"shop.{template}.test.{number}",
        suite="shop",
        sites=("shop",),
        template=template,
        split="test",
        seed=number,
        intent='Buy 2 of "blue lamp" with the coupon "spring" and express shipping',
        start_url="__SHOP__/",
        horizon=horizon,
    )


def trajectory(of, method, moves, status, success, screenshots=False, **changes):
    """An episode that does the expert's first `moves` steps; past them it clicks `next page`."""
    steps = []
    for index in range(moves):
        name, argument, element = RESPONSES[index] if index < len(RESPONSES) else ("Click", None, "next page")
        call = f'do(action="{name}", ' + (f'argument="{argument}", ' if argument else "") + f'element="{element}")'
        steps.append(
            Step(
                index=index,
                page=Page(
                    url=f"__SHOP__/page/{index}",
                    observation=PAGES[index % len(PAGES)],
                    screenshot=changes.get("picture") if screenshots else None,
                ),
                response=("# Note: the cart has what was asked for\n" if index == 5 else "") + call,
                action=Action(name=name, argument=argument, element=element),
                error='no element "apply" on this page' if index == 5 and not success else None,
                milestones=tuple(index + 1 >= done for done in DONE_AFTER),
                log_prob=-0.4 - 0.1 * index,
                tokens=TokenCounts(prompt=210 + 12 * index, response=11),
                seconds=Seconds(browser=0.06, policy=0.18),
            )
        )
    infra = status is Status.INFRA_ERROR
    return Trajectory(
        id=f"{method}-{of.id}",
        task=of,
        policy=Policy(name=method, checkpoint=f"runs/{method}", prompt_version="compact"),
        subgoals=tuple(Subgoal(text=text, check=check) for text, check in SUBGOALS),
        steps=tuple(steps),
        status=status,
        evidence=Evidence(answer="done" if status is Status.FINISHED else None),
        outcome=None
        if infra
        else Outcome(success=success, score=float(success), source="rule", detail="" if success else "program_html: 0 of 2"),
        error="the browser closed" if infra else "",
        created="2026-11-20T10:00:00+00:00",
    )


def write_evaluation(folder, trajectories):
    spool = Spool(folder / "labelled")
    for one in trajectories:
        spool.add(one)
    pack(folder / "labelled")
    return folder


def evaluation(method, skill, count, seed, screenshots=False, picture=None):
    """`count` episodes spread over the templates, solved with chance `skill`, failing in every way there is."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        template = TEMPLATES[number % len(TEMPLATES)]
        ease = 0.25 * math.cos(number % len(TEMPLATES))
        of = task(template, number)
        if number == 40:
            made.append(trajectory(of, method, 3, Status.INFRA_ERROR, False))
        elif chance.random() < skill + ease:
            made.append(trajectory(of, method, 8, Status.FINISHED, True, screenshots, picture=picture))
        else:
            status, moves = chance.choice(
                [(Status.FINISHED, 5), (Status.FINISHED, 6), (Status.STUCK, 12), (Status.HORIZON, 7), (Status.PARSE_FAILURES, 2)]
            )
            made.append(trajectory(of, method, moves, status, False, screenshots, picture=picture))
    return made


def write_scores(path, trajectories, folder):
    """V rises to the outcome, P to the share of milestones."""
    rows = [(one.id, step.index, one.success, len(one.steps)) for one in trajectories for step in one.steps]
    SideTable(
        [row[0] for row in rows],
        [row[1] for row in rows],
        {
            "value": [0.4 + (0.4 if row[2] else -0.3) * (row[1] + 1) / row[3] for row in rows],
            "potential": [0.9 * min(1, (row[1] + 1) / 9) for row in rows],
        },
        made_by=[CRITIC],
        shards=ShardReader(folder).sha256,
    ).write(path)
    return path


def write_run(folder, steps=400, level=2.0):
    folder.mkdir(parents=True)
    chance = random.Random(steps)
    with open(folder / "metrics.jsonl", "w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            row = {
                "step": step,
                "loss": level * math.exp(-step / 120) + 0.15 + 0.06 * chance.random(),
                "gradient_norm": 1.5 / math.sqrt(step) + 0.2 * chance.random(),
                "holdout/loss": level * math.exp(-step / 100) + 0.3 if step % 50 == 0 else None,
                "learning_rate": 1e-3 * min(1, step / 40) * (0.5 + 0.5 * math.cos(math.pi * step / steps)),
                "tokens_per_second": 7400 + 600 * chance.random(),
            }
            file.write(json.dumps(row) + "\n")
    return folder


def png(width=8, height=8):
    """A valid image that is not a JPEG."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x80" * width for _ in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def write_diagnostics(folder: str | Path) -> Diagnostics:
    """Diagnostics of a run of 150 updates, without a distribution by sign, and without a step of a success."""
    edges = [-1.0, 0.0, 1.0, 2.0]
    none = Distribution(steps=0, mean=None, quantiles=None, edges=edges, counts=[0, 0, 0])
    some = Distribution(steps=10, mean=0.4, quantiles=[-0.5, 0.0, 0.4, 0.8, 1.4], edges=edges, counts=[2, 6, 2])
    rows = {"successes": none, "failures": some}
    found = Diagnostics(update=150, steps=10, kl=0.1, entropy=0.2, reference_entropy=0.3, log_ratio=rows, advantage=rows, room=0.5)
    diagnostics.write(folder, found)
    return found
