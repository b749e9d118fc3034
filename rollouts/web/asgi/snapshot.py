"""What a person could read and use on a page: the counterpart of `observation.js`, which it follows line by line.

A difference between the two is a difference between the drivers: a test compares them on every template of the arena.
"""

import re
from typing import Any

from rollouts.errors import UnsupportedError
from rollouts.web.asgi import forms
from rollouts.web.asgi.css import Styles
from rollouts.web.asgi.dom import Element, Text, clean, length, strip

SKIPPED = frozenset(
    {"script", "style", "noscript", "template", "head", "svg", "canvas", "object", "embed", "audio", "video", "map", "datalist"}
)
ROLES = frozenset((
    "button", "link", "checkbox", "radio", "switch", "tab", "option", "menuitem", "menuitemcheckbox", "menuitemradio", "combobox",
    "textbox", "searchbox", "spinbutton", "slider", "treeitem", "gridcell",
))  # fmt: skip
CONTROLS = frozenset({"button", "input", "select", "textarea"})
ACTIVE = CONTROLS | {"summary"}
MAX_DEPTH = 400
_INLINE = re.compile("inline|contents|table-cell|ruby|none")
_HEADING = re.compile("h([1-6])")


def is_block(display: str) -> bool:
    return not _INLINE.match(display)


def inner_text(element: Element, styles: Styles) -> str:
    """`innerText`, up to white space: runs of it are not reduced, and a line break may be a space."""
    if not styles.rendered(element):
        return element.text_content
    return _inner_text(element, styles)


def _inner_text(element: Element, styles: Styles) -> str:
    parts = []
    for child in element.children:
        if isinstance(child, Text):
            parts.append(child.data)
            continue
        display = styles[child]["display"]
        if display == "none" or child.tag in ("select", "textarea", "details", "dialog"):
            if display != "none":
                raise UnsupportedError(f"the text of an element with <{child.tag}> in it")
        elif child.tag == "br":
            parts.append(" ")
        elif display == "inline":
            parts.append(_inner_text(child, styles))
        elif display.startswith("inline"):
            parts.append(strip(_inner_text(child, styles)))
        else:
            parts.append(f" {_inner_text(child, styles)} ")
    return "".join(parts)


