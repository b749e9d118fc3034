"""WebArena's evaluators over gathered evidence: string_match, url_match and program_html. Nothing from a task is ever executed.

The rules are those of WebArena-Lite's evaluator: a task succeeds if each of its `eval_types` does. Where a task
needs a model as judge (a fuzzy match of anything but N/A), `judge` says so instead of guessing.
"""

import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Evidence, Outcome

OR = " |OR| "
NOT_POSSIBLE = "n/a"
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_SILENT = {"script", "style", "template", "option", "select", "title"}
_LOCATOR = re.compile(
    r"(?:document\.querySelector\(\s*(['\"])(?P<inner>.+?)\1\s*\)(?:\.(?:outerText|innerText|textContent))?|(?P<plain>[^()]*))"
)
_SELECTOR = re.compile(r"[#.]?[A-Za-z][\w-]*")


def judge(evaluation: Mapping[str, Any], evidence: Evidence) -> Outcome:
    """The outcome by a task's `eval` object.

    Raises:
        UserError: the evaluation needs a judge model, or is of an unknown type.
    """
    failures = []
    for kind in evaluation["eval_types"]:
        if kind == "string_match":
            failures += string_match(evaluation["reference_answers"], evidence.answer)
        elif kind == "url_match":
            url = evidence.page.url if evidence.page else ""
            failures += url_match(evaluation["reference_url"], url, evaluation.get("url_note") or "GOLD in PRED")
        elif kind == "program_html":
            failures += program_html(evaluation["program_html"], evidence.contents)
        else:
            raise UserError(f"eval_types: {kind!r} is none of string_match, url_match, program_html")
    return Outcome(success=not failures, score=float(not failures), source="rule", detail="; ".join(failures))


def string_match(references: Mapping[str, Any], answer: str | None) -> list[str]:
    """What is wrong with the answer; empty if nothing."""
    if answer is None:
        return ["no answer"]
    return _unmet(references, answer, "answer")


def url_match(references: str, url: str, note: str = "GOLD in PRED") -> list[str]:
    """What is wrong with the last page's address; empty if nothing.

    `GOLD in PRED` is WebArena's rule: some reference's host and path is a part of the page's, and each query key of the
    references has one of their values. `EXACT` wants host and path to be equal.
    """
    page, golds = urlsplit(url), [urlsplit(reference) for reference in references.split(OR)]
    base = (page.netloc + page.path).rstrip("/")
    bases = [(gold.netloc + gold.path).rstrip("/") for gold in golds]
    if not any(gold == base if note == "EXACT" else gold in base for gold in bases):
        return [f"the last page is {url}, not {references}"]
    wanted: dict[str, set[str]] = {}
    for gold in golds:
        for key, values in parse_qs(gold.query).items():
            wanted.setdefault(key, set()).update(values)
    query = parse_qs(page.query)
    return [f"the last page has not {key}={sorted(values)[0]}" for key, values in wanted.items() if not values & set(query.get(key, ()))]


def program_html(targets: Sequence[Mapping[str, Any]], contents: Sequence[str]) -> list[str]:
    """What is wrong with the texts selected by the targets; empty if nothing."""
    if len(contents) != len(targets):
        return [f"{len(contents)} of {len(targets)} targets were read"]
    failures = []
    for target, content in zip(targets, contents, strict=True):
        failures += _unmet(target["required_contents"], content, f"{target['url']} {target['locator']}".strip())
    return failures


def _unmet(references: Mapping[str, Any], text: str, what: str) -> list[str]:
    """The references that `text` does not meet, each as a message."""
    failures = []
    for kind, reference in references.items():
        if kind == "exact_match":
            if clean(reference) != clean(text):
                failures.append(f"{what} is {_short(text)}, not {_short(reference)}")
        elif kind == "must_include":
            whole_word = len(reference) == 1
            failures += [f"{what} lacks {_short(part)}: {_short(text)}" for part in reference if not _includes(part, text, whole_word)]
        elif kind == "fuzzy_match":
            wanted = [reference] if isinstance(reference, str) else list(reference)
            if [clean(part) for part in wanted] != [NOT_POSSIBLE]:
                raise UserError(f"fuzzy_match: only N/A can be judged by rule; {_short(str(reference))} needs a judge model")
            if clean(text) != NOT_POSSIBLE:
                failures.append(f"{what} is {_short(text)}, not N/A")
        else:
            raise UserError(f"reference: {kind!r} is none of exact_match, must_include, fuzzy_match")
    return failures


def _includes(reference: str, text: str, whole_word: bool) -> bool:
    """Whether one of the alternatives is a part of `text`; a lone reference of one character must be a word of its own."""
    for alternative in reference.split(OR):
        part = clean(alternative)
        if part in re.findall(r"\w+|[^\w\s]", clean(text)) if whole_word and len(part) == 1 else part in clean(text):
            return True
    return False


def clean(text: str) -> str:
    """Lower case, white space collapsed, one pair of quotes around the whole removed."""
    text = " ".join(text.split())
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    return text.lower()


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def select_text(html: str, locator: str) -> str:
    """The visible text of the elements that `locator` selects, in the page's order, joined by ` | `.

    `locator` is empty for the whole page, or `#id`, `.class` or `tag`, or WebArena's `document.querySelector('...').outerText`
    around one of these, which selects the first such element only.

    Raises:
        UserError: another form of locator.
    """
    match = _LOCATOR.fullmatch(locator.strip())
    selector = match and (match["inner"] or match["plain"])
    if locator.strip() and not (selector and _SELECTOR.fullmatch(selector)):
        raise UserError(f"locator: {locator!r} is not '', '#id', '.class', 'tag' or document.querySelector(one of these).outerText")
    reader = _TextReader(selector or "body")
    reader.feed(html)
    reader.close()
    texts = [" ".join("".join(parts).split()) for parts in reader.found]
    return " | ".join(texts[:1] if match and match["inner"] else texts)


class _TextReader(HTMLParser):
    """Gathers the text of the elements that a simple selector selects."""

    def __init__(self, selector: str):
        super().__init__()
        self.found: list[list[str]] = []
        self._selector = selector
        self._open: list[tuple[str, bool]] = []
        """Open elements: tag, and whether it is selected."""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if self._selector[0] == "#":
            selected = values.get("id") == self._selector[1:]
        elif self._selector[0] == ".":
            selected = self._selector[1:] in (values.get("class") or "").split()
        else:
            selected = tag == self._selector
        if selected:
            self.found.append([])
        if tag not in _VOID:
            self._open.append((tag, selected))
        elif tag == "br":
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        if any(open_tag == tag for open_tag, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.found and any(selected for _, selected in self._open) and not any(tag in _SILENT for tag, _ in self._open):
            self.found[-1].append(data)
