"""Several processes that train one model together, each on its own devices, as one program."""

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
    """All processes run the same command; they must see one file system."""

    enabled: bool = False
    """This process is one of several. The environment tells which, on TPU VMs, SLURM, Open MPI and GKE; elsewhere the
    three keys below do."""
    coordinator: str | None = None
    """HOST:PORT of process 0, which the others can reach."""
    processes: Count | None = None
    """How many there are."""
    process: Natural | None = None
    """The number of this one, from 0."""

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
        """What of it is the same in every process, and when the run goes on elsewhere."""
        return DistributedConfig(enabled=self.enabled)


def start(config: DistributedConfig) -> None:
    """Meets the other processes. To be called before anything else of JAX.

    Raises:
        UserError: the environment does not tell who this process is, or the others did not come within five minutes.
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
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What fails inside it in one process ends all of them there, so that none waits for one that is gone.

    Raises:
        UserError: it failed in another process, which says why.
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
    """As `mira_jax.files.sole_writer`, for the processes of a run as one: the first holds the lock."""
    with contextlib.ExitStack() as held:
        with together():
            if first():
                held.enter_context(files.sole_writer(folder, what))
        yield


def require_equal(name: str, text: str) -> None:
    """Raises UserError unless `text` is the same in all processes."""
    if several():
        digests = multihost_utils.process_allgather(np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8))
        if np.any(digests != digests[0]):
            raise UserError(f"distributed: {name} is not the same in all processes; give all of them the same files and the same config")


class StopSignal:
    """Within it the first SIGTERM or SIGINT asks to stop after an update; the second has its usual effect.

    Of several processes it is enough that one is asked: all stop after the same update, a few updates later.
    """

    def __init__(self):
        self._raised = False
        self._before: dict[int, Any] = {}

    def asked(self, step: int) -> bool:
        """Whether to stop now, after update `step`. To be called after every update, in every process."""
        return multihost_utils.reached_preemption_sync_point(step) if several() else self._raised

    def __enter__(self) -> "StopSignal":
        # With several processes SIGTERM is JAX's: its coordinator tells all of them and agrees on the update.
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
