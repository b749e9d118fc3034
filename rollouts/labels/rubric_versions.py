"""The folder of a rubric's versions: rubric-0000.yaml, which it began with, and later ones with a record of what each was made from."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mira_jax import config
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import read_json, to_json, write_atomically
from mira_jax.trajectories.records import Trajectory
from rollouts.labels import rubrics
from rollouts.labels.rubrics import Dimension, Rubric

FORMAT = 1
_ADVICE = "restore it, or write the versions again into another folder (`mira rubric`)"


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a version was made from: the file rubric-NNNN.json."""

    format: int = FORMAT
    made_from: dict[str, Any]
    """The inputs and settings that determine the version."""
    episodes: list[str]
    """Ids of the episodes of its batch."""
    tasks: list[str]
    """The tasks, with their seed, of its batch and of those of earlier versions. They cannot be held out."""
    insights: list[str]
    reason: str
    """Why the model changed the rubric, in its words."""
    unanswered: int = 0
    """Questions for insights without a valid answer."""


def path_of(folder: Path, version: int) -> Path:
    return folder / f"rubric-{version:04d}.yaml"


def begin(folder: Path, rubric: str) -> Rubric:
    """Writes version 0, a copy of the file. Raises UserError if the folder begins with another rubric."""
    first = path_of(folder, 0)
    given = rubrics.read(rubric)
    if not first.exists():
        write_atomically(first, config.find(Path(rubric)).read_bytes())
    found = rubrics.read(first)
    if found.sha256 != given.sha256:
        raise UserError(f"{folder}: its versions begin with another rubric; choose another out")
    return found


def write(folder: Path, version: int, dimensions: Sequence[Dimension], origin: Origin) -> None:
    """Adds a version. Raises UserError if it exists already."""
    path = path_of(folder, version)
    if not path.exists():
        # Written first, so that each rubric has its origin.
        write_atomically(path.with_suffix(".json"), to_json(msgspec.to_builtins(origin), indent=1).encode())
    rubrics.write(path, dimensions)


def read_origin(path: Path) -> Origin | None:
    """The origin of the rubric in this file. None if it has none: it was written by a person. Raises UserError if it is damaged."""
    record = path.with_suffix(".json")
    if not record.exists():
        return None
    try:
        found = msgspec.convert(read_json(record, _ADVICE), Origin)
    except msgspec.ValidationError as error:
        raise UserError(f"{record}: {error}; {_ADVICE}") from None
    if found.format != FORMAT:
        raise UserError(f"{record}: format {found.format}; this version reads format {FORMAT}; {_ADVICE}")
    return found


def task_of(trajectory: Trajectory) -> str:
    return f"{trajectory.task.id}|{trajectory.task.seed}"


def refuse_other_rubric(path: str, graded: Iterable[Trajectory]) -> None:
    """Raises ConfigError if plans were graded by another rubric than that of the file, or the rubric was made from tasks among these."""
    sha256 = rubrics.read(path).sha256
    origin = read_origin(config.find(Path(path)))
    seen = set(origin.tasks) if origin else set[str]()
    for one in graded:
        if one.plan_grade is not None and one.plan_grade.rubric != sha256:
            raise ConfigError("rubric", f"{path} is not the rubric by which the plan of {one.id} was graded; name that one")
        if task_of(one) in seen:
            raise ConfigError("folder", f"{path} was made from episodes of {one.task.id}; grade episodes of other tasks to accept it")
