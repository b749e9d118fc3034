"""WebArena's `eval` objects. A task is evaluated on everything that it could have changed, so any unrequested change is a failure."""

from collections.abc import Sequence
from typing import Any


def html_target(url: str, locator: str, text: str) -> dict[str, Any]:
    """A `program_html` target: this part of this page must be exactly `text`."""
    return {"url": url, "locator": locator, "required_contents": {"exact_match": text}}


def evaluation(targets: Sequence[dict[str, Any]], answers: dict[str, Any] | None = None, url: str | None = None) -> dict[str, Any]:
    """WebArena's `eval` object with the targets, and an answer or a last page if given."""
    kinds = ["string_match"] * (answers is not None) + ["url_match"] * (url is not None) + ["program_html"]
    return {
        "eval_types": kinds,
        "reference_answers": answers,
        "reference_url": url or "",
        "program_html": list(targets),
        "string_note": "",
        "url_note": "EXACT" if url else "",
    }
