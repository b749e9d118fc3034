"""Checks a task's `eval` object before anything runs: evaluators, references and targets in WebArena's form."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rollouts.suites.evaluators import url_match

KINDS = ("string_match", "url_match", "program_html")
REFERENCES = ("exact_match", "must_include", "fuzzy_match")
CONTAINED = "GOLD in PRED"
EXACT = "EXACT"
MAX_TARGET = 2_000
"""Maximum characters of a locator, or of the address of a page to open. The longest locator of WebArena-Lite has 216."""
Target = Callable[[str, str], None]
"""Checks address and locator of a target of program_html. Raises ValueError."""


def check_evaluation(
    evaluation: Any, check_target: Target, kinds: Sequence[str] = KINDS, notes: Sequence[str] = (CONTAINED, EXACT)
) -> None:
    """Raises ValueError if the evaluation is malformed.

    Args:
        kinds: the evaluators that the suite has.
        notes: the values that `url_note` may have.
    """
    given = evaluation.get("eval_types") if isinstance(evaluation, dict) else None
    if not isinstance(given, list) or not given:
        raise ValueError("eval: eval_types is not a list of evaluators")
    for kind in given:
        if kind not in kinds:
            raise ValueError(f"eval: unknown evaluator {kind!r}; there are {', '.join(kinds)}")
    if "string_match" in given:
        _check_references(evaluation.get("reference_answers"), "reference_answers")
    if not isinstance(evaluation.get("string_note") or "", str):
        raise ValueError("eval: string_note is not a text")
    if "url_match" in given:
        check_reference_url("eval: reference_url", evaluation.get("reference_url"))
    if (evaluation.get("url_note") or CONTAINED) not in notes:
        raise ValueError(f"eval: url_note {evaluation['url_note']!r} is not {' or '.join(map(repr, notes))}")
    if "program_html" in given:
        _check_targets(evaluation.get("program_html"), check_target)


def check_reference_url(key: str, url: Any) -> None:
    """Refuses what `url_match` can't compare."""
    if not isinstance(url, str) or not url:
        raise ValueError(f"{key}: {ascii(url)[:80]} is not an address")
    try:
        url_match(url, "")
    except ValueError as error:
        raise ValueError(f"{key}: {ascii(url)[:80]} is not an address: {error}") from None


def _check_targets(targets: Any, check_target: Target) -> None:
    if not isinstance(targets, list) or not targets:
        raise ValueError("eval: program_html needs a list of targets")
    for target in targets:
        if not isinstance(target, dict) or not isinstance(target.get("url"), str) or not isinstance(target.get("locator"), str):
            raise ValueError("eval: a target of program_html needs url and locator")
        for key in ("url", "locator"):
            if len(target[key]) > MAX_TARGET:
                raise ValueError(f"eval: the {key} of a target has {len(target[key]):,} characters; at most {MAX_TARGET:,}")
        check_target(target["url"], target["locator"])
        _check_references(target.get("required_contents"), "required_contents")


def _check_references(references: Any, key: str) -> None:
    if not isinstance(references, dict) or not references or not set(references) <= set(REFERENCES):
        raise ValueError(f"eval: {key} must map {', '.join(REFERENCES)} to references")
    for kind, reference in references.items():
        several = kind != "exact_match" and isinstance(reference, list) and bool(reference)
        if not isinstance(reference, str) and not (several and all(isinstance(part, str) for part in reference)):
            expected = "a text" if kind == "exact_match" else "a text, or a list of texts"
            raise ValueError(f"eval: {key}.{kind} is {ascii(reference)[:60]}; expected {expected}")


def targets(evaluation: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The targets of program_html, if it is one of the evaluators."""
    return evaluation["program_html"] if "program_html" in evaluation["eval_types"] else ()
