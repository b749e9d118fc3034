"""The page that a person begins with: it leads to every site and lists every template, and its examples can be tried."""

import httpx

from mira_arena import index
from mira_arena.sites.registry import SITES, application
from mira_arena.sites.server import COOKIE
from mira_arena.tasks.registry import TEMPLATES
from mira_arena.tasks.templates import example, intent
from tests.pages.browser import assert_fits, opened

ADDRESSES = {site: f"http://127.0.0.1:1/{site}/" for site in SITES}


def test_every_site_is_described():
    assert list(index.SITES) == list(SITES)


async def test_every_template_is_listed_and_the_page_fits_a_laptop_and_a_phone(tmp_path):
    path = tmp_path / "index.html"
    path.write_text(index.render(4, ADDRESSES))
    async with opened(path) as (page, said, asked):
        assert not said and asked == [path.as_uri()]
        listed = await page.locator(".tasks li").evaluate_all("(items) => items.map((item) => item.id)")
        assert sorted(listed) == sorted(f"task-{name}" for name in TEMPLATES)
        steps = await page.locator("#task-ship_to_nearest .steps").inner_text()
        assert steps == f"{len(example(TEMPLATES['ship_to_nearest'], 4).moves)} steps"
        assert await page.locator("#several #task-post_review .facts").inner_text() == "post_review\nShop, Forum"
        await assert_fits(page)


def test_an_example_is_of_just_these_sites():
    products = application("shop").make_content(5).by_name
    for name in ("buy", "buy_with_coupon", "post_review", "announce_sale"):
        template = TEMPLATES[name]
        draft = example(template, 5)
        assert draft.values["product"] in products
        assert draft.values["product"] in intent(template, draft)
        assert example(template, 5).values == draft.values != example(template, 6).values


def test_what_these_sites_do_not_offer_is_said_to_be_so():
    """Seed 1 has no milestone of two issues to move."""
    offered = {name: example(template, 1) for name, template in TEMPLATES.items()}
    page = index.render(1, ADDRESSES)
    assert not offered["move_to_milestone"]
    assert page.count("not on these sites: try another seed") == sum(draft is None for draft in offered.values())
    assert all(('href="/try/' + name + '"' in page) == (draft is not None) for name, draft in offered.items())


async def test_an_example_begins_as_its_task_does():
    """In a world of its own: with the goods in the cart, or signed out."""
    visits = {}
    front = index.serve(visits, 4, ADDRESSES)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=front), base_url="http://127.0.0.1") as client:
        answer = await client.get("/try/settle_cart")
        assert (answer.status_code, answer.headers["location"]) == (303, ADDRESSES["shop"])
        world = visits[answer.cookies[COOKIE]]
        draft = example(TEMPLATES["settle_cart"], 4)
        assert {line[0] for line in world.snapshot(["shop"])["shop"]["cart"]} == {draft.values["kept"], draft.values["dropped"]}
        again = await client.get("/try/sign_in_and_post")
        assert not visits[again.cookies[COOKIE]].snapshot(["forum"])["forum"]["signed_in"]
        assert (await client.get("/try/sell")).status_code == 404
    for world in visits.values():
        world.close()


def test_counts_hold_every_template_once():
    rows = [line.strip("| ").split(" | ") for line in index.counts().splitlines()[2:]]
    *domains, total = [[int(cell) for cell in row[1:]] for row in rows]
    assert total[0] == len(TEMPLATES) >= 75
    assert [sum(column) for column in zip(*domains, strict=True)][:3] == total[:3]
    assert sum(total[4:7]) == total[0]
    assert total[1] >= 25 and total[2] >= 8
