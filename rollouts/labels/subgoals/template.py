"""Subgoals by rules from nothing but the instruction: the baseline for those of a model.

The instruction is split into clauses. Each value that a clause names, a text in quotes or a number, is a subgoal, which is done when
the policy uses the value: types, chooses or answers it, acts on an element that shows it, or opens a page whose address has it. An
instruction that asks for an answer ends with the subgoal to give one.
"""

import re
from collections.abc import Iterator, Sequence

from mira_jax.trajectories.actions import EXIT
from rollouts.labels.subgoals.files import LONGEST, Goal
from rollouts.suites.tasks.items import Check
from rollouts.text import sanitize

VALUE = re.compile(r'"([^"\n]{1,80})"|(?<![\w.])(\d+(?:[.,:-]\d+)*)(?![\w])')
"""A value in an instruction: in quotes, or a number."""
_BOUNDARY = re.compile(r"(?<=[.?!;:])\s+|,\s+(?:and\s+|then\s+|or\s+)*|\s+(?:and\s+then|and|then)\s+")
_ASKS = re.compile(r"\banswer\b|\?", re.IGNORECASE)
_ANSWER = "give the answer"


def goals(instruction: str, count: int) -> tuple[Goal, ...]:
    """At most `count` subgoals, in the order of the instruction; empty if it names no value and asks for no answer.

    If there are more, they are taken evenly spaced, the last included.
    """
    found = list(_goals(sanitize(instruction)))
    if _ASKS.search(VALUE.sub('""', instruction)):
        found.append(Goal(_ANSWER, (Check(action=EXIT),)))
    return tuple(evenly(found, count))


def evenly(items: Sequence[Goal], count: int) -> Sequence[Goal]:
    """At most `count` of the items, evenly spaced, the last included."""
    if len(items) <= count:
        return items
    return [items[(number + 1) * len(items) // count - 1] for number in range(count)]


def values(instruction: str) -> list[str]:
    """The values in an instruction, in order."""
    return [quoted or number for quoted, number in VALUE.findall(instruction)]


def slug(value: str) -> str:
    """The value as addresses have it: "blue lamp" as blue-lamp."""
    return re.sub(r"[\W_]+", "-", value.casefold()).strip("-")


def _goals(instruction: str) -> Iterator[Goal]:
    known: set[str] = set()
    for clause in _clauses(instruction):
        for value in values(clause):
            if value.casefold() not in known:
                known.add(value.casefold())
                yield Goal(f"use {value!r}: {clause}"[:LONGEST], _uses(value))


def _clauses(instruction: str) -> list[str]:
    """The parts of an instruction. Quotes are not split."""
    quotes: list[str] = []

    def hide(match: re.Match[str]) -> str:
        quotes.append(match.group())
        return f"\0{len(quotes) - 1}\0"

    hidden = re.sub(r'"[^"\n]*"', hide, instruction)
    parts = [re.sub("\0(\\d+)\0", lambda match: quotes[int(match.group(1))], part) for part in _BOUNDARY.split(hidden)]
    return [part.strip(" .,;") for part in parts if part.strip(" .,;")]


def _uses(value: str) -> tuple[Check, ...]:
    if value[0].isdigit():
        return (Check(argument=value),)
    address = (Check(url=slug(value)),) if len(slug(value)) > 2 else ()
    return (Check(argument=value), Check(target=value), *address)
