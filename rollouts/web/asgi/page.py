"""One page: its document, the focus, and what a click, a key and typed text do to it."""

import dataclasses
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from rollouts.errors import UnsupportedError
from rollouts.web.asgi import forms
from rollouts.web.asgi.css import Styles, cascade
from rollouts.web.asgi.dom import Element, clean, cut, strip
from rollouts.web.asgi.snapshot import Snapshot, inner_text
from rollouts.web.asgi.urls import join

TYPES = ("application/x-www-form-urlencoded", "")
VALIDATED = ("min", "max", "pattern", "required")


@dataclasses.dataclass(frozen=True)
class Request:
    """A navigation that a page has requested."""

    url: str
    body: str | None = None
    """Of a POST. None: a GET."""


@dataclasses.dataclass
class Event:
    """A DOM event on its way from the target to the document."""

    target: Element
    prevented: bool = False

    def prevent(self) -> None:
        """`preventDefault()`."""
        self.prevented = True


def toggle(element: Element, attribute: str) -> None:
    """`toggleAttribute(attribute)`."""
    if element.attributes.pop(attribute, None) is None:
        element.attributes[attribute] = ""


@dataclasses.dataclass(frozen=True)
class Fetch:
    """A request of a script. `done` gets the text of the response."""

    url: str
    done: Callable[[str], None]


