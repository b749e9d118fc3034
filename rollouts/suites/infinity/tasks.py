"""Reads the tasks of WebArena-Infinity from a checkout."""

import dataclasses
import hashlib
import re
from pathlib import Path

import msgspec

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Task

SUITE = "webarena_infinity"
HORIZON = 50
"""Maximum steps of an episode in the benchmark's own harness."""
TASKS = "real-tasks.json"
REPOSITORY = "https://github.com/web-arena-x/webarena-infinity"

_DECIDING = ("*.html", "server.py", TASKS, "real-tasks/*.py", "js/**/*.js")
"""Files of an application that determine whether a task passes in the initial state."""


class _Entry(msgspec.Struct):
    """A task in the benchmark's file format."""

    id: str
    instruction: str
    verify: str
    difficulty: str = ""


@dataclasses.dataclass(frozen=True)
class Item:
    """A task, the folder of its application, and its verifier."""

    task: Task
    folder: Path
    verifier: Path


def placeholder(app: str) -> str:
    return f"__{re.sub('[^A-Z0-9]', '_', app.upper())}__"


def read_apps(checkout: str) -> dict[str, list[Item]]:
    """Returns the applications of a checkout in alphabetical order, with their tasks in file order.

    Raises:
        UserError: no checkout is given, it does not exist, or it contains a malformed task.
    """
    if not checkout:
        raise UserError(f"suite.options.checkout is not set: name the folder of a checkout of {REPOSITORY}")
    paths = sorted(Path(checkout).resolve().glob(f"apps/*/{TASKS}"))
    if not paths:
        raise UserError(f"suite.options.checkout: no apps/*/{TASKS} in {checkout}; name the folder of a checkout of {REPOSITORY}")
    return {path.parent.name: _read(path) for path in paths}


def fingerprint(folder: Path) -> str:
    """Hash of an application's tasks, verifiers, server and pages, including their initial data."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _DECIDING for path in folder.glob(pattern)}):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> list[Item]:
    try:
        items = [_item(path.parent, entry) for entry in msgspec.json.decode(path.read_bytes(), type=list[_Entry])]
        if not items or len({item.task.id for item in items}) != len(items):
            raise ValueError("no tasks, or two of one name")
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise UserError(f"{path}: not tasks of WebArena-Infinity: {error}") from None
    return items


def _item(folder: Path, entry: _Entry) -> Item:
    """The id includes the difficulty if there is one: `webarena_infinity.gmail.easy.task_e1`."""
    app, verifier = folder.name, (folder / entry.verify).resolve()
    if not (verifier.is_relative_to(folder.resolve()) and verifier.is_file()):
        raise ValueError(f"{entry.id}: no verifier {entry.verify!r} in the folder of the application")
    name = ".".join(part for part in (SUITE, app, entry.difficulty, entry.id) if part)
    if re.search(r"[\s|]", name):
        raise ValueError(f"{name!r} is no name of a task")
    task = Task(
        id=name,
        suite=SUITE,
        sites=(app,),
        template=app,
        split="test",
        seed=0,
        intent=entry.instruction,
        start_url=f"{placeholder(app)}/",
        horizon=HORIZON,
    )
    return Item(task, folder, verifier)
