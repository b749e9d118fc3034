"""What the installed Playwright and Chromium say when something breaks: each phrase that we rely on, provoked."""

import asyncio
import mmap
import os
import signal
import stat
from pathlib import Path

import playwright
import pytest
import pytest_asyncio
from playwright.async_api import Error, async_playwright

from rollouts.web import playwright_errors as errors
from rollouts.web.browser import BrowserPool
from rollouts.web.playwright_errors import is_closed, is_crashed, is_driver_gone, is_left, is_no_sandbox, is_not_installed
from tests.rollouts.sites import QUICK, descendants

pytestmark = pytest.mark.asyncio(loop_scope="module")
KINDS = (is_left, is_closed, is_crashed, is_not_installed, is_no_sandbox, is_driver_gone, errors.is_not_active, errors.is_download)
FOREVER = "() => new Promise(() => {})"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool():
    async with BrowserPool(QUICK) as browsers:
        yield browsers


@pytest_asyncio.fixture(loop_scope="module")
async def page(pool):
    context = await pool.context()
    yield await context.new_page()
    await pool.close(context)


def assert_only(kind, error: BaseException) -> None:
    assert [known for known in KINDS if known(error)] == [kind], str(error)


async def failure(awaitable) -> BaseException:
    with pytest.raises(Exception) as caught:
        await asyncio.wait_for(awaitable, 60)
    return caught.value


async def begin(awaitable) -> asyncio.Future:
    """Starts a call, and leaves it the time to reach the page."""
    call = asyncio.ensure_future(awaitable)
    await asyncio.sleep(0.5)
    return call


async def function(session, expression=FOREVER, context=None):
    """Begins a call of a function, as `Watch.call` does."""
    frame = (await session.send("Page.getFrameTree"))["frameTree"]["frame"]["id"]
    made = context or (await session.send("Page.createIsolatedWorld", {"frameId": frame}))["executionContextId"]
    asked = {"functionDeclaration": expression, "executionContextId": made, "returnByValue": True, "awaitPromise": True}
    return made, await begin(session.send("Runtime.callFunctionOn", asked))


async def test_a_page_that_went_elsewhere(page):
    waiting = await begin(page.evaluate(FOREVER))
    await page.goto("data:text/html,a")
    assert_only(is_left, await failure(waiting))

    session = await page.context.new_cdp_session(page)
    made, waiting = await function(session)
    await page.goto("data:text/html,b")
    assert_only(is_left, await failure(waiting))

    _, waiting = await function(session, context=made)
    assert_only(is_left, await failure(waiting))
    assert_only(is_left, await failure(session.send("Page.createIsolatedWorld", {"frameId": "0" * 32})))


async def test_a_page_that_closed_or_crashed(pool, page):
    await page.close()
    assert_only(is_closed, await failure(page.evaluate("1")))
    assert_only(is_closed, await failure(page.goto("about:blank")))

    context = await pool.context()
    try:
        page = await context.new_page()
        waiting = await begin(page.evaluate(FOREVER))
        await failure(page.goto("chrome://crash"))
        assert_only(is_crashed, await failure(waiting))
    finally:
        await pool.close(context)


async def test_an_address_that_is_a_download(pool, page):
    headers = {"content-type": "application/octet-stream", "content-disposition": "attachment"}
    await page.route("http://a.test/file", lambda route: route.fulfill(body="x", headers=headers))
    assert_only(errors.is_download, await failure(page.goto("http://a.test/file")))


async def test_an_ordinary_failure_is_of_no_kind(page):
    for call, text in ((page.evaluate, "() => { throw new Error('x') }"), (page.evaluate, "("), (page.goto, "http://127.0.0.1:9/")):
        error = await failure(call(text))
        assert isinstance(error, Error) and not any(kind(error) for kind in KINDS), str(error)
    assert not any(kind(None) for kind in KINDS)


async def test_phrases_of_moments_that_no_test_can_bring_about():
    """While one page replaces another, and while garbage is collected: these are looked for in Chromium itself."""
    async with BrowserPool(QUICK):
        running = [process for process, name in descendants(os.getpid()) if name.startswith("chrom")]
        binary = Path(f"/proc/{running[-1]}/exe").resolve()
    with open(binary, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
        assert all(code.find(phrase.encode()) > 0 for phrase in (*errors._NOT_ACTIVE, "Promise was collected"))


async def test_browsers_that_do_not_start(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    stub = tmp_path / "chromium"
    async with async_playwright() as driver:
        assert_only(is_not_installed, await failure(driver.chromium.launch()))
        for words in ("No usable sandbox! If you want to live dangerously", "cannot load a library"):
            stub.write_text(f"#!/bin/sh\necho '[1:1:FATAL:zygote_host_impl_linux.cc] {words}' >&2\nexit 1\n")
            stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
            error = await failure(driver.chromium.launch(executable_path=stub, chromium_sandbox=True))
            assert [kind for kind in (is_no_sandbox, is_not_installed) if kind(error)] == [is_no_sandbox] * ("sandbox" in words)


async def test_a_driver_that_was_killed():
    """Its calls say that the browser has closed. What `ignore_abandoned_calls` sees is set on a future of Playwright's, which no test
    can await."""
    others = {process for process, _ in descendants(os.getpid())}
    async with BrowserPool(QUICK) as pool:
        page = await (await pool.context()).new_page()
        (driver,) = [process for process, name in descendants(os.getpid()) if name.startswith("node") and process not in others]
        waiting = await begin(page.evaluate(FOREVER))
        os.kill(driver, signal.SIGKILL)
        assert_only(is_closed, await failure(waiting))
    code = Path(playwright.__file__).parent.rglob("*.py")
    assert any(is_driver_gone(Exception(path.read_text(encoding="utf-8"))) for path in code)
