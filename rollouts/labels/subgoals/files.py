"""Files of subgoals, by task: written by `mira subgoals`, read by `mira label`."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from mira_jax.errors import UserError
from mira_jax.files import read_json, to_json, write_atomically
from rollouts.suites.tasks.checks import describe
from rollouts.suites.tasks.items import Check

FORMAT = 1
LONGEST = 200
"""Maximum characters of a subgoal."""
MOST = 50
"""Maximum number of subgoals of a task."""
_ADVICE = "write it again (`mira subgoals`)"


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A subgoal of a task."""

    text: Annotated[str, Meta(min_length=1, max_length=LONGEST)]
    done: tuple[Check, ...] = ()
    """Checks of a step, one of which is enough. Empty: only a model can decide."""

    @property
    def check(self) -> str:
        """For the record of an episode."""
        return " or ".join(map(describe, self.done)) or "decided by a model"


Goals = Annotated[tuple[Goal, ...], Meta(min_length=1, max_length=MOST)]


class SubgoalFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a file of subgoals."""

    format: int = FORMAT
    made_from: dict[str, Any]
    """The inputs and settings that determine the subgoals."""
    subgoals: dict[str, Goals]
    """Task id to the subgoals, in order."""
    left_out: dict[str, str] = {}
    """Task id to the reason why the task has no subgoals."""
    usage: dict[str, float] = {}
    """What requests to a model used, in the run that completed the file."""


def write(path: str | Path, content: SubgoalFile) -> None:
    """Writes the file atomically. Raises UserError if it cannot be written."""
    tree = msgspec.to_builtins(content)
    # A check is written with its conditions only.
    for goals in tree["subgoals"].values():
        for goal in goals:
            goal["done"] = [{name: value for name, value in check.items() if value is not None} for check in goal["done"]]
    write_atomically(path, to_json(tree, indent=1).encode())


def read(path: str | Path) -> SubgoalFile:
    """Raises UserError if the file is missing, damaged, or of another format, or a check in it has no condition."""
    tree = read_json(path, _ADVICE)
    if tree.get("format") != FORMAT:
        raise UserError(f"{path}: format {tree.get('format')!r}; this version reads files of subgoals of format {FORMAT}; {_ADVICE}")
    try:
        found = msgspec.convert(tree, SubgoalFile)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not a file of subgoals: {error}; {_ADVICE}") from None
    for task, goals in found.subgoals.items():
        if any(check == Check() for goal in goals for check in goal.done):
            raise UserError(f"{path}: {task}: a check has no condition; {_ADVICE}")
    return found
