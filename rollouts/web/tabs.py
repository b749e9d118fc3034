"""The pages of one episode: which is in front, and whether it has settled after an action."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from playwright.async_api import BrowserContext, CDPSession, Dialog, Error, Page, Request

from rollouts.errors import BrowserError, SiteError
from rollouts.web.browser import BrowserConfig, bounded, first_line
from rollouts.web.fence import is_inside
from rollouts.web.observation import SCRIPT, Observation, ObservationConfig, read, sanitize

PAUSE = "() => new Promise(done => setTimeout(() => setTimeout(() => done(window.closed), 0), 0))"
"""Lets the tasks that an action queued run: submitting a form is one of them. Tells whether the page is closing itself."""

WORLD = "mira"
"""Our scripts run in an isolated world of this name: they share the page's document with its scripts, and nothing else."""

GRACE = 0.5
"""Seconds after the end of loading in which a page that is coming must have come: a download brings none."""

MAX_NOTICES = 5
"""Dialogs told of at once: a page may open them without end."""

MAX_TABS = 32
"""A page may open tabs without end as well: those beyond are closed."""

_LEFT = ("context was destroyed", "navigated or closed", "Cannot find context", "Promise was collected", "No frame for given id")
_FETCHES = frozenset({"fetch", "xhr", "script"})


class _Watch:
    """What one page is doing, from its own events.

    The renderer tells of a navigation that a script, a link or a form asks for before it answers the next call of the
    same session. So once the page has answered a pause in this session, everything that an action began is known.
    """

    def __init__(self, page: Page):
        self.page = page
        self.session: CDPSession | None = None
        self.main = ""
        self.world: int | None = None
        """Of the document that stands, once it was asked something."""
        self.url = page.url
        self.unreachable = ""
        self.changed = asyncio.Event()
        self.requested = self.scheduled = self.opening = self.closing = self.crashed = False
        self.stopped = 0.0
        self.fetches: set[Request] = set()
        self.answers = 0
        page.on("request", self._request)
        page.on("requestfinished", self._finished)
        page.on("requestfailed", self._finished)
        page.on("crash", lambda _: self._crash())
        page.on("close", lambda _: self.changed.set())

    async def attach(self, seconds: float) -> None:
        """Starts listening, once. Raises BrowserError."""
        if self.session is not None:
            return
        what = "watching a page"
        session = await bounded(self.page.context.new_cdp_session(self.page), seconds, what)
        session.on("Page.frameRequestedNavigation", self._on_requested)
        session.on("Page.frameScheduledNavigation", self._on_scheduled)
        session.on("Page.frameClearedScheduledNavigation", self._on_cleared)
        session.on("Page.frameNavigated", self._on_navigated)
        session.on("Page.navigatedWithinDocument", self._on_moved)
        session.on("Page.frameStartedLoading", self._on_started)
        session.on("Page.frameStoppedLoading", self._on_stopped)
        session.on("Page.windowOpen", self._on_window)
        enabled = asyncio.gather(session.send("Page.enable"), session.send("Page.getFrameTree"))
        _, tree = await bounded(enabled, seconds, what)
        self.main = tree["frameTree"]["frame"]["id"]
        self.session = session

    async def pause(self, seconds: float) -> None:
        """Returns when all that the page was asked to do has begun; `closing` tells whether that is to close. Raises BrowserError."""
        try:
            self.closing = await asyncio.wait_for(self.call(PAUSE), seconds) is True
        except TimeoutError:
            # A page that is on its way elsewhere need not answer.
            if not self.navigating:
                raise BrowserError(f"the page has not answered for {seconds:g} s") from None
        except Error as error:
            # A page that has left, or closed itself, gives no answer.
            if self.crashed or not (self.page.is_closed() or left(error)):
                raise BrowserError(first_line(error)) from error

    async def call(self, script: str, argument: Any = None) -> Any:
        """What a function of ours returns in the page. No script of the page can see it or change what it calls.

        Raises:
            playwright.async_api.Error: the page left (see `left`), closed or crashed, or the function failed.
        """
        assert self.session is not None
        if self.world is None:
            made = await self.session.send("Page.createIsolatedWorld", {"frameId": self.main, "worldName": WORLD})
            self.world = made["executionContextId"]
        asked = {"functionDeclaration": script, "executionContextId": self.world, "arguments": [{"value": argument}]}
        answer = await self.session.send("Runtime.callFunctionOn", asked | {"returnByValue": True, "awaitPromise": True})
        if failure := answer.get("exceptionDetails"):
            raise Error(str(failure.get("exception", {}).get("description") or failure.get("text")))
        return answer["result"].get("value")

    @property
    def navigating(self) -> bool:
        return self.requested or self.scheduled

    def mark(self) -> None:
        """Forgets requests that began before now: a page may keep one open for ever."""
        self.fetches.clear()
        self.opening = False
        self.unreachable = ""

    def _on_requested(self, event: dict[str, Any]) -> None:
        if event["frameId"] == self.main and event.get("disposition", "currentTab") == "currentTab":
            self.requested, self.stopped = True, 0.0
            self.changed.set()

    def _on_scheduled(self, event: dict[str, Any]) -> None:
        # A page that reloads itself every minute is not on its way.
        if event["frameId"] == self.main and event.get("delay", 0) <= 1:
            self.scheduled, self.stopped = True, 0.0
            self.changed.set()

    def _on_cleared(self, event: dict[str, Any]) -> None:
        if event["frameId"] == self.main:
            self.scheduled = False
            self.changed.set()

    def _on_navigated(self, event: dict[str, Any]) -> None:
        frame = event["frame"]
        if "parentId" not in frame:
            self.main, self.url, self.unreachable = frame["id"], frame["url"], frame.get("unreachableUrl", "")
            self.requested = self.scheduled = False
            self.world = None
            # Requests of the page that was left never end.
            self.fetches.clear()
            self.changed.set()

    def _on_moved(self, event: dict[str, Any]) -> None:
        if event["frameId"] == self.main:
            self.url = event["url"]
            self.requested = False
            self.changed.set()

    def _on_started(self, event: dict[str, Any]) -> None:
        if event["frameId"] == self.main:
            self.stopped = 0.0

    def _on_stopped(self, event: dict[str, Any]) -> None:
        if event["frameId"] == self.main:
            self.stopped = time.monotonic()
            self.changed.set()

    def _on_window(self, _: dict[str, Any]) -> None:
        self.opening = True
        self.changed.set()

    def _request(self, request: Request) -> None:
        if request.resource_type in _FETCHES:
            self.fetches.add(request)
            self.changed.set()

    def _finished(self, request: Request) -> None:
        if request in self.fetches:
            self.fetches.discard(request)
            self.answers += 1
            self.changed.set()

    def _crash(self) -> None:
        self.crashed = True
        self.changed.set()


