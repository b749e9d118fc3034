"""Storage of episodes: a spool with one file per episode, packed into ArrayRecord shards, each with a sidecar.

A crash at any point neither loses nor duplicates episodes. A spooled episode is removed only after the sidecar that lists it
is in place, and packing first drops spooled episodes that are already listed in a sidecar. Readers accept only shards with a
sidecar, because an ArrayRecord file whose writer was killed opens with 0 records and no error.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import msgspec
import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]: compiled, without type stubs

from mira_jax.errors import UserError
from mira_jax.files import PART, now, publish, sha256, temporary_name, write_atomically
from mira_jax.trajectories.records import FORMAT, Trajectory, decode, encode

SPOOL = "spool"
RECORDS = ".array_record"


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of a shard, available without reading it."""

    format: int
    count: int
    keys: tuple[str, ...]
    ids: tuple[str, ...] = ()
    """Ids of the episodes. Empty in sidecars of format 1."""
    fingerprints: tuple[str, ...] = ()
    """For each episode, the fingerprint of the weights that produced it, or "" if unknown. Empty in sidecars of format 1."""
    steps: tuple[int, ...]
    """Number of steps in each record."""
    sha256: str
    """SHA-256 of the shard file."""
    created: str


class Spool:
    """Finished episodes in `folder/spool`, one small file each."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._spool = self.folder / SPOOL

    def add(self, trajectory: Trajectory) -> Path:
        """Writes one episode atomically. Raises UserError when the disk is full."""
        path = self._path(trajectory.key)
        write_atomically(path, encode(trajectory))
        return path

    def discard(self, key: str) -> None:
        """Removes an episode if it is in the spool."""
        self._path(key).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes incomplete files of a killed writer, in the spool and in its parent folder. Call it only within `sole_writer`."""
        for part in (*self.folder.glob(f".*{PART}"), *self._spool.glob(f".*{PART}")):
            part.unlink()

    def keys(self) -> set[str]:
        """The keys of all spooled and packed episodes. These need not be collected again."""
        return set(self.fingerprints())

    def fingerprints(self) -> dict[str, str]:
        """Maps the key of each spooled or packed episode to the fingerprint of the weights that produced it, or "" if unknown."""
        packed = {key: mark for sidecar in _sidecars(self.folder).values() for key, mark in _marks(sidecar)}
        return packed | {trajectory.key: trajectory.policy.fingerprint for trajectory in self.trajectories()}

    def read(self, key: str) -> Trajectory:
        """A spooled or packed episode. Raises KeyError if the key is unknown, and UserError if the episode is damaged."""
        if (path := self._path(key)).exists():
            return decode(path.read_bytes(), str(path))
        for path, sidecar in _sidecars(self.folder).items():
            if key in sidecar.keys:
                return _read(array_record_module.ArrayRecordReader(str(path)), path, sidecar.keys.index(key))
        raise KeyError(key)

    def paths(self) -> list[Path]:
        return sorted(self._spool.glob("*.episode"))

    def trajectories(self) -> Iterator[Trajectory]:
        for path in self.paths():
            yield decode(path.read_bytes(), str(path))

    def _path(self, key: str) -> Path:
        return self._spool / (hashlib.sha256(key.encode()).hexdigest()[:32] + ".episode")


def pack(folder: str | Path, name: str = "episodes", per_shard: int = 1024) -> list[Path]:
    """Packs the spooled episodes of `folder` into shards `NAME-00000.array_record`. Returns the new shards."""
    folder = Path(folder)
    spool = Spool(folder)
    packed = {key for sidecar in _sidecars(folder).values() for key in sidecar.keys}
    waiting: list[tuple[Path, Trajectory]] = []
    for path in spool.paths():
        trajectory = decode(path.read_bytes(), str(path))
        if trajectory.key in packed:
            path.unlink()
        else:
            waiting.append((path, trajectory))
    written = []
    for start in range(0, len(waiting), per_shard):
        part = waiting[start : start + per_shard]
        written.append(write_shard(_next_shard(folder, name), [trajectory for _, trajectory in part]))
        for path, _ in part:
            path.unlink()
    return written


