"""The part of CSS that decides what is shown, and where a line ends: selectors, media queries and the cascade of a few properties.

Source: CSS Cascading and Inheritance 4, Selectors 4, CSS Display 3 (blockification), and the "Rendering" section of HTML for the
defaults. A construct that is not known raises `UnsupportedError` where it could change what is observed.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence

from rollouts.errors import UnsupportedError
from rollouts.web.asgi.dom import Element

INHERITED = {"cursor": "auto", "visibility": "visible", "text-transform": "none", "white-space": "normal", "pointer-events": "auto"}
OWN = {"display": "inline", "opacity": "1", "overflow": "visible", "position": "static", "float": "none", "content-visibility": "visible"}
OBSERVED = INHERITED | OWN
"""The properties that matter, with their initial values."""
REFUSED = frozenset(
    {"all", "clip", "overflow-x", "overflow-y", "rotate", "scale", "translate", "zoom", "content-visibility", "interactivity"}
)
"""Properties that could hide or move elements, and that no supported page uses."""
_DISPLAYS = frozenset((
    "none", "block", "inline", "inline-block", "flex", "inline-flex", "grid", "inline-grid", "list-item", "table", "table-row",
    "table-cell", "table-row-group", "table-header-group", "table-footer-group",
))  # fmt: skip
_BLOCKIFIED = {"inline": "block", "inline-block": "block", "inline-flex": "flex", "inline-grid": "grid", "table-cell": "block"}
_BLOCKIFIED |= dict.fromkeys(("table-row", "table-row-group", "table-header-group", "table-footer-group"), "block")

DEFAULTS = """
html, body, article, aside, details, dd, dialog, div, dl, dt, fieldset, footer, form, h1, h2, h3, h4, h5, h6, header, hr, legend, main, nav,
ol, optgroup, option, p, pre, section, ul { display: block; }
head, link, meta, script, style, title, dialog:not([open]), [hidden] { display: none; }
li, details > summary:first-child { display: list-item; }
summary { display: block; }
button, input, select, textarea, progress { display: inline-block; }
table { display: table; } tr { display: table-row; } td, th { display: table-cell; } tbody { display: table-row-group; }
thead { display: table-header-group; } tfoot { display: table-footer-group; }
a[href] { cursor: pointer; } input, textarea { cursor: text; } button, select, label, option { cursor: default; }
pre, textarea { white-space: pre; }
dialog { position: absolute; }
"""


Style = dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A rule with one selector."""

    selector: "_Selector"
    order: tuple[int, tuple[int, int, int], int]
    """Origin (0: defaults, 1: page), specificity, place."""
    declarations: tuple[tuple[str, str, bool], ...]
    """(property, value, important) of each observed property."""


class Cascade:
    """The rules of a page's style sheets that set an observed property, by what the last compound of their selectors names."""

    def __init__(self, sheets: Sequence[str], width: int):
        self._by_key: dict[str, list[Rule]] = {}
        self._candidates: dict[tuple[str, str, str], list[Rule]] = {}
        self._styles: dict[tuple[tuple[Rule, ...], str, tuple[str, ...]], Style] = {}
        place = 0
        for origin, text in enumerate((DEFAULTS, *sheets)):
            for selector, declarations in _rules(text, width):
                place += 1
                rule = Rule(selector, (min(origin, 1), selector.specificity, place), declarations)
                self._by_key.setdefault(selector.key, []).append(rule)

    def style(self, element: Element, above: Style | None, target: str) -> Style:
        """The computed style. `above`: that of the parent. `target`: id of the element that `:target` matches."""
        attributes = element.attributes
        key = (element.tag, attributes.get("class", ""), attributes.get("id", ""))
        rules = self._candidates.get(key)
        if rules is None:
            names = ("*", element.tag, *(f".{name}" for name in element.classes), f"#{key[2]}")
            rules = self._candidates[key] = [rule for name in dict.fromkeys(names) for rule in self._by_key.get(name, ())]
        found = tuple([rule for rule in rules if rule.selector.matches(element, target)])
        inline = attributes.get("style", "")
        inherited = () if above is None else (above["display"], *[above[name] for name in INHERITED])
        # Elements with the same rules and the same parent's style share one.
        style = self._styles.get((found, inline, inherited))
        if style is None:
            style = self._styles[found, inline, inherited] = _computed(found, inline, above)
        return style


