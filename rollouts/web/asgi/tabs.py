"""The tabs of one episode: history, and the actions of a policy. The counterpart of `rollouts.web.tabs` and `rollouts.web.executor`."""

import dataclasses
from collections.abc import Iterable, Sequence

from mira_jax.trajectories import actions
from mira_jax.trajectories.records import Action
from rollouts.errors import UnsupportedError
from rollouts.web import refusals
from rollouts.web.asgi import forms
from rollouts.web.asgi.dom import Element, cut
from rollouts.web.asgi.page import Page, Request
from rollouts.web.asgi.sites import Context
from rollouts.web.asgi.urls import same_page
from rollouts.web.fence import is_inside
from rollouts.web.neterrors import describe
from rollouts.web.observation import Element as Shown
from rollouts.web.observation import Observation, ObservationConfig, blank, read_page
from rollouts.web.options import Option, choose
from rollouts.web.refusals import ActionError

RESENT = "ERR_CACHE_MISS"
"""Chromium's code of the error page for the answer to a form, which a history navigation does not send again."""


@dataclasses.dataclass
class Visit:
    """A page in the history of a tab, which several entries share if they differ by a fragment."""

    page: Page | None
    """None while the tab shows another page."""
    posted: bool = False
    """Whether the page is the answer to a form sent by POST."""
    left: Page | None = None
    """The page as the tab left it, whose form controls are restored."""


@dataclasses.dataclass
class Entry:
    url: str
    visit: Visit


class Tab:
    """A tab, with its history."""

    def __init__(self, context: Context):
        self.context = context
        self.entries: list[Entry] = []
        self.current = -1
        self.failure = ""
        """Chromium's error code, if an error page is shown."""

    @property
    def entry(self) -> Entry:
        return self.entries[self.current]

    @property
    def page(self) -> Page:
        page = self.entry.visit.page
        assert page is not None
        return page

    async def go(self, request: Request) -> None:
        """Follows a link or submits a form."""
        if not self.entries:
            page, posted = await self.context.load(request)
            self._push(Entry(page.url, Visit(page, posted)))
            return
        url = self.page.url
        if request.body is None and "#" in request.url and same_page(request.url, url):
            self._move_within(request.url)
            return
        page, posted = await self.context.load(request)
        self._leave()
        entry = Entry(page.url, Visit(page, posted))
        if request.body is None and request.url == url:
            # A navigation to the address of the page replaces its entry (HTML, "navigate", step 16).
            self.entries[self.current] = entry
        else:
            self._push(entry)

    async def move(self, steps: int) -> None:
        """Goes through the history. The page is requested again, and what was entered on it is restored."""
        target = self.entries[self.current + steps]
        if target.visit is self.entry.visit and not self.failure:
            self.current += steps
            self.page.url = target.url
            return
        if target.visit.posted:
            self._leave()
            self.current += steps
            self.failure = RESENT
            return
        page, _ = await self.context.load(Request(target.url))
        self._leave()
        self.current += steps
        self.failure = ""
        target.url, target.visit.page = page.url, page
        if target.visit.left is not None:
            forms.restore(page.document, forms.save(target.visit.left.document))

    def _push(self, entry: Entry) -> None:
        del self.entries[self.current + 1 :]
        self.entries.append(entry)
        self.current += 1

    def _move_within(self, url: str) -> None:
        page = self.page
        if url != page.url:
            self._push(Entry(url, self.entry.visit))
        page.url = url
        target = page.by_id(url.partition("#")[2])
        if target is not None:
            page.focus(target if page.is_focusable(target) else None)

    def _leave(self) -> None:
        page = self.entry.visit.page
        if page is not None:
            self.entry.url = page.url
            self.entry.visit.page, self.entry.visit.left = None, page


