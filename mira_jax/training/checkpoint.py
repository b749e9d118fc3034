"""Checkpoints of a run: written asynchronously during training, verified and restored."""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import logging
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Awaitable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from mira_jax.config import Count
from mira_jax.errors import UserError, first_line
from mira_jax.files import parse_json
from mira_jax.training import checksums, processes
from mira_jax.training.state import TrainState

CHECKPOINTS = "checkpoints"
POSITION = "position.json"
CHUNK_BYTES = 64 * 2**20
"""Number of bytes of an array that are written, and later read, at once. No more of the array is in memory twice."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    every: Count = 500
    """Updates between checkpoints. A checkpoint is also written at the end and on SIGTERM."""
    keep: Count = 2
    """Number of checkpoints to keep."""


class Checkpoints:
    """The checkpoints of one run: parameters, optimizer, step, and the position in the data."""

    def __init__(self, folder: str | Path, keep: int):
        """`folder`: the run folder. Incomplete files of a killed process are removed. If the newest checkpoint is damaged, it is
        renamed with a note on stderr, so that `latest` is intact.

        Raises:
            UserError: there are checkpoints, but none is intact.
        """
        directory = (Path(folder) / CHECKPOINTS).absolute()
        with processes.together():
            if processes.first():
                _rename_damaged(directory)
        context = ocp.Context()
        context.array.saving.storage_options.chunk_byte_size = CHUNK_BYTES
        self._orbax = ocp.training.Checkpointer(
            directory,
            context=context,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self._thread = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._orbax.latest.step if self._orbax.latest else None

    def save(self, step: int, state: TrainState, data: Any) -> None:
        """Copies the state and returns. Threads write the checkpoint and its checksums. `data` is the Grain iterator.

        An error in these threads is raised by the next `save`, or by `close`.
        """
        with self._all_or_nothing():
            self._wait()
            if self.latest == step:
                return
            parts = {"params": state.params, "optimizer": {"state": state.optimizer, "step": state.step}, "data": _Position(data)}
            saved = self._orbax.save_checkpointables_async(step, parts, force=True)
        self._saving = self._thread.submit(self._complete, step, saved)

    def _complete(self, step: int, saved: Any) -> None:
        saved.result()
        if processes.first():
            checksums.write(Path(self._orbax.directory) / str(step))

    def wait(self) -> None:
        """Waits until the last checkpoint is written. Raises its error, if there was one."""
        with self._all_or_nothing():
            self._wait()

    def _wait(self) -> None:
        saving, self._saving = self._saving, None
        if saving:
            saving.result()

    def restore(self, abstract: TrainState, data: Any) -> TrainState:
        """Restores the newest state with the layout of `abstract` (ShapeDtypeStructs with shardings), and sets the position of
        `data`.

        Raises:
            UserError: the checkpoint cannot be read, or its update number differs from the name of its folder.
        """
        path = Path(self._orbax.directory) / str(self.latest)
        parts = {"params": abstract.params, "optimizer": {"state": abstract.optimizer, "step": abstract.step}, "data": _Position(data)}
        try:
            with quiet_failure():
                loaded = self._orbax.load_checkpointables(self.latest, parts)
        except Exception as error:
            raise UserError(
                f"{path}: cannot restore this checkpoint, which is damaged or another model's: {reason(error)}; {_remedy_for(path)}"
            ) from error
        optimizer = loaded["optimizer"]
        counts = int(optimizer["step"]), data.get_state().get("next_index")
        if counts != (self.latest, self.latest):
            raise UserError(f"{path}: holds update {counts[0]} and batch {counts[1]}, not those of its name; {_remedy_for(path)}")
        return TrainState(loaded["params"], optimizer["state"], optimizer["step"])

    def close(self) -> None:
        """Waits until everything is written."""
        with self._all_or_nothing():
            try:
                self._wait()
            finally:
                self._thread.shutdown()
                self._orbax.close()

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Removes a checkpoint that could not be written completely."""
        try:
            with quiet_failure():
                yield
        except Exception:
            for _ in range(10) if processes.first() else ():
                # Orbax's threads may still be writing, so this retries until no partial files are left.
                partial = list(Path(self._orbax.directory).glob("*.orbax-checkpoint-tmp"))
                for path in partial:
                    shutil.rmtree(path, ignore_errors=True)
                if not partial:
                    break
                time.sleep(0.1)
            raise


def _drop_tracebacks(record: logging.LogRecord) -> bool:
    """Drops tracebacks that Orbax's threads log for an error that is also raised, by the next save or by close."""
    return not record.exc_info


