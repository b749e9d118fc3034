"""The pages of one episode: which is in front, and whether it has settled after an action."""

import asyncio
import time
from collections.abc import Iterable, Sequence

from playwright.async_api import BrowserContext, Dialog, Error, Frame, Page, Request

from rollouts.errors import BrowserError, SiteError
from rollouts.web.browser import BrowserConfig, bounded, fence, first_line, is_inside
from rollouts.web.observation import SCRIPT, Observation, ObservationConfig, read, sanitize

PAUSE = "() => new Promise(done => setTimeout(() => setTimeout(done, 0), 0))"
"""Lets the tasks that an action queued run: submitting a form is one of them."""

_FETCHES = frozenset({"fetch", "xhr", "script", "document"})
_BLOCKED = ("ERR_BLOCKED_BY_CLIENT", "ERR_NAME_NOT_RESOLVED", "ERR_BLOCKED_BY_ADMINISTRATOR", "ERR_UNSAFE_PORT", "ERR_UNKNOWN_URL_SCHEME")


class _Watch:
    """What one page is doing, from its events."""

    def __init__(self, page: Page):
        self.page = page
        self.changed = asyncio.Event()
        self.navigation: Request | None = None
        self.answered = 0.0
        self.failure = ""
        self.crashed = False
        self.loaded = True
        self.fetches: set[Request] = set()
        page.on("request", self._request)
        page.on("requestfinished", self._finished)
        page.on("requestfailed", self._failed)
        page.on("domcontentloaded", lambda _: self._parsed())
        page.on("load", lambda _: self._complete())
        page.on("framenavigated", self._navigated)
        page.on("crash", lambda _: self._crash())
        page.on("close", lambda _: self._notify())

    def mark(self) -> None:
        """Forgets requests that began before now: a page may keep one open for ever."""
        self.fetches.clear()
        self.failure = ""

    def _notify(self) -> None:
        self.changed.set()

    def _request(self, request: Request) -> None:
        if request.is_navigation_request():
            if _is_main(request, self.page):
                self.navigation, self.answered, self.loaded = request, 0.0, False
                self._notify()
        elif request.resource_type in _FETCHES:
            self.fetches.add(request)
            self._notify()

    def _finished(self, request: Request) -> None:
        self.fetches.discard(request)
        if request is self.navigation:
            self.answered = time.monotonic()
        self._notify()

    def _failed(self, request: Request) -> None:
        self.fetches.discard(request)
        if request is self.navigation:
            self.failure = request.failure or "failed"
            self.answered = time.monotonic()
        self._notify()

    def _navigated(self, frame: Frame) -> None:
        # Requests of the page that was left never end.
        if frame == self.page.main_frame:
            self.fetches.clear()
            self._notify()

    def _parsed(self) -> None:
        self.navigation = None
        self._notify()

    def _complete(self) -> None:
        self.loaded = True
        self._notify()

    def _crash(self) -> None:
        self.crashed = True
        self._notify()


def _is_main(request: Request, page: Page) -> bool:
    try:
        return request.frame == page.main_frame
    except Error:
        return True


