"""Questions to be answered from the admin panel's reports."""

import datetime
from collections import Counter
from random import Random

from mira_arena.sites.shop.admin_content import AdminContent, PastOrder, days_after, make_admin_content, month_before
from mira_arena.sites.shop.content import ShopContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.milestones import Milestone
from mira_arena.tasks.moves import Move
from mira_arena.tasks.shop_admin.targets import admin_targets, panel_page
from mira_arena.tasks.templates import Draft, Template

_REPORTS = panel_page("reports")


def _draw_days(random: Random, admin: AdminContent) -> tuple[str, str]:
    """Two days, 30 to 100 days apart, in the months before this one."""
    known = datetime.date.fromisoformat(month_before(admin.day, 0)) - datetime.date.fromisoformat(admin.first_day)
    length = random.randrange(30, 101)
    first = days_after(admin.first_day, random.randrange(known.days - length))
    return first, days_after(first, length)


def _between(admin: AdminContent, first: str, last: str) -> list[PastOrder]:
    return [order for order in admin.past_orders if first <= order.day <= last]


def _foremost(counts: Counter[str]) -> str | None:
    """The most frequent item. None if there is a tie."""
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


def tell_best_seller(random: Random, content: ShopContent) -> Draft | None:
    admin = make_admin_content(content.seed)
    first, last = _draw_days(random, admin)
    sold: Counter[str] = Counter()
    for order in _between(admin, first, last):
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


def tell_order_count(random: Random, content: ShopContent) -> Draft | None:
    admin = make_admin_content(content.seed)
    (first, last), status = _draw_days(random, admin), random.choice(("delivered", "cancelled"))
    orders = _between(admin, first, last)
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


def tell_top_customer_email(random: Random, content: ShopContent) -> Draft | None:
    admin = make_admin_content(content.seed)
    first, last = _draw_days(random, admin)
    name = _foremost(Counter(order.customer for order in _between(admin, first, last) if order.status != "cancelled"))
    if name is None:
        return None
    email = next(account.email for account in admin.accounts if account.name == name)
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
