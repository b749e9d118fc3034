"""Form controls: their values, what a form submits, and what Chromium restores when the user comes back to a page.

Source: "Forms" in the HTML standard; the restoration is that of Blink's `FormController`.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from urllib.parse import quote_plus

from rollouts.errors import UnsupportedError
from rollouts.web.asgi.dom import Element

LISTED = frozenset({"button", "input", "select", "textarea"})
FIELDS = LISTED - {"button"}
TEXT_TYPES = frozenset({"text", "search", "password", "tel"})
TYPES = TEXT_TYPES | {"hidden", "checkbox", "radio", "submit", "button", "reset"}
"""The types of `input` that are supported."""
_SPACE = "\t\n\x0c\r "


def type_of(element: Element) -> str:
    """The `type` property of an input or button."""
    kind = element.get("type").lower()
    if element.tag == "button":
        return kind if kind in ("reset", "button") else "submit"
    if not kind:
        return "text"
    if kind not in TYPES:
        raise UnsupportedError(f'<input type="{kind[:20]}">')
    return kind


def is_submit(element: Element) -> bool:
    return element.tag in ("button", "input") and type_of(element) == "submit"


def form_of(element: Element) -> Element | None:
    """The form that a control belongs to."""
    if "form" in element.attributes:
        root = list(element.ancestors())[-1]
        return next((node for node in root.elements() if node.tag == "form" and node.get("id") == element.attributes["form"]), None)
    return element.closest("form")


def controls_of(form: Element) -> list[Element]:
    """`form.elements`, and the buttons, in document order."""
    root = list(form.ancestors())[-1]
    return [node for node in root.elements() if node.tag in LISTED and form_of(node) is form]


def is_disabled(element: Element) -> bool:
    """Whether `:disabled` matches."""
    if element.tag not in LISTED and element.tag not in ("option", "fieldset"):
        return False
    if "disabled" in element.attributes:
        return True
    if element.tag == "option":
        return element.parent is not None and element.parent.tag == "optgroup" and "disabled" in element.parent.attributes
    return any(node.tag == "fieldset" and "disabled" in node.attributes for node in element.ancestors() if node is not element)


def value_of(element: Element) -> str:
    """The `value` property of an input, textarea or button."""
    if element.tag == "textarea":
        text = element.text_content if element.value_set is None else element.value_set
        return text.replace("\r\n", "\n").replace("\r", "\n")
    kind = type_of(element)
    if kind in ("checkbox", "radio"):
        return element.get("value", "on")
    if element.tag == "input" and kind in TEXT_TYPES:
        text = element.get("value") if element.value_set is None else element.value_set
        return text.replace("\r", "").replace("\n", "")
    return element.get("value")


def is_checked(element: Element) -> bool:
    return "checked" in element.attributes if element.value_set is None else bool(element.value_set)


def radio_group(element: Element) -> list[Element]:
    """The radio buttons of the same group, including the element."""
    root, form, name = list(element.ancestors())[-1], form_of(element), element.get("name")
    return [
        node
        for node in root.elements()
        if node.tag == "input"
        and type_of(node) == "radio"
        and (node is element or (name and node.get("name") == name and form_of(node) is form))
    ]


def check(element: Element, on: bool) -> None:
    """Sets the checkedness of a checkbox or radio button."""
    if type_of(element) == "radio" and on:
        for other in radio_group(element):
            other.value_set = False
    element.value_set = on


def options_of(select: Element) -> list[Element]:
    return [node for node in select.elements() if node.tag == "option"]


def option_text(option: Element) -> str:
    return " ".join(part for part in collapse_ascii(option.text_content).split(" ") if part)


def collapse_ascii(text: str) -> str:
    for character in _SPACE:
        text = text.replace(character, " ")
    return text


def option_label(option: Element) -> str:
    return option.get("label") or option_text(option)


def option_value(option: Element) -> str:
    return option.attributes.get("value", option_text(option))


def selected(select: Element) -> list[Element]:
    """The selected options: those that were chosen, else as in the HTML, else the first that is not disabled."""
    options = options_of(select)
    if "multiple" in select.attributes or select.get("size") not in ("", "0", "1"):
        raise UnsupportedError("a select that shows several options")
    if select.value_set is not None:
        return [option for option in options if option is select.value_set]
    marked = [option for option in options if "selected" in option.attributes]
    return marked[-1:] or [option for option in options if not is_disabled(option)][:1]


def entries(form: Element, submitter: Element | None) -> Iterator[tuple[str, str]]:
    """The entry list that a form submits: name and value, in document order."""
    for control in controls_of(form):
        name = control.get("name")
        if is_disabled(control) or not name:
            continue
        if control.tag == "select":
            for option in selected(control):
                if not is_disabled(option):
                    yield name, option_value(option)
            continue
        kind = type_of(control) if control.tag != "textarea" else "textarea"
        if kind in ("submit", "button", "reset"):
            if control is submitter:
                yield name, value_of(control)
        elif kind not in ("checkbox", "radio") or is_checked(control):
            yield name, value_of(control)


def encode(pairs: Iterable[tuple[str, str]]) -> str:
    """The serializer of application/x-www-form-urlencoded (URL standard, section 5.2), with line breaks as HTML sends them."""
    return "&".join(f"{_percent(name)}={_percent(value)}" for name, value in pairs)


def _percent(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
    return quote_plus(text, safe="*").replace("~", "%7E")


@dataclasses.dataclass(frozen=True)
class Restored:
    """The state of a page's controls in a history entry: (form, name, type) to the values, in document order."""

    values: dict[tuple[str, str, str], list[object]]


