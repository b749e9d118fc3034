"""Task lists: files of tasks to collect, written by one phase for the next."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mira_jax.errors import UserError
from mira_jax.files import read_json, to_json, write_atomically
from mira_jax.trajectories.records import Task

FORMAT = 1


class TaskList(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file of tasks."""

    format: int = FORMAT
    tasks: tuple[Task, ...]
    made_from: dict[str, Any] = {}
    """What the list was made from: inputs and settings."""


def write(path: str | Path, tasks: Sequence[Task], made_from: Mapping[str, Any]) -> None:
    """Writes the file atomically. Raises UserError if the disk is full."""
    tree = msgspec.to_builtins(TaskList(tasks=tuple(tasks), made_from=dict(made_from)))
    write_atomically(path, to_json(tree, indent=1).encode())


def read(path: str | Path, suite: str = "") -> TaskList:
    """Reads a file of tasks.

    Args:
        suite: the name of the suite that the tasks must belong to. Default: any.

    Raises:
        UserError: the file is missing, damaged or of another format, or a task is of another suite or occurs twice.
    """
    advice = "make it again (`mira propose-tasks`, `mira choose-tasks`)"
    tree = read_json(path, advice)
    if tree.get("format") != FORMAT:
        raise UserError(f"{path}: format {tree.get('format')!r}; this version reads task lists of format {FORMAT}; {advice}")
    try:
        found = msgspec.convert(tree, TaskList)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not a list of tasks: {error}; {advice}") from None
    seen: set[tuple[str, int]] = set()
    for task in found.tasks:
        if suite and task.suite != suite:
            raise UserError(f"{path}: {task.id} is a task of the suite {task.suite!r}, not of {suite!r}; set suite.name")
        if (task.id, task.seed) in seen:
            raise UserError(f"{path}: {task.id} with seed {task.seed} occurs twice; {advice}")
        seen.add((task.id, task.seed))
    return found
