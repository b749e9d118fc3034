"""Renders a page as text: visible content and controls, line by line, with a handle for every interactive element.

    <h1>lamps</h1>
    <input id="1" type="text" placeholder="search products" value="">
    <a id="2">blue lamp</a> 12.50
    <select id="3" value="price" options="name | price">

Page text is data: `<` and `>` in it are written as `&lt;` and `&gt;`, quotes in attributes as `'`, and control
characters are left out, so that no text on a page can imitate an element or begin a line.
"""

import dataclasses
import difflib
import http
import importlib.resources
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from mira_jax.config import Natural
from mira_jax.trajectories.prompts import PAGE_CUT
from rollouts.text import sanitize

SCRIPT = importlib.resources.files("rollouts.web").joinpath("observation.js").read_text(encoding="utf-8")
ELEMENTS_KEY = "__mira_elements"
"""Name, in the isolated world, of the list of elements that the last observation found."""

MAX_NAME = 60
_ROLE_TAGS = {
    "link": "a",
    "textbox": "input",
    "searchbox": "input",
    "spinbutton": "input",
    "menuitemcheckbox": "checkbox",
    "menuitemradio": "radio",
}
_ROLES = frozenset({"button", "checkbox", "radio", "switch", "tab", "option", "menuitem", "combobox", "slider", "treeitem", "gridcell"})
_PLAIN_TYPES = frozenset({"text", "search", "email", "tel", "url", "number", "password"})


@dataclasses.dataclass(frozen=True)
class ObservationConfig:
    handles: Literal["integer", "name"] = "integer"
    """integer: 1, 2, 3 in page order. name: the accessible name in lower case, made unique by a trailing number."""
    compact: bool = False
    """Leaves out text that repeats the handle: with name handles, `<a id="blue lamp">` has no text of its own."""
    max_characters: Annotated[int, Meta(ge=100)] = 40_000
    """Maximum characters. The page is cut at the end of a line before this limit, and the cut is marked."""
    max_text: Natural = 600
    """Maximum characters of one piece of text or one value."""
    max_options: Natural = 40
    """Maximum number of options shown per select."""

    def script_limits(self) -> dict[str, Any]:
        """The argument of the page script."""
        return {
            "key": ELEMENTS_KEY,
            "text": self.max_text,
            "options": self.max_options,
            "size": 2 * self.max_characters,
            "nodes": 50_000,
            "milliseconds": 2_000,
        }


@dataclasses.dataclass(frozen=True)
class Element:
    """An interactive element of the page."""

    handle: str
    index: int
    """Index in the page's list of elements."""
    tag: str
    """a, button, input, select, textarea, checkbox, radio, or another role or tag."""
    name: str
    """Accessible name, in the page's own spelling."""
    type: str = ""
    options: tuple[str, ...] = ()
    disabled: bool = False

    @property
    def editable(self) -> bool:
        return self.tag == "textarea" or (self.tag == "input" and self.type in _PLAIN_TYPES | {""})


@dataclasses.dataclass(frozen=True)
class Observation:
    text: str
    url: str
    title: str
    elements: tuple[Element, ...] = ()
    status: int = 0
    """HTTP status of the page. 0 if unknown."""
    screenshot: bytes | None = None
    """JPEG of the page, if screenshots are recorded."""

    def element(self, handle: str) -> Element | None:
        """Returns the element with that handle. Upper case and repeated spaces are tolerated."""
        for element in self.elements:
            if element.handle == handle:
                return element
        folded = _fold(handle)
        return next((element for element in self.elements if _fold(element.handle) == folded), None)

    def nearest(self, handle: str, count: int = 3) -> list[str]:
        """Returns the handles most similar to `handle`, best first."""
        known = [element.handle for element in self.elements]
        return difflib.get_close_matches(_fold(handle)[:200], known, n=count, cutoff=0.3)


def blank(url: str, notices: Sequence[str]) -> Observation:
    """The observation of an error page: only `notices`, one per line."""
    return Observation(text="\n".join(_notice(notice) for notice in notices), url=sanitize(url), title="")


def read(data: str, config: ObservationConfig, notices: Sequence[str] = ()) -> Observation:
    """Builds the observation from the result of the page script. `notices` are lines put before the page.

    Raises:
        ValueError: `data` does not have the form of the script's result.
    """
    return read_page(_decode(data), config, notices)


def read_page(raw: dict[str, Any], config: ObservationConfig, notices: Sequence[str] = ()) -> Observation:
    """As `read`, of the decoded result of the page script."""
    try:
        return _build(raw, config, notices)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        # The page's own scripts can reach objects that the page script uses.
        raise ValueError(f"the page script returned a broken page: {type(error).__name__} {error}") from None