class Tabs:
    """The pages of one context. A new page comes to the front; when it closes, the one before it does."""

    def __init__(self, context: BrowserContext, config: BrowserConfig, observation: ObservationConfig):
        self.context, self.config, self.observation_config = context, config, observation
        self.hosts: frozenset[str] = frozenset()
        self.notices: list[str] = []
        self._watches: list[_Watch] = []
        self._front = 0
        context.on("page", self._opened)
        context.on("dialog", self._dialog)

    @property
    def page(self) -> Page:
        if not self._watches:
            raise BrowserError("every page of the episode has closed")
        return self._watches[self._front].page

    @property
    def count(self) -> int:
        return len(self._watches)

    @property
    def front(self) -> int:
        return self._front

    async def open(self, urls: Sequence[str], hosts: Iterable[str]) -> None:
        """Puts up the fence and opens a tab for each address, the first in front. Raises BrowserError or SiteError."""
        self.hosts = frozenset(hosts)
        seconds = self.config.call_seconds
        await bounded(fence(self.context, self.hosts), seconds, "putting up the fence")
        for url in urls:
            self._opened(await bounded(self.context.new_page(), seconds, "opening a page"))
            await self._load(url)
        self._front = 0

    async def _load(self, url: str) -> None:
        try:
            limit = self.config.load_seconds
            await asyncio.wait_for(self.page.goto(url, wait_until="load", timeout=limit * 1000), limit + 1)
        except (Error, TimeoutError) as error:
            if self._watches and self._watches[self._front].crashed:
                raise BrowserError("the page crashed") from error
            kind = BrowserError if "closed" in str(error) or "crash" in str(error) else SiteError
            raise kind(f"opening {url}: {first_line(error)}") from error

    def switch(self, index: int) -> None:
        """Brings a tab to the front. Raises IndexError."""
        if not 0 <= index < len(self._watches):
            raise IndexError(index)
        self._front = index

    def mark(self) -> None:
        """To be called just before an action: what the page does from now on is the action's doing."""
        for watch in self._watches:
            watch.mark()

    async def settle(self) -> str | None:
        """Waits until what an action began is done: a navigation, or requests by script.

        Returns what went wrong that the policy should know, for example an address outside of the task's sites.

        Raises:
            BrowserError, SiteError: the page crashed, did not load in time, or its server is gone.
        """
        pages = self.count
        await self._quiet()
        if self.count != pages:
            await self._quiet()
        watch = self._watches[self._front] if self._watches else None
        if watch is None:
            raise BrowserError("every page of the episode has closed")
        failed, url = watch.failure, watch.page.url
        blocked = any(mark in failed for mark in _BLOCKED)
        if failed and "ERR_ABORTED" not in failed and not blocked:
            raise SiteError(f"{url}: {failed}")
        if blocked or url.startswith("chrome-error:") or not is_inside(url, self.hosts):
            await self._return(watch, url)
            return "that leads outside of the task's sites, which can't be opened from here"
        return None

    async def observe(self) -> Observation:
        """Reads the page in front. Raises BrowserError or SiteError."""
        notices, self.notices = self.notices, []
        if self.count > 1:
            others = ", ".join(str(index) for index in range(self.count) if index != self._front)
            notices.append(f"tab {self._front} is in front; other tabs: {others}")
        for attempt in range(4):
            try:
                data = await asyncio.wait_for(self.page.evaluate(SCRIPT, self.observation_config.script_limits()), self.config.call_seconds)
                return read(data, self.observation_config, notices)
            except TimeoutError:
                raise BrowserError(f"reading the page took more than {self.config.call_seconds:g} s") from None
            except Error as error:
                # The page went elsewhere while it was read.
                if attempt == 3 or "context was destroyed" not in str(error):
                    raise BrowserError(f"reading the page: {first_line(error)}") from error
                await self._quiet()
            except ValueError as error:
                raise BrowserError(str(error)) from error
        raise AssertionError("unreachable")

    async def screenshot(self) -> bytes | None:
        """A JPEG of what the window shows; None if the browser could not make one."""
        try:
            picture = self.page.screenshot(type="jpeg", quality=self.config.screenshot_quality)
            return await asyncio.wait_for(picture, self.config.call_seconds)
        except (Error, TimeoutError):
            return None

    async def history(self, page: Page) -> tuple[int, int]:
        """How many pages of a tab's history lie before the current one, and how many after. Raises BrowserError."""
        seconds, what = self.config.call_seconds, "reading the history"
        session = await bounded(self.context.new_cdp_session(page), seconds, what)
        entries = await bounded(session.send("Page.getNavigationHistory"), seconds, what)
        await bounded(session.detach(), seconds, what)
        current = entries["currentIndex"]
        before = [entry for entry in entries["entries"][:current] if entry["url"] != "about:blank"]
        return len(before), len(entries["entries"]) - current - 1

    def _opened(self, page: Page) -> None:
        if any(watch.page == page for watch in self._watches):
            return
        self._watches.append(_Watch(page))
        self._front = len(self._watches) - 1
        page.on("close", lambda _: self._closed(page))

    def _closed(self, page: Page) -> None:
        index = next((i for i, watch in enumerate(self._watches) if watch.page == page), None)
        if index is None:
            return
        del self._watches[index]
        if self._front >= index and self._front > 0:
            self._front -= 1

    async def _dialog(self, dialog: Dialog) -> None:
        text = sanitize(dialog.message)[:300]
        try:
            if dialog.type == "prompt":
                self.notices.append(f'the page asked "{text}"; it was dismissed')
                await asyncio.wait_for(dialog.dismiss(), self.config.call_seconds)
            else:
                if dialog.type != "beforeunload":
                    self.notices.append(f'the page said "{text}"; it was accepted')
                await asyncio.wait_for(dialog.accept(), self.config.call_seconds)
        except (Error, TimeoutError):
            return

    async def _quiet(self) -> None:
        """One round of waiting on the page in front."""
        if not self._watches:
            return
        watch = self._watches[self._front]
        if watch.navigation is None:
            await self._pause(watch.page)
        began = time.monotonic()
        while watch in self._watches:
            watch.changed.clear()
            if watch.crashed:
                raise BrowserError("the page crashed")
            now = time.monotonic()
            if watch.navigation is not None:
                # An answer that is no page (a download, status 204) leaves the old page in place.
                limit = watch.answered + 0.5 if watch.answered else began + self.config.load_seconds
                if now >= limit:
                    if not watch.answered:
                        raise SiteError(f"{watch.page.url}: no page within {self.config.load_seconds:g} s")
                    watch.navigation = None
            elif watch.fetches or not watch.loaded:
                limit = began + self.config.settle_seconds
                if now >= limit:
                    return
            else:
                return
            try:
                await asyncio.wait_for(watch.changed.wait(), max(0.001, limit - now))
            except TimeoutError:
                continue

    async def _pause(self, page: Page) -> None:
        try:
            await asyncio.wait_for(page.evaluate(PAUSE), self.config.call_seconds)
        except TimeoutError:
            raise BrowserError(f"the page has not answered for {self.config.call_seconds:g} s") from None
        except Error as error:
            if "context was destroyed" in str(error) or page.is_closed():
                return
            raise BrowserError(first_line(error)) from error

    async def _return(self, watch: _Watch, url: str) -> None:
        """Leaves a page that is not part of the task."""
        watch.mark()
        earlier, _ = await self.history(watch.page)
        if self.count > 1 and not earlier:
            await bounded(watch.page.close(), self.config.call_seconds, "closing a tab")
        elif earlier and (url.startswith("chrome-error:") or not is_inside(url, self.hosts)):
            await bounded(watch.page.go_back(wait_until="commit"), self.config.load_seconds, "going back")
            await self._quiet()
