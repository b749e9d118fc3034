"""Writes episodes as a folder of ATIF files: one file per episode, named after its id, and next to it the folder of its screenshots."""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from mira_jax.errors import UserError
from mira_jax.files import write_atomically
from mira_jax.interchange import atif_format as atif
from mira_jax.interchange import sources
from mira_jax.interchange.atif_read import read_own
from mira_jax.interchange.atif_write import Settings, write
from mira_jax.trajectories.records import Trajectory

LENGTH = 100


def write_folder(
    folder: Path, trajectories: Iterable[Trajectory], settings: Settings, refuse: Callable[[UserError], None]
) -> tuple[int, int]:
    """Writes one file for each episode into an empty folder. Each file is read again, and must give the equal record.

    Args:
        refuse: is called for an episode with a value that JSON cannot hold, such as NaN. The message names episode and field.

    Returns:
        The number of episodes, and of steps without token ids of their prompt although a tokenizer was given.
    """
    count, lost, taken = 0, 0, set()
    for trajectory in trajectories:
        name = file_name(trajectory.id, taken)
        written = write(trajectory, settings, name)
        for path, image in written.images.items():
            write_atomically(folder / path, image)
        data = msgspec.json.encode(written.document)
        try:
            _refuse_loss(trajectory, data, folder)
        except UserError as error:
            shutil.rmtree(folder / name, ignore_errors=True)
            refuse(error)
            continue
        write_atomically(folder / f"{name}.json", data)
        count += 1
        lost += written.prompts_lost
    return count, lost


def file_name(identity: str, taken: set[str]) -> str:
    """A name that is valid on every file system and not in `taken`, to which it is added. If it is not `identity` itself, it ends in a
    hash of it."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", identity)[:LENGTH].strip(".")
    if name != identity or not name or name.lower() in taken:
        name = f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}".lstrip("-")
    taken.add(name.lower())
    return name


def _refuse_loss(trajectory: Trajectory, data: bytes, folder: Path) -> None:
    source = f"episode {trajectory.id}"
    again = read_own(sources.parse(data, atif.Document, source), folder, source)
    if again != trajectory:
        one, other = (msgspec.to_builtins(record, builtin_types=(bytes,)) for record in (trajectory, again))
        place = _difference(one, other, "")
        raise UserError(f"{source}: {place.lstrip('.')}: JSON cannot hold this value; skip=true leaves the episode out")


def _difference(one: object, other: object, place: str) -> str:
    """The path of the first difference."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next((_difference(one[key], other[key], f"{place}.{key}") for key in one if one[key] != other[key]), place)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((_difference(*pair, f"{place}[{number}]") for number, pair in pairs if pair[0] != pair[1]), place)
    return place