def left(error: Exception) -> bool:
    """Whether a call failed because the page went elsewhere."""
    text = str(error)
    return any(mark in text for mark in _LEFT)


class Tabs:
    """The pages of one context. A new page comes to the front; when it closes, the one before it does."""

    def __init__(self, context: BrowserContext, config: BrowserConfig, observation: ObservationConfig):
        self.context, self.config, self.observation_config = context, config, observation
        self.hosts: frozenset[str] = frozenset()
        self.notices: list[str] = []
        self.observed: Page | None = None
        """The page that was read last: its elements are the ones that handles mean."""
        self._watches: list[_Watch] = []
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
        """Opens a tab for each address, the first in front. Pages outside of `hosts` are left. Raises BrowserError or SiteError."""
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
        """Waits until what an action began is done: a navigation, or a new tab.

        Returns what went wrong that the policy should know, for example an address outside of the task's sites.

        Raises:
            BrowserError, SiteError: the page crashed, did not load in time, or its server is gone.
        """
        acting = self._watch()
        await self._arrive(acting)
        if acting.opening:
            await self._until(lambda: self._watch() is not acting, self.config.settle_seconds, acting)
        watch = self._watch()
        if watch is not acting:
            await self._arrive(watch)
            watch = self._watch()
        if not watch.unreachable and (watch.url in ("", "about:blank") or is_inside(watch.url, self.hosts)):
            return None
        if watch.unreachable and is_inside(watch.unreachable, self.hosts):
            raise SiteError(f"{watch.unreachable} can't be reached")
        await self._return(watch)
        return "that leads outside of the task's sites, which can't be opened from here"

    async def observe(self) -> Observation:
        """Reads the page in front, once it is loaded and the requests that its scripts sent are answered.

        Raises:
            BrowserError, SiteError: the page can't be read, or went elsewhere and never came, or is the server's own failure.
        """
        notices, self.notices = self.notices, []
        if self.count > 1:
            others = ", ".join(str(index) for index in range(self.count) if index != self._front)
            notices.append(f"tab {self._front} is in front; other tabs: {others}")
        seconds, began = self.config.call_seconds, time.monotonic()
        deadline, patience = began + self.config.load_seconds, began + self.config.settle_seconds
        limits = self.observation_config.script_limits() | {"wait": 1000 * self.config.settle_seconds}
        while True:
            watch = self._watch()
            answers = watch.answers
            try:
                await watch.attach(seconds)
                data = await asyncio.wait_for(watch.call(SCRIPT, limits), seconds)
            except TimeoutError:
                raise BrowserError(f"reading the page took more than {seconds:g} s") from None
            except Error as error:
                # The page went elsewhere while it was read, or closed itself.
                if watch.crashed or not (left(error) or (watch.page.is_closed() and self.count)):
                    raise BrowserError(f"reading the page: {first_line(error)}") from error
                if time.monotonic() > deadline:
                    raise SiteError(f"{watch.url}: no page has stayed for {self.config.load_seconds:g} s") from error
                await self._arrive(self._watch())
                continue
            if watch.navigating and time.monotonic() < deadline:
                await self._arrive(watch)
            elif (watch.fetches or watch.answers != answers) and time.monotonic() < patience:
                await self._until(lambda seen=watch: not seen.fetches, patience - time.monotonic(), watch)
            else:
                self.observed = watch.page
                return self._read(data, notices)

    def _read(self, data: str, notices: Sequence[str]) -> Observation:
        try:
            observation = read(data, self.observation_config, notices)
        except ValueError as error:
            raise BrowserError(str(error)) from error
        if observation.status >= 500:
            raise SiteError(f"{observation.url} answered HTTP {observation.status}")
        return observation

    async def ask(self, script: str, argument: Any) -> Any:
        """What a function of ours returns in the page in front. Raises as `_Watch.call` does."""
        watch = self._watch()
        await watch.attach(self.config.call_seconds)
        return await watch.call(script, argument)

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
        watch = next(watch for watch in self._watches if watch.page == page)
        await watch.attach(seconds)
        assert watch.session is not None
        entries = await bounded(self._entries(watch.session), seconds, what)
        current = entries["currentIndex"]
        before = [entry for entry in entries["entries"][:current] if entry["url"] != "about:blank"]
        return len(before), len(entries["entries"]) - current - 1

    async def _entries(self, session: CDPSession) -> dict[str, Any]:
        while True:
            try:
                return await session.send("Page.getNavigationHistory")
            except Error as error:
                # For a moment, while a page of another process takes the place of the one before it.
                if "Not attached to an active page" not in str(error):
                    raise
            await asyncio.sleep(0.02)

    async def _close_surplus(self, page: Page) -> None:
        if page.is_closed() or any(watch.page == page for watch in self._watches):
            return
        notice = f"the page opened more than {MAX_TABS} tabs; the others were closed"
        if notice not in self.notices:
            self._tell(notice)
        try:
            await asyncio.wait_for(page.close(), self.config.call_seconds)
        except (Error, TimeoutError):
            return

    def _opened(self, page: Page) -> None:
        if self.count == MAX_TABS or any(watch.page == page for watch in self._watches):
            return
        self._watches.append(_Watch(page))
        self._front = len(self._watches) - 1
        self._stir()
        page.on("close", lambda _: self._closed(page))

    def _stir(self) -> None:
        for watch in self._watches:
            watch.changed.set()

    def _closed(self, page: Page) -> None:
        index = next((i for i, watch in enumerate(self._watches) if watch.page == page), None)
        if index is None:
            return
        self._watches.pop(index).changed.set()
        if self._front >= index and self._front > 0:
            self._front -= 1

    async def _dialog(self, dialog: Dialog) -> None:
        text = sanitize(dialog.message)[:300]
        try:
            if dialog.type == "prompt":
                self._tell(f'the page asked "{text}"; it was dismissed')
                await asyncio.wait_for(dialog.dismiss(), self.config.call_seconds)
            else:
                if dialog.type != "beforeunload":
                    self._tell(f'the page said "{text}"; it was accepted')
                await asyncio.wait_for(dialog.accept(), self.config.call_seconds)
        except (Error, TimeoutError):
            return

    def _tell(self, notice: str) -> None:
        if len(self.notices) < MAX_NOTICES:
            self.notices.append(notice)

    def _watch(self) -> _Watch:
        if not self._watches:
            raise BrowserError("every page of the episode has closed")
        return self._watches[self._front]

    async def _arrive(self, watch: _Watch) -> None:
        """Waits for the page that was asked for to replace the one that stands, if one was."""
        await watch.attach(self.config.call_seconds)
        if not watch.navigating:
            await watch.pause(self.config.call_seconds)
        if watch.closing:
            await self._until(lambda: watch not in self._watches, self.config.settle_seconds, watch)
        began = time.monotonic()
        while watch.navigating and watch in self._watches:
            ended = watch.stopped
            limit = GRACE if ended else began + self.config.load_seconds - time.monotonic()
            if not await self._until(lambda ended=ended: not watch.navigating or watch.stopped != ended, limit, watch):
                if not ended:
                    raise SiteError(f"{watch.url}: no page within {self.config.load_seconds:g} s")
                # Loading has ended, and no page has come: a download, or an answer without content.
                watch.requested = watch.scheduled = False

    async def _until(self, done: Callable[[], Any], seconds: float, watch: _Watch) -> bool:
        """Waits for `done()` to become true, at most `seconds`. Raises BrowserError when the page crashes."""
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

    async def _return(self, watch: _Watch) -> None:
        """Leaves a page that is not part of the task."""
        watch.mark()
        earlier, _ = await self.history(watch.page)
        if self.count > 1 and not earlier:
            await bounded(watch.page.close(), self.config.call_seconds, "closing a tab")
        elif earlier:
            await bounded(watch.page.go_back(wait_until="commit"), self.config.load_seconds, "going back")
            await self._arrive(watch)
