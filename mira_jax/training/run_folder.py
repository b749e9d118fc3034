"""The folder of a training run, and the checks before a run is resumed in it.

config.yaml      the config, without out   metrics.jsonl   a line per update
model.json       sizes and heads           tensorboard/    the same numbers
tokenizer.*, and templates with it         checkpoints/    STEP/ each
data.json        inputs of the run         restart.txt     the command to resume
episodes.json    ids of the episodes that the run was trained on, also by the critic or run of the same recipe that it started from
run_files.json   SHA-256 of model.json and of the tokenizer's files
complete.json    {step, metrics, seconds}, when the run is complete
"""

import contextlib
import errno
import os
import shlex
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from mira_jax import config as configs
from mira_jax.errors import UserError
from mira_jax.files import PART, read_json, to_json, write_atomically

CONFIG = "config.yaml"
COMPLETE = "complete.json"
DATA = "data.json"
EPISODES = "episodes.json"
MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
FREE = ("out", "checkpoint", "log_every", "mesh", "distributed", "data.workers", "data.cache", "rounds", "rollouts", "keep")
"""Keys that may change when a run is resumed, because they do not affect the results."""
PLACES = ("data.folders", "data.side_tables", "data.selections", "tokenizer.path")
"""Keys whose paths may change when a run is resumed. Their content is compared instead."""


def trained_on(folder: str | Path) -> set[str] | None:
    """The ids of the episodes that a run was trained on. None if it does not record them, as older runs and exports."""
    path = Path(folder) / EPISODES
    ids = read_json(path, "restore a copy").get("trained_on") if path.exists() else None
    return None if ids is None else set(ids)


def recipe_of(folder: str | Path) -> str:
    """The name of the recipe of a run. "" for a folder that is no run, such as one in Hugging Face's format."""
    path = Path(folder) / CONFIG
    recipe = configs.read(path).get("recipe") if path.exists() else None
    return str(recipe.get("name", "")) if isinstance(recipe, dict) else ""


def section(folder: str | Path, *keys: str) -> dict[str, Any] | None:
    """A section of the config of a run. None for a Hugging Face folder. Raises UserError if it is missing."""
    path = Path(folder) / CONFIG
    if not path.exists():
        return None
    tree: Any = configs.read(path)
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: damaged: says no {'.'.join(keys)}; restore a copy, or set prompt")
    return tree


class RunFolder:
    """The folder `out` of a training run."""

    def __init__(self, path: str | Path, config: Any, module: str = "mira_jax.train"):
        """Checks whether a run with this config may start or resume here. Writes nothing. `module`: that of the command.

        Raises:
            UserError: the folder contains a run with another config, or is not empty and contains no run.
        """
        self.path = Path(path)
        self._config = config
        folder, file = os.path.abspath(self.path), os.path.abspath(self.path / CONFIG)
        self.restart = f"cd {shlex.quote(os.getcwd())} && " + shlex.join([sys.executable, "-m", module, "--config", file, "--out", folder])
        """The command as a shell string. It restores the working directory of the first start, so relative paths in the config
        stay valid."""
        self.exists = (self.path / CONFIG).exists()
        if self.exists:
            self._compare()
        elif self.path.exists() and (not self.path.is_dir() or any(not _is_partial(entry) for entry in self.path.iterdir())):
            raise UserError(f"out: {self.path} exists and is not the folder of a training run; choose another")

    def _compare(self) -> None:
        path = self.path / CONFIG
        theirs = _flat(configs.to_tree(configs.load(type(self._config), path)))
        ours = _flat(configs.to_tree(self._config))
        # Older runs did not record the content of init_from, so for these its path must not change.
        free = (*FREE, *PLACES, *(("init_from",) if "init_from" in self._inputs else ()))
        different = [key for key in {**theirs, **ours} if not configs.same(theirs.get(key), ours.get(key)) and not _under(key, free)]
        if different:
            key = different[0]
            others = f" (and {len(different) - 1} more keys)" if len(different) > 1 else ""
            raise UserError(
                f"out: {self.path} holds a run with another config: {key} is {theirs.get(key)!r} there and {ours.get(key)!r} now{others}; "
                f"choose another out, or resume with the old config: {self.restart}"
            )

    @property
    def _inputs(self) -> dict[str, Any]:
        """The recorded inputs of the run. {} before it started."""
        advice = "restore a copy, or, if data and model are those that the run began with, remove this file and run the same command again"
        return read_json(self.path / DATA, advice) if (self.path / DATA).exists() else {}

    @property
    def complete(self) -> dict[str, Any] | None:
        """The final {step, metrics, seconds} of the run, or None if it is not complete. Raises UserError if the file is damaged."""
        path, advice = self.path / COMPLETE, "remove it and run the same command again, which writes it again from the last checkpoint"
        if not path.exists():
            return None
        tree = read_json(path, advice)
        if not isinstance(tree.get("step"), int):
            raise UserError(f"{path}: damaged: names no step; {advice}")
        return tree

    def create(self) -> None:
        """Creates the folder and writes the restart command. Writes the config first, because it marks the folder as a run."""
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            for left in self.path.glob(f".*{PART}"):
                left.unlink()
            tree = {key: value for key, value in configs.to_tree(self._config).items() if key != "out"}
            self.write_text(CONFIG, yaml.safe_dump(tree, sort_keys=False))
            self.write_text("restart.txt", self.restart + "\n")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Converts errors from a full disk or a folder without write permission to UserError."""
        try:
            yield
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            # Orbax reports the error number only in the message text.
            number = next((known for known in MENDABLE if known == number or f"os_error_code='{known}'" in str(error)), None)
            if number is None:
                raise
            reason = os.strerror(number)
            remedy = "fix the cause and run the same command again: it resumes from the last checkpoint"
            raise UserError(f"out: could not write to {self.path}: {reason}; {remedy}") from None

    def check_inputs(self, description: dict[str, Any], episodes: Collection[str] | None) -> None:
        """At the first start, records the data and model that the run reads. Raises UserError if a resumed run would read others.

        Args:
            episodes: the ids of the episodes that it is trained on, for `trained_on`. None if unknown.
        """
        before = self._inputs
        if not before:
            self.write_text(EPISODES, to_json({"trained_on": None if episodes is None else sorted(episodes)}))
            self.write_text(DATA, to_json(description))
        # Shards may be written anew with the same episodes; the fingerprint of the examples tells whether they are others.
        if different := [key for key in before if key != "shards" and before[key] != description.get(key)]:
            what = "init_from holds another model" if different == ["init_from"] else "the data are others"
            shown = ", ".join(f"{key} was {before[key]}, is {description.get(key)}" for key in different)
            raise UserError(f"out: {what} than at the start of {self.path} ({shown}); use the same inputs as then, or choose another out")

    def finish(self, step: int, metrics: dict[str, Any], seconds: float) -> None:
        self.write_text(COMPLETE, to_json({"step": step, "metrics": metrics, "seconds": round(seconds, 3)}))

    def write_text(self, name: str, text: str) -> None:
        """Atomically replaces a file of the folder."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Atomically replaces a file of the folder."""
        write_atomically(self.path / name, data)


def _is_partial(path: Path) -> bool:
    return path.name.startswith(f".{CONFIG}.") and path.name.endswith(PART)


def _under(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix.rstrip("."): list(tree) if isinstance(tree, tuple) else tree}
    return {name: value for key, child in tree.items() for name, value in _flat(child, f"{prefix}{key}.").items()}
