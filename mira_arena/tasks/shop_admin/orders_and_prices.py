"""Tasks for shopkeepers with orders, prices and stock."""

from random import Random

from mira_arena.sites.shop.content import ShopContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.shop.draws import pending
from mira_arena.tasks.shop.moves import open_order, open_product
from mira_arena.tasks.shop_admin.targets import admin_targets, panel_page
from mira_arena.tasks.templates import Draft, Template


def set_status(random: Random, content: ShopContent) -> Draft:
    order = random.choice(content.orders)
    status = random.choice([status for status in ("packed", "shipped", "delivered") if status != order.status])
    change = f"order {order.number} {status}"
    return Draft(
        values={"order": f"order {order.number}", "status": status},
        evaluation=evaluation(admin_targets([change])),
        milestones=(
            done.on_page("open the orders", "__SHOP_ADMIN__/orders"),
            done.on_page(f"open order {order.number}", panel_page("orders", order.number)),
            done.exactly(f'save status "{status}"', "shop", "changes", [change]),
        ),
        moves=(
            Move("click", "orders"), open_order(order.number), Move("choose", "status", status),
            Move("click", "save order", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def set_price_and_stock(random: Random, content: ShopContent) -> Draft | None:
    product = random.choice(content.products)
    price, stock = random.randrange(5, 100), random.randrange(10, 100)
    if price == product.price or stock == product.stock:
        return None
    changes = [f"{product.name} price {price}", f"{product.name} stock {stock}"]
    return Draft(
        values={"product": product.name, "price": price, "stock": stock},
        evaluation=evaluation(admin_targets(changes)),
        milestones=(
            done.on_page("open the products", "__SHOP_ADMIN__/products"),
            done.on_page(f'open "{product.name}"', panel_page("products", product.name)),
            done.exactly("save price and stock", "shop", "changes", changes),
        ),
        moves=(
            Move("click", "products"), Move("search", "search", product.name), open_product(product.name),
            Move("type", "price", str(price)), Move("type", "stock", str(stock), "forgets_quantity"),
            Move("click", "save product", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def set_two_prices(random: Random, content: ShopContent) -> Draft | None:
    products = random.sample(content.products, 2)
    prices = random.sample(range(5, 100), 2)
    if any(product.price == price for product, price in zip(products, prices, strict=True)):
        return None
    changes = {product.name: f"{product.name} price {price}" for product, price in zip(products, prices, strict=True)}
    steps, moves = [], []
    for product, price in zip(products, prices, strict=True):
        steps += [
            done.on_page(f'open "{product.name}"', panel_page("products", product.name)),
            done.in_snapshot(f'save the price of "{product.name}"', "shop", "changes", changes[product.name]),
        ]
        moves += [
            Move("click", "products"), Move("search", "search", product.name), open_product(product.name),
            Move("type", "price", str(price)), Move("click", "save product", habit="stops_early"),
        ]  # fmt: skip
    return Draft(
        values={"first": products[0].name, "first_price": prices[0], "second": products[1].name, "second_price": prices[1]},
        evaluation=evaluation(admin_targets(sorted(changes.values()))),
        milestones=tuple(steps),
        moves=(*moves, EXIT),
    )


def pack_for_customer(random: Random, content: ShopContent) -> Draft:
    """The customer has two pending orders, and other customers have pending orders too."""
    orders, status = pending(content.own_orders), random.choice(("packed", "shipped", "delivered"))
    changes = [f"order {order.number} {status}" for order in orders]
    steps, moves = [], []
    for order, change in zip(orders, changes, strict=True):
        steps += [
            done.on_page(f"open order {order.number}", panel_page("orders", order.number)),
            done.in_snapshot(f'save order {order.number} as "{status}"', "shop", "changes", change),
        ]
        moves += [
            Move("click", "orders"), Move("click", "pending"), open_order(order.number),
            Move("choose", "status", status), Move("click", "save order", habit="stops_early"),
        ]  # fmt: skip
    return Draft(
        values={"customer": content.customer, "status": status},
        evaluation=evaluation(admin_targets(changes)),
        milestones=tuple(steps),
        moves=(*moves, EXIT),
    )


TEMPLATES = tuple(
    Template(draw.__name__, ("shop_admin",), intent, draw)
    for draw, intent in (
        (set_status, 'Set the status of "{{order}}" to "{{status}}".'),
        (set_price_and_stock, 'Set the price of "{{product}}" to {{price}} and its stock to {{stock}}.'),
        (set_two_prices, 'Set the price of "{{first}}" to {{first_price}} and the price of "{{second}}" to {{second_price}}.'),
        (pack_for_customer, 'Set both pending orders of "{{customer}}" to "{{status}}".'),
    )
)
