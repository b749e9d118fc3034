"""The grammar of a plan in a response: hops from names and from earlier hops. Text outside of it counts as a hop that nothing needs.

    # Plan: 1 publisher of song of the red bell, 2 seat of 1

    plan      = "# Plan:" piece { separator piece }, also on the comment lines below it that begin with a number, "-" or "*"
    separator = "," | ";" | "->" | "then" | end of line
    piece     = [ NUMBER [ "." | ")" | ":" ] ] [ verb ] ( hop | operation )
    hop       = ["the"] RELATION "of" ["each" ["of"]] start [ condition ]
              | start "'s" RELATION
              | ["the"] "one of" start "whose" RELATION condition
    start     = [ "#" | "step" | "hop" ] NUMBER | NAME
    condition = ( "is" | "=" | "after" ) VALUE
    operation = a word for what is done with the numbers of earlier hops, such as "compare 2 and 4"

Only comment lines before the call are read. Case and compatibility forms of Unicode do not matter.
"""

import dataclasses
import re
import unicodedata

from mira_arena.seeking.answers import normalise
from mira_arena.seeking.relations import RELATIONS
from mira_jax.trajectories.actions import MAX_LENGTH

LONGEST = 200
"""Maximum characters of a piece that is read."""
_RELATION = "|".join(sorted(map(re.escape, RELATIONS), key=len, reverse=True))
_CONDITION = r"(?P<test>is|=|after) (?P<value>.+)"
_PLAN = re.compile(r"#+ *plan *:(?P<rest>.*)")
_CONTINUED = re.compile(r"#+ *(?P<rest>[0-9]+[.): ].*|[-*] .*)")
_SEPARATOR = re.compile(r"[,;\n]|->|→|\bthen\b")
_NUMBERED = re.compile(r"(?P<number>[0-9]{1,3})[.):]? +(?P<rest>.+)")
_LEADING = re.compile(r"(?:[-*] )?(?:and )?")
_VERB = re.compile(r"(?:(?:find|get|look up) )?")
_HOPS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:the )?one of (?P<start>.+?) whose (?P<relation>{_RELATION}) {_CONDITION}",
        rf"(?:the )?(?P<relation>{_RELATION}) of (?:each (?:of )?)?(?P<start>.+?)(?: {_CONDITION})?",
        rf"(?P<start>.+?)'s (?P<relation>{_RELATION})",
    )
)
_REFERENCE = re.compile(r"(?:#|step |hop )?(?P<number>[0-9]{1,3})")
_OPERATION = re.compile(
    r"(?:the )?(?P<word>compare|count|sum|total|earliest|greater|greatest|later|difference)(?P<rest>(?: (?:[0-9]{1,6}|[a-z]+))*)"
)
_JOINING = frozenset(["of", "the", "and", "between", "from", "with", "in", "those", "after", "step", "steps", "hop", "hops", "all"]) | {
    word for relation in RELATIONS for word in relation.split()
}


@dataclasses.dataclass(frozen=True)
class PlannedHop:
    """One hop as it is written. A piece that is no hop has no relation."""

    number: int
    """Its number in the plan. 0: none that later hops can refer to."""
    relation: str = ""
    start: str = ""
    """The name that it starts from, normalised. Empty: `after`."""
    after: int = 0
    """Number of the hop that it starts from. 0: a name."""
    test: str = ""
    """is or after. Empty: no condition."""
    value: str = ""
    """What the condition compares with, normalised."""


@dataclasses.dataclass(frozen=True)
class WrittenPlan:
    hops: tuple[PlannedHop, ...]
    operations: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Word and numbers of what is done with the results of the hops."""


def read_plans(response: str) -> list[WrittenPlan]:
    """The plans in the comment lines before the call, in order. Empty if there is none, or if the response is too long to be read."""
    if len(response) > MAX_LENGTH:
        return []
    plans: list[list[str]] = []
    continued = False
    for line in response.split("\n"):
        line = " ".join(unicodedata.normalize("NFKC", line).casefold().split())
        if line and not line.startswith("#"):
            break
        if match := _PLAN.fullmatch(line):
            plans.append([match["rest"]])
            continued = True
        elif continued and (match := _CONTINUED.fullmatch(line)):
            plans[-1].append(match["rest"])
        elif line:
            continued = False
    return [plan for plan in (_plan("\n".join(lines)) for lines in plans) if plan.hops]


def _plan(text: str) -> WrittenPlan:
    hops: list[PlannedHop] = []
    operations = []
    for piece in (_without(_LEADING, piece.strip(" .")) for piece in _SEPARATOR.split(text)):
        if not piece:
            continue
        numbered = _NUMBERED.fullmatch(piece) if len(piece) <= LONGEST else None
        number = int(numbered["number"]) if numbered else len(hops) + 1
        # Which of two hops a number means would be unclear.
        number = 0 if any(hop.number == number for hop in hops) else number
        rest = _without(_VERB, (numbered["rest"] if numbered else piece).strip())
        if operation := _operation(rest):
            operations.append(operation)
        else:
            hops.append(_hop(rest, number))
    return WrittenPlan(tuple(hops), tuple(operations))


def _without(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.match(text)
    return text[match.end() :] if match else text


def _hop(text: str, number: int) -> PlannedHop:
    matches = (pattern.fullmatch(text) for pattern in _HOPS) if len(text) <= LONGEST else ()
    match = next((match for match in matches if match), None)
    if match is None:
        return PlannedHop(number)
    parts = match.groupdict()
    reference = _REFERENCE.fullmatch(parts["start"])
    return PlannedHop(
        number=number,
        relation=parts["relation"],
        start="" if reference else normalise(parts["start"]),
        after=int(reference["number"]) if reference else 0,
        test={"=": "is"}.get(parts.get("test") or "", parts.get("test") or ""),
        value=normalise(parts.get("value") or ""),
    )


def _operation(text: str) -> tuple[str, tuple[int, ...]] | None:
    match = _OPERATION.fullmatch(text) if len(text) <= LONGEST else None
    words = match["rest"].split() if match else []
    if not match or not all(word in _JOINING or word.isdigit() for word in words):
        return None
    return match["word"], tuple(int(word) for word in words if word.isdigit())
