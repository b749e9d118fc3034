"""The page that a person begins with: it leads to every site and lists every template, and its examples can be tried."""

import asyncio
import os
import sys
from pathlib import Path

import httpx

from rollouts.suites.arena import index, tasks
from rollouts.suites.arena.app import COOKIE
from rollouts.suites.arena.apps import APP_OF, APPS
from tests.analysis.browser import assert_fits, opened

ADDRESSES = {site: f"http://127.0.0.1:1/{site}/" for site in APP_OF}


def test_every_site_is_described():
    assert list(index.SITES) == list(APP_OF)


async def test_one_command_serves_the_index_and_every_site():
    command = (sys.executable, "-m", "rollouts.suites.arena", "--seed", "3", "--port", "0")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    try:
        addresses = {}
        while not (line := (await asyncio.wait_for(server.stdout.readline(), 60)).decode()).startswith("each browser"):
            name, address = line.split()
            addresses[name] = address
        assert list(addresses) == ["index", *APP_OF]
        async with httpx.AsyncClient(timeout=60) as client:
            answers = {name: await client.get(address) for name, address in addresses.items()}
        assert {answer.status_code for answer in answers.values()} == {200}
        assert all(f'href="{address}"' in answers["index"].text for name, address in addresses.items() if name != "index")
    finally:
        server.terminate()
        await server.wait()


async def test_every_template_is_listed_and_the_page_fits_a_laptop_and_a_phone(tmp_path):
    path = tmp_path / "index.html"
    path.write_text(index.render(4, ADDRESSES))
    async with opened(path) as (page, said, asked):
        assert not said and asked == [path.as_uri()]
        listed = await page.locator(".tasks li").evaluate_all("(items) => items.map((item) => item.id)")
        assert sorted(listed) == sorted(f"task-{name}" for name in tasks.templates())
        steps = await page.locator("#task-ship_to_nearest .steps").inner_text()
        assert steps == f"{len(tasks.example(tasks.templates()['ship_to_nearest'], 4).moves)} steps"
        assert await page.locator("#several #task-post_review .facts").inner_text() == "post_review\nShop, Forum"
        await assert_fits(page)


def test_an_example_is_of_just_these_sites():
    products = APPS["shop"].make_content(5).by_name
    for name in ("buy", "buy_with_coupon", "post_review", "announce_sale"):
        template = tasks.templates()[name]
        draft = tasks.example(template, 5)
        assert draft.values["product"] in products
        assert draft.values["product"] in tasks.intent(template, draft)
        assert tasks.example(template, 5).values == draft.values != tasks.example(template, 6).values


def test_what_these_sites_do_not_offer_is_said_to_be_so():
    """Seed 1 has no milestone of two issues to move."""
    offered = {name: tasks.example(template, 1) for name, template in tasks.templates().items()}
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
        draft = tasks.example(tasks.templates()["settle_cart"], 4)
        assert {line[0] for line in world.snapshot(["shop"])["shop"]["cart"]} == {draft.values["kept"], draft.values["dropped"]}
        again = await client.get("/try/sign_in_and_post")
        assert not visits[again.cookies[COOKIE]].snapshot(["forum"])["forum"]["signed_in"]
        assert (await client.get("/try/sell")).status_code == 404
    for world in visits.values():
        world.close()


def test_counts_hold_every_template_once():
    rows = [line.strip("| ").split(" | ") for line in index.counts().splitlines()[2:]]
    *domains, total = [[int(cell) for cell in row[1:]] for row in rows]
    assert total[0] == len(tasks.templates()) >= 75
    assert [sum(column) for column in zip(*domains, strict=True)][:3] == total[:3]
    assert sum(total[4:7]) == total[0]
    assert total[1] >= 25 and total[2] >= 8
