"""The files of an input, their strict parsing, and what all readers do with foreign episodes."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Policy, Task, Trajectory, encode, episode_key

Parsed = TypeVar("Parsed")
Found = Trajectory | UserError
"""An episode, or why it is refused."""
PICKLES = (".pkl", ".pkl.gz", ".pickle", ".pt", ".pth")


@dataclasses.dataclass(frozen=True)
class Foreign:
    """What the files of other programs do not hold about their episodes."""

    split: str = "train"
    policy: str = ""
    """The name of the policy. "": the name in the file, or else that of the format."""


def list_files(path: Path, suffix: str, what: str, remedy: str = "name the file or its folder") -> list[Path]:
    """`path`, or the files of this suffix in the folder `path`, in the order of their names.

    Raises:
        UserError: there are none, or `path` is a pickle.
    """
    if path.is_dir():
        found = sorted(file for file in path.glob(f"*{suffix}") if file.is_file())
        if not found:
            raise UserError(f"{path}: holds no {what} (*{suffix}); {remedy}")
        return found
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; {remedy}")
    if path.name.endswith(PICKLES):
        raise UserError(f"{path}: a pickle can run any code when it is read, so it is refused; {remedy}")
    return [path]


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct its permissions, or leave it out") from None


def parse(data: bytes, kind: type[Parsed], source: str) -> Parsed:
    """Strict JSON of the given type. `source`: the file, for the message, which also names the field."""
    try:
        return msgspec.json.decode(data, type=kind)
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: not UTF-8: {error}; convert the file to UTF-8") from None
    except RecursionError:
        raise UserError(f"{source}: not valid: nested too deeply") from None
    except msgspec.MsgspecError as error:
        problem, place = _located(error)
        raise UserError(f"{source}: {place.lstrip('.')}: {problem}" if place else f"{source}: not valid: {problem}") from None


def convert(tree: Any, kind: type[Parsed], source: str, field: str) -> Parsed:
    """Plain data as the given type. `field`: its place in the file, for the message."""
    try:
        return msgspec.convert(tree, kind)
    except RecursionError:
        raise UserError(f"{source}: {field}: nested too deeply") from None
    except msgspec.ValidationError as error:
        problem, place = _located(error)
        raise UserError(f"{source}: {field}{place}: {problem}") from None


def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of a file that are not blank, each with its name for messages. Only one line is in memory at a time."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number}", line
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct its permissions, or leave it out") from None


def storable(trajectory: Trajectory, source: str) -> Trajectory:
    """The episode, if a shard can hold it. Raises UserError for text with half of a surrogate pair and for numbers beyond 64 bits."""
    try:
        encode(trajectory)
    except UnicodeEncodeError:
        raise UserError(f"{source}: holds half of a surrogate pair, which is no character; correct the text") from None
    except (OverflowError, RecursionError) as error:
        raise UserError(f"{source}: cannot be stored: {error}") from None
    return trajectory


def digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


class Attempts:
    """Completes the episodes of other programs, which have neither an id nor a number of the attempt."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def complete(self, trajectory: Trajectory, source: str) -> Trajectory:
        """The episode with an id, which is the hash of its content unless it has one, and as attempt the number of earlier episodes of
        the same task and policy. An episode that occurs twice therefore has the same id twice."""
        storable(trajectory, source)
        made = trajectory.id or hashlib.sha256(encode(trajectory)).hexdigest()[:32]
        key = episode_key(trajectory.task, 0, trajectory.policy)
        attempt = self._seen.get(key, 0)
        self._seen[key] = attempt + 1
        return msgspec.structs.replace(trajectory, id=made, attempt=attempt)


def foreign_task(format_name: str, intent: str, horizon: int, settings: Foreign, name: str = "", seed: int = 0) -> Task:
    """A task of which only the instruction is known, and sometimes its `name` there."""
    return Task(
        id=f"{format_name}.{name or digest(intent)}", suite=format_name, sites=(), template=name or format_name, split=settings.split,
        seed=seed, intent=intent, start_url="", horizon=horizon,
    )  # fmt: skip


def foreign_policy(settings: Foreign, name: str, checkpoint: str = "") -> Policy:
    return Policy(name=settings.policy or name, checkpoint=checkpoint)


def _located(error: msgspec.MsgspecError) -> tuple[str, str]:
    """The problem and the field of msgspec's message, such as `.steps[0].step_id`."""
    problem, at, place = str(error).partition(" - at `$")
    return problem, place.removesuffix("`") if at else ""