def write_shard(path: str | Path, trajectories: Iterable[Trajectory]) -> Path:
    """Writes one complete shard, then its sidecar. Raises UserError when the disk is full or `path` exists."""
    path = Path(path)
    if _sidecar_path(path).exists():
        raise UserError(f"{path}: this shard exists already; choose another folder or name")
    temporary = temporary_name(path)
    keys, ids, fingerprints, steps = [], [], [], []
    whole = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
        try:
            for trajectory in trajectories:
                writer.write(encode(trajectory))
                keys.append(trajectory.key)
                ids.append(trajectory.id)
                fingerprints.append(trajectory.policy.fingerprint)
                steps.append(len(trajectory.steps))
        finally:
            writer.close()
        if _count(temporary) != len(keys):
            raise OSError(errno.ENOSPC, "the shard came out short")
        sidecar = Sidecar(
            format=FORMAT, count=len(keys), keys=tuple(keys), ids=tuple(ids), fingerprints=tuple(fingerprints), steps=tuple(steps),
            sha256=sha256(temporary), created=now(),
        )  # fmt: skip
        publish(temporary, path)
        write_atomically(_sidecar_path(path), json.dumps(msgspec.to_builtins(sidecar), indent=1).encode())
        whole = True
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{path}: could not write the shard ({str(error).partition(';')[0]}); "
            "free some disk space and run the same command again: no episode is lost"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
        if not whole:
            path.unlink(missing_ok=True)
    return path


