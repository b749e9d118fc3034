"""The scripts of the arena's pages in Python, for the driver `asgi`. Each function is the counterpart of one `script.js`.

A script is known by its SHA-256: whoever changes one must change its counterpart here. A test compares both in Chromium.
"""

import calendar
import re
from collections.abc import Callable

from rollouts.errors import UnsupportedError
from rollouts.web.asgi.dom import Element, Text, parse, strip
from rollouts.web.asgi.forms import form_of, value_of
from rollouts.web.asgi.page import Event, Page

MONTHS = [name.lower() for name in calendar.month_name[1:]]
SUGGESTIONS = 5
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _make(tag: str, text: str = "", /, **attributes: str) -> Element:
    made = Element(tag, {name.replace("_", "-"): value for name, value in attributes.items()})
    if text:
        made.append(Text(text))
    return made


def _find(page: Page, tag: str, attribute: str) -> list[Element]:
    return [node for node in page.document.elements() if node.tag == tag and attribute in node.attributes]


def _menus(page: Page) -> list[Element]:
    return [node for node in page.document.elements() if node.tag == "details" and "menu" in node.classes]


def _close_menus(page: Page, target: Element | None) -> None:
    """Closes the menus that the target is not in."""
    for menu in _menus(page):
        if target is None or not menu.contains(target):
            menu.attributes.pop("open", None)


def _is_in(element: Element, name: str) -> bool:
    """Whether the element is inside of one of that class."""
    return any(name in node.classes for node in element.ancestors())


def _comes_after(page: Page, first: Element, second: Element) -> bool:
    for node in page.document.elements():
        if node is first:
            return True
        if node is second:
            return False
    return False


def _options(names: list[str]) -> list[Element]:
    return [_make("li", name, role="option") for name in names]


def _show(suggestions: Element, options: list[Element]) -> None:
    suggestions.replace_children(*options)
    if options:
        suggestions.attributes.pop("hidden", None)
    else:
        suggestions.attributes["hidden"] = ""


# The map and the encyclopedia


def atlas(page: Page) -> None:
    """Search suggestions, and the tabs of the directions form."""
    body = page.body
    assert body is not None
    names = body.get("data-names").split("|")
    for field in _find(page, "input", "data-suggest"):
        _suggest(page, field, names)
    for tab in page.document.elements():
        if tab.get("role") == "tab":
            tab.on("click", lambda event, tab=tab: _choose_way(page, tab, event))


def _suggest(page: Page, field: Element, names: list[str]) -> None:
    suggestions = _make("ul", **{"class": "suggestions"}, role="listbox", hidden="")
    suggestions.classes = ("suggestions",)
    field.insert_after(suggestions)

    def choose(event: Event) -> None:
        option = next((node for node in event.target.ancestors() if node.get("role") == "option"), None)
        if option is None:
            return
        field.value_set = option.text_content
        _show(suggestions, [])
        page.focus(field)
        if field.get("data-suggest") == "send":
            form = form_of(field)
            assert form is not None
            page.submit(form, None)

    field.on("input", lambda event: _show(suggestions, _options(_begun(value_of(field), names))))
    suggestions.on("click", choose)


def _begun(text: str, names: list[str]) -> list[str]:
    typed = text.lower().split()
    if not typed or " ".join(typed) in names:
        return []
    return [name for name in names if all(any(word.startswith(part) for word in name.split(" ")) for part in typed)][:SUGGESTIONS]


def _choose_way(page: Page, tab: Element, event: Event) -> None:
    event.prevent()
    form = form_of(tab) or tab.closest("form")
    assert form is not None
    fields = {node.get("name"): node for node in form.elements() if node.tag == "input"}
    fields["by"].attributes["value"], fields["by"].dirty = tab.get("data-by"), True
    for other in form.elements():
        if other.get("role") == "tab":
            other.attributes["aria-selected"] = "true" if other is tab else "false"
    if value_of(fields["from"]) and value_of(fields["to"]):
        page.submit(form, None)


# The code host


def code(page: Page) -> None:
    """A menu that closes, names that complete themselves, a calendar for dates."""
    page.document.on("click", lambda event: _close_menus(page, event.target))
    for field in _find(page, "input", "data-people"):
        _complete(page, field)
    for field in _find(page, "input", "data-date"):
        _set_up_date(field)
    page.cover = lambda target: _code_cover(page, target)


def _code_cover(page: Page, target: Element) -> Element | None:
    """An open menu or list of suggestions hangs over what comes after it in the page's main part.

    Rows and the fields of a tall form are wider than both, and the forms of a row are at its other end. What begins a paragraph is to
    the left of the menu.
    """
    wide = (
        "what" in target.classes
        or (target.tag != "button" and _is_in(target, "stack"))
        or (target.closest("form") and _is_in(target, "rows"))
    )
    if wide or target.closest("main") is None:
        return None
    begins = target.parent is not None and target.parent.tag == "p" and target.parent.element_children[0] is target
    layers = [menu for menu in _menus(page) if "open" in menu.attributes and not begins]
    layers += [node for node in page.document.elements() if "suggestions" in node.classes and "hidden" not in node.attributes]
    return next((layer for layer in layers if not layer.contains(target) and _comes_after(page, layer, target)), None)


