"""Performs an action on the page in front, with mouse and keyboard."""

import asyncio
import importlib.resources
from typing import Any

from playwright.async_api import Page

from mira_jax.trajectories import actions
from mira_jax.trajectories.records import Action
from rollouts.errors import BrowserError
from rollouts.web import refusals
from rollouts.web.browser import bounded
from rollouts.web.observation import ELEMENTS_KEY, Element, Observation
from rollouts.web.options import Option, choose
from rollouts.web.playwright_errors import is_closed, is_left
from rollouts.web.refusals import ActionError
from rollouts.web.tabs import Tabs

WAIT_SECONDS = 1.0

_ELEMENT = f"const el = (window.{ELEMENTS_KEY} || [])[index]; if (!el || !el.isConnected) return {{problem: 'gone'}};"

_LOCATE = importlib.resources.files("rollouts.web").joinpath("locate.js").read_text(encoding="utf-8").replace("ELEMENTS_KEY", ELEMENTS_KEY)

_SELECT_TEXT = (
    """(index) => {"""
    + _ELEMENT
    + """
  if (el.readOnly) return {problem: 'readonly'};
  const ready = () => el.matches(':focus-within') ? {text: true} : {problem: 'no focus'};
  if (el.isContentEditable) { el.focus(); el.ownerDocument.defaultView.getSelection().selectAllChildren(el); return ready(); }
  const plain = ['text', 'search', 'email', 'tel', 'url', 'number', 'password'];
  if (el.tagName === 'TEXTAREA' || (el.tagName === 'INPUT' && plain.includes(el.type))) { el.focus(); el.select(); return ready(); }
  if (el.tagName === 'INPUT' && ['date', 'time', 'datetime-local', 'month', 'week', 'color', 'range'].includes(el.type)) return {set: true};
  const inner = el.ownerDocument.activeElement;
  if (inner && inner !== el && (['INPUT', 'TEXTAREA'].includes(inner.tagName) || inner.isContentEditable)) {
    inner.select?.();
    return {text: true};
  }
  return {problem: 'not text'};
}"""
)

_FOCUS = "(index) => {" + _ELEMENT + " el.focus(); return el.matches(':focus-within') ? {done: true} : {problem: 'no focus'}; }"

_SET_VALUE = (
    """([index, value]) => {"""
    + _ELEMENT
    + """
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(el, value);
  el.dispatchEvent(new Event('input', {bubbles: true}));
  el.dispatchEvent(new Event('change', {bubbles: true}));
  return el.value === '' && value !== '' ? {problem: 'format', type: el.type} : {};
}"""
)

_OPTIONS = (
    """(index) => {"""
    + _ELEMENT
    + """
  if (el.tagName !== 'SELECT') return {problem: 'no select'};
  if (el.matches(':disabled')) return {problem: 'disabled'};
  const clean = (text) => String(text).slice(0, 400).toWellFormed();
  const record = (option) => [option.index, clean(option.label || option.text), clean(option.value), option.matches(':disabled')];
  return {options: [...el.options].filter((option) => !option.hidden).slice(0, 10000).map(record)};
}"""
)

_CHOOSE = (
    """([index, place]) => {"""
    + _ELEMENT
    + """
  const choice = el.options[place];
  if (!choice) return {problem: 'gone'};
  el.focus();
  if (el.multiple ? choice.selected : el.selectedIndex === choice.index) return {};
  choice.selected = true;
  el.dispatchEvent(new Event('input', {bubbles: true}));
  el.dispatchEvent(new Event('change', {bubbles: true}));
  return {};
}"""
)

_SCROLL = "(share) => window.scrollBy({top: share * window.innerHeight, behavior: 'instant'})"