@contextlib.contextmanager
def quiet_failure() -> Iterator[None]:
    """Suppresses the output of Orbax's remaining threads after a failure in this context. The error itself is raised."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_drop_tracebacks)
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda *error: hooks[0](*error) if threading.current_thread() is threading.main_thread() else None
    sys.unraisablehook = lambda _: None
    yield
    sys.excepthook, sys.unraisablehook = hooks


@dataclasses.dataclass(frozen=True)
class _Position:
    """The position of a Grain iterator, as saved by Orbax. All processes are at the same batch, so it is written once, and any
    number of processes can resume from it."""

    data: Any

    async def save(self, directory: Any) -> Awaitable[None]:
        state = json.dumps(self.data.get_state())

        async def write() -> None:
            path = await directory.await_creation()
            if processes.first():
                await asyncio.to_thread((path / POSITION).write_text, state)

        return write()

    async def load(self, directory: Any) -> Awaitable[None]:
        async def read() -> None:
            self.data.set_state(parse_json(await asyncio.to_thread((directory / POSITION).read_bytes)))

        return read()


def latest_checkpoint(folder: str | Path) -> Path:
    """FOLDER/checkpoints/STEP of the newest checkpoint. Raises UserError if there is none, or if it contains no parameters."""
    directory = (Path(folder) / CHECKPOINTS).absolute()
    found = _newest_first(directory)
    if not found:
        raise UserError(f"{directory}: no checkpoint yet; let the run save one first")
    if not parameters_part(found[0]):
        raise UserError(f"{found[0]}: the checkpoint is damaged: it holds no parameters; {_remedy_for(found[0])}")
    return found[0]


def sound_checkpoint(folder: str | Path) -> Path:
    """The latest checkpoint, after its parameters were verified against their checksums. Raises UserError if they differ."""
    path = latest_checkpoint(folder)
    if wrong := checksums.damage(path, parameters_part(path)):
        raise UserError(f"{path}: the checkpoint is damaged: {wrong}; {_remedy_for(path)}")
    return path


def ends_at(folder: str | Path, step: int) -> bool:
    """Whether the newest checkpoint is that of update `step` and intact. Also true if all checkpoints were removed."""
    found = _newest_first((Path(folder) / CHECKPOINTS).absolute())
    return not found or (found[0].name == str(step) and not _damage(found[0]))


def _newest_first(directory: Path) -> list[Path]:
    paths = [path for path in directory.glob("*") if path.name.isdigit() and path.is_dir()]
    return sorted(paths, key=lambda path: int(path.name), reverse=True)


def _damage(path: Path) -> str | None:
    return checksums.damage(path) if parameters_part(path) else "it holds no parameters"


def _rename_damaged(directory: Path) -> None:
    damaged: list[tuple[Path, str]] = []
    for path in _newest_first(directory):
        if not (wrong := _damage(path)):
            break
        damaged.append((path, wrong))
    else:
        if damaged:
            listed = "; ".join(f"{path.name}: {wrong}" for path, wrong in damaged)
            raise UserError(
                f"{directory}: every checkpoint is damaged ({listed}); restore an undamaged copy, or begin again with another out"
            )
    for place, wrong in damaged:
        renamed = next(name for name in _names_of_damaged(place) if not name.exists())
        place.rename(renamed)
        outcome = f"it is now {renamed.name}, and the run resumes from update {path.name}"
        print(f"{place}: the checkpoint is damaged: {wrong}; {outcome}", file=sys.stderr)


def _names_of_damaged(path: Path) -> Iterator[Path]:
    yield path.with_name(f"{path.name}.damaged")
    yield from (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(2))


def _remedy_for(path: Path) -> str:
    """The remedy for a checkpoint that cannot be read. It never silently restarts a run from the beginning."""
    before = [other for other in _newest_first(path.parent) if int(other.name) < int(path.name) and parameters_part(other)]
    if not before:
        return "there is none before it: restore an undamaged copy"
    renamed = next(name for name in _names_of_damaged(path) if not name.exists())
    return f"to use the one before it, of update {before[0].name}, run: mv {shlex.quote(str(path))} {shlex.quote(str(renamed))}"


def parameters_part(path: Path) -> str | None:
    """The name of the parameters in a checkpoint: "params" in a training run, which has other parts too, or Orbax's "state"
    after an import."""
    return next((name for name in ("params", "state") if (path / name).is_dir()), None)


def reason(error: BaseException) -> str:
    """The root cause of an error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
