"""The shop's admin panel: what it decides the shop shows, its reports add up, what it refuses changes nothing, its tasks want no more."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mira_arena.sites.paths import slug
from mira_arena.sites.server import COOKIE, serve
from mira_arena.sites.shop.admin_content import days_after, make_admin_content, month_before
from mira_arena.sites.shop.admin_state import AdminState
from mira_arena.sites.shop.application import APPLICATION
from mira_arena.sites.shop.content import make_content
from mira_arena.sites.world import World
from mira_arena.tasks.registry import TEMPLATES, instance
from mira_jax.trajectories.records import Status
from rollouts.suites.evaluators import select_text
from tests.suites.driving import play_over_http


def visitors(*seeds: int) -> list[TestClient]:
    """A client per seed, all of one application."""
    visits = {f"visitor{number}": World(seed) for number, seed in enumerate(seeds)}
    app = serve(APPLICATION, visits)
    return [TestClient(app, cookies={COOKIE: cookie}, follow_redirects=False) for cookie in visits]


def paths(seed: int) -> list[str]:
    content, admin = make_content(seed), make_admin_content(seed)
    product, order, coupon = slug(content.products[3].name), content.orders[0].number, slug(admin.coupons[0].code)
    days = f"from={admin.first_day}&to={admin.day}"
    return [
        f"/admin/orders/{order}/shipment", f"/admin/orders/{order}/messages", "/admin/products/new", f"/admin/products/{product}/about",
        "/admin/reviews", "/admin/reviews?status=pending&page=2", f"/admin/reviews/{admin.reviews[0].number}", "/admin/coupons",
        "/admin/coupons?page=2", "/admin/coupons/new", f"/admin/coupons/{coupon}", "/admin/customers", "/admin/customers?q=555",
        f"/admin/customers/{slug(admin.accounts[0].name)}", "/admin/pages", "/admin/pages/returns", "/admin/reports",
        f"/admin/reports/sales?{days}&status=delivered", f"/admin/reports/best-sellers?{days}", f"/admin/reports/top-customers?{days}",
        "/admin/reports/low-stock?below=20", "/pages/returns",
    ]  # fmt: skip


def changes(client: TestClient) -> str:
    return select_text(client.get("/admin/changes").text, "#changes")


def test_one_seed_gives_the_same_bytes_and_another_seed_others():
    first, again, other = visitors(1, 1, 2)
    for path in paths(1):
        page = first.get(path)
        assert page.status_code == 200, path
        assert page.content == again.get(path).content, path
    for path in ("/admin/reviews?status=pending", "/admin/coupons", "/admin/customers", "/admin/reports/sales"):
        assert first.get(path).content != other.get(path).content
    assert changes(first) == "none yet"


def test_what_one_visitor_does_no_other_sees():
    one, other = visitors(1, 1)
    before = {path: other.get(path).content for path in paths(1)}
    one.post(f"/admin/reviews/{make_admin_content(1).reviews[0].number}", data={"status": "deleted"})
    one.post("/admin/pages/returns", data={"text": "Never"})
    one.post(f"/admin/orders/{make_content(1).orders[0].number}/messages", data={"message": "hello"})
    assert changes(one).count(":") == 3
    assert {path: other.get(path).content for path in paths(1)} == before


@pytest.mark.parametrize("seed", range(6))
def test_every_seed_has_what_its_tasks_need(seed):
    content, admin = make_content(seed), make_admin_content(seed)
    assert {order.customer for order in content.orders} < {account.name for account in admin.accounts}
    assert len({account.phone for account in admin.accounts}) == len(admin.accounts)
    assert {coupon.code: coupon.percent for coupon in admin.coupons if coupon.status == "active"} == content.coupons
    assert sorted(Counter(review.author for review in admin.reviews).values())[-2:] == [1, 3]
    numbers = [order.number for order in (*admin.past_orders, *content.orders)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert all(admin.first_day <= order.day < month_before(admin.day, 0) for order in admin.past_orders)


def test_a_review_is_in_the_shop_once_it_is_approved():
    (client,) = visitors(1)
    for review, status in zip(make_admin_content(1).reviews, ("approved", "deleted"), strict=False):
        page = f"/product/{slug(review.product)}/reviews"
        before = client.get(page).text.count("<li>")
        client.post(f"/admin/reviews/{review.number}", data={"status": status})
        assert client.get(page).text.count("<li>") == before + (status == "approved")
        assert client.get(f"/admin/reviews/{review.number}").status_code == (200 if status == "approved" else 404)


def test_what_is_off_sale_can_be_neither_found_nor_bought():
    (client,) = visitors(1)
    product = next(product for product in make_content(1).products if not product.colours and not product.sizes)
    pages = (f"/search?q={product.name}", f"/category/{product.category}", f"/category/{product.category}?page=2")
    link = f">{product.name}</a>"
    assert sum(link in client.get(page).text for page in pages) == 2
    client.post(f"/admin/products/{slug(product.name)}/about", data={"description": "The last", "status": "off sale"})
    assert sum(link in client.get(page).text for page in pages) == 0
    assert client.get(f"/product/{slug(product.name)}").status_code == 404
    client.post("/cart/add", data={"product": product.name, "quantity": "1"})
    assert "we do not sell that" in client.get("/cart").text
    assert link in client.get(f"/admin/products?q={product.name}").text
    assert changes(client) == f"{product.name} description: the last {product.name} status: off sale"
    client.post(f"/admin/products/{slug(product.name)}/about", data={"description": "", "status": "on sale"})
    assert changes(client) == "none yet"


def test_a_new_product_is_found_described_and_sold():
    (client,) = visitors(1)
    form = {"name": "Glass Harp", "category": "garden", "price": "31", "stock": "7", "description": "plays by itself"}
    assert client.post("/admin/products/new", data=form).headers["location"] == "/admin/products/glass-harp"
    assert ">glass harp</a>" in client.get("/search?q=harp").text
    assert "plays by itself" in client.get("/product/glass-harp").text
    client.post("/cart/add", data={"product": "glass harp", "quantity": "2"})
    client.post("/checkout", data={"shipping": "standard", "address": make_content(1).addresses[0].label})
    assert 'total $<b id="total">66</b>' in client.get("/account/orders/latest").text
    assert 'value="5"' in client.get("/admin/products/glass-harp").text


def test_a_coupon_counts_until_it_is_ended():
    (client,) = visitors(1)
    content, admin = make_content(1), make_admin_content(1)
    product = next(product for product in content.products if not product.colours and not product.sizes)
    ended = next(coupon.code for coupon in admin.coupons if coupon.status == "ended")
    client.post("/cart/add", data={"product": product.name, "quantity": "2"})
    client.post("/admin/coupons/new", data={"code": "half price", "percent": "50", "ends": admin.day})
    for code, total in ((ended, product.price * 2), ("half price", product.price)):
        client.post("/cart/coupon", data={"coupon": code})
        assert f"<strong>total ${total}</strong>" in client.get("/cart").text
    client.post("/admin/coupons/half-price/end")
    assert f"<strong>total ${product.price * 2}</strong>" in client.get("/cart").text


def test_a_pending_order_is_shipped_once():
    (client,) = visitors(1)
    number = next(order.number for order in make_content(1).orders if order.status == "pending")
    form = {"carrier": "courier", "tracking": "5512", "note": "Ring twice"}
    client.post(f"/admin/orders/{number}/shipment", data=form)
    name = f"order {number}"
    assert changes(client) == f"{name} shipped {name} carrier: courier {name} note: ring twice {name} tracking: 5512"
    assert "tracking number 5512" in client.get(f"/admin/orders/{number}/shipment").text
    client.post(f"/admin/orders/{number}/shipment", data=form | {"tracking": "1111"})
    assert "only a pending or packed order can be shipped" in client.get("/admin/").text
    assert "5512" in changes(client)


@pytest.mark.parametrize("seed", range(4))
def test_reports_count_what_was_ordered(seed):
    content, admin, state = make_content(seed), make_admin_content(seed), AdminState(seed)
    orders = [(order.day, order.customer, order.status, [(order.product, order.quantity)]) for order in admin.past_orders]
    for order in content.orders:
        day = f"{admin.day[:8]}{int(order.day.split()[0]):02}"
        orders.append((day, order.customer, order.status, [(line.product, line.quantity) for line in order.lines]))
    for first, last in ((admin.first_day, admin.day), (days_after(admin.first_day, 40), days_after(admin.day, -20))):
        within = [order for order in orders if first <= order[0] <= last]
        for status in ("", "delivered", "cancelled"):
            wanted = Counter(day[:7] for day, _, found, _ in within if status in ("", found))
            assert {row["month"]: row["orders"] for row in state.sales(first, last, status)} == wanted
        kept = [order for order in within if order[2] != "cancelled"]
        assert {row["customer"]: row["orders"] for row in state.top_customers(first, last)} == Counter(order[1] for order in kept)
        sold: Counter[str] = Counter()
        for _, _, _, lines in kept:
            for product, quantity in lines:
                sold[product] += quantity
        assert [(row["product"], row["sold"]) for row in state.best_sellers(first, last)] == sorted(
            sold.items(), key=lambda pair: (-pair[1], pair[0])
        )
    cheap = [order for order in admin.past_orders if order.status == "cancelled"]
    dollars = sum(row["dollars"] for row in state.sales(admin.first_day, month_before(admin.day, 0), "cancelled"))
    assert dollars == sum(order.total for order in cheap)
    state.close()


def test_a_report_of_no_days_says_how_days_are_written():
    (client,) = visitors(1)
    for report in ("sales", "best-sellers", "top-customers"):
        for query in ("from=14 march", "to=2026-02-30", "from=20260301"):
            page = client.get(f"/admin/reports/{report}?{query}")
            assert (page.status_code, "a day is written like 2026-03-28" in page.text) == (200, True)


def test_a_customer_is_found_by_name_mail_or_phone():
    (client,) = visitors(1)
    account = make_admin_content(1).accounts[4]
    for query in (account.name.upper(), account.email, account.phone):
        page = client.get("/admin/customers", params={"q": query}).text
        assert page.count('<a href="/admin/customers/') == 1
        assert account.email in page
    assert "nothing found" in client.get("/admin/customers?q=nobody").text


@pytest.mark.parametrize(
    ("path", "form", "notice"),
    [
        ("/admin/products/new", {"name": "harp", "category": "choose one", "price": "5", "stock": "5"}, "please choose a category"),
        ("/admin/products/new", {"name": "PRODUCT", "category": "garden", "price": "5", "stock": "5"}, "already"),
        ("/admin/products/new", {"name": "harp-2", "category": "garden", "price": "5", "stock": "5"}, "a name is made of letters"),
        ("/admin/products/new", {"name": "new", "category": "garden", "price": "5", "stock": "5"}, "a name is made of letters"),
        ("/admin/products/new", {"name": "harp", "category": "garden", "price": "0", "stock": "5"}, "must be whole numbers"),
        ("/admin/products/new", {"name": "harp", "category": "garden", "price": "", "stock": "5"}, "price must be a whole number"),
        ("/admin/products/SLUG/about", {"description": "fine", "status": "gone"}, "please choose from the options"),
        ("/admin/coupons/new", {"code": "COUPON", "percent": "20", "ends": "2030-01-01"}, "already"),
        ("/admin/coupons/new", {"code": "20 off", "percent": "20", "ends": "2030-01-01"}, "a code is made of letters"),
        ("/admin/coupons/new", {"code": "big sale", "percent": "91", "ends": "2030-01-01"}, "percent must be 1 to 90"),
        ("/admin/coupons/new", {"code": "big sale", "percent": "20", "ends": "soon"}, "a day is written like"),
        ("/admin/orders/ORDER/shipment", {"carrier": "ship", "tracking": "1"}, "please choose from the options"),
        ("/admin/orders/ORDER/shipment", {"carrier": "post", "tracking": ""}, "a shipment needs a tracking number"),
        ("/admin/orders/ORDER/messages", {"message": " "}, "a message needs some words"),
        ("/admin/pages/returns", {"text": ""}, "a page needs some words"),
        ("/admin/reviews/REVIEW", {"status": "pending"}, "please choose from the options"),
    ],
)
def test_a_refusal_is_said_on_the_next_page_and_changes_nothing(path, form, notice):
    (client,) = visitors(1)
    content, admin = make_content(1), make_admin_content(1)
    product = content.products[0].name
    known = {
        "PRODUCT": product, "SLUG": slug(product), "COUPON": next(iter(content.coupons)), "REVIEW": str(admin.reviews[0].number),
        "ORDER": str(next(order.number for order in content.orders if order.status == "pending")),
    }  # fmt: skip
    for key, value in known.items():
        path, form = path.replace(key, value), {field: text.replace(key, value) for field, text in form.items()}
    assert client.post(path, data=form | {"back": "/admin/"}).headers["location"] == "/admin/"
    assert notice in client.get("/admin/").text
    assert notice not in client.get("/admin/").text
    assert changes(client) == "none yet"


class Meddles:
    """The expert, who changes one thing more before the end."""

    def __init__(self, expert):
        self.expert, self.last = expert, []

    def respond(self, task, rounds, observation):
        if not self.last:
            response = self.expert.respond(task, rounds, observation)
            if not response.startswith("exit"):
                return response
            self.last = [
                'do(action="Click", element="pages")', 'do(action="Click", element="gift cards")',
                'do(action="Type", element="text", argument="all gone")', 'do(action="Click", element="save page")', response,
            ]  # fmt: skip
        return self.last.pop(0)


async def test_the_panels_tasks_are_of_every_length_and_want_no_more_than_they_ask(arena):
    names = [name for name, template in TEMPLATES.items() if template.sites == ("shop_admin",)]
    tasks = arena.tasks("test", names, len(names), seed=2)
    for task in tasks:
        episode = await play_over_http(arena, task, Meddles(arena.expert(task)))
        assert episode.status is Status.FINISHED
        assert not arena.judge(episode).success, task.id
    lengths = [len(instance(task.id).draft.moves) for task in tasks]
    assert len(lengths) == 16
    assert sum(length >= 20 for length in lengths) >= 3
    assert sum(10 <= length < 20 for length in lengths) >= 3


async def test_a_coupon_that_is_not_there_can_not_be_replaced(arena):
    tasks = arena.tasks("train", ["replace_coupon_if_any"], 30, seed=1)
    impossible = [task for task in tasks if arena.webarena_task(task.id)["eval"]["reference_answers"]]
    assert 8 <= len(impossible) <= 22
    refused = await play_over_http(arena, impossible[0], arena.expert(impossible[0]))
    assert (refused.evidence.answer, arena.judge(refused).success) == ("N/A", True)


TEXT = st.text(max_size=12) | st.sampled_from(
    ["1", "0", "-1", "99999999999999999999", "'; DROP TABLE orders; --", "<b>x</b>", "approved", "on sale", "\x00", "2026-02-01"]
)
FIELDS = (
    "name", "category", "price", "stock", "description", "status", "carrier", "tracking", "note", "message", "code", "percent", "ends",
    "text", "back",
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(form=st.dictionaries(st.sampled_from(FIELDS), TEXT, min_size=1), query=TEXT, number=st.integers(0, 10**20))
def test_no_form_breaks_the_panel(form, query, number):
    (client,) = visitors(1)
    content, admin = make_content(1), make_admin_content(1)
    known = {
        "/admin/reviews/{number:int}": f"/admin/reviews/{number if number % 2 else admin.reviews[0].number}",
        "{number:int}": str(number if number % 2 else content.orders[0].number),
        "/admin/coupons/{slug}": f"/admin/coupons/{slug(admin.coupons[0].code)}", "/admin/pages/{slug}": "/admin/pages/returns",
        "{slug}": slug(content.products[0].name),
    }  # fmt: skip
    for path, method, _ in APPLICATION.routes:
        if method == "POST" and path.startswith("/admin"):
            for key, value in known.items():
                path = path.replace(key, value)
            answer = client.post(path, data=form)
            assert answer.status_code in (303, 404), path
            assert answer.status_code == 404 or answer.headers["location"].startswith("/")
    for path in paths(1):
        answer = client.get(path.split("?")[0], params={"q": query, "status": query, "from": query, "below": query, "page": query})
        assert answer.status_code in (200, 404), path
        assert "<b>x</b>" not in answer.text
    assert "<b>x</b>" not in client.get("/admin/changes").text
