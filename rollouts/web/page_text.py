"""The text and the links of a page in HTML or plain text, read in a process of their own.

A page of a few megabytes can be made such that a parser takes hours or gigabytes for it, or crashes. The process has limits of time and
memory, and no keys in its environment.

    python -m rollouts.web.page_text < REQUEST    # a line of JSON with url, header and kind, then the bytes of the page
"""

import asyncio
import codecs
import contextlib
import dataclasses
import json
import os
import re
import resource
import sys
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

from selectolax.lexbor import LexborHTMLParser

from rollouts.text import sanitize

MAX_CHARACTERS = 400_000
"""Of one page's text. What follows is left out, and the last paragraph says so."""
MAX_LINKS = 1_000
MAX_NODES = 200_000
CPU_SECONDS = 10
MEMORY = 2 << 30
"""Bytes of address space."""
WALL_SECONDS = 120.0
LONGEST = 500
"""Maximum characters of a paragraph. A longer one is split at a space: observations cut pieces of text at 600."""
CUT = "(the rest of this page is left out)"
_SKIPPED = frozenset((
    "script", "style", "noscript", "template", "head", "svg", "canvas", "object", "embed", "audio", "video", "iframe", "form", "nav",
    "button", "select", "textarea", "dialog", "aside", "footer",
))  # fmt: skip
_BLOCKS = frozenset((
    "address", "article", "blockquote", "body", "br", "caption", "center", "dd", "details", "div", "dl", "dt", "figcaption", "figure",
    "fieldset", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "li", "main", "ol", "p", "pre", "section", "summary",
    "table", "tbody", "tfoot", "thead", "title", "tr", "ul",
))  # fmt: skip
_CELLS = frozenset({"td", "th"})
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_-]{2,30})", re.IGNORECASE)
_SINGLE = r"iso-8859-\d+|windows-125\d|cp125\d|koi8-[ru]|macintosh"
_SEVERAL = r"utf-8|utf-16(?:le|be)?|gbk|gb2312|gb18030|big5|big5-hkscs|euc-jp|shift_jis|shift-jis|iso-2022-jp|euc-kr"
_KNOWN = re.compile(f"{_SINGLE}|{_SEVERAL}")
_ALIASES = {"gbk": "gb18030", "gb2312": "gb18030", "big5": "big5hkscs", "iso-8859-1": "cp1252"}
"""As in the Encoding standard: the larger encoding that browsers use in its place."""


@dataclasses.dataclass(frozen=True)
class Link:
    text: str
    url: str


@dataclasses.dataclass(frozen=True)
class PageText:
    title: str
    paragraphs: tuple[str, ...]
    links: tuple[Link, ...] = ()
    """Those of the page's text, with http addresses, each address once."""


class Unreadable(Exception):
    """The page cannot be read within the limits, or is no text. The message can be shown to the policy."""