def _complete(page: Page, field: Element) -> None:
    people = [entry.split("|") for entry in field.get("data-people").split(",")]
    suggestions = _make("ul", role="listbox", hidden="", **{"class": "suggestions"})
    field.insert_after(suggestions)

    def choose(name: str) -> None:
        field.value_set = name
        suggestions.attributes["hidden"] = ""
        page.focus(field)

    def complete(event: Event) -> None:
        typed = strip(value_of(field)).lower()
        done = not typed or any(name == typed for name, *_ in people)
        found = [] if done else [(name, rest[0]) for name, *rest in people if typed in rest[0]][:SUGGESTIONS]
        options = _options([full_name for _, full_name in found])
        for option, (name, _) in zip(options, found, strict=True):
            option.on("click", lambda event, name=name: choose(name))
        _show(suggestions, options)

    field.on("input", complete)
    suggestions.on("mousedown", lambda event: event.prevent())
    field.on("blur", lambda event: suggestions.attributes.update(hidden=""))


def _button(text: str, act: Callable[[Event], None], label: str = "") -> Element:
    made = _make("button", text, type="button", **{"class": "quiet"}, **({"aria_label": label} if label else {}))
    made.on("click", act)
    return made


def _set_up_date(field: Element) -> None:
    root = list(field.ancestors())[-1]
    label = next(node for node in root.elements() if node.tag == "label" and node.get("for") == field.get("id"))
    box = _make("div", hidden="", **{"class": "calendar"})
    shown = [0, 0]
    """Year, and month from 0."""

    def turn(months: int) -> None:
        years, shown[1] = divmod(shown[1] + months, 12)
        shown[0] += years
        draw()

    def take(day: int) -> None:
        field.value_set = f"{shown[0]:02d}-{shown[1] + 1:02d}-{day:02d}"
        box.attributes["hidden"] = ""

    def draw() -> None:
        year, month = shown
        if not 1 <= year <= 9999:
            raise UnsupportedError(f"a calendar of the year {year}")
        days = _make("div", **{"class": "days"})
        for day in range(1, calendar.monthrange(year, month + 1)[1] + 1):
            days.append(_button(str(day), lambda event, day=day: take(day), f"{MONTHS[month]} {day}"))
        back = _button("‹", lambda event: turn(-1), "previous month")
        onward = _button("›", lambda event: turn(1), "next month")
        box.replace_children(back, _make("b", f"{MONTHS[month]} {year}"), onward, days)

    def toggle(event: Event) -> None:
        text = value_of(field) if _DATE.fullmatch(value_of(field)) else field.get("data-date")
        shown[:] = int(text[:4]), (int(text[5:7]) + 11) % 12
        draw()
        toggle(box, "hidden")

    button = _button(f"pick {label.text_content}", toggle)
    field.insert_after(box)
    field.insert_after(button)


# The forum


def forum(page: Page) -> None:
    """Menus that close, dialogs in place of pages, and a list that grows."""

    def clicked(event: Event) -> None:
        link = event.target.closest("a")
        _close_menus(page, event.target)
        if link is None:
            return
        if link.get("data-dialog"):
            event.prevent()
            _close_menus(page, None)
            dialog = page.by_id(link.get("data-dialog"))
            assert dialog is not None
            page.show_modal(dialog)
        elif link.get("data-more"):
            event.prevent()
            page.fetch(link.get("href"), lambda text: _load_more(page, link, text))

    page.document.on("click", clicked)
    page.cover = lambda target: _forum_cover(page, target)


def _forum_cover(page: Page, target: Element) -> Element | None:
    """An open menu hangs over what comes after it on the page, unless the form for an answer keeps that below the menu."""
    if any(node.tag == "textarea" and node.closest("dialog") is None for node in page.document.elements()):
        return None
    return next(
        (menu for menu in _menus(page) if "open" in menu.attributes and not menu.contains(target) and _comes_after(page, menu, target)),
        None,
    )


def _load_more(page: Page, link: Element, text: str) -> None:
    name = link.get("data-more")
    longer = next((node for node in parse(text).elements() if node.get("id") == name), None)
    shorter = page.by_id(name)
    if longer is None or shorter is None:
        page.navigate(link.get("href"))
        return
    shorter.replace_with(longer)
    page.replace_state(link.get("href"))


SCRIPTS = {
    "cc9aaf3a1b9f4a807356769abdd5045c03ff040cddbfc7e2110d0e3aa6ec163b": atlas,
    "4403774673f146b383f895f4967d796fc85d01578cb87ca10c63657c6c79b780": code,
    "bf516ee893d2fa9bdceb00ed084e5f9fb13bac79431650b3b7b329af814d219c": forum,
}
"""SHA-256 of a script to its counterpart."""