def _computed(rules: Sequence[Rule], inline: str, above: Style | None) -> Style:
    style = dict(OBSERVED) if above is None else OWN | {name: above[name] for name in INHERITED}
    found = [(important, rule.order, name, value) for rule in rules for name, value, important in rule.declarations]
    found += [(important, (2, (0, 0, 0), 0), name, value) for name, value, important in _declarations(inline)]
    for _, _, name, value in sorted(found):
        style[name] = value
    if (
        above is None
        or style["float"] != "none"
        or style["position"] in ("absolute", "fixed")
        or above["display"].endswith(("flex", "grid"))
    ):
        style["display"] = _BLOCKIFIED.get(style["display"], style["display"])
    return style


@functools.lru_cache(maxsize=64)
def cascade(sheets: tuple[str, ...], width: int) -> Cascade:
    """Parses style sheets for a viewport of that width in pixels. Raises UnsupportedError."""
    return Cascade(sheets, width)


class Styles:
    """The computed style of each element of a document, for as long as the document does not change."""

    def __init__(self, rules: Cascade, target: str = ""):
        """`target`: id of the element that `:target` matches."""
        self._cascade, self._target = rules, target
        self._known: dict[Element, Style] = {}

    def __getitem__(self, element: Element) -> Style:
        style = self._known.get(element)
        if style is None:
            parent = element.parent
            above = self[parent] if parent is not None and parent.tag else None
            style = self._known[element] = self._cascade.style(element, above, self._target)
        return style

    def rendered(self, element: Element) -> bool:
        return all(self[node]["display"] != "none" for node in element.ancestors() if node.tag)


def _rules(text: str, width: int) -> Iterator[tuple["_Selector", tuple[tuple[str, str, bool], ...]]]:
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    at = 0
    while True:
        start = _find(text, at, "{;}")
        if start == len(text):
            if text[at:].strip():
                raise UnsupportedError(f"the end of a style sheet: {text[at : at + 40]!r}")
            return
        prelude = text[at:start].strip()
        if text[start] != "{":
            raise UnsupportedError(f"in a style sheet: {prelude[:60]!r}")
        end = _closing(text, start)
        body = text[start + 1 : end]
        at = end + 1
        if prelude.startswith("@media"):
            if _holds(prelude.removeprefix("@media").strip(), width):
                yield from _rules(body, width)
        elif prelude.startswith("@"):
            raise UnsupportedError(f"in a style sheet: {prelude[:60]!r}")
        elif declarations := tuple(_declarations(body)):
            for selector in _split(prelude, ","):
                compiled = _Selector(selector)
                if compiled.pseudo_element:
                    continue
                if compiled.dynamic:
                    raise UnsupportedError(f"the selector {selector!r}, which shows or hides by the mouse or the focus")
                yield compiled, declarations


def _find(text: str, at: int, marks: str) -> int:
    """Index of the first of `marks` outside of quotes and brackets, or the length of the text."""
    depth = 0
    while at < len(text):
        character = text[at]
        if character in "\"'":
            at = text.find(character, at + 1)
            if at < 0:
                raise UnsupportedError("a style sheet with an open quote")
        elif depth == 0 and character in marks:
            return at
        elif character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        at += 1
    return at


def _closing(text: str, start: int) -> int:
    depth, at = 0, start
    while at < len(text):
        at = _find(text, at, "{}")
        if at == len(text):
            break
        depth += 1 if text[at] == "{" else -1
        if depth == 0:
            return at
        at += 1
    raise UnsupportedError("a style sheet with an open brace")


def _split(text: str, mark: str) -> list[str]:
    parts, at = [], 0
    while at <= len(text):
        end = _find(text, at, mark)
        parts.append(text[at:end].strip())
        at = end + 1
    return parts


def _holds(query: str, width: int) -> bool:
    for condition in re.split(r"\s+and\s+", query):
        found = re.fullmatch(r"\((min|max)-width:\s*(\d+)px\)", condition)
        if not found:
            raise UnsupportedError(f"the media query {query[:60]!r}")
        if not (width >= int(found[2]) if found[1] == "min" else width <= int(found[2])):
            return False
    return True


def _declarations(body: str) -> Iterator[tuple[str, str, bool]]:
    for declaration in _split(body, ";"):
        if not declaration:
            continue
        name, colon, value = declaration.partition(":")
        name, value = name.strip(), value.strip()
        if not colon:
            raise UnsupportedError(f"in a style sheet: {declaration[:60]!r}")
        if name in REFUSED:
            raise UnsupportedError(f"the style {name}")
        if name not in OBSERVED:
            continue
        important = value.endswith("!important")
        value = value.removesuffix("!important").strip()
        if not re.fullmatch("[a-z-]+|[0-9.]+", value) or value in ("inherit", "initial", "revert", "unset", "contents"):
            raise UnsupportedError(f"the style {name}: {value[:40]}")
        if name == "display" and value not in _DISPLAYS:
            raise UnsupportedError(f"the style display: {value[:40]}")
        yield name, value, important


