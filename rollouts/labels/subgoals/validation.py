"""What subgoals must be: as many as asked for, in order, checkable, different, and silent about the task's answer."""

import re
from collections.abc import Sequence

from mira_jax.trajectories.tasks import clean
from rollouts.labels.subgoals.files import LONGEST
from rollouts.suites.evaluators import NOT_POSSIBLE
from rollouts.text import sanitize

FEWEST_WORDS = 2
MENTAL = frozenset({
    "think", "consider", "decide", "understand", "remember", "recall", "plan", "realise", "realize", "imagine", "reflect", "wonder",
    "know", "analyse", "analyze", "reason", "assume", "be", "ensure", "try",
})  # fmt: skip
"""First words of subgoals that no page and no action can show."""
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def tidy(text: str) -> str:
    """Without unprintable characters, a leading number and surrounding space."""
    return re.sub(r"^\s*\(?\d{1,2}[.):]\s+", "", sanitize(text)).strip()


def problems(texts: Sequence[str], instruction: str, references: Sequence[str] = (), count: int | None = None) -> list[str]:
    """What is wrong with the subgoals of a task. Empty if nothing is.

    Args:
        references: texts of the reference answer.
        count: the number of subgoals that was asked for.
    """
    found = [f"there are {len(texts)} subgoals, not {count}"] if count is not None and len(texts) != count else []
    seen: dict[tuple[str, ...], int] = {}
    for number, text in enumerate(texts, 1):
        words = tuple(_words(text))
        if words and words in seen:
            found.append(f"subgoal {number} repeats subgoal {seen[words]}")
        seen.setdefault(words, number)
        found += [f"subgoal {number} {problem}" for problem in _problems(text, words, instruction)]
        if leaked := leak(text, instruction, references):
            found.append(f"subgoal {number} reveals {leaked!r}, which has to be found out")
    return found


def leak(text: str, instruction: str, references: Sequence[str]) -> str:
    """The first part of the reference answer that the text contains and the instruction does not: a whole answer, or one of its numbers.
    "" if there is none."""
    words, known = _words(text), _words(instruction)
    for reference in references:
        if clean(reference) == NOT_POSSIBLE:
            continue
        answer = _words(reference)
        if answer and _contains(words, answer) and not _contains(known, answer):
            return reference
        for number in _NUMBER.findall(reference):
            if number in words and number not in known:
                return number
    return ""


def _problems(text: str, words: tuple[str, ...], instruction: str) -> list[str]:
    if not words:
        return ["is empty"]
    found = []
    if len(text) > LONGEST:
        found.append(f"has {len(text)} characters, more than {LONGEST}")
    if len(words) < FEWEST_WORDS:
        found.append("has one word, which is too little to check")
    if words[0] in MENTAL:
        found.append(f"begins with {words[0]!r}, which is nothing that a page or an action can show")
    if instruction.isascii() and sum(letter.isalpha() and not letter.isascii() for letter in text) > len(text) / 4:
        found.append("is not in the language of the instruction")
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _contains(words: Sequence[str], part: Sequence[str]) -> bool:
    return any(list(words[start : start + len(part)]) == list(part) for start in range(len(words) - len(part) + 1))
