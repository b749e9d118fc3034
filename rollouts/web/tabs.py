"""The tabs of one episode: which one is in front, and whether its page has settled after an action."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from playwright.async_api import BrowserContext, Dialog, Download, Error, Page

from mira_jax.errors import first_line
from rollouts.errors import BrowserError, SiteError
from rollouts.text import sanitize
from rollouts.web import refusals
from rollouts.web.browser import BrowserConfig, bounded
from rollouts.web.fence import accepts, is_inside
from rollouts.web.neterrors import BROKEN_OFF, DOWN, describe
from rollouts.web.observation import SCRIPT, Observation, ObservationConfig, blank, read
from rollouts.web.playwright_errors import is_closed, is_crashed, is_driver_gone, is_left
from rollouts.web.watch import GRACE, Watch

MAX_NOTICES = 5
"""Maximum number of dialogs reported at once, since a page may open them in a loop."""

MAX_TABS = 32
"""Maximum number of tabs, since a page may open them in a loop. Further ones are closed."""


class Tabs:
    """The pages of one context. A new page comes to the front. When it closes, the previous page does."""

    def __init__(self, context: BrowserContext, config: BrowserConfig, observation: ObservationConfig):
        self.context, self.config, self.observation_config = context, config, observation
        self.hosts: frozenset[str] = frozenset()
        self.notices: list[str] = []
        self.observed: Page | None = None
        """The page of the last observation, to whose elements the handles refer."""
        self._watches: list[Watch] = []
        self._front = 0
        context.on("page", self._opened)
        context.on("page", self._close_surplus)
        context.on("dialog", self._dialog)

    @property
    def page(self) -> Page:
        return self._watch().page

    @property
    def count(self) -> int:
        return len(self._watches)

    @property
    def front(self) -> int:
        return self._front

    async def open(self, urls: Sequence[str], hosts: Iterable[str]) -> None:
        """Opens a tab for each address, with the first in front. Pages outside of `hosts` are navigated away from.

        Raises:
            BrowserError, SiteError: an address can't be opened, or its response has a status of 500 or more.
        """
        self.hosts = frozenset(hosts)
        seconds = self.config.call_seconds
        for url in urls:
            self._opened(await bounded(self.context.new_page(), seconds, "opening a page"))
            await self._watch().attach(seconds)
            await self._load(url)
        self._front = 0

    async def _load(self, url: str) -> None:
        try:
            limit = self.config.load_seconds
            response = await asyncio.wait_for(self.page.goto(url, wait_until="load", timeout=limit * 1000), limit + 1)
        except (Error, TimeoutError) as error:
            if self._watches and self._watches[self._front].crashed:
                raise BrowserError("the page crashed") from error
            kind = BrowserError if is_closed(error) or is_crashed(error) or is_driver_gone(error) else SiteError
            raise kind(f"opening {url}: {first_line(error)}") from error
        if response is not None and response.status >= 500:
            raise SiteError(f"{url} answered HTTP {response.status}")

    def switch(self, index: int) -> None:
        """Brings a tab to the front. Raises IndexError."""
        if not 0 <= index < len(self._watches):
            raise IndexError(index)
        self._front = index

    def mark(self) -> None:
        """Call this just before an action: everything that the page does from then on is attributed to the action."""
        for watch in self._watches:
            watch.mark()

    def expect_download(self) -> None:
        """Call this before an action on a download link, since the page gives no sign that a download has started."""
        self._watch().downloading = True

    async def settle(self) -> str | None:
        """Waits until the effects of an action, such as a navigation or a new tab, are complete.

        Returns a message for the policy if something went wrong, for example an address outside of the task's sites.

        Raises:
            BrowserError, SiteError: the page crashed, did not load in time, or its site is down.
        """
        acting = self._watch()
        await self._wait_for_page(acting)
        if acting.opening:
            await self._wait_until(lambda: self._watch() is not acting, self.config.settle_seconds, acting)
        watch = self._watch()
        if watch is not acting:
            await self._wait_for_page(watch)
            watch = self._watch()
        if acting.downloading:
            await self._wait_until(lambda: not acting.downloading, GRACE, acting)
        problem = None
        if (watch.unreachable or watch.url) not in ("", "about:blank") and not is_inside(watch.unreachable or watch.url, self.hosts):
            await self._leave_page(watch)
            problem = refusals.OUTSIDE
        await self._check(watch)
        return problem

    async def _check(self, watch: Watch) -> None:
        """Raises SiteError if the page failed because its site is down."""
        address = watch.unreachable or watch.url
        if not (watch.unreachable or watch.failure) or not is_inside(address, self.hosts):
            return
        doubtful = watch.failure in BROKEN_OFF or (not watch.failure and address.startswith("http"))
        if watch.failure in DOWN or (doubtful and not await accepts(address)):
            raise SiteError(f"{address} can't be reached ({watch.failure or 'no reason given'})")

    async def observe(self) -> Observation:
        """Reads the page in front, once it has loaded and the requests of its scripts are answered.

        Where people see an error page, the observation is one line that describes the error.

        Raises:
            BrowserError, SiteError: the page can't be read, a navigation never finished, or the site is down.
        """
        notices, self.notices = self.notices, []
        notices += refusals.tab_notice(self._front, self.count)
        seconds, began = self.config.call_seconds, time.monotonic()
        deadline, patience = began + self.config.load_seconds, began + self.config.settle_seconds
        restless = f"no page has stayed in the last {self.config.load_seconds:g} s: each leads to another"
        limits = self.observation_config.script_limits() | {"wait": 1000 * self.config.settle_seconds}
        while True:
            watch = self._watch()
            answers = watch.answers
            if watch.unreachable and not watch.navigating:
                await self._check(watch)
                self.observed = watch.page
                inside = is_inside(watch.unreachable, self.hosts)
                why = describe(watch.failure) if inside else "it is outside of the task's sites"
                return blank(watch.unreachable, [*notices, f"this page can't be shown: {why}"])
            try:
                await watch.attach(seconds)
                data = await asyncio.wait_for(watch.call(SCRIPT, limits), seconds)
            except TimeoutError:
                raise BrowserError(f"reading the page took more than {seconds:g} s") from None
            except Error as error:
                # The page navigated away or closed itself while it was read.
                if watch.crashed or not (is_left(error) or (watch.page.is_closed() and self.count)):
                    raise BrowserError(f"reading the page: {first_line(error)}") from error
                if time.monotonic() > deadline:
                    self.observed = watch.page
                    return blank(watch.url, [*notices, restless])
                await self._wait_for_page(self._watch())
                continue
            if watch.navigating and time.monotonic() < deadline:
                await self._wait_for_page(watch)
            elif (watch.fetches or watch.answers != answers) and time.monotonic() < patience:
                await self._wait_until(lambda seen=watch: not seen.fetches, patience - time.monotonic(), watch)
            else:
                await self._check(watch)
                self.observed = watch.page
                if watch.navigating:
                    notices.append(restless)
                if watch.failure:
                    notices.append(f"this page is not whole: {describe(watch.failure)}")
                try:
                    return read(data, self.observation_config, notices)
                except ValueError as error:
                    raise BrowserError(str(error)) from error

    async def ask(self, script: str, argument: Any) -> Any:
        """Evaluates one of our functions in the page in front and returns the result. Raises as `Watch.call`."""
        watch = self._watch()
        await watch.attach(self.config.call_seconds)
        return await watch.call(script, argument)

    async def screenshot(self) -> bytes | None:
        """Returns a JPEG of the viewport. None if the browser could not make one."""
        try:
            picture = self.page.screenshot(type="jpeg", quality=self.config.screenshot_quality)
            return await asyncio.wait_for(picture, self.config.call_seconds)
        except (Error, TimeoutError):
            return None

    async def history(self) -> tuple[int, int]:
        """Returns the number of history entries before and after the current page of the tab in front. Raises BrowserError."""
        return await self._history(self._watch())

    async def _history(self, watch: Watch) -> tuple[int, int]:
        await watch.attach(self.config.call_seconds)
        entries, current = await bounded(watch.entries(), self.config.call_seconds, "reading the history")
        before = [entry for entry in entries[:current] if entry["url"] != "about:blank"]
        return len(before), len(entries) - current - 1

    async def move(self, steps: int) -> None:
        """Starts a history navigation in the tab in front. `settle` waits for the page. Raises BrowserError."""
        await bounded(self._watch().move(steps), self.config.call_seconds, "going through the history")

    async def _close_surplus(self, page: Page) -> None:
        if page.is_closed() or any(watch.page == page for watch in self._watches):
            return
        notice = f"the page opened more than {MAX_TABS} tabs; the others were closed"
        if notice not in self.notices:
            self._add_notice(notice)
        try:
            await asyncio.wait_for(page.close(), self.config.call_seconds)
        except (Error, TimeoutError):
            return

    def _opened(self, page: Page) -> None:
        if self.count == MAX_TABS or any(watch.page == page for watch in self._watches):
            return
        self._watches.append(Watch(page))
        self._front = len(self._watches) - 1
        self._wake_waiters()
        page.on("close", lambda _: self._closed(page))
        page.on("download", self._offered)

    def _wake_waiters(self) -> None:
        for watch in self._watches:
            watch.changed.set()

    def _closed(self, page: Page) -> None:
        index = next((i for i, watch in enumerate(self._watches) if watch.page == page), None)
        if index is None:
            return
        self._watches.pop(index).changed.set()
        if self._front >= index and self._front > 0:
            self._front -= 1

    def _offered(self, download: Download) -> None:
        self._add_notice(f'the page offered the file "{sanitize(download.suggested_filename)[:100]}"; it was not saved')

    async def _dialog(self, dialog: Dialog) -> None:
        text = sanitize(dialog.message)[:300]
        try:
            if dialog.type == "prompt":
                self._add_notice(f'the page asked "{text}"; it was dismissed')
                await asyncio.wait_for(dialog.dismiss(), self.config.call_seconds)
            else:
                if dialog.type == "beforeunload":
                    self._add_notice("the page asked whether to leave it though changes may not be saved; it was left")
                else:
                    self._add_notice(f'the page said "{text}"; it was accepted')
                await asyncio.wait_for(dialog.accept(), self.config.call_seconds)
        except (Error, TimeoutError):
            return

    def _add_notice(self, notice: str) -> None:
        if len(self.notices) < MAX_NOTICES:
            self.notices.append(notice)

    def _watch(self) -> Watch:
        if not self._watches:
            raise BrowserError("every page of the episode has closed")
        return self._watches[self._front]

    async def _wait_for_page(self, watch: Watch) -> None:
        """Waits until a requested page, if any, has replaced the current one."""
        await watch.attach(self.config.call_seconds)
        if not watch.navigating:
            await watch.pause(self.config.call_seconds)
        if watch.closing:
            await self._wait_until(lambda: watch not in self._watches, self.config.settle_seconds, watch)
        began, commits = time.monotonic(), watch.commits
        while watch.navigating and watch in self._watches:
            ended = watch.stopped
            limit = GRACE if ended else began + self.config.load_seconds - time.monotonic()
            if not await self._wait_until(lambda ended=ended: not watch.navigating or watch.stopped != ended, limit, watch):
                if watch.commits != commits:
                    return  # A chain of pages, each of which requests the next.
                if not ended:
                    raise SiteError(f"{watch.url}: no page within {self.config.load_seconds:g} s")
                # Loading has ended without a new page: a download, or a response without content.
                watch.requested = watch.scheduled = False

    async def _wait_until(self, done: Callable[[], Any], seconds: float, watch: Watch) -> bool:
        """Waits at most `seconds` until `done()` is true. Raises BrowserError if the page crashes."""
        end = time.monotonic() + seconds
        while not done():
            watch.changed.clear()
            if watch.crashed:
                raise BrowserError("the page crashed")
            try:
                await asyncio.wait_for(watch.changed.wait(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                return bool(done())
        return True

    async def _leave_page(self, watch: Watch) -> None:
        """Navigates away from a page that is not part of the task."""
        watch.mark()
        earlier, _ = await self._history(watch)
        if self.count > 1 and not earlier:
            await bounded(watch.page.close(), self.config.call_seconds, "closing a tab")
        elif earlier:
            await bounded(watch.move(-1), self.config.call_seconds, "going back")
            await self._wait_for_page(watch)
