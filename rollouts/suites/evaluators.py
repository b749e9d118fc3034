"""WebArena's evaluators over recorded evidence: string_match, url_match and program_html. No code from a task is executed here.

The rules are those of WebArena-Lite's evaluator: a task succeeds if each of its `eval_types` does. Where only a model can
decide, that is for a fuzzy match of anything but N/A, the `Judge` that the caller passes is asked.
"""

import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Evidence, Outcome
from mira_jax.trajectories.tasks import clean

OR = " |OR| "
NOT_POSSIBLE = "n/a"
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_SILENT = {"script", "style", "template", "option", "select", "title"}
_LOCATOR = re.compile(
    r"(?:document\.querySelector\(\s*(['\"])(?P<inner>.+?)\1\s*\)(?:\.(?:outerText|innerText|textContent))?|(?P<plain>[^()]*))"
)
_SELECTOR = re.compile(r"[#.]?[A-Za-z][\w-]*")
_PUNCTUATION = r"\s;@#$%&?!*()\[\]{}<>\"`«»“”‘’„\u2012-\u2015"
_TOKEN_START = rf"(?:(?<![^{_PUNCTUATION}'])|(?<=\.\.)|(?<=--)|(?<=[:,])(?=\D))"
_TOKEN_END = rf"(?=[{_PUNCTUATION}]|$|\.\.|--|[:,](?:\D|$)|'(?:s|m|d|ll|re|ve)?(?:\s|$)|\.[\])}}>\"'»”’ ]*$|\.\s+[^\w\s]|\.\s+\d)"
"""Token boundaries by the Penn Treebank's rules. A full stop is a separate token only where it ends a sentence: at the end of
the text, or before anything but a letter. Before a letter it is not, since a sentence begins with a capital and answers are in
lower case."""


class Judge(Protocol):
    """Decides what no rule can: a model, or a person."""

    def same(self, question: str, reference: str, answer: str) -> bool:
        """Whether the answer means the same as the reference."""
        ...

    def same_reason(self, question: str, reason: str, answer: str) -> bool:
        """Whether the answer states or implies the reason why the task can't be done."""
        ...


def evaluate(evaluation: Mapping[str, Any], evidence: Evidence, intent: str = "", judge: Judge | None = None) -> Outcome:
    """Decides the outcome according to a task's `eval` object.

    Raises:
        UserError: the evaluation needs a judge and none is given, or its type is unknown.
    """
    failures = []
    for kind in evaluation["eval_types"]:
        if kind == "string_match":
            note = evaluation.get("string_note") or ""
            failures += string_match(evaluation["reference_answers"], evidence.answer, intent, note, judge)
        elif kind == "url_match":
            url = evidence.page.url if evidence.page else ""
            failures += url_match(evaluation["reference_url"], url, evaluation.get("url_note") or "GOLD in PRED")
        elif kind == "program_html":
            failures += program_html(evaluation["program_html"], evidence.contents, intent, judge)
        else:
            raise UserError(f"eval_types: {kind!r} is none of string_match, url_match, program_html")
    source = "judge" if judge and needs_judge(evaluation) else "rule"
    return Outcome(success=not failures, score=float(not failures), source=source, detail="; ".join(failures))


def needs_judge(evaluation: Mapping[str, Any]) -> bool:
    """Whether `evaluate` may have to ask a judge."""
    references = [evaluation["reference_answers"]] if "string_match" in evaluation["eval_types"] else []
    if "program_html" in evaluation["eval_types"]:
        references += [target["required_contents"] for target in evaluation["program_html"]]
    return any("fuzzy_match" in reference for reference in references)


def references(evaluation: Mapping[str, Any]) -> list[str]:
    """The texts of the reference answer. Empty if the task asks for none."""
    if "string_match" not in evaluation["eval_types"]:
        return []
    values = evaluation["reference_answers"].values()
    return [str(text) for value in values for text in (value if isinstance(value, list) else [value])]


def string_match(
    references: Mapping[str, Any], answer: str | None, intent: str = "", note: str = "", judge: Judge | None = None
) -> list[str]:
    """Describes what is wrong with the answer. Empty if nothing is. `note` states why the task can't be done, for the reference N/A."""
    if answer is None:
        return ["no answer"]
    answer = clean(answer)
    failures = []
    for kind, reference in references.items():
        if kind != "fuzzy_match":
            failures += _unmet(kind, reference, answer, "answer", tokens=True)
        elif _not_possible(reference) and (judge is None or clean(answer) == NOT_POSSIBLE):
            failures += [] if clean(answer) == NOT_POSSIBLE else [f"answer is {_short(answer)}, not N/A"]
        elif isinstance(reference, str) and _not_possible(reference):
            if not _require_judge(judge, note).same_reason(intent, note, answer):
                failures.append(f"answer is {_short(answer)}, not N/A since {_short(note)}")
        else:
            for part in [reference] if isinstance(reference, str) else reference:
                if not failures and not _require_judge(judge, part).same(intent, part, answer):
                    failures.append(f"answer does not mean {_short(part)}: {_short(answer)}")
    return failures


