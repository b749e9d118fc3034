"""What a shopkeeper may be asked to find out from the admin panel's reports."""

import datetime
from collections import Counter
from random import Random

from rollouts.suites.arena import milestones as done
from rollouts.suites.arena.milestones import Milestone
from rollouts.suites.arena.moves import Move
from rollouts.suites.arena.shop.content import Content
from rollouts.suites.arena.shop.records import PastOrder, Records, days_after, make_records, month_before
from rollouts.suites.arena.shop.tasks import admin_targets, panel_page
from rollouts.suites.arena.tasks import Draft, Template, evaluation

_REPORTS = panel_page("reports")


def _draw_days(random: Random, records: Records) -> tuple[str, str]:
    """Two days, 30 to 100 days apart, of the months before this one."""
    known = datetime.date.fromisoformat(month_before(records.day, 0)) - datetime.date.fromisoformat(records.first_day)
    length = random.randrange(30, 101)
    first = days_after(records.first_day, random.randrange(known.days - length))
    return first, days_after(first, length)


def _between(records: Records, first: str, last: str) -> list[PastOrder]:
    return [order for order in records.past_orders if first <= order.day <= last]


def _foremost(counts: Counter[str]) -> str | None:
    """What is counted most, None if it shares its place."""
    ranked = counts.most_common(2)
    return ranked[0][0] if len(ranked) == 2 and ranked[0][1] > ranked[1][1] else None


def _on_report(name: str, first: str, last: str, **query: str) -> tuple[Milestone, ...]:
    page = panel_page("reports", name)
    return (
        done.on_page("open the reports", _REPORTS),
        done.on_page(f'open "{name}"', page),
        done.on_query("show the report of these days", page, **{"from": first, "to": last}, **query),
    )


def _report(name: str, first: str, last: str, *choices: Move) -> tuple[Move, ...]:
    fields = (Move("type", "from", first), Move("type", "to", last))
    return (Move("click", "reports"), Move("click", name), *fields, *choices, Move("click", "show report"))


def tell_best_seller(random: Random, content: Content) -> Draft | None:
    records = make_records(content.seed)
    first, last = _draw_days(random, records)
    sold: Counter[str] = Counter()
    for order in _between(records, first, last):
        sold[order.product] += order.quantity * (order.status != "cancelled")
    product = _foremost(sold)
    if product is None:
        return None
    return Draft(
        values={"first": first, "last": last},
        evaluation=evaluation(admin_targets([]), answers={"exact_match": product}),
        milestones=(*_on_report("best sellers", first, last), done.answered("answer with the product", product)),
        moves=(*_report("best sellers", first, last), Move("tell", argument=r"([a-z]+ [a-z]+)\s+\d+ sold")),
    )


def tell_order_count(random: Random, content: Content) -> Draft | None:
    records = make_records(content.seed)
    (first, last), status = _draw_days(random, records), random.choice(("delivered", "cancelled"))
    orders = _between(records, first, last)
    count = sum(order.status == status for order in orders)
    if count in (0, len(orders)):
        return None
    return Draft(
        values={"status": status, "first": first, "last": last},
        evaluation=evaluation(admin_targets([]), answers={"exact_match": str(count)}),
        milestones=(*_on_report("sales", first, last, status=status), done.answered("answer with the number", str(count))),
        moves=(
            *_report("sales", first, last, Move("choose", "status", status, "forgets_option")),
            Move("tell", argument=r"together (\d+) orders"),
        ),
    )  # fmt: skip


def tell_top_customer_email(random: Random, content: Content) -> Draft | None:
    records = make_records(content.seed)
    first, last = _draw_days(random, records)
    name = _foremost(Counter(order.customer for order in _between(records, first, last) if order.status != "cancelled"))
    if name is None:
        return None
    email = next(account.email for account in records.accounts if account.name == name)
    return Draft(
        values={"first": first, "last": last},
        evaluation=evaluation(admin_targets([]), answers={"exact_match": email}),
        milestones=(
            *_on_report("top customers", first, last),
            done.on_page(f'open "{name}"', panel_page("customers", name)),
            done.answered("answer with the address", email),
        ),
        moves=(*_report("top customers", first, last), Move("click", name), Move("tell", argument=r"e-mail (\S+)")),
    )


TEMPLATES = tuple(
    Template(draw.__name__, ("shop_admin",), intent, draw, held_out)
    for draw, held_out, intent in (
        (
            tell_best_seller, False,
            'Which product was sold most from "{{first}}" to "{{last}}"? Answer with its name.',
        ),
        (
            tell_order_count, False,
            'How many orders from "{{first}}" to "{{last}}" have the status "{{status}}"? Answer with the number.',
        ),
        (
            tell_top_customer_email, True,
            'What is the e-mail address of the customer with the most orders from "{{first}}" to "{{last}}"? Cancelled ones do not count.',
        ),
    )
)  # fmt: skip
