"""Downloads pages with a browser, which runs their scripts, behind a fence that lets it reach only public addresses."""

import asyncio
import contextlib
from collections.abc import Collection

from playwright.async_api import BrowserContext, Error
from playwright.async_api import TimeoutError as PlaywrightTimeout

from rollouts.suites.web_seeking.download import Download, Failed, Unread, check_answer, too_large
from rollouts.web.addresses import check
from rollouts.web.browser import BrowserConfig, BrowserPool, bounded
from rollouts.web.fence import PUBLIC
from rollouts.web.neterrors import DOWN, code_of, describe
from rollouts.web.playwright_errors import is_crashed, is_download

_SIZE = "() => document.documentElement.outerHTML.length"


class Renderer:
    """A browser, started with `async with`. Each page is opened in a context of its own."""

    def __init__(self, config: BrowserConfig, timeout: float, max_bytes: int, allowed: Collection[str]):
        """`allowed`: `host:port` that may be private."""
        self._config, self._timeout, self._max_bytes, self._allowed = config, timeout, max_bytes, allowed
        self._pool = BrowserPool(config)

    async def __aenter__(self) -> "Renderer":
        """Raises UserError if the browser does not start."""
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.__aexit__()

    async def download(self, url: str) -> Download:
        """See `rollouts.suites.web_seeking.download.Downloader`. Raises also BrowserError."""
        # For the message. What holds for each connection of the page is the fence.
        await check(url, self._allowed)
        context = await self._pool.context()
        try:
            self._pool.allow(context, (PUBLIC, *self._allowed))
            return await self._render(context, url)
        except Error as error:
            raise _failure(url, error) from None
        finally:
            await asyncio.shield(self._pool.close(context))

    async def _render(self, context: BrowserContext, url: str) -> Download:
        page = await bounded(context.new_page(), self._config.call_seconds, "opening a page")
        response = await page.goto(url, wait_until="load", timeout=self._timeout * 1000)
        if response is not None:
            check_answer(page.url, response.status, response.headers.get("content-type", ""))
        with contextlib.suppress(Error):  # scripts that never rest
            await page.wait_for_load_state("networkidle", timeout=max(1.0, self._config.settle_seconds * 1000))
        if await page.evaluate(_SIZE) > self._max_bytes:
            raise too_large(page.url, self._max_bytes)
        html = await page.content()
        return Download(page.url, html.encode("utf-8", "replace"), "text/html; charset=utf-8", rendered=True)


def _failure(url: str, error: Error) -> Exception:
    if isinstance(error, PlaywrightTimeout):
        return TimeoutError()
    if is_download(error):
        return Unread(url, "it is no page of text")
    code = next((word for word in map(code_of, str(error).split()) if word.startswith("ERR_")), "")
    if code and code not in DOWN:
        return Unread(url, f"it cannot be shown: {describe(code)}")
    return Failed("its page crashed" if is_crashed(error) else "its host cannot be reached", reached=is_crashed(error))
