"""Several processes that train one model together as one program, each with its own devices."""

import contextlib
import dataclasses
import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mira_jax import files
from mira_jax.config import Count, Natural
from mira_jax.errors import ConfigError, UserError, first_line


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """All processes run the same command and must share one file system."""

    enabled: bool = False
    """Whether this process is one of several. On TPU VMs, SLURM, Open MPI and GKE the environment identifies the process.
    Elsewhere set the three keys below."""
    coordinator: str | None = None
    """HOST:PORT of process 0, reachable by the others."""
    processes: Count | None = None
    """Number of processes."""
    process: Natural | None = None
    """Index of this process, from 0."""

    def __post_init__(self) -> None:
        given = self.coordinator, self.processes, self.process
        if not self.enabled and given != (None, None, None):
            name = next(name for name, value in zip(("coordinator", "processes", "process"), given, strict=True) if value is not None)
            raise ConfigError(name, "has no effect without $.enabled=true")
        if self.coordinator is not None and not self.coordinator.rpartition(":")[2].isdigit():
            raise ConfigError("coordinator", f"{self.coordinator!r} is not HOST:PORT")
        if self.processes is not None and self.process is not None and self.process >= self.processes:
            raise ConfigError("process", f"{self.process}; of {self.processes} processes it is 0 to {self.processes - 1}")

    def anywhere(self) -> "DistributedConfig":
        """The part of this config that is the same in every process and after a resume on other machines."""
        return DistributedConfig(enabled=self.enabled)


def start(config: DistributedConfig) -> None:
    """Connects to the other processes. Call it before any other use of JAX.

    Raises:
        UserError: the environment does not identify this process, or the others did not connect within five minutes.
    """
    if not config.enabled or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(config.coordinator, config.processes, config.process)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"distributed: the processes did not find each other: {first_line(error)}; outside of TPU VMs, SLURM, "
            "Open MPI and GKE give distributed.coordinator=HOST:PORT, distributed.processes and distributed.process"
        ) from error


def several() -> bool:
    return jax.process_count() > 1


def first() -> bool:
    """Whether this process writes the files that are written once."""
    return jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """If the body fails in one process, this raises in all of them, so that none waits for a process that has ended.

    Raises:
        UserError: the body failed in another process. The message gives its reason.
    """
    failure: BaseException | None = None
    try:
        yield
    except Exception as error:
        failure = error
    if several():
        failed = np.flatnonzero(multihost_utils.process_allgather(np.array(failure is not None)))
        if len(failed) and failure is None:
            raise UserError(f"distributed: process {failed[0]} of {jax.process_count()} failed; its own message says why")
    if failure is not None:
        raise failure


@contextlib.contextmanager
def sole_writer(folder: str | Path, what: str) -> Iterator[None]:
    """As `mira_jax.files.sole_writer`, for all processes of a run together. The first process holds the lock."""
    with contextlib.ExitStack() as held:
        with together():
            if first():
                held.enter_context(files.sole_writer(folder, what))
        yield


def require_equal(name: str, text: str) -> None:
    """Raises UserError unless `text` is equal in all processes."""
    if several():
        digests = multihost_utils.process_allgather(np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8))
        if np.any(digests != digests[0]):
            raise UserError(f"distributed: {name} is not the same in all processes; give all of them the same files and the same config")


class StopSignal:
    """A context in which the first SIGTERM or SIGINT requests a stop after an update. The second has its usual effect.

    With several processes, a signal to one of them is sufficient: all stop after the same update, a few updates later.
    """

    def __init__(self):
        self._raised = False
        self._before: dict[int, Any] = {}

    def asked(self, step: int) -> bool:
        """Whether to stop now, after update `step`. Call it after every update, in every process."""
        return multihost_utils.reached_preemption_sync_point(step) if several() else self._raised

    def __enter__(self) -> "StopSignal":
        # With several processes, JAX handles SIGTERM: its coordinator notifies all processes and agrees on the update.
        for number in (signal.SIGINT,) if several() else (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        self._raised = True
        self._restore()
        if several():
            os.kill(os.getpid(), signal.SIGTERM)

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(self, *_: Any) -> None:
        self._restore()
