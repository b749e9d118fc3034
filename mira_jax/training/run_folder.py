"""The folder of a training run, and what may be done in it again.

config.yaml      the whole config          metrics.jsonl   a line per update
model.json       sizes and heads           tensorboard/    the same numbers
tokenizer.*, and templates with it         checkpoints/    STEP/ each
data.json        which data it began with  restart.txt     the command that goes on
complete.json    {step, metrics, seconds}, once the run is over
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mira_jax import config as configs
from mira_jax.errors import UserError

CONFIG = "config.yaml"
COMPLETE = "complete.json"
DATA = "data.json"
MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
FREE = ("checkpoint", "log_every", "mesh", "distributed")
"""Keys that may change when a run goes on: they do not touch what it computes."""


class RunFolder:
    """`out` of a training run."""

    def __init__(self, path: str | Path, config: Any):
        """Looks whether a run with this config may start or go on here; writes nothing.

        Raises:
            UserError: the folder holds a run with another config, or is not empty and holds no run.
        """
        self.path = Path(path)
        self._config = config
        self.restart = f"python -m mira_jax.train --config {self.path / CONFIG}"
        self.exists = (self.path / CONFIG).exists()
        if self.exists:
            self._compare()
        elif self.path.exists() and (not self.path.is_dir() or any(entry.name != _partial(CONFIG) for entry in self.path.iterdir())):
            raise UserError(f"out: {self.path} exists and is not the folder of a training run; choose another")

    def _compare(self) -> None:
        path = self.path / CONFIG
        theirs = _flat(configs.to_tree(configs.load(type(self._config), path)))
        ours = _flat(configs.to_tree(self._config))
        different = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key) and key.split(".")[0] not in FREE]
        if different:
            key = different[0]
            others = f" (and {len(different) - 1} more keys)" if len(different) > 1 else ""
            raise UserError(
                f"out: {self.path} holds a run with another config: {key} is {theirs.get(key)!r} there and {ours.get(key)!r} now{others}; "
                "choose another out, or go on with the old config: " + self.restart
            )

    @property
    def complete(self) -> dict[str, Any] | None:
        """What the run ended with, None while it has not ended."""
        path = self.path / COMPLETE
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def create(self) -> None:
        """Makes the folder and writes how to start again; the config first, as by it a run is known."""
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_text(CONFIG, yaml.safe_dump(configs.to_tree(self._config), sort_keys=False))
            self.write_text("restart.txt", self.restart + "\n")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a full disk, or a folder that can't be written to, into a UserError."""
        try:
            yield
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            # Orbax tells the number in the text alone.
            number = next((known for known in MENDABLE if known == number or f"os_error_code='{known}'" in str(error)), None)
            if number is None:
                raise
            reason = os.strerror(number)
            remedy = "mend that and run the same command again: it goes on from the last checkpoint"
            raise UserError(f"out: could not write to {self.path}: {reason}; {remedy}") from None

    def check_data(self, description: dict[str, Any]) -> None:
        """Remembers the data at the first start. Raises UserError if a run that goes on would read other data."""
        path = self.path / DATA
        if not path.exists():
            self.write_text(DATA, json.dumps(description) + "\n")
        elif (before := json.loads(path.read_text(encoding="utf-8"))) != description:
            raise UserError(
                f"out: the data of {self.path} has changed since the run began (it was {before}, it is {description}); choose another out"
            )

    def finish(self, step: int, metrics: dict[str, Any], seconds: float) -> None:
        self.write_text(COMPLETE, json.dumps({"step": step, "metrics": metrics, "seconds": round(seconds, 3)}) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Replaces a file of the folder at once."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Replaces a file of the folder at once."""
        temporary = self.path / _partial(name)
        try:
            temporary.write_bytes(data)
            temporary.replace(self.path / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def _partial(name: str) -> str:
    return f".{name}.tmp"


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix.rstrip("."): list(tree) if isinstance(tree, tuple) else tree}
    return {name: value for key, child in tree.items() for name, value in _flat(child, f"{prefix}{key}.").items()}
