"""Tasks for shopkeepers with the catalogue: products, prices, stock, coupons, text pages."""

import dataclasses
from random import Random

from mira_arena.sites.shop import vocabulary
from mira_arena.sites.shop.admin_content import days_after, make_admin_content
from mira_arena.sites.shop.content import ShopContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.milestones import Milestone
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.shop.moves import open_product
from mira_arena.tasks.shop_admin.targets import admin_targets, panel_changes, panel_page
from mira_arena.tasks.templates import Draft, Template


def _one_by_one(changes: list[str]) -> tuple[Milestone, ...]:
    """Milestones for each change in turn, then for exactly all of them. `changes` are in the expert's order."""
    steps = [done.in_snapshot(f'save "{change}"', "shop", "changes", change) for change in changes[:-1]]
    return (*steps, done.exactly("save the last of them", "shop", "changes", sorted(changes)))


def reprice_kind(random: Random, content: ShopContent) -> Draft | None:
    kind = random.choice([noun for nouns in vocabulary.NOUNS.values() for noun in nouns])
    products = [product for product in content.products if product.name.split()[1] == kind]
    # All of them must fit on one page of search results.
    if len(products) not in (4, 5):
        return None
    direction, percent = random.choice(("Raise", "Lower")), random.choice((10, 20, 25, 30, 40, 50))
    factor = 100 + percent if direction == "Raise" else 100 - percent
    prices = {product.name: product.price * factor // 100 for product in products}
    if any(prices[product.name] == product.price for product in products):
        return None
    names = sorted(prices, key=lambda name: -content.by_name[name].popularity)
    changes = [f"{name} price {prices[name]}" for name in names]
    moves: list[Move] = []
    for name in names:
        moves += [
            Move("click", "products"), Move("search", "search", kind), open_product(name), Move("type", "price", str(prices[name])),
            Move("click", "save product", habit="stops_early"),
        ]  # fmt: skip
    return Draft(
        values={"direction": direction, "kind": kind, "percent": percent},
        evaluation=evaluation(admin_targets(sorted(changes))),
        milestones=(
            done.on_page("open the products", panel_page("products")),
            done.on_query(f'search for "{kind}"', panel_page("products"), q=kind),
            *_one_by_one(changes),
        ),
        moves=(*moves, EXIT),
    )


def restock_low(random: Random, content: ShopContent) -> Draft | None:
    ranked = sorted(content.products, key=lambda product: product.stock)
    count, stock = random.choice((4, 5)), random.randrange(60, 100)
    below = ranked[count].stock
    if ranked[count - 1].stock == below:
        return None
    names = sorted(product.name for product in ranked[:count])
    changes = [f"{name} stock {stock}" for name in names]
    moves: list[Move] = []
    for name in names:
        moves += [
            Move("click", "reports"), Move("click", "low stock"), Move("search", "fewer than", str(below)), open_product(name),
            Move("type", "stock", str(stock), "forgets_quantity"), Move("click", "save product", habit="stops_early"),
        ]  # fmt: skip
    page = panel_page("reports", "low-stock")
    return Draft(
        values={"below": below, "stock": stock},
        evaluation=evaluation(admin_targets(changes)),
        milestones=(
            done.on_page("open the report", page),
            done.on_query(f"show those with fewer than {below} left", page, below=str(below)),
            *_one_by_one(changes),
        ),
        moves=(*moves, EXIT),
    )


def launch_product(random: Random, content: ShopContent) -> Draft | None:
    category = random.choice(vocabulary.CATEGORIES)
    name = f"{random.choice(vocabulary.ADJECTIVES)} {random.choice(vocabulary.NOUNS[category])}"
    price, stock, description = random.randrange(5, 100), random.randrange(10, 100), random.choice(vocabulary.DESCRIPTIONS)
    code, percent, day = random.choice(list(content.coupons)), random.randrange(30, 61), _draw_last_day(random, content)
    if name in content.by_name:
        return None
    product = {"category": category, "price": str(price), "stock": str(stock), "description": description, "status": "on sale"}
    added = {f"{name} {key}": value for key, value in product.items()}
    coupon = {f"coupon {code} percent": str(percent), f"coupon {code} ends": day}
    changes = panel_changes(facts=added | coupon)
    return Draft(
        values={
            "product": name, "category": category, "price": price, "stock": stock, "description": description, "coupon": code,
            "percent": percent, "day": day,
        },
        evaluation=evaluation(admin_targets(changes)),
        milestones=(
            done.on_page("open the form", panel_page("products", "new")),
            done.in_snapshot(f'add "{name}"', "shop", "changes", f"{name} category: {category}"),
            done.on_page("open the coupons", panel_page("coupons")),
            done.on_page(f'open "{code}"', panel_page("coupons", code)),
            done.exactly("save the coupon", "shop", "changes", changes),
        ),
        moves=(
            Move("click", "products"), Move("click", "add product"), Move("type", "name", name),
            Move("choose", "category", category, "forgets_option"), Move("type", "price", str(price)),
            Move("type", "stock", str(stock), "forgets_quantity"), Move("type", "description", description),
            Move("click", "save product"), Move("click", "coupons"), Move("open", code), Move("type", "percent", str(percent)),
            Move("type", "last day", day), Move("click", "save coupon", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def _draw_last_day(random: Random, content: ShopContent) -> str:
    """A date later than that of every coupon."""
    return days_after(make_admin_content(content.seed).day, random.randrange(100, 300))


def discontinue_product(random: Random, content: ShopContent) -> Draft:
    product, description = random.choice(content.products).name, random.choice(vocabulary.DESCRIPTIONS)
    title, text = random.choice(list(vocabulary.INFO_PAGES)), random.choice(vocabulary.PAGE_TEXTS)
    taken = {f"{product} status": "off sale", f"{product} description": description}
    changes = panel_changes(facts=taken | {f"page {title} text": text})
    return Draft(
        values={"product": product, "description": description, "title": title, "text": text},
        evaluation=evaluation(admin_targets(changes)),
        milestones=(
            done.on_page(f'open "{product}"', panel_page("products", product)),
            done.on_page("open what is said about it", panel_page("products", product, "about")),
            done.in_snapshot("take it off sale", "shop", "changes", f"{product} status: off sale"),
            done.on_page(f'open "{title}"', panel_page("pages", title)),
            done.exactly("save the page", "shop", "changes", changes),
        ),
        moves=(
            Move("click", "products"), Move("search", "search", product), open_product(product), Move("click", "about"),
            Move("type", "description", description), Move("choose", "status", "off sale", "forgets_option"), Move("click", "save product"),
            Move("click", "pages"), Move("click", title), Move("type", "text", text), Move("click", "save page", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def replace_coupon_if_any(random: Random, content: ShopContent) -> Draft:
    """In half of the instances the coupon does not exist. Then the correct result is to report this."""
    known = {coupon.code for coupon in make_admin_content(content.seed).coupons}
    free = [f"{season} {kind}" for season in vocabulary.COUPON_SEASONS for kind in vocabulary.COUPON_KINDS]
    absent, new = random.sample([code for code in free if code not in known], 2)
    there = random.random() < 0.5
    old = random.choice(list(content.coupons)) if there else absent
    percent, day = random.randrange(30, 61), _draw_last_day(random, content)
    made = {f"coupon {new} percent": str(percent), f"coupon {new} ends": day, f"coupon {new} status": "active"}
    changes = panel_changes(facts=made | {f"coupon {old} status": "ended"}) if there else []
    coupons = panel_page("coupons")
    goal = (
        (
            done.on_page(f'open "{old}"', panel_page("coupons", old)),
            done.in_snapshot(f'end "{old}"', "shop", "changes", f"coupon {old} status: ended"),
            done.on_page("open the form", panel_page("coupons", "new")),
            done.exactly(f'save "{new}"', "shop", "changes", changes),
        )
        if there
        else (done.on_query("look at the last page of the list", coupons, page="2"), done.answered('answer "N/A"', "N/A"))
    )
    moves = (
        Move("click", "coupons"), Move("open", old, missing="N/A"), Move("click", "end coupon", habit="forgets_removal"),
        Move("click", "coupons"), Move("click", "new coupon"), Move("type", "code", new), Move("type", "percent", str(percent)),
        Move("type", "last day", day), Move("click", "save coupon", habit="stops_early"), EXIT,
    )  # fmt: skip
    return Draft(
        values={"old": old, "new": new, "percent": percent, "day": day},
        evaluation=evaluation(admin_targets(changes), answers=None if there else {"fuzzy_match": "N/A"}),
        milestones=(done.on_page("open the coupons", coupons), *goal),
        moves=moves if there else tuple(dataclasses.replace(move, habit="") for move in moves),
    )


TEMPLATES = tuple(
    Template(draw.__name__, ("shop_admin",), intent, draw)
    for draw, intent in (
        (reprice_kind, '{{direction}} the price of every "{{kind}}" by {{percent}} percent, rounded down to whole dollars.'),
        (restock_low, "Set the stock of every product with fewer than {{below}} left to {{stock}}."),
        (
            launch_product,
            'Add the product "{{product}}" to "{{category}}" with price {{price}}, stock {{stock}} and description "{{description}}", '
            'then make the coupon "{{coupon}}" give {{percent}} percent until "{{day}}".',
        ),
        (
            discontinue_product,
            'Take "{{product}}" off sale with the description "{{description}}" and change the text of the page "{{title}}" to "{{text}}".',
        ),
        (
            replace_coupon_if_any,
            'End the coupon "{{old}}" and make the coupon "{{new}}" of {{percent}} percent until "{{day}}". '
            'If there is no coupon "{{old}}", answer "N/A".',
        ),
    )
)