def _build(raw: dict[str, Any], config: ObservationConfig, notices: Sequence[str]) -> Observation:
    nodes = raw["nodes"]
    records = [node[1] for node in nodes if node[0] == "e"]
    handles = _handles(records, config)
    status = int(raw.get("status") or 0)
    if status >= 500 or (status >= 300 and _is_empty(nodes)):
        notices = [*notices, _answered(status)]
    lines, printed, complete = _Writer(nodes, handles, config).write([_notice(notice) for notice in notices])
    text = "\n".join(lines)
    if raw.get("cut") or not complete:
        text += PAGE_CUT
    return Observation(
        text=text,
        url=sanitize(str(raw.get("url", ""))),
        title=sanitize(str(raw.get("title", ""))),
        elements=tuple(_element(record, handles[record["i"]]) for record in records if record["i"] in printed),
        status=status,
    )


def _notice(text: str) -> str:
    return f"[{escape(sanitize(text))}]"


def _answered(status: int) -> str:
    """Text of the browser's error page for a status: its number, and its name if it has one."""
    name = next((f" {known.phrase}" for known in http.HTTPStatus if known == status), "")
    return f"the site answered HTTP {status}{name}"


def _is_empty(nodes: Sequence[Sequence[Any]]) -> bool:
    return not any(node[0] == "e" or (node[0] == "t" and node[1].strip()) for node in nodes)