def save(root: Element) -> Restored:
    """What Blink keeps of the controls of a page that is left."""
    values: dict[tuple[str, str, str], list[object]] = collections.defaultdict(list)
    for key, control in _stateful(root):
        values[key].append(_state(control))
    return Restored(dict(values))


def restore(root: Element, state: Restored) -> None:
    """Sets the controls of a page that is loaded again from the history."""
    left = {key: list(values) for key, values in state.values.items()}
    for key, control in _stateful(root):
        if not left.get(key):
            continue
        value = left[key].pop(0)
        if value is None:
            continue
        if control.tag == "select":
            assert isinstance(value, tuple)
            text, index = value
            options = options_of(control)
            same = options[index : index + 1]
            found = same if same and option_value(same[0]) == text else [option for option in options if option_value(option) == text]
            # Where no option has the value, none is selected.
            control.value_set = found[0] if found else False
        elif control.tag == "input" and type_of(control) == "hidden":
            control.attributes["value"], control.dirty = str(value), True
        else:
            control.value_set = value


def _stateful(root: Element) -> Iterator[tuple[tuple[str, str, str], Element]]:
    forms: dict[Element, str] = {}
    counts: collections.Counter[str] = collections.Counter()
    for node in root.elements():
        if node.tag not in ("input", "select", "textarea"):
            continue
        kind = type_of(node) if node.tag == "input" else node.tag
        form = form_of(node)
        if kind in ("submit", "button", "reset", "password"):
            continue
        if node.get("autocomplete").lower() == "off" or (form is not None and form.get("autocomplete").lower() == "off"):
            continue
        if form is None:
            key = "No owner"
        elif form in forms:
            key = forms[form]
        else:
            signature = _signature(form)
            key = forms[form] = f"{signature} #{counts[signature]}"
            counts[signature] += 1
        yield (key, node.get("name"), kind), node


def _signature(form: Element) -> str:
    """Identifies a form by the path of its action and its first two named controls."""
    names = [node.get("name") for node in controls_of(form) if node.tag != "button" and node.get("name")][:2]
    return f"{form.get('action').partition('?')[0]} [{' '.join(names)}]"


def _state(control: Element) -> object:
    if control.tag == "select":
        chosen = selected(control)
        return (option_value(chosen[0]), options_of(control).index(chosen[0])) if chosen else None
    if control.tag == "input":
        kind = type_of(control)
        if kind == "hidden":
            return control.get("value") if control.dirty else None
        if kind in ("checkbox", "radio"):
            return is_checked(control)
    return control.value_set


def label_targets(root: Element) -> dict[Element, Element]:
    """Maps each label to its control."""
    by_id: dict[str, Element] = {}
    for node in root.elements():
        if "id" in node.attributes:
            by_id.setdefault(node.attributes["id"], node)
    found = {}
    for label in root.elements():
        if label.tag != "label":
            continue
        if "for" in label.attributes:
            control = by_id.get(label.attributes["for"])
        else:
            control = next((node for node in label.elements() if _labelable(node)), None)
        if control is not None and _labelable(control):
            found[label] = control
    return found


def _labelable(element: Element) -> bool:
    return element.tag in ("button", "progress", "select", "textarea") or (element.tag == "input" and type_of(element) != "hidden")
