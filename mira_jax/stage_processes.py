"""The processes of a run: its stages, and the servers of the models that they ask."""

import contextlib
import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mira_jax.errors import UserError
from mira_jax.files import read_json
from mira_jax.stages import Stage

INTERRUPT_SECONDS = 20
"""How long a stage that was interrupted by the terminal may take to save and end by itself."""
POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2)."""
COMPILED = "compiled"
"""Folder of the programs that JAX has compiled, in that of the run: the stages share them."""
LOGS = "logs"
"""Folder of the servers' logs, in that of the run."""


def override(key: str, value: Any) -> str:
    """The argument of `--set` for a value of a stage."""
    return f"{key}={json.dumps(value)}"


def command_of(stage: Stage, overrides: dict[str, Any]) -> list[str]:
    """The command line of a stage. `overrides`: keys of its config that take precedence over `stage.set`."""
    command = [sys.executable, "-m", stage.module]
    for path in stage.configs:
        command += ["--config", path]
    for key, value in (stage.set | overrides).items():
        command += ["--set", override(key, value)]
    return command


def run(out: Path, stages: Sequence[tuple[Stage, dict[str, Any]]]) -> None:
    """Runs stages to their end, all at once, each with keys of its config that take precedence. An interruption is passed on to them.

    Raises:
        UserError: one fails. The others are then stopped as by an interruption.
    """
    commands = [command_of(stage, overrides) for stage, overrides in stages]
    processes: list[subprocess.Popen] = []
    codes: list[int | None] = []
    try:
        for command in commands:
            processes.append(start(command, out))
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt as interrupt:
        if interrupt.args != (signal.SIGTERM,):
            # Ctrl-C reached the stages too, and a second signal would cut their saving short.
            _wait_for(processes, INTERRUPT_SECONDS)
        raise
    finally:
        _stop(processes)
    # Those that were stopped because of another have no code here.
    for (stage, _), command, code in zip(stages, commands, codes, strict=True):
        if code:
            raise UserError(
                f"stage {stage.name} failed with exit code {code}; its message is above. "
                f"Run the same command again to resume. The stage was: {shlex.join(command)}"
            )


def _wait_for(processes: Sequence[subprocess.Popen], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """Ends the processes that still run: they may save within a minute."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    _wait_for(processes, 60)
    for process in processes:
        wait_or_kill(process, 0)


def _environment(out: Path) -> dict[str, str]:
    """That of this process, with a folder of the run in which JAX keeps compiled programs, unless the user has named another."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str((out / COMPILED).resolve()), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
    return kept | os.environ


def start(command: list[str], out: Path, **options: Any) -> subprocess.Popen:
    """Starts a process of the run `out`. The child does not outlive this process, however this process ends.

    Only Linux promises that. Elsewhere a child of a killed process runs on, and its folder stays locked until it ends.
    """
    prepare = _killed_with(os.getpid()) if sys.platform == "linux" else None
    return subprocess.Popen(command, preexec_fn=prepare, env=_environment(out), **options)


def _killed_with(parent: int) -> Callable[[], None]:
    """To be called in a child, before it becomes another program: the kernel then kills it when `parent` dies."""
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


@contextlib.contextmanager
def served(
    out: Path, name: str, model: str, ready: Path, config: str | None = None, sets: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Serves a model on a free port of this machine, and yields the address, which ends in /v1.

    Args:
        name: of the log, in `out`.
        model: a run folder, or a Hugging Face folder.
        ready: the file that the server writes when it is ready.
        config, sets: the config file of `mira serve`, and keys that take precedence.

    Raises:
        UserError: the server ends before it is ready.
    """
    ready.parent.mkdir(parents=True, exist_ok=True)
    ready.unlink(missing_ok=True)
    (out / LOGS).mkdir(exist_ok=True)
    log = out / LOGS / f"serve-{name}.log"
    command = [sys.executable, "-m", "mira_jax.serve", "--model", model, "--port", "0", "--set", f"ready_file={ready}"]
    if config:
        command += ["--config", config]
    for key, value in (sets or {}).items():
        command += ["--set", override(key, value)]
    with open(log, "w") as file:
        process = start(command, out, stdout=file, stderr=file)
        try:
            yield _wait_until_ready(process, ready, log) + "/v1"
        finally:
            process.send_signal(signal.SIGTERM)
            wait_or_kill(process, 20)


def _wait_until_ready(process: subprocess.Popen, ready: Path, log: Path, timeout: float = 300) -> str:
    deadline = time.monotonic() + timeout
    while not ready.exists():
        if process.poll() is not None:
            raise UserError(f"the policy server stopped with exit code {process.returncode}; see {log}")
        if time.monotonic() > deadline:
            raise UserError(f"the policy server was not ready after {timeout:.0f} s; see {log}")
        time.sleep(POLL_SECONDS)
    return read_json(ready, f"see {log}")["url"]


def wait_or_kill(process: subprocess.Popen, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, with the signal as argument."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
