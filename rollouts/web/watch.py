"""Tracks the navigation of one page from its events: whether one is in progress, and how the last one ended."""

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
"""Runs tasks that an action has queued, such as submitting a form. Returns whether the page is closing itself."""

WORLD = "mira"
"""Name of the isolated world in which our scripts run. They share the document with the page's scripts, and nothing else."""

GRACE = 0.5
"""Seconds, after loading has ended, within which a new page must appear. A download never produces one."""

_FETCHES = frozenset({"fetch", "xhr", "script"})


class Watch:
    """Tracks the navigation of one page from its events.

    The renderer reports a navigation that a script, a link or a form requests before it answers the next call of the same session.
    Once the page has answered a `pause` in this session, everything that an action started is therefore known.
    """

    def __init__(self, page: Page):
        self.page = page
        self.session: CDPSession | None = None
        self.main = ""
        self.world: int | None = None
        """Isolated world of the current document, created on first use."""
        self.url = page.url
        self.unreachable = ""
        """The address that failed, if the current document is an error page."""
        self.failure = ""
        """Chromium's error code of the current page, or of the last requested one."""
        self.commits = 0
        """Number of documents committed."""
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
        """Returns when everything that the page was asked to do has started. `closing` is set if the page is closing. Raises
        BrowserError."""
        try:
            self.closing = await asyncio.wait_for(self.call(PAUSE), seconds) is True
        except TimeoutError:
            # A page that is navigating away need not answer.
            if not self.navigating:
                raise BrowserError(f"the page has not answered for {seconds:g} s") from None
        except Error as error:
            # A page that has navigated away or closed itself does not answer.
            if self.crashed or not (self.page.is_closed() or is_left(error)):
                raise BrowserError(first_line(error)) from error

    async def call(self, script: str, argument: Any = None) -> Any:
        """Evaluates one of our functions in the page. Scripts of the page can't observe it or change what it calls.

        Raises:
            playwright.async_api.Error: the page navigated away (see `is_left`), closed or crashed, or the function failed.
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
        """Forgets requests started before now, since a page may keep a request open indefinitely."""
        self.fetches.clear()
        self.opening = self.downloading = False

    async def entries(self) -> tuple[list[dict[str, Any]], int]:
        """Returns the tab's history and the current index. Raises playwright.async_api.Error."""
        assert self.session is not None
        while True:
            try:
                history = await self.session.send("Page.getNavigationHistory")
                return history["entries"], history["currentIndex"]
            except Error as error:
                # This happens for a moment while the page of one process is replaced by the page of another.
                if not is_not_active(error):
                    raise
            await asyncio.sleep(0.02)

    async def move(self, steps: int) -> None:
        """Starts a history navigation and sets `requested`. Raises playwright.async_api.Error."""
        assert self.session is not None
        entries, current = await self.entries()
        self.requested, self.stopped = True, 0.0
        await self.session.send("Page.navigateToHistoryEntry", {"entryId": entries[current + steps]["id"]})

    def _on_requested(self, event: dict[str, Any]) -> None:
        if event["frameId"] == self.main and event.get("disposition", "currentTab") == "currentTab":
            self.requested, self.stopped = True, 0.0
            self.changed.set()

    def _on_scheduled(self, event: dict[str, Any]) -> None:
        # A page that reloads itself every minute does not count as navigating.
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
            # Requests of the previous page never finish.
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
        # A navigation whose response is not a page, such as a download, is aborted.
        if request.is_navigation_request() and code != "ERR_ABORTED" and self._is_mine(request):
            self.failure = code
            self.changed.set()

    def _is_mine(self, request: Request) -> bool:
        try:
            return request.frame == self.page.main_frame
        except Error:
            # The frame is gone, or does not exist yet.
            return False

    def _offered(self) -> None:
        self.requested = self.downloading = False
        self.changed.set()

    def _crash(self) -> None:
        self.crashed = True
        self.changed.set()
