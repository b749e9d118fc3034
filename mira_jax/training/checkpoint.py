"""Checkpoints of a run: written while training goes on, and restored whole."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from mira_jax.errors import UserError
from mira_jax.training import processes
from mira_jax.training.state import TrainState

CHECKPOINTS = "checkpoints"
CHUNK_BYTES = 64 * 2**20
"""What is written, and later read, of an array at once: no more of it is in memory twice."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    every: int = 500
    """Updates between checkpoints. One is always written at the end, and on SIGTERM."""
    keep: int = 2
    """How many are kept."""


class Checkpoints:
    """The checkpoints of one run: parameters, optimizer, step, and the position in the data."""

    def __init__(self, folder: str | Path, keep: int):
        """`folder`: of the run. What a killed process left half-written is removed."""
        context = ocp.Context()
        context.array.saving.storage_options.chunk_byte_size = CHUNK_BYTES
        self._orbax = ocp.training.Checkpointer(
            (Path(folder) / CHECKPOINTS).absolute(),
            context=context,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._orbax.latest.step if self._orbax.latest else None

    def save(self, step: int, state: TrainState, data: Any) -> None:
        """Copies what is to be saved and returns; a thread writes it. `data` is the Grain iterator.

        What the thread could not write is raised by the next `save`, or by `close`.
        """
        if self.latest == step:
            return
        parts = {"params": state.params, "optimizer": {"state": state.optimizer, "step": state.step}, "data": _Position(data)}
        with self._all_or_nothing():
            self._orbax.save_checkpointables_async(step, parts, force=True)

    def restore(self, abstract: TrainState, data: Any) -> TrainState:
        """The newest state, laid out as `abstract` (of ShapeDtypeStruct, shardings included); sets the position of `data`."""
        parts = {"params": abstract.params, "optimizer": {"state": abstract.optimizer, "step": abstract.step}, "data": _Position(data)}
        try:
            with quiet_failure():
                loaded = self._orbax.load_checkpointables(self.latest, parts)
        except Exception as error:
            raise UserError(
                f"{self._orbax.directory}/{self.latest}: cannot restore this checkpoint, which is damaged or another model's: "
                f"{reason(error)}; move it away to go on from the one before it, if there is one"
            ) from error
        optimizer = loaded["optimizer"]
        return TrainState(loaded["params"], optimizer["state"], optimizer["step"])

    def close(self) -> None:
        """Waits until all is written."""
        with self._all_or_nothing():
            self._orbax.close()

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Of a checkpoint that could not be written nothing is left."""
        try:
            with quiet_failure():
                yield
        except Exception:
            for _ in range(10) if processes.first() else ():
                # Its threads may still be at it.
                partial = list(Path(self._orbax.directory).glob("*.orbax-checkpoint-tmp"))
                for path in partial:
                    shutil.rmtree(path, ignore_errors=True)
                if not partial:
                    break
                time.sleep(0.1)
            raise


def _raised_elsewhere(record: logging.LogRecord) -> bool:
    """Drops the tracebacks that Orbax's threads log of what it then raises, of a save by the next one or by close."""
    return not record.exc_info


@contextlib.contextmanager
def quiet_failure() -> Iterator[None]:
    """If Orbax fails inside it, then by its exception alone: the threads it leaves behind print nothing more."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_raised_elsewhere)
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda *error: hooks[0](*error) if threading.current_thread() is threading.main_thread() else None
    sys.unraisablehook = lambda _: None
    yield
    sys.excepthook, sys.unraisablehook = hooks


@dataclasses.dataclass(frozen=True)
class _Position:
    """Where a Grain iterator is, as Orbax saves it. All processes are at the same batch, so it is written once and any
    number of them can go on from it."""

    data: Any

    async def save(self, directory: Any) -> Awaitable[None]:
        state = json.dumps(self.data.get_state())

        async def write() -> None:
            path = await directory.await_creation()
            if processes.first():
                await asyncio.to_thread((path / "position.json").write_text, state)

        return write()

    async def load(self, directory: Any) -> Awaitable[None]:
        async def read() -> None:
            paths = sorted(directory.glob("*.json"))
            if not paths:
                raise FileNotFoundError(f"{directory}: no position in the data")
            self.data.set_state(json.loads(await asyncio.to_thread(paths[0].read_text)))

        return read()


def latest_checkpoint(folder: str | Path) -> Path:
    """FOLDER/checkpoints/STEP of the newest complete one. Raises UserError if there is none yet."""
    directory = Path(folder) / CHECKPOINTS
    steps = [int(path.name) for path in directory.glob("*") if path.name.isdigit() and parameters_part(path)]
    if not steps:
        raise UserError(f"{directory}: no checkpoint yet; let the run save one first")
    return (directory / str(max(steps))).absolute()


def parameters_part(path: Path) -> str | None:
    """What a checkpoint calls its parameters: "params" beside other parts of a training run; alone, as imported, Orbax's "state"."""
    return next((name for name in ("params", "state") if (path / name).is_dir()), None)


def reason(error: BaseException) -> str:
    """What is at the bottom of it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