async def read(data: bytes, url: str, header: str, is_html: bool) -> PageText:
    """Reads a page in a process of its own.

    Args:
        url: address of the page, for relative links.
        header: its Content-Type.

    Raises:
        Unreadable: too much time or memory is needed for it.
        TimeoutError: the process did not end, which says nothing about the page.
    """
    request = json.dumps({"url": url, "header": header, "is_html": is_html}).encode() + b"\n" + data
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )  # fmt: skip
    try:
        answer, _ = await asyncio.wait_for(process.communicate(request), WALL_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if process.returncode:
        raise Unreadable("its markup is too complex to be read")
    tree = json.loads(answer)
    return PageText(tree["title"], tuple(tree["paragraphs"]), tuple(Link(**link) for link in tree["links"]))


def main() -> None:
    """Answers the request on standard input with a `PageText` as JSON."""
    for kind, most in ((resource.RLIMIT_CPU, CPU_SECONDS), (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # not on every system
            resource.setrlimit(kind, (most, most))
    request = json.loads(sys.stdin.buffer.readline())
    text = decode(sys.stdin.buffer.read(), request["header"])
    found = read_html(text, request["url"]) if request["is_html"] else read_plain(text, "")
    sys.stdout.write(json.dumps(dataclasses.asdict(found)))


def decode(data: bytes, content_type: str) -> str:
    """The text by the byte order mark, the charset of the header, that of a meta element, or else UTF-8. Undecodable bytes are replaced."""
    for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            return data.decode(name, "replace")
    header = re.search(r"charset\s*=\s*[\"']?([\w-]+)", content_type)
    meta = _META.search(data[:2048])
    for name in (header[1] if header else "", meta[1].decode() if meta else ""):
        name = name.lower()
        # Only known names: Python has codecs that are no character encodings, and slow ones.
        if _KNOWN.fullmatch(name):
            try:
                return data.decode(_ALIASES.get(name, name), "replace")
            except LookupError:
                continue
    return data.decode("utf-8", "replace")


def read_plain(text: str, title: str) -> PageText:
    return PageText(title, _paragraphs(text.splitlines()))


def read_html(html: str, url: str) -> PageText:
    """The text of the page's `main` element if it has one, else of all, without navigation, forms and scripts.

    Args:
        url: address of the page, for relative links.
    """
    root = LexborHTMLParser(html).root
    if root is None:
        return PageText("", ())
    title = next((_spaced(node.text(deep=True)) for node in root.css("title")[:1]), "")
    mains = root.css("main")
    lines, links = _walk(mains[0] if len(mains) == 1 else root, url)
    if len(mains) == 1 and not lines:
        lines, links = _walk(root, url)
    return PageText(title[:LONGEST], _paragraphs(lines), tuple(Link(text, target) for target, text in links.items()))


def _walk(start: Any, url: str) -> tuple[list[str], dict[str, str]]:
    """Lines of text, and links by address. Without recursion, as a page may be nested deeply."""
    lines, links, line, seen = list[str](), dict[str, str](), list[str](), 0
    stack: list[tuple[str, Any]] = [("open", start)]

    def end_line() -> None:
        if text := _spaced("".join(line)):
            lines.append(text)
        line.clear()

    while stack and seen < MAX_NODES:
        what, node = stack.pop()
        if what == "close":
            end_line()
            continue
        seen += 1
        tag = node.tag
        if node is not start and node.next is not None:
            stack.append(("open", node.next))
        if tag == "-text":
            line.append(node.text_content or "")
            continue
        if tag in _SKIPPED or tag.startswith("-"):
            continue
        if tag in _BLOCKS:
            end_line()
            stack.append(("close", node))
        if tag == "li":
            line.append("- ")
        elif tag in _CELLS and _spaced("".join(line)):
            line.append(" | ")
        elif tag == "a" and len(links) < MAX_LINKS:
            target = _target(url, node.attributes.get("href"))
            text = _spaced(node.text(deep=True)) if target else ""
            if target and text:
                links.setdefault(target, text[:LONGEST])
        if node.first_child is not None:
            stack.append(("open", node.first_child))
    end_line()
    if stack:
        lines.append(CUT)
    return lines, links


def _target(base: str, href: str | None) -> str:
    """The address of a link, without its fragment. Empty if it is no http address, or leads to the page itself."""
    try:
        target = urldefrag(urljoin(base, (href or "").strip()))[0]
        good = urlsplit(target).scheme in ("http", "https") and target.isprintable() and len(target) <= 2_000
    except ValueError:
        return ""
    return target if good and target != urldefrag(base)[0] else ""


def _paragraphs(lines: list[str]) -> tuple[str, ...]:
    found, size = list[str](), 0
    for line in lines:
        rest = _spaced(line)
        while rest and rest != "-":
            if size >= MAX_CHARACTERS:
                return (*found, CUT)
            at = len(rest) if len(rest) <= LONGEST else rest.rfind(" ", LONGEST // 2, LONGEST)
            at = LONGEST if at < 0 else at
            found.append(rest[:at].strip())
            size += at
            rest = rest[at:].strip()
    return tuple(found)


def _spaced(text: str) -> str:
    return " ".join(sanitize(text).split())


if __name__ == "__main__":
    main()