class Executor:
    """Performs actions on the tabs of one episode."""

    def __init__(self, tabs: Tabs):
        self.tabs = tabs

    async def perform(self, action: Action, observation: Observation) -> None:
        """Performs one action and waits until its effects have settled.

        Args:
            action: any action but `exit`.
            observation: the page as the policy saw it. The action uses its handles.

        Raises:
            ActionError: the page does not allow the action. The infrastructure is intact.
            BrowserError, SiteError: the infrastructure failed.
        """
        element = refusals.find(action.element, observation) if action.element is not None else None
        if element is not None and self.tabs.page is not self.tabs.observed:
            raise refusals.refuse("gone", element)
        self.tabs.mark()
        refusal = None
        try:
            await self._do(action, element)
        except ActionError as error:
            refusal = error
        problem = await self.tabs.settle()
        if refusal or problem:
            raise refusal or ActionError(problem)

    async def _do(self, action: Action, element: Element | None) -> None:
        page, name = self.tabs.page, action.name
        argument = action.argument or ""
        if name in ("Click", "Right Click", "Hover"):
            assert element is not None
            await self._point(page, element, name)
        elif name in ("Type", "Search"):
            assert element is not None
            await self._type(page, element, argument)
            if name == "Search":
                await self._press(page, "Enter")
        elif name == "Select Dropdown Option":
            assert element is not None
            await self._choose(element, argument)
        elif name == "Press Enter":
            if element is not None:
                await self._ask_of(_FOCUS, element)
            await self._press(page, "Enter")
        elif name in ("Scroll Up", "Scroll Down"):
            await self._call(self.tabs.ask(_SCROLL, 0.8 if name == "Scroll Down" else -0.8), "scrolling")
        elif name == "Switch Tab":
            try:
                self.tabs.switch(int(argument))
            except (ValueError, IndexError):
                raise refusals.no_tab(argument, self.tabs.count) from None
        elif name == "Wait":
            await asyncio.sleep(WAIT_SECONDS)
        elif name == actions.GO_BACKWARD:
            await self._history(backward=True)
        elif name == actions.GO_FORWARD:
            await self._history(backward=False)
        else:
            raise ValueError(f"no such action: {name}")

    async def _point(self, page: Page, element: Element, how: str) -> None:
        found = await self._ask_of(_LOCATE, element)
        mouse, x, y = page.mouse, found["x"], found["y"]
        if found["saves"] and how == "Click":
            self.tabs.expect_download()
        if how == "Hover":
            await self._call(mouse.move(x, y), "moving the mouse")
        else:
            await self._call(mouse.click(x, y, button="right" if how == "Right Click" else "left"), "clicking")

    async def _type(self, page: Page, element: Element, text: str) -> None:
        if element.tag in refusals.NEVER_TEXT:
            raise refusals.no_text(element)
        await self._point(page, element, "Click")
        how = await self._ask_of(_SELECT_TEXT, element)
        if how.get("set"):
            self._check(await self._ask(_SET_VALUE, [element.index, text]), element)
        elif text:
            await self._call(page.keyboard.insert_text(text), "typing")
        else:
            await self._press(page, "Delete")

    async def _choose(self, element: Element, text: str) -> None:
        options = (await self._ask_of(_OPTIONS, element))["options"]
        try:
            choice = choose([Option(*option) for option in options], text)
        except ValueError as refusal:
            raise refusals.no_option(element, refusal) from None
        await self._ask_of(_LOCATE, element)
        self._check(await self._ask(_CHOOSE, [element.index, choice.place]), element)

    async def _press(self, page: Page, key: str) -> None:
        await self._call(page.keyboard.press(key), f"pressing {key}")

    async def _history(self, backward: bool) -> None:
        earlier, later = await self.tabs.history()
        if not (earlier if backward else later):
            raise refusals.no_page(backward)
        await self.tabs.move(-1 if backward else 1)

    async def _ask(self, script: str, argument: Any) -> dict[str, Any]:
        """Returns the script's result. Empty if the page was left before it could answer."""
        return await self._call(self.tabs.ask(script, argument), "asking the page") or {}

    async def _ask_of(self, script: str, element: Element) -> dict[str, Any]:
        """Returns the result of a read-only script on an element. If the page was left meanwhile, the element counts as gone."""
        answer = await self._call(self.tabs.ask(script, element.index), "asking the page") or {"problem": "gone"}
        self._check(answer, element)
        return answer

    async def _call(self, awaitable: Any, what: str) -> Any:
        try:
            return await bounded(awaitable, self.tabs.config.call_seconds, what)
        except BrowserError as error:
            # The page navigated away or closed itself during the action. That is an effect of the action, not a failure.
            browser = self.tabs.context.browser
            closed_itself = is_closed(error) and self.tabs.count > 0 and browser is not None and browser.is_connected()
            if is_left(error) or closed_itself:
                return None
            raise

    def _check(self, answer: dict[str, Any], element: Element) -> None:
        if "problem" in answer:
            raise refusals.refuse(answer["problem"], element, answer)