class Page:
    """A loaded page. Scripts of the suite and the driver call it."""

    def __init__(self, document: Element, url: str, status: int, sheets: list[str], width: int):
        self.document, self.url, self.status = document, url, status
        self.elements: list[Element] = []
        """The elements of the last snapshot, to whose places the handles refer."""
        self.focused: Element | None = None
        self.modals: list[Element] = []
        """Open modal dialogs, the last one in front."""
        self.request: Request | None = None
        """The last navigation requested since it was taken."""
        self.fetches: list[Fetch] = []
        self.cover: Callable[[Element], Element | None] = lambda element: None
        """Returns what lies over an element's page, and may cover the element. Set by a script's counterpart."""
        self._cascade = cascade(tuple(sheets), width)
        self._focused_before: dict[Element, Element | None] = {}
        self._popup = False
        """Whether the list of a select is open, which takes the keys. A click anywhere else closes it."""
        self._end_of_text: Element | None = None
        """The text area in which the caret is known to be at the end."""

    @property
    def root(self) -> Element:
        return self.document.element_children[0]

    @property
    def body(self) -> Element | None:
        return next((node for node in self.root.element_children if node.tag == "body"), None)

    @property
    def styles(self) -> Styles:
        return Styles(self._cascade, unquote(self.url.partition("#")[2]))

    def by_id(self, name: str) -> Element | None:
        return next((node for node in self.document.elements() if node.attributes.get("id") == name), None)

    def is_connected(self, element: Element) -> bool:
        return self.document.contains(element)

    # What is seen

    def snapshot(self, limits: dict[str, Any]) -> dict[str, Any]:
        """The page as `observation.js` returns it."""
        taken = Snapshot(self.document, self.modals[-1] if self.modals else self.body, self.styles, limits)
        self.elements = taken.elements
        title = next((node.text_content for node in self.document.elements() if node.tag == "title"), "")
        return {
            "title": strip(clean(title, 300)),
            "url": clean(self.url, 2000),
            "status": self.status,
            "nodes": taken.nodes,
            "cut": taken.cut,
        }

    # Events

    def dispatch(self, target: Element, kind: str) -> bool:
        """Sends an event from the target up to the document. Returns whether its default action takes place."""
        event = Event(target)
        for node in list(target.ancestors()):
            for listener in (node.listeners or {}).get(kind, ()):
                listener(event)
        return not event.prevented

    def focus(self, element: Element | None) -> None:
        """Moves the focus. None: to the document."""
        if element is self.focused:
            return
        before, self.focused = self.focused, element
        if before is not None and self.is_connected(before):
            self._bubble_free(before, "blur")

    def _bubble_free(self, target: Element, kind: str) -> None:
        for listener in (target.listeners or {}).get(kind, ()):
            listener(Event(target))

    def is_focusable(self, element: Element) -> bool:
        tag = element.tag
        able = (tag == "a" and "href" in element.attributes) or tag in forms.LISTED or tag == "summary"
        if not able or forms.is_disabled(element) or (tag == "input" and forms.type_of(element) == "hidden"):
            return False
        return self.is_connected(element) and self.styles.rendered(element) and not self._is_folded(element)

    def _is_folded(self, element: Element) -> bool:
        """Whether the element is in closed details."""
        inner = element
        for node in element.ancestors():
            if node.tag == "details" and "open" not in node.attributes and inner is not node and inner.tag != "summary":
                return True
            inner = node
        return False

    # Input

    def press(self, target: Element) -> None:
        """Presses and releases the left button of the mouse on an element."""
        if self.dispatch(target, "mousedown"):
            self.focus(next((node for node in target.ancestors() if node.tag and self.is_focusable(node)), None))
        self._end_of_text, self._popup = None, target.tag == "select"
        self.click(target)

    def press_right(self, target: Element) -> None:
        """Presses the right button, which moves the focus."""
        self.focus(next((node for node in target.ancestors() if node.tag and self.is_focusable(node)), None))
        self._end_of_text = None

    def click(self, target: Element) -> None:
        """Sends a click, and does what the element does when clicked."""
        # A field inside of a label is not the label's to act for.
        agent = next((node for node in target.ancestors() if node.tag in forms.FIELDS or self._acts(node)), None)
        undo = self._before_click(agent) if agent is not None else None
        if not self.dispatch(target, "click"):
            if undo is not None:
                undo()
        elif agent is not None and self.is_connected(agent):
            self._activate(agent)

    @staticmethod
    def _acts(element: Element) -> bool:
        if element.tag == "a":
            return "href" in element.attributes
        return element.tag in ("button", "summary", "label") or (
            element.tag == "input" and forms.type_of(element) in ("submit", "button", "reset", "checkbox", "radio")
        )

    def _before_click(self, agent: Element) -> Callable[[], None] | None:
        """Checkboxes and radio buttons change before the event, and back if it is prevented."""
        kind = forms.type_of(agent) if agent.tag == "input" else ""
        if kind not in ("checkbox", "radio") or forms.is_disabled(agent):
            return None
        group = [agent] if kind == "checkbox" else forms.radio_group(agent)
        before = [(node, node.value_set) for node in group]
        forms.check(agent, kind == "radio" or not forms.is_checked(agent))

        def undo() -> None:
            for node, value in before:
                node.value_set = value

        return undo

    def _activate(self, agent: Element) -> None:
        if forms.is_disabled(agent) or not self._acts(agent):
            return
        if agent.tag == "a":
            if "target" in agent.attributes or "download" in agent.attributes:
                raise UnsupportedError("a link that opens a tab or a download")
            self.navigate(agent.get("href"))
        elif agent.tag == "summary":
            details = agent.parent
            if details is not None and details.tag == "details" and details.element_children[0] is agent:
                toggle(details, "open")
        elif agent.tag == "label":
            control = forms.label_targets(self.document).get(agent)
            if control is not None:
                self.focus(control if self.is_focusable(control) else self.focused)
                self.click(control)
        elif forms.is_submit(agent):
            form = forms.form_of(agent)
            if form is not None:
                self.submit(form, agent)
        elif agent.tag in ("button", "input") and forms.type_of(agent) == "reset":
            raise UnsupportedError("a button that resets a form")

    def enter(self) -> None:
        """Presses Enter where the focus is."""
        if self._popup:
            raise UnsupportedError("Enter in the open list of a select")
        element = self.focused
        if element is None or not self.is_connected(element):
            return
        if element.tag == "textarea":
            self._break_line(element)
        elif element.tag in ("a", "button", "summary") or (element.tag == "input" and forms.is_submit(element)):
            self.click(element)
        elif element.tag == "input":
            self._submit_implicitly(element)
        elif element.tag == "select":
            self._popup = True

    def _break_line(self, area: Element) -> None:
        text = forms.value_of(area)
        if text and self._end_of_text is not area:
            raise UnsupportedError("Enter in a text, at a place that depends on its lines")
        if "readonly" not in area.attributes:
            area.value_set, self._end_of_text = text + "\n", area
            self.dispatch(area, "input")

    def _submit_implicitly(self, control: Element) -> None:
        """HTML, "implicit submission": by the form's first submit button, or without one if it has one text field."""
        form = forms.form_of(control)
        if form is None:
            return
        controls = forms.controls_of(form)
        button = next((node for node in controls if forms.is_submit(node)), None)
        if button is not None:
            if not forms.is_disabled(button):
                self.click(button)
        elif control.tag == "input" and sum(node.tag == "input" and forms.type_of(node) in forms.TEXT_TYPES for node in controls) == 1:
            self.submit(form, None)

    def type(self, element: Element, text: str) -> None:
        """Types over the whole text of a field."""
        if element.tag == "input":
            text = text.rstrip("\r\n").replace("\r\n", " ").replace("\r", " ").replace("\n", " ")
        else:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
            self._end_of_text = element
        if text or forms.value_of(element):
            element.value_set = text
            self.dispatch(element, "input")

    def choose(self, select: Element, option: Element) -> None:
        """Selects an option, as a script would."""
        self.focus(select)
        if forms.selected(select)[:1] != [option]:
            select.value_set = option
            self.dispatch(select, "input")
            self.dispatch(select, "change")

    # What scripts call

    def show_modal(self, dialog: Element) -> None:
        """`showModal()`."""
        dialog.attributes["open"] = ""
        self.modals.append(dialog)
        self._focused_before[dialog] = self.focused
        first = next((node for node in dialog.elements() if self.is_focusable(node)), None)
        if first is None:
            raise UnsupportedError("a modal dialog without a control")
        self.focus(first)

    def _close(self, dialog: Element) -> None:
        dialog.attributes.pop("open", None)
        if dialog in self.modals:
            self.modals.remove(dialog)
            before = self._focused_before.pop(dialog)
            self.focus(before if before is not None and self.is_focusable(before) else None)

    def submit(self, form: Element, submitter: Element | None) -> None:
        """`requestSubmit(submitter)`."""
        if self.is_connected(form):
            method = form.get("method").lower()
            if method == "dialog":
                dialog = form.closest("dialog")
                if dialog is not None and "open" in dialog.attributes:
                    self._close(dialog)
                return
            if "target" in form.attributes or form.get("enctype").lower() not in TYPES:
                raise UnsupportedError("a form with a target or an enctype")
            if submitter is not None and any(name.startswith("form") and name != "form" for name in submitter.attributes):
                raise UnsupportedError("a button that changes its form")
            if any(name in node.attributes for node in forms.controls_of(form) for name in VALIDATED):
                raise UnsupportedError("a form with fields that are validated")
            action = join(self.url, form.get("action")) if form.get("action") else self.url
            data = forms.encode(forms.entries(form, submitter))
            if method == "post":
                self.request = Request(action, data)
            else:
                base, _, fragment = action.partition("#")
                self.request = Request(f"{base.partition('?')[0]}?{data}{'#' * bool(fragment)}{fragment}")

    def navigate(self, address: str) -> None:
        """`location.assign(address)`, or a click on a link to it."""
        self.request = Request(join(self.url, address))

    def fetch(self, address: str, done: Callable[[str], None]) -> None:
        """`fetch(address)`. `done` is called with the text of the response before the next observation."""
        self.fetches.append(Fetch(join(self.url, address), done))

    def replace_state(self, address: str) -> None:
        """`history.replaceState(null, "", address)`."""
        self.url = join(self.url, address)

    def words(self, element: Element) -> str:
        """The text by which a message names an element."""
        return cut(inner_text(element, self.styles) or element.get("aria-label"), 60)