def url_match(references: str, url: str, note: str = "GOLD in PRED") -> list[str]:
    """Describes what is wrong with the last page's address. Empty if nothing is.

    `GOLD in PRED` is WebArena's rule: host and path of some reference are a substring of the page's, and each query key of the
    references has one of their values. `EXACT` requires host and path to be equal.
    """
    page, golds = urlsplit(url.rstrip("/")), [urlsplit(reference.rstrip("/")) for reference in references.split(OR)]
    base, bases = page.netloc + page.path, [gold.netloc + gold.path for gold in golds]
    if not any(gold == base if note == "EXACT" else gold in base for gold in bases):
        return [f"the last page is {url}, not {references}"]
    wanted: dict[str, set[str]] = {}
    for gold in golds:
        for key, values in parse_qs(gold.query).items():
            wanted.setdefault(key, set()).update(values)
    query = parse_qs(page.query)
    return [f"the last page has not {key}={sorted(values)[0]}" for key, values in wanted.items() if not values & set(query.get(key, ()))]


def program_html(targets: Sequence[Mapping[str, Any]], contents: Sequence[str], intent: str = "", judge: Judge | None = None) -> list[str]:
    """Describes what is wrong with the texts that the targets select. Empty if nothing is. If a target has several kinds of
    reference, the first is used."""
    if len(contents) != len(targets):
        return [f"{len(contents)} of {len(targets)} targets were read"]
    failures = []
    for target, content in zip(targets, contents, strict=True):
        wanted, what = target["required_contents"], f"{target['url']} {target['locator']}".strip()
        kind = next((kind for kind in ("exact_match", "must_include", "fuzzy_match") if kind in wanted), "")
        if kind != "fuzzy_match":
            failures += _unmet(kind or next(iter(wanted), ""), wanted.get(kind), content, what, tokens=False)
        elif not failures and not _require_judge(judge, together := ", ".join(wanted[kind])).same(intent, together, content):
            failures.append(f"{what} does not mean {_short(together)}: {_short(content)}")
    return failures


def _unmet(kind: str, reference: Any, text: str, what: str, tokens: bool) -> list[str]:
    """Returns a message for each reference of this kind that `text` does not meet."""
    if kind == "exact_match":
        return [] if clean(reference) == clean(text) else [f"{what} is {_short(text)}, not {_short(reference)}"]
    if kind == "must_include":
        parts = [reference] if isinstance(reference, str) else reference
        tokens = tokens and len(parts) == 1
        return [f"{what} lacks {_short(part)}: {_short(text)}" for part in parts if not _includes(part, text, tokens)]
    raise UserError(f"reference: {kind!r} is none of exact_match, must_include, fuzzy_match")


def _includes(reference: str, text: str, tokens: bool) -> bool:
    """Whether one of the alternatives is a substring of `text`. If `tokens`, a single character must be a token."""
    text = clean(text)
    parts = [clean(alternative) for alternative in reference.split(OR)]
    return any(_has_token(part, text) if tokens and len(part) == 1 else part in text for part in parts)


def _has_token(character: str, text: str) -> bool:
    return re.search(_TOKEN_START + re.escape(character) + _TOKEN_END, text) is not None


def _not_possible(reference: str | Sequence[str]) -> bool:
    parts = [reference] if isinstance(reference, str) else reference
    return [clean(part) for part in parts] == [NOT_POSSIBLE]


def _require_judge(judge: Judge | None, reference: str) -> Judge:
    if judge is None:
        raise UserError(f"fuzzy_match: only N/A can be judged by rule; {_short(reference)} needs a judge model")
    return judge


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def select_text(html: str, locator: str) -> str:
    """Returns the visible text of the elements that `locator` selects, in document order, joined by ` | `.

    `locator` is empty for the whole page, or `#id`, `.class` or `tag`, or WebArena's `document.querySelector('...').outerText`
    around one of these, which selects only the first such element.

    Raises:
        UserError: any other form of locator.
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
    """Collects the text of the elements that a simple selector matches."""

    def __init__(self, selector: str):
        super().__init__()
        self.found: list[list[str]] = []
        self._selector = selector
        self._open: list[tuple[str, bool]] = []
        """Open elements, as (tag, whether it is selected)."""

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
