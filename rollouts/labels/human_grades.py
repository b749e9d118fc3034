"""Grades and comments of people on the plans of episodes, from a YAML or JSON file that they write.

format: 1
plans:
  4be1...:                                  # id of the episode
    grades: {goal_alignment: 5, order: 2}   # any of the dimensions
    comment: the second step uses the town, not the publisher
"""

from pathlib import Path
from typing import Annotated

import msgspec
import yaml
from msgspec import Meta

from mira_jax.errors import UserError, first_line
from mira_jax.trajectories.plan_grades import CONTENT, DIMENSIONS, HIGHEST

FORMAT = 1
_ADVICE = "see docs/plans.md"


class HumanGrade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person says about one plan."""

    grades: dict[str, Annotated[int, Meta(ge=0, le=HIGHEST)]] = {}
    comment: Annotated[str, Meta(max_length=2000)] = ""

    @property
    def right(self) -> bool | None:
        """Whether the plan is right (`plan_grades.is_right`). None if a grade that decides this is missing."""
        if any(self.grades.get(name, HIGHEST) < HIGHEST for name in CONTENT):
            return False
        return True if all(name in self.grades for name in CONTENT) else None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    plans: dict[str, HumanGrade]


def read(path: str | Path) -> dict[str, HumanGrade]:
    """Returns what the file says by the id of the episode. Raises UserError if it is not such a file."""
    try:
        tree = yaml.safe_load(Path(path).read_bytes())
        if isinstance(tree, dict) and tree.get("format") != FORMAT:
            raise UserError(f"{path}: format {tree.get('format')!r}; this version reads grades of people of format {FORMAT}; {_ADVICE}")
        found = msgspec.convert(tree, _File).plans
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, msgspec.ValidationError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a file of grades: {first_line(error)}; {_ADVICE}") from None
    for episode, one in found.items():
        if unknown := sorted(set(one.grades) - set(DIMENSIONS)):
            raise UserError(f"{path}: plans.{episode}.grades: {unknown[0]!r} is none of {', '.join(DIMENSIONS)}")
    return found
