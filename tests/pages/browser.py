"""A page opened in a real browser, and text that would take it over if it could."""

import contextlib
import os

from playwright.async_api import async_playwright

from rollouts.web.browser import find_executables

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "<img src=x onerror=\"window.hacked = 2\"><img src='http://127.0.0.1:9/x.png'>",
    "</pre></div></details></li></ol><h1>taken over</h1><svg onload='window.hacked = 3'>",
    '" onmouseover="window.hacked = 4" \' autofocus onfocus=\'window.hacked = 5',
    "{{ 7 * 7 }}{% raw %} ]]> --> </style></script><script>window.hacked = 6</script>",
    "<a href='javascript:window.hacked=7'>x</a><base href='http://127.0.0.1:9/'><meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
)
HIDDEN = "safe\u202egnp.exe\u200b\x00end"


async def assert_fits(page):
    """Nothing is wider than the screen, of a laptop or a phone, and the dark theme is dark."""
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.emulate_media(color_scheme="dark")
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 26)"
    await page.set_viewport_size({"width": 400, "height": 800})
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@contextlib.asynccontextmanager
async def opened(path, **options):
    """The page at `path` in a browser; yields it with everything the console said and every request it made."""
    async with async_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=find_executables(None)[0], args=sandbox)
        page = await browser.new_page(viewport={"width": 1280, "height": 800}, **options)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(path.as_uri())
        yield page, said, asked
        await browser.close()