def escape(text: str) -> str:
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _decode(data: str) -> dict[str, Any]:
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise ValueError(f"the page script returned no JSON: {error}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("nodes"), list):
        raise ValueError("the page script returned no page")
    return raw


def _fold(handle: str) -> str:
    return " ".join(handle.lower().split())


def _attribute(text: str) -> str:
    return escape(sanitize(text).strip().replace('"', "'"))


def shown_option(label: str) -> str:
    """Returns the label of a select's option, as the list of options in the observation shows it."""
    return _attribute(label).replace("|", "/")


def _tag(record: dict[str, Any]) -> str:
    role, tag, kind = record.get("role", ""), record["tag"], record.get("type", "")
    if tag == "input":
        if kind in ("submit", "button", "reset", "image"):
            return "button"
        return kind if kind in ("checkbox", "radio") else "input"
    if tag in ("a", "button", "select", "textarea") and role not in _ROLES:
        return tag
    if role in _ROLE_TAGS:
        return _ROLE_TAGS[role]
    return role if role in _ROLES else re.sub("[^a-z0-9-]", "", tag) or "element"


def _element(record: dict[str, Any], handle: str) -> Element:
    return Element(
        handle=handle,
        index=record["i"],
        tag=_tag(record),
        name=sanitize(record.get("name", "")).strip(),
        type=record.get("type", ""),
        options=tuple(sanitize(option).strip() for option in record.get("options", ())),
        disabled=bool(record.get("disabled")),
    )


def name_handle(name: str) -> str:
    """Converts a name to a handle before it is made unique: lower case, without characters that would need an escape."""
    handle = sanitize(name).lower().replace('"', "'").replace("\\", "/")
    handle = " ".join(re.sub("[<>]", " ", handle).split())
    if len(handle) > MAX_NAME:
        handle = handle[:MAX_NAME].rsplit(" ", 1)[0]
    return handle


def unique(names: Sequence[str]) -> list[str]:
    """Makes names unique by a trailing number. The first element with a name keeps it unchanged."""
    taken, given, result = set(names), dict[str, int](), []
    seen: set[str] = set()
    for name in names:
        if name not in seen:
            seen.add(name)
            result.append(name)
            continue
        number = given.get(name, 1) + 1
        while f"{name} {number}" in taken:
            number += 1
        given[name] = number
        taken.add(f"{name} {number}")
        result.append(f"{name} {number}")
    return result


def _handles(records: Sequence[dict[str, Any]], config: ObservationConfig) -> dict[int, str]:
    if config.handles == "integer":
        return {record["i"]: str(place + 1) for place, record in enumerate(records)}
    names = [name_handle(record.get("name", "")) or _tag(record) for record in records]
    return {record["i"]: handle for record, handle in zip(records, unique(names), strict=True)}


class _Writer:
    """Converts the flat list of nodes into lines."""

    def __init__(self, nodes: Sequence[Sequence[Any]], handles: dict[int, str], config: ObservationConfig):
        self.nodes, self.handles, self.config = nodes, handles, config
        self.line: list[str] = []
        self.named = config.compact and config.handles == "name"
        records = [node[1] for node in nodes if node[0] == "e"]
        self.labelled = {record["label"] for record in records if "label" in record and self._says_name(record)}

    def write(self, first: Sequence[str]) -> tuple[list[str], set[int], bool]:
        """Returns the lines, the indices of the elements that they show, and whether they are complete."""
        lines: list[str] = list(first)
        used = sum(len(line) + 1 for line in lines)
        printed: set[int] = set()
        pending: list[int] = []
        open_elements: list[tuple[dict[str, Any], bool, int]] = []
        label_depth, quiet = [], 0
        room = self.config.max_characters

        def flush() -> bool:
            nonlocal used
            text = re.sub(" +", " ", "".join(self.line)).strip()
            self.line = []
            if text:
                if used + len(text) > room:
                    if not lines:
                        lines.append(text[:room].rsplit(" ", 1)[0])
                        printed.update(index for index in pending if f'id="{self.handles[index]}"' in lines[0])
                    return False
                lines.append(text)
                used += len(text) + 1
            printed.update(pending)
            pending.clear()
            return True

        for node in self.nodes:
            kind = node[0]
            if kind == "t":
                if not quiet:
                    self.line.append(escape(sanitize(node[1])))
            elif kind == "b":
                if not open_elements and not flush():
                    return lines, printed, False
                self.line.append(" ")
            elif kind in ("h", "/h"):
                if not self.config.compact and not quiet:
                    self.line.append(f"<{kind}{int(node[1])}>")
            elif kind == "l":
                label_depth.append(node[1] in self.labelled)
                quiet += label_depth[-1]
            elif kind == "/l":
                quiet -= label_depth.pop()
            elif kind == "e":
                record = node[1]
                silent = self._says_name(record)
                self.line.append(" " + self._open(record))
                pending.append(record["i"])
                open_elements.append((record, silent, len(self.line)))
                quiet += silent
            elif kind == "/":
                record, silent, start = open_elements.pop()
                quiet -= silent
                self._close(record, silent, start)
        return lines, printed, flush()

    def _says_name(self, record: dict[str, Any]) -> bool:
        """Whether the handle already contains the element's own text or its label."""
        if not self.named or record.get("source") in ("none", None):
            return False
        return self._in_handle(sanitize(record.get("name", "")).strip())

    def _in_handle(self, name: str) -> bool:
        return self.config.handles == "name" and name_handle(name) == name.lower()

    def _open(self, record: dict[str, Any]) -> str:
        tag, compact = _tag(record), self.config.compact
        parts = [f'<{tag} id="{self.handles[record["i"]]}"']
        kind, name = record.get("type", ""), _attribute(record.get("name", ""))
        if tag == "input" and kind and not (compact and kind == "text"):
            parts.append(f'type="{_attribute(kind)}"')
        is_control = record["tag"] in ("input", "select", "textarea") and tag != "button"
        if is_control and record.get("source") == "attribute" and not self._says_name(record):
            parts.append(f'label="{name}"')
        value, placeholder = record.get("value"), _attribute(record.get("placeholder", ""))
        if placeholder and not (compact and (value or record.get("source") == "placeholder") and self.config.handles == "name"):
            parts.append(f'placeholder="{placeholder}"')
        if value is not None and (value or not compact):
            parts.append(f'value="{_attribute(value)}"')
        if "options" in record:
            options = [shown_option(option) for option in record["options"]]
            if record.get("more", 0) > 0:
                options.append(f"... {int(record['more'])} more")
            parts.append(f'options="{" | ".join(options)}"')
        parts += [flag for flag in ("checked", "selected", "expanded", "disabled", "readonly") if record.get(flag)]
        return " ".join(parts) + ">"

    def _close(self, record: dict[str, Any], silent: bool, start: int) -> None:
        tag = _tag(record)
        if silent or (record["tag"] in ("input", "select", "textarea") and tag != "button"):
            self.line.append(" ")
            return
        content = re.sub(" +", " ", "".join(self.line[start:])).strip()
        name = sanitize(record.get("name", "")).strip()
        if not content:
            content = escape(name)
        elif record.get("source") == "attribute" and not self._in_handle(name) and _fold(escape(name)) != _fold(content):
            # The accessible name differs from the visible text: `remove blue lamp` where the page shows `remove`.
            self.line[start - 1] = f'{self.line[start - 1].removesuffix(">")} label="{_attribute(name)}">'
        self.line[start:] = [f"{content}</{tag}> "]