class ShardReader(Sequence[Trajectory]):
    """Random access to the episodes of one or more folders, in the order of folder, shard and record."""

    def __init__(self, folders: str | Path | Sequence[str | Path]):
        """Opens and verifies every shard.

        Raises:
            UserError: a folder is missing or contains no shards, a folder or an episode occurs twice, a shard is truncated or
                modified, or a format is newer than supported.
        """
        self.folders = [Path(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]
        _refuse_folders_twice(self.folders)
        self._shards: list[tuple[Path, Sidecar]] = []
        for folder in self.folders:
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder of episodes")
            found = _sidecars(folder)
            if not found:
                raise UserError(f"{folder}: no shards here; collect episodes first (`mira collect`)")
            for path, sidecar in found.items():
                _verify(path, sidecar)
                self._shards.append((path, sidecar))
        _refuse_episodes_twice(self._shards)
        self._starts = np.cumsum([0] + [sidecar.count for _, sidecar in self._shards])
        self._readers: dict[int, array_record_module.ArrayRecordReader] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> list[Trajectory]: ...
    def __getitem__(self, index: int | slice) -> Trajectory | list[Trajectory]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        path = self._shards[shard][0]
        if shard not in self._readers:
            self._readers[shard] = array_record_module.ArrayRecordReader(str(path))
        return _read(self._readers[shard], path, index - int(self._starts[shard]))

    def keys(self) -> list[str]:
        return [key for _, sidecar in self._shards for key in sidecar.keys]

    def ids(self) -> list[str]:
        """The ids of the episodes. For shards whose sidecar has format 1, this reads the records."""
        found: list[str] = []
        for _, sidecar in self._shards:
            start = len(found)
            found += sidecar.ids or [self[start + record].id for record in range(sidecar.count)]
        return found

    @property
    def sha256(self) -> tuple[str, ...]:
        """The checksum of each shard."""
        return tuple(sidecar.sha256 for _, sidecar in self._shards)

    @property
    def steps_per_record(self) -> np.ndarray:
        """int32[episodes], read only from the sidecars."""
        return np.array([steps for _, sidecar in self._shards for steps in sidecar.steps], np.int32)


class StepIndex:
    """Maps a global step number to (record, step). Built from the sidecars without reading records."""

    def __init__(self, steps_per_record: np.ndarray):
        self._starts = np.concatenate([[0], np.cumsum(steps_per_record, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        record = int(np.searchsorted(self._starts, index, side="right")) - 1
        return record, int(index - self._starts[record])

    def start(self, record: int) -> int:
        """The global number of the first step in `record`."""
        return int(self._starts[record])


def _sidecars(folder: Path) -> dict[Path, Sidecar]:
    """Maps shard path to sidecar, in the order of names."""
    found = {}
    for path in sorted(folder.glob("*" + RECORDS)):
        sidecar = _sidecar_path(path)
        if not sidecar.exists():
            continue
        try:
            tree = json.loads(sidecar.read_bytes())
            if isinstance(tree, dict) and tree.get("format", 0) > FORMAT:
                raise UserError(
                    f"{sidecar}: shard format {tree['format']} is newer than {FORMAT}, the newest this mira_jax reads; update mira_jax"
                )
            found[path] = msgspec.convert(tree, Sidecar)
        except (ValueError, TypeError) as error:
            raise UserError(f"{sidecar}: not a shard's sidecar: {error}; copy it and its shard again") from None
    return found


def _marks(sidecar: Sidecar) -> Iterable[tuple[str, str]]:
    """Key and fingerprint of the weights for each record."""
    return zip(sidecar.keys, sidecar.fingerprints or [""] * sidecar.count, strict=True)


def _refuse_folders_twice(folders: Sequence[Path]) -> None:
    named: dict[str, Path] = {}
    for folder in folders:
        before = named.setdefault(os.path.realpath(folder), folder)
        if before is not folder:
            raise UserError(f"{before} and {folder} are the same folder; each folder of episodes is named once")


def _refuse_episodes_twice(shards: Sequence[tuple[Path, Sidecar]]) -> None:
    """Episodes with equal ids are the same episode, and so are episodes with equal keys, unless they are known to come from
    different weights."""
    ids: dict[str, Path] = {}
    keys: dict[str, tuple[Path, set[str]]] = {}
    for path, sidecar in shards:
        for name, before in ((name, ids.setdefault(name, path)) for name in sidecar.ids):
            if before is not path:
                raise _twice(before, path, f"id {name}")
        for key, mark in _marks(sidecar):
            before, marks = keys.setdefault(key, (path, set()))
            if before is not path and ("" in marks or not mark or mark in marks):
                raise _twice(before, path, f"key {key}")
            marks.add(mark)


def _twice(one: Path, other: Path, what: str) -> UserError:
    remedy = "name only one of the two folders" if one.parent != other.parent else "move one of the two shards to another folder"
    return UserError(f"{one} and {other} both hold the episode of {what}; an episode counts once: {remedy}")


def _verify(path: Path, sidecar: Sidecar) -> None:
    if sha256(path) != sidecar.sha256:
        raise UserError(
            f"{path}: the shard is cut short or altered: its checksum differs from {_sidecar_path(path).name}; "
            "copy both again, or move both out of the folder and make its episodes again"
        )
    if _count(path) != sidecar.count:
        raise UserError(f"{path}: the shard holds {_count(path)} records where its sidecar says {sidecar.count}")


def _read(reader: array_record_module.ArrayRecordReader, path: Path, record: int) -> Trajectory:
    return decode(reader.read([record])[0], f"{path}, record {record}")


def _sidecar_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _next_shard(folder: Path, name: str) -> Path:
    taken = [int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{name}-*.json") if path.stem.rpartition("-")[2].isdigit()]
    return folder / f"{name}-{max(taken, default=-1) + 1:05d}{RECORDS}"


def _count(path: Path) -> int:
    reader = array_record_module.ArrayRecordReader(str(path))
    try:
        return reader.num_records()
    finally:
        reader.close()
