"""What one page is doing, from its own events: whether it is on its way elsewhere, and how the last way ended."""

import asyncio
import time
from typing import Any

from playwright.async_api import CDPSession, Error, Page, Request

from mira_jax.errors import first_line
from rollouts.errors import BrowserError
from rollouts.web.browser import bounded
from rollouts.web.neterrors import code_of
from rollouts.web.playwright_errors import is_left, is_not_active

PAUSE = "() => new Promise(done => setTimeout(() => setTimeout(() => done(window.closed), 0), 0))"
"""Lets the tasks that an action queued run: submitting a form is one of them. Tells whether the page is closing itself."""

WORLD = "mira"
"""Our scripts run in an isolated world of this name: they share the page's document with its scripts, and nothing else."""

GRACE = 0.5
"""Seconds after the end of loading in which a page that is coming must have come: a download brings none."""

_FETCHES = frozenset({"fetch", "xhr", "script"})


class Watch:
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
        """The address that an error page stands for, if one stands."""
        self.failure = ""
        """Chromium's code of what went wrong with the page that stands, or with the last that was asked for."""
        self.commits = 0
        """How many documents have come."""
        self.changed = asyncio.Event()
        self.requested = self.scheduled = self.opening = self.downloading = self.closing = self.crashed = False
        self.stopped = 0.0
        self.fetches: set[Request] = set()
        self.answers = 0
        page.on("request", self._request)
        page.on("requestfinished", self._finished)
        page.on("requestfailed", self._failed)
        page.on("download", lambda _: self._offered())
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
        await bounded(session.send("Page.enable"), seconds, what)
        tree = await bounded(session.send("Page.getFrameTree"), seconds, what)
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
            if self.crashed or not (self.page.is_closed() or is_left(error)):
                raise BrowserError(first_line(error)) from error

    async def call(self, script: str, argument: Any = None) -> Any:
        """What a function of ours returns in the page. No script of the page can see it or change what it calls.

        Raises:
            playwright.async_api.Error: the page left (see `is_left`), closed or crashed, or the function failed.
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
        self.opening = self.downloading = False

    async def entries(self) -> tuple[list[dict[str, Any]], int]:
        """The history of the tab, and the place in it. Raises playwright.async_api.Error."""
        assert self.session is not None
        while True:
            try:
                history = await self.session.send("Page.getNavigationHistory")
                return history["entries"], history["currentIndex"]
            except Error as error:
                # For a moment, while a page of another process takes the place of the one before it.
                if not is_not_active(error):
                    raise
            await asyncio.sleep(0.02)

    async def move(self, steps: int) -> None:
        """Begins to go through the history; `requested` says that it has. Raises playwright.async_api.Error."""
        assert self.session is not None
        entries, current = await self.entries()
        self.requested, self.stopped = True, 0.0
        await self.session.send("Page.navigateToHistoryEntry", {"entryId": entries[current + steps]["id"]})

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
            self.commits += 1
            if not self.unreachable:
                self.failure = ""
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

    def _failed(self, request: Request) -> None:
        self._finished(request)
        code = code_of(request.failure or "")
        # An answer that is no page, such as a download, is aborted.
        if request.is_navigation_request() and code != "ERR_ABORTED" and self._is_mine(request):
            self.failure = code
            self.changed.set()

    def _is_mine(self, request: Request) -> bool:
        try:
            return request.frame == self.page.main_frame
        except Error:
            # The frame is gone, or not there yet.
            return False

    def _offered(self) -> None:
        self.requested = self.downloading = False
        self.changed.set()

    def _crash(self) -> None:
        self.crashed = True
        self.changed.set()
