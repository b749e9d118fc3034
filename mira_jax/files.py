"""Atomic writing of files and folders, strict JSON, checksums, exclusive locks, and timestamps."""

import contextlib
import datetime
import errno
import fcntl
import functools
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mira_jax.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PART = ".part"
"""Suffix of a file that is being written. A killed writer leaves this file behind."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")


def is_url(text: str | Path) -> bool:
    """Whether `text` is a URL such as gs://bucket/run. `Path` collapses the two slashes into one, which is also recognised."""
    return bool(_URL.match(str(text)))


def temporary_name(path: Path) -> Path:
    """The temporary name that `path` is written under before it is renamed."""
    # A process id is not unique here: processes in two containers may have the same one.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes to a temporary file, syncs and renames. Creates the folder. Raises UserError if it cannot be written."""
    path = Path(path)
    _require_local(path)
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
        publish(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: could not write ({error.strerror}); {remedy(error)}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def publish(temporary: Path, path: Path) -> None:
    """Renames what was written: a file, synced first, or a folder, which may replace an empty one. Raises OSError."""
    if temporary.is_dir():
        if path.exists():
            path.rmdir()
    else:
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """An empty folder next to `path` to write into and to `publish`. Whatever is left in it at the end is removed."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def now() -> str:
    """The time in UTC, as records and sidecars hold it: 2026-01-31T12:00:00+00:00."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def to_json(tree: Any, indent: int | None = None) -> str:
    """Strict JSON. RFC 8259 has no NaN and no infinities: they are written as null."""
    return json.dumps(_without_nonfinite(tree), indent=indent, allow_nan=False) + "\n"


def read_json(path: str | Path, advice: str) -> dict[str, Any]:
    """The object in a JSON file. `advice` is the remedy for a damaged file.

    Raises:
        UserError: the file cannot be read, is not UTF-8, is not strict JSON, or does not contain an object.
    """
    try:
        tree = parse_json(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged: {error}; {advice}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: damaged: holds {type(tree).__name__} where an object is expected; {advice}")
    return tree


def parse_json(data: bytes | str) -> Any:
    """Parses strict JSON. Raises ValueError also for NaN, infinities, numbers too large for a float, and invalid UTF-8."""
    try:
        return json.loads(data, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def sha256(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal. A process reads the file only once, unless the file changes. Raises OSError."""
    found = os.stat(path)
    # The kernel sets the time of the last change of a file, ctime, and no program can set it back.
    return _sha256(os.path.realpath(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@functools.lru_cache(maxsize=65_536)
def _sha256(path: str, *identity: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def lock(path: str | Path, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds an exclusive flock on the file `path`, which exists only meanwhile. So do folders that are created for it and stay empty.

    Args:
        wait: called if another process holds the lock, before waiting for it.

    Raises:
        OSError: the file cannot be created, or the file system has no locks.
        UserError: the path is a URL.
    """
    path = Path(path)
    _require_local(path)
    made = [place for place in path.parents if not place.exists()]
    with contextlib.ExitStack() as held:
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = held.enter_context(open(path, "ab"))
            except (FileNotFoundError, FileExistsError):
                if any(place.exists() and not place.is_dir() for place in path.parents):
                    raise
                continue  # the last holder has just removed the folder
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            # If the last holder has removed the file, a lock on it protects nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    break
            held.pop_all().close()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for place in made:
                    place.rmdir()


@contextlib.contextmanager
def sole_writer(folder: str | Path, what: str) -> Iterator[None]:
    """Prevents other processes from writing `what` into `folder` in this context. Creates the folder if needed, and removes it
    if it stays empty.

    The lock is an flock on the folder itself, so it is released when its process ends, for any reason. File systems without
    locks are not protected.

    Raises:
        UserError: another process holds the lock, or the folder cannot be created.
    """
    folder = Path(folder)
    _require_local(folder)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{folder}: cannot write {what} here ({error.strerror}); {remedy(error)}") from None
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{folder}: another process is writing {what} here; wait for its end, or choose another folder") from None
        yield
    finally:
        os.close(held)
        with contextlib.suppress(OSError):
            for place in made:
                place.rmdir()


def remedy(error: OSError) -> str:
    return "free some disk space and run the same command again" if error.errno in FULL else "choose another place"


def _require_local(path: Path) -> None:
    if is_url(path):
        raise UserError(f"{path}: an address, not a path; only mounted file systems are written to: mount the store and name its folder")


def _without_nonfinite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nonfinite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nonfinite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number[:40]} is too large a number")
    return value
