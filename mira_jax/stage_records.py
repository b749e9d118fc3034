"""The records of a run of stages: its settings, and which stages are complete."""

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mira_jax import config as configs
from mira_jax.errors import UserError
from mira_jax.files import read_json, to_json, write_atomically

RECORDS = "stages"
"""Folder of the stages' records, in that of the run."""


class StageRecord:
    """How long a stage has run, over all attempts, and whether it is complete."""

    def __init__(self, path: Path):
        self._path = path
        known = read_json(path, "remove it, and the stage runs again in its own folder") if path.exists() else {}
        self.seconds: float = known.get("seconds", 0.0)
        self.complete: bool = known.get("complete", False)
        if not isinstance(self.seconds, int | float) or not isinstance(self.complete, bool):
            raise UserError(f"{path}: not the record of a stage; remove it, and the stage runs again in its own folder")

    @contextlib.contextmanager
    def timed(self, sharers: int = 1) -> Iterator[None]:
        """Adds the time in the context. `sharers`: the stages that run in parallel. Each gets its share, so that the sum over stages is
        the time of the run."""
        started, before = time.monotonic(), self.seconds
        try:
            yield
            self.complete = True
        finally:
            self.seconds = before + (time.monotonic() - started) / sharers
            write_atomically(self._path, to_json({"seconds": self.seconds, "complete": self.complete}).encode())


def fingerprint(tree: Mapping[str, Any], named: Mapping[str, str]) -> str:
    """Changes with the settings and the content of every config file, comments aside.

    Args:
        tree: the settings of the run.
        named: path of a config file to what names it, for the message.

    Raises:
        UserError: a config file cannot be read.
    """
    parts = [json.dumps(tree, sort_keys=True)]
    for path, where in sorted(named.items()):
        try:
            parts.append(json.dumps(configs.read(Path(path)), sort_keys=True, default=str))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def move_other_run_aside(out: Path, fingerprint: str, shared: Collection[str] = (), rename: bool = True) -> None:
    """Renames `out` if it is a run with other settings, and records the settings of this one.

    Args:
        shared: entries of `out` that another process may have written before.
        rename: False if another process writes to `out`, which then cannot be renamed.

    Raises:
        UserError: `out` is no run, or it would have to be renamed and cannot.
    """
    mark = out / RECORDS / "fingerprint"
    if mark.exists() and mark.read_bytes() == fingerprint.encode():
        return
    if out.exists() and (mark.exists() or any(entry.name not in shared for entry in out.iterdir())):
        if not mark.exists():
            raise UserError(f"{out}: exists and is not a run of this command; choose another folder with --set out=DIR")
        if not rename:
            raise UserError(f"{out}: holds a run with other settings; choose another folder with --set out=DIR")
        number = next(n for n in range(1, 10_000) if not out.with_name(f"{out.name}-{n}").exists())
        aside = out.with_name(f"{out.name}-{number}")
        out.rename(aside)
        print(f"{out} held a run with other settings; it is now {aside}", file=sys.stderr, flush=True)
    mark.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(mark, fingerprint.encode())
