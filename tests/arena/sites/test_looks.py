"""What a person sees: pages that fit a phone, and a map whose names are whole."""

import contextlib

import pytest
from playwright.async_api import async_playwright

from mira_arena.sites.atlas.content import make_content
from mira_arena.sites.atlas.map_picture import draw
from mira_arena.sites.registry import APPLICATIONS, application
from mira_arena.sites.server import serve
from mira_arena.sites.world import World
from rollouts.suites.server import LocalServer
from rollouts.web.browser import find_executables
from tests.pages.browser import opened

PHONE = {"width": 400, "height": 800}
SITES = [(name, path) for name in APPLICATIONS for path in application(name).sites.values()]


@contextlib.asynccontextmanager
async def phone():
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_executables(None)[0], args=["--no-sandbox"])
        yield await browser.new_page(viewport=PHONE)
        await browser.close()


@pytest.mark.parametrize(("name", "path"), SITES)
async def test_the_first_page_of_a_site_and_all_that_it_leads_to_fit_a_phone(name, path):
    world, wide = World(5), []
    server = LocalServer(serve(application(name), {}, fallback=lambda: world))
    await server.start()
    async with phone() as page:
        await page.goto(f"http://{server.host}{path}/")
        links = await page.locator("a").evaluate_all("(links) => links.map((link) => link.href)")
        for address in dict.fromkeys([page.url, *links]):
            await page.goto(address)
            if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wide.append(address)
    await server.stop()
    world.close()
    assert len(links) > 2
    assert not wide


async def test_every_name_on_the_map_is_whole(tmp_path):
    maps = [draw(make_content(seed), "standard") for seed in range(30)]
    path = tmp_path / "maps.html"
    path.write_text("".join(maps))
    async with opened(path) as (page, _, _):
        shown = await page.locator("svg text").evaluate_all(
            """(texts) => texts.map((text) => {
                const box = text.getBBox(), view = text.ownerSVGElement.viewBox.baseVal
                return box.x >= view.x && box.x + box.width <= view.x + view.width && box.y >= view.y
            })"""
        )
        assert len(shown) == 30 * len(make_content(0).towns)
        assert all(shown)
