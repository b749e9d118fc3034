"""The document of a page: elements and texts, parsed by lexbor as HTML5."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from rollouts.errors import UnsupportedError

TAGS = frozenset((
    "a", "article", "aside", "b", "body", "br", "button", "code", "dd", "details", "dialog", "div", "dl", "dt", "em", "fieldset",
    "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html", "i", "img", "input", "label", "legend",
    "li", "link", "main", "meta", "nav", "ol", "optgroup", "option", "p", "pre", "progress", "q", "script", "section", "select",
    "small", "span", "strong", "style", "sub", "sup", "summary", "table", "tbody", "td", "textarea", "tfoot", "th", "thead", "time",
    "title", "tr", "u", "ul",
))  # fmt: skip
"""Elements whose meaning is known. A page with another one is refused."""

ATTRIBUTES = frozenset((
    "action", "alt", "autocomplete", "charset", "checked", "class", "colspan", "cols", "content", "datetime", "defer", "disabled",
    "enctype", "for", "form", "height", "hidden", "href", "id", "inputmode", "label", "lang", "max", "method", "min", "name",
    "open", "placeholder", "readonly", "rel", "role", "rows", "rowspan", "scope", "selected", "spellcheck", "src", "style", "title",
    "type", "value", "width",
))  # fmt: skip
"""Attributes whose meaning is known, or that change nothing that is observed; so are those that begin with `aria-` or `data-`."""

_SPACE = re.compile("[\t\n\x0b\x0c\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]+")
"""White space of JavaScript's regular expressions."""


class Text:
    """A text node."""

    __slots__ = ("data", "parent")

    def __init__(self, data: str, parent: "Element | None" = None):
        self.data, self.parent = data, parent


class Element:
    """An element, with the state that its user changes: value, checkedness, selected options."""

    __slots__ = ("attributes", "children", "classes", "dirty", "listeners", "parent", "tag", "value_set")

    def __init__(self, tag: str, attributes: dict[str, str] | None = None, *children: "Element | Text"):
        self.tag = tag
        self.attributes = attributes or {}
        self.classes = self.attributes["class"].split() if "class" in self.attributes else ()
        self.parent: Element | None = None
        self.children: list[Element | Text] = []
        self.value_set: Any = None
        """What the user or a script has set: the value of a text field, the selected options of a select. None: as in the HTML."""
        self.dirty = False
        """Whether a script has set the `value` attribute after parsing, which makes a hidden field part of the restored state."""
        self.listeners: dict[str, list[Callable[[Any], None]]] | None = None
        for child in children:
            self.append(child)

    def append(self, child: "Element | Text") -> None:
        child.parent = self
        self.children.append(child)

    def insert_after(self, child: "Element") -> None:
        """Inserts `child` into this element's parent, after this element."""
        assert self.parent is not None
        child.parent = self.parent
        self.parent.children.insert(self.parent.children.index(self) + 1, child)

    def replace_with(self, other: "Element") -> None:
        assert self.parent is not None
        other.parent = self.parent
        self.parent.children[self.parent.children.index(self)] = other
        self.parent = None

    def replace_children(self, *children: "Element | Text") -> None:
        for child in self.children:
            child.parent = None
        self.children = []
        for child in children:
            self.append(child)

    def elements(self) -> list["Element"]:
        """The elements inside of this one, in document order."""
        found: list[Element] = []
        stack = self.children[::-1]
        while stack:
            node = stack.pop()
            if isinstance(node, Element):
                found.append(node)
                stack += node.children[::-1]
        return found

    def ancestors(self) -> Iterator["Element"]:
        """This element, its parent, and so on."""
        node: Element | None = self
        while node is not None:
            yield node
            node = node.parent

    def closest(self, tag: str) -> "Element | None":
        return next((node for node in self.ancestors() if node.tag == tag), None)

    def contains(self, other: "Element") -> bool:
        return any(node is self for node in other.ancestors())

    @property
    def element_children(self) -> list["Element"]:
        return [child for child in self.children if isinstance(child, Element)]

    @property
    def text_content(self) -> str:
        return "".join(child.data if isinstance(child, Text) else child.text_content for child in self.children)

    def get(self, name: str, default: str = "") -> str:
        return self.attributes.get(name, default)

    def on(self, event: str, listener: Callable[[Any], None]) -> None:
        self.listeners = self.listeners or {}
        self.listeners.setdefault(event, []).append(listener)


def parse(html: str) -> Element:
    """Returns the root, `<html>`, below a document node, whose tag is empty.

    Raises:
        UnsupportedError: an element or attribute whose meaning is not known.
    """
    document = Element("")
    root = LexborHTMLParser(html).root
    if root is None:
        raise UnsupportedError("a page without a root element")
    document.append(_convert(root))
    return document


def _convert(node: Any) -> Element:
    made = _element(node)
    stack = [(made, node.first_child)]
    while stack:
        parent, child = stack.pop()
        while child is not None:
            tag = child.tag
            if tag == "-text":
                text = Text(child.text_content or "")
                text.parent = parent
                parent.children.append(text)
            elif tag not in ("-comment", "-doctype"):
                inner = _element(child)
                inner.parent = parent
                parent.children.append(inner)
                stack.append((inner, child.first_child))
            child = child.next
    return made


def _element(node: Any) -> Element:
    tag = node.tag
    if tag not in TAGS:
        raise UnsupportedError(f"<{str(tag)[:40]}>")
    attributes = {name: value or "" for name, value in node.attributes.items()}
    for name in attributes:
        if name not in ATTRIBUTES and not name.startswith(("aria-", "data-")):
            raise UnsupportedError(f"the attribute {name[:40]!r} of <{tag}>")
    return Element(tag, attributes)


def length(text: str) -> int:
    """Length in UTF-16 code units, as in JavaScript."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def cut(text: str, count: int) -> str:
    """JavaScript's `text.slice(0, count).toWellFormed()`."""
    if len(text) <= count // 2 or length(text) == len(text):
        return text[:count]
    return text.encode("utf-16-le", "surrogatepass")[: 2 * count].decode("utf-16-le", "replace")


def clean(text: str, count: int) -> str:
    """JavaScript's `text.slice(0, count).toWellFormed().replace(/\\s+/g, " ")`."""
    return _SPACE.sub(" ", cut(text, count))


def strip(text: str) -> str:
    """JavaScript's `text.trim()`."""
    return text.strip(
        "\t\n\x0b\x0c\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
    )
