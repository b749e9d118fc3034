"""Whether an answer is right: equality with a reference answer after normalisation."""

import re
import unicodedata
from collections.abc import Iterable

NOT_STATED = "N/A"
"""The answer to a question that no page answers."""

_GROUPS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")
_EDGES = " \t.,;:!?\"'`()[]"


def normalise(answer: str) -> str:
    """The form in which answers are compared.

    Compatibility forms of Unicode are unified (NFKC), case is folded, white space is collapsed, and punctuation at either end, one leading
    "the", and the commas of a number such as 1,234 are left out. Nothing else is: a number in words, a unit, or a second answer makes
    another answer.
    """
    text = " ".join(unicodedata.normalize("NFKC", answer).casefold().split()).strip(_EDGES)
    text = text.removeprefix("the ").strip(_EDGES)
    return text.replace(",", "") if _GROUPS.fullmatch(text) else text


def is_right(answer: str | None, references: Iterable[str]) -> bool:
    """Whether the answer equals one of the references. None, no answer, is wrong."""
    return answer is not None and normalise(answer) in {normalise(reference) for reference in references}