_COMPOUND = re.compile(
    r"(?P<combinator>\s*[>+~]\s*|\s+)|(?P<tag>\*|[a-z][a-z0-9]*)|#(?P<id>[\w-]+)|\.(?P<class>[\w-]+)"
    r"|\[(?P<attribute>[\w-]+)(?:=\"?(?P<value>[^\]\"]*)\"?)?\]|(?P<pseudo>::?[a-z-]+)(?P<arguments>\((?:[^()]|\([^()]*\))*\))?"
)
_DYNAMIC = frozenset({":hover", ":focus", ":focus-visible", ":focus-within", ":active", ":visited"})

Test = Callable[[Element, str], bool]


class _Selector:
    """One complex selector, compiled."""

    def __init__(self, text: str):
        self.text = text
        self.key = "*"
        self.pseudo_element = self.dynamic = False
        self._specificity = [0, 0, 0]
        self._steps: list[tuple[str, list[Test]]] = [("", [])]
        """(combinator before it, tests) of each compound, from left to right."""
        at = 0
        while at < len(text):
            found = _COMPOUND.match(text, at)
            if not found:
                raise UnsupportedError(f"the selector {text!r}")
            at = found.end()
            if found["combinator"] is not None:
                self._steps.append((found["combinator"].strip() or " ", []))
                self.key = "*"
            else:
                self._steps[-1][1].append(self._test(found))
        self.specificity = (self._specificity[0], self._specificity[1], self._specificity[2])
        self._plain = len(self._steps) == 1 and len(self._steps[0][1]) == 1 and self.key != "*"
        """Whether every element found by the key matches."""

    def _test(self, found: re.Match[str]) -> Test:
        count = self._specificity
        if tag := found["tag"]:
            if tag == "*":
                return lambda element, target: True
            count[2] += 1
            self.key = tag if self.key == "*" else self.key
            return lambda element, target: element.tag == tag
        if name := found["id"]:
            count[0] += 1
            self.key = f"#{name}"
            return lambda element, target: element.attributes.get("id") == name
        if name := found["class"]:
            count[1] += 1
            self.key = self.key if self.key.startswith("#") else f".{name}"
            return lambda element, target: name in element.classes
        if attribute := found["attribute"]:
            count[1] += 1
            value = found["value"]
            if value is None:
                return lambda element, target: attribute in element.attributes
            return lambda element, target: element.attributes.get(attribute) == value
        return self._pseudo(found["pseudo"], (found["arguments"] or "")[1:-1])

    def _pseudo(self, name: str, arguments: str) -> Test:
        count = self._specificity
        if name.startswith("::"):
            self.pseudo_element = True
            return lambda element, target: False
        if name in _DYNAMIC:
            self.dynamic = True
            return lambda element, target: False
        if name in (":not", ":has"):
            inner = [_Selector(part.lstrip("> ") if name == ":has" else part) for part in _split(arguments, ",")]
            if any(part.dynamic or part.pseudo_element or len(part._steps) > 1 for part in inner):
                raise UnsupportedError(f"the selector {self.text!r}")
            for place, most in enumerate(max(part.specificity for part in inner)):
                count[place] += most
            if name == ":not":
                return lambda element, target: not any(part.matches(element, target) for part in inner)
            if not all(part.startswith(">") for part in _split(arguments, ",")):
                raise UnsupportedError(f"the selector {self.text!r}")
            return lambda element, target: any(part.matches(child, target) for part in inner for child in element.element_children)
        count[1] += 1
        if name == ":root":
            return lambda element, target: element.tag == "html"
        if name == ":first-child":
            return lambda element, target: element.parent is not None and element.parent.element_children[0] is element
        if name == ":target":
            return lambda element, target: bool(target) and element.attributes.get("id") == target
        raise UnsupportedError(f"the selector {self.text!r}")

    def matches(self, element: Element, target: str) -> bool:
        if self._plain:
            return True
        return self._from(len(self._steps) - 1, element, target)

    def _from(self, step: int, element: Element, target: str) -> bool:
        combinator, tests = self._steps[step]
        if not all(test(element, target) for test in tests):
            return False
        if step == 0:
            return True
        if combinator == " ":
            return any(self._from(step - 1, node, target) for node in element.ancestors() if node is not element and node.tag)
        if combinator == ">":
            return element.parent is not None and element.parent.tag != "" and self._from(step - 1, element.parent, target)
        siblings = element.parent.element_children if element.parent is not None else [element]
        before = siblings[: siblings.index(element)]
        return any(self._from(step - 1, node, target) for node in (before[-1:] if combinator == "+" else before))
