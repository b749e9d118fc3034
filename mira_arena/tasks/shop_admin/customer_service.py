"""Tasks for shopkeepers in customer service: reviews, shipments, cancellations."""

from random import Random

from mira_arena.sites.facts import change
from mira_arena.sites.shop import vocabulary
from mira_arena.sites.shop.admin_content import PendingReview, make_admin_content
from mira_arena.sites.shop.content import ShopContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.shop.draws import pending
from mira_arena.tasks.shop.moves import open_order
from mira_arena.tasks.shop_admin.targets import admin_targets, panel_changes, panel_page
from mira_arena.tasks.templates import Draft, Template

_APPROVE = Move("click", "approve review")
_DELETE = Move("click", "delete review", habit="forgets_removal")


def _said(review: PendingReview, status: str) -> str:
    return f"review {review.number} status: {status}"


def moderate_reviews(random: Random, content: ShopContent) -> Draft | None:
    reviews, stars = make_admin_content(content.seed).reviews[::-1], random.randrange(2, 6)
    title, text = random.choice(list(vocabulary.INFO_PAGES)), random.choice(vocabulary.PAGE_TEXTS)
    judged = {review: "approved" if review.stars >= stars else "deleted" for review in reviews}
    if len({*judged.values()}) == 1:
        return None
    changes = [_said(review, status) for review, status in judged.items()]
    end = sorted([change(f"page {title} text", text), *changes])
    moves = [Move("click", "reviews"), Move("click", "pending")]
    for review, status in judged.items():
        moves += [Move("open", f"review {review.number}"), _APPROVE if status == "approved" else _DELETE]
    return Draft(
        values={"stars": stars, "title": title, "text": text},
        evaluation=evaluation(admin_targets(end)),
        milestones=(
            done.on_page("open the reviews", panel_page("reviews")),
            done.on_query("show the pending ones", panel_page("reviews"), status="pending"),
            *(done.in_snapshot(f"judge review {reviews[i].number}", "shop", "changes", changes[i]) for i in (0, 3, 6, 9)),
            done.on_page(f'open "{title}"', panel_page("pages", title)),
            done.exactly("save the page", "shop", "changes", end),
        ),
        moves=(
            *moves, Move("click", "pages"), Move("click", title), Move("type", "text", text),
            Move("click", "save page", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def judge_two_reviewers(random: Random, content: ShopContent) -> Draft:
    reviews = make_admin_content(content.seed).reviews[::-1]
    authors = [review.author for review in reviews]
    deleted = max(authors, key=authors.count)
    approved = random.choice([author for author in authors if author != deleted])
    judged = [(review, "deleted") for review in reviews if review.author == deleted]
    judged += [(review, "approved") for review in reviews if review.author == approved]
    changes = [_said(review, status) for review, status in judged]
    moves = [Move("click", "reviews"), Move("click", "pending")]
    for review, status in judged:
        moves += [
            Move("search", "search", review.author), Move("open", f"review {review.number}"), _APPROVE if status == "approved" else _DELETE,
        ]  # fmt: skip
    page = panel_page("reviews")
    return Draft(
        values={"deleted": deleted, "approved": approved},
        evaluation=evaluation(admin_targets(sorted(changes))),
        milestones=(
            done.on_query("show the pending reviews", page, status="pending"),
            done.on_query(f'search for "{deleted}"', page, q=deleted),
            done.in_snapshot(f"delete review {judged[0][0].number}", "shop", "changes", changes[0]),
            done.in_snapshot(f"delete review {judged[2][0].number}", "shop", "changes", changes[2]),
            done.on_query(f'search for "{approved}"', page, q=approved),
            done.exactly(f"approve review {judged[3][0].number}", "shop", "changes", sorted(changes)),
        ),
        moves=(*moves, EXIT),
    )


def ship_orders(random: Random, content: ShopContent) -> Draft:
    orders = sorted(random.sample(pending(content.orders), 2), key=lambda order: order.number)
    carrier, note = random.choice(vocabulary.CARRIERS[1:]), random.choice(vocabulary.SHIPPING_NOTES)
    tracking = [str(number) for number in random.sample(range(1000, 10_000), 2)]
    facts, steps, moves = {}, [], []
    for order, number in zip(orders, tracking, strict=True):
        name = f"order {order.number}"
        facts |= {f"{name} carrier": carrier, f"{name} tracking": number, f"{name} note": note}
        steps.append(done.on_page(f"open the shipment of {name}", panel_page("orders", order.number, "shipment")))
        steps.append(done.in_snapshot(f'ship {name} with "{number}"', "shop", "changes", f"{name} tracking: {number}"))
        moves += [
            Move("click", "orders"), Move("click", "pending"), open_order(order.number), Move("click", "shipment"),
            Move("choose", "carrier", carrier, "forgets_option"), Move("type", "tracking number", number), Move("type", "note", note),
            Move("click", "ship order", habit="stops_early"),
        ]  # fmt: skip
    changes = panel_changes([f"order {order.number} shipped" for order in orders], facts)
    steps[-1] = done.exactly("ship both", "shop", "changes", changes)
    return Draft(
        values={
            "first": f"order {orders[0].number}", "first_tracking": tracking[0], "second": f"order {orders[1].number}",
            "second_tracking": tracking[1], "carrier": carrier, "note": note,
        },
        evaluation=evaluation(admin_targets(changes)),
        milestones=tuple(steps),
        moves=(*moves, EXIT),
    )  # fmt: skip


def cancel_for_caller(random: Random, content: ShopContent) -> Draft | None:
    account, message = random.choice(make_admin_content(content.seed).accounts), random.choice(vocabulary.MESSAGES)
    orders = [order.number for order in pending(content.orders) if order.customer == account.name]
    if len(orders) != 1:
        return None
    name = f"order {orders[0]}"
    changes = panel_changes([f"{name} cancelled"], {f"{name} message 1 text": message})
    return Draft(
        values={"phone": account.phone, "message": message},
        evaluation=evaluation(admin_targets(changes)),
        milestones=(
            done.on_query("search for the number", panel_page("customers"), q=account.phone),
            done.on_page(f'open "{account.name}"', panel_page("customers", account.name)),
            done.on_page(f"open {name}", panel_page("orders", orders[0])),
            done.in_snapshot(f"cancel {name}", "shop", "changes", f"{name} cancelled"),
            done.exactly("send the message", "shop", "changes", changes),
        ),
        moves=(
            Move("click", "customers"), Move("search", "search", account.phone), Move("click", account.name), open_order(orders[0]),
            Move("choose", "status", "cancelled", "forgets_option"), Move("click", "save order"), Move("click", "messages"),
            Move("type", "message", message), Move("click", "send message", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, ("shop_admin",), intent, draw)
    for draw, intent in (
        (
            moderate_reviews,
            "Approve every pending review of {{stars}} stars or more and delete the other pending ones, "
            'then change the text of the page "{{title}}" to "{{text}}".',
        ),
        (judge_two_reviewers, 'Delete every pending review by "{{deleted}}" and approve the pending one by "{{approved}}".'),
        (
            ship_orders,
            'Ship "{{first}}" with tracking number "{{first_tracking}}" and "{{second}}" with tracking number "{{second_tracking}}", '
            'both by "{{carrier}}" and with the note "{{note}}".',
        ),
        (
            cancel_for_caller,
            'The customer with the phone number "{{phone}}" called: cancel the pending order and send the message "{{message}}" about it.',
        ),
    )
)