class Snapshot:
    """Collects nodes and elements from a page, in one pass.

    Args:
        root: what is walked: the body, or the modal dialog in front.
        limits: the limits of `ObservationConfig.script_limits`.
    """

    def __init__(self, document: Element, root: Element | None, styles: Styles, limits: dict[str, Any]):
        self.elements: list[Element] = []
        self.nodes: list[list[Any]] = []
        self.cut = False
        self._styles, self._limits = styles, limits
        self._document = document
        self._numbers: dict[Element, int] = {}
        self._labels: dict[Element, list[Element]] = {}
        self._controls = forms.label_targets(document)
        for label, control in self._controls.items():
            self._labels.setdefault(control, []).append(label)
        self._visited = self._size = 0
        if root is not None:
            self._walk(root, False, False, 0)

    def _number(self, control: Element) -> int:
        return self._numbers.setdefault(control, len(self._numbers))

    def _name(self, element: Element, kind: str) -> tuple[str, str]:
        tag = element.tag
        if "aria-labelledby" in element.attributes:
            raise UnsupportedError("aria-labelledby")
        text = strip(element.get("aria-label"))
        if text:
            return text, "attribute"
        if tag == "input" and kind in ("submit", "button", "reset"):
            return element.get("value") or kind, "value"
        if element in self._labels:
            text = strip(" ".join(self._label_text(label) for label in self._labels[element]))
            if text:
                return text, "label"
        if tag in ("input", "select", "textarea"):
            for attribute, source in (("placeholder", "placeholder"), ("title", "attribute"), ("name", "attribute")):
                text = strip(element.get(attribute))
                if text:
                    return text, source
            return "", "none"
        text = strip(inner_text(element, self._styles))
        if text:
            return text, "text"
        picture = next(
            (node for node in element.elements() if (node.tag == "img" and "alt" in node.attributes) or "aria-label" in node.attributes),
            None,
        )
        text = strip(picture.get("alt") or picture.get("aria-label") or picture.text_content) if picture is not None else ""
        if text:
            return text, "attribute"
        return strip(element.get("title") or element.get("name")), "attribute"

    def _label_text(self, label: Element) -> str:
        if not any(node.tag in ("select", "textarea") for node in label.elements()):
            return inner_text(label, self._styles)
        parts: list[str] = []

        def visit(node: Element) -> None:
            for child in node.children:
                if isinstance(child, Text):
                    parts.append(child.data)
                elif child.tag not in ("select", "textarea", "script", "style"):
                    visit(child)

        visit(label)
        return " ".join(parts)

    def _record(self, element: Element, kind: str, role: str | None) -> dict[str, Any]:
        tag = element.tag
        text, source = self._name(element, kind)
        out: dict[str, Any] = {"i": len(self.elements), "tag": tag, "name": strip(clean(text, 400)), "source": source}
        if role:
            out["role"] = clean(role, 30)
        if tag == "input":
            out["type"] = kind
        if source == "label":
            out["label"] = self._number(element)
        if tag == "input" and kind in ("checkbox", "radio"):
            out["checked"] = forms.is_checked(element)
        elif tag == "input" and kind == "password":
            out["value"] = "*" * min(length(forms.value_of(element)), 20)
        elif (tag == "input" and kind not in ("submit", "button", "reset")) or tag == "textarea":
            out["value"] = clean(forms.value_of(element), self._limits["text"])
        if "value" in out and element.get("placeholder"):
            out["placeholder"] = clean(element.get("placeholder"), 100)
        if tag == "select":
            options = [option for option in forms.options_of(element) if "hidden" not in option.attributes]
            out["options"] = [strip(clean(forms.option_label(option), 100)) for option in options[: self._limits["options"]]]
            out["value"] = " | ".join(strip(clean(forms.option_label(option), 100)) for option in forms.selected(element)[:20])
            out["more"] = len(options) - len(out["options"])
        if element.get("aria-checked") and "checked" not in out:
            out["checked"] = element.get("aria-checked") == "true"
        for flag in ("expanded", "selected"):
            if element.get(f"aria-{flag}") == "true":
                out[flag] = True
        if forms.is_disabled(element) or element.get("aria-disabled") == "true":
            out["disabled"] = True
        if "readonly" in element.attributes and tag in ("input", "textarea"):
            out["readonly"] = True
        return out

    def _is_hidden(self, element: Element, style: dict[str, str], kind: str) -> bool:
        if style["display"] == "none":
            return True
        control = element.tag == "input" and kind in ("checkbox", "radio")
        return not control and float(style["opacity"]) == 0

    def _walk(self, element: Element, inside: bool, pointer: bool, depth: int) -> None:
        if self.cut or self._full(depth):
            return
        tag = element.tag
        if tag in SKIPPED:
            return
        if tag == "br":
            self.nodes.append(["b"])
            return
        style = self._styles[element]
        kind = forms.type_of(element) if tag == "input" else ""
        if kind == "hidden" or self._is_hidden(element, style, kind):
            return
        if element.get("aria-hidden") == "true":
            return
        unseen = style["visibility"] != "visible"
        role = element.attributes.get("role")
        pointed = style["cursor"] == "pointer"
        active = not unseen and (
            (tag == "a" and "href" in element.attributes)
            or tag in ACTIVE
            or (bool(role) and role in ROLES)
            or (pointed and not pointer and not inside and tag not in ("label", "body") and not self._holds_control(element))
        )
        block = is_block(style["display"])
        nodes = self.nodes
        if block:
            nodes.append(["b"])
        heading = _HEADING.fullmatch(tag)
        if heading:
            nodes.append(["h", int(heading[1])])
        labelled = self._controls.get(element) if tag == "label" and not unseen else None
        if labelled is not None:
            nodes.append(["l", self._number(labelled)])
        if active:
            made = self._record(element, kind, role)
            if tag not in CONTROLS and not block and not made["name"]:
                raise UnsupportedError(f"<{tag}> without a text, whose size is not known")
            self.elements.append(element)
            self._size += 60 + length(made["name"])
            nodes.append(["e", made])
        if tag == "img" and not unseen and element.get("alt") and not inside and not active:
            nodes.append(["t", f" {clean(element.get('alt'), self._limits['text'])} "])
        if tag not in ("select", "textarea", "input"):
            closed = tag == "details" and "open" not in element.attributes
            for child in element.children:
                if closed and not (isinstance(child, Element) and child.tag == "summary"):
                    continue
                if isinstance(child, Text):
                    self._text(child.data, unseen, depth + 1)
                else:
                    self._walk(child, inside or active, pointed, depth + 1)
                if self.cut:
                    break
        if active:
            nodes.append(["/"])
        if labelled is not None:
            nodes.append(["/l"])
        if heading:
            nodes.append(["/h", int(heading[1])])
        if block:
            nodes.append(["b"])
        elif style["display"] == "table-cell":
            nodes.append(["t", " "])

    def _text(self, data: str, unseen: bool, depth: int) -> None:
        if self._full(depth) or unseen:
            return
        text = clean(data, self._limits["text"])
        if text:
            self._size += length(text)
            self.nodes.append(["t", text + "..." if length(data) > self._limits["text"] else text])

    def _full(self, depth: int) -> bool:
        self._visited += 1
        self.cut = self._visited > self._limits["nodes"] or self._size > self._limits["size"] or depth > MAX_DEPTH
        return self.cut

    @staticmethod
    def _holds_control(element: Element) -> bool:
        return any(node.tag in CONTROLS or (node.tag == "a" and "href" in node.attributes) for node in element.elements())