class AsgiPages:
    """The tabs of one episode, and the actions of its policy on them."""

    front = None
    """There is no page of a browser."""

    def __init__(self, context: Context, hosts: Iterable[str], observation: ObservationConfig):
        self._context, self._hosts, self._config = context, frozenset(hosts), observation
        self._tabs: list[Tab] = []
        self._front = 0

    async def open(self, urls: Sequence[str]) -> None:
        """Opens a tab for each address, with the first in front. Raises SiteError, UnsupportedError."""
        for url in urls:
            tab = Tab(self._context)
            await tab.go(Request(url))
            self._tabs.append(tab)

    async def observe(self) -> Observation:
        """Reads the page in front. Raises UnsupportedError."""
        tab = self._tab
        notices = refusals.tab_notice(self._front, len(self._tabs))
        if tab.failure:
            return blank(tab.entry.url, [*notices, f"this page can't be shown: {describe(tab.failure)}"])
        return read_page(tab.page.snapshot(self._config.script_limits()), self._config, notices)

    async def perform(self, action: Action, observation: Observation) -> None:
        """Performs one action, and loads the page that it leads to.

        Raises:
            ActionError: the page does not allow the action.
            SiteError, UnsupportedError: the application failed, or this driver does not know what follows.
        """
        element = refusals.find(action.element, observation) if action.element is not None else None
        tab = self._tab
        refusal = None
        try:
            await self._do(action, element)
        except ActionError as error:
            refusal = error
        await self._settle(tab)
        if refusal:
            raise refusal

    async def screenshot(self) -> bytes | None:
        return None

    @property
    def _tab(self) -> Tab:
        return self._tabs[self._front]

    async def _settle(self, tab: Tab) -> None:
        """Does what the page has requested: loads another page, and answers its scripts."""
        if tab.failure:
            return
        page = tab.page
        request, page.request = page.request, None
        if request is not None:
            page.fetches = []
            if not is_inside(request.url, self._hosts):
                raise UnsupportedError(f"{request.url} is outside of the task's sites")
            await tab.go(request)
        while page.fetches:
            fetch = page.fetches.pop(0)
            fetch.done(await self._context.fetch(fetch.url))
            tab.entry.url = page.url

    async def _do(self, action: Action, element: Shown | None) -> None:
        name, argument = action.name, action.argument or ""
        if name in ("Scroll Up", "Scroll Down", "Wait"):
            return
        if name == "Switch Tab":
            try:
                index = int(argument)
                if not 0 <= index < len(self._tabs):
                    raise IndexError(index)
            except (ValueError, IndexError):
                raise refusals.no_tab(argument, len(self._tabs)) from None
            self._front = index
        elif name in (actions.GO_BACKWARD, actions.GO_FORWARD):
            backward = name == actions.GO_BACKWARD
            tab = self._tab
            if not (tab.current if backward else len(tab.entries) - tab.current - 1):
                raise refusals.no_page(backward)
            await tab.move(-1 if backward else 1)
        elif name == "Press Enter":
            if self._tab.failure:
                return
            if element is not None:
                target = self._target(element)
                if not self._page.is_focusable(target):
                    raise refusals.refuse("no focus", element)
                self._page.focus(target)
            self._page.enter()
        elif element is None:
            raise ValueError(f"no such action: {name}")
        elif name == "Select Dropdown Option":
            self._choose(element, argument)
        elif name in ("Type", "Search"):
            self._type(element, argument)
            if name == "Search":
                self._page.enter()
        else:
            target = self._clickable(element)
            if name == "Click":
                self._page.press(target)
            elif name == "Right Click":
                self._page.press_right(target)

    @property
    def _page(self) -> Page:
        return self._tab.page

    def _target(self, element: Shown) -> Element:
        found = self._page.elements[element.index : element.index + 1] if not self._tab.failure else []
        if not found or not self._page.is_connected(found[0]):
            raise refusals.refuse("gone", element)
        return found[0]

    def _clickable(self, element: Shown) -> Element:
        """The counterpart of `locate.js`."""
        target, page = self._target(element), self._page
        if forms.is_disabled(target) or target.get("aria-disabled") == "true":
            raise refusals.refuse("disabled", element)
        if page.modals and not page.modals[-1].contains(target):
            modal = page.modals[-1]
            raise refusals.refuse("covered", element, {"tag": modal.tag, "by": page.words(modal)})
        over = page.cover(target)
        if over is not None:
            raise UnsupportedError(
                f'whether <{over.tag}> "{page.words(over)[:30]}" lies over "{element.handle}" is not known without a layout'
            )
        return target

    def _type(self, element: Shown, text: str) -> None:
        if element.tag in refusals.NEVER_TEXT:
            raise refusals.no_text(element)
        page, target = self._page, self._clickable(element)
        page.press(target)
        if not page.is_connected(target):
            raise refusals.refuse("gone", element)
        if "readonly" in target.attributes:
            raise refusals.refuse("readonly", element)
        field = target if _takes_text(target) else page.focused
        if field is None or not _takes_text(field):
            raise refusals.refuse("not text", element)
        page.focus(field)
        page.type(field, text)

    def _choose(self, element: Shown, text: str) -> None:
        select = self._target(element)
        if select.tag != "select":
            raise refusals.refuse("no select", element)
        if forms.is_disabled(select):
            raise refusals.refuse("disabled", element)
        options = [option for option in forms.options_of(select) if "hidden" not in option.attributes]
        places = forms.options_of(select)
        offered = [
            Option(
                places.index(option), cut(forms.option_label(option), 400), cut(forms.option_value(option), 400), forms.is_disabled(option)
            )
            for option in options[:10_000]
        ]
        try:
            choice = choose(offered, text)
        except ValueError as refusal:
            raise refusals.no_option(element, refusal) from None
        self._clickable(element)
        self._page.choose(select, places[choice.place])


def _takes_text(element: Element) -> bool:
    return element.tag == "textarea" or (element.tag == "input" and forms.type_of(element) in forms.TEXT_TYPES)
