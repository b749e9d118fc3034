"""Runs a list of commands, the stages, from end to end. Each stage is a process, and is skipped if it is complete.

    mira demo --set seed=1
    mira phases --config my_phases.yaml

If it is interrupted, the same command resumes. A run folder with other settings is renamed, never overwritten.
"""

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mira_jax import commands
from mira_jax import config as configs
from mira_jax.config import Natural
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import read_json, sole_writer, to_json, write_atomically

# doit and Snakemake were considered. Both run a graph of tasks in parallel, and rerun only the tasks whose inputs have changed;
# Snakemake also submits to clusters. Here the stages are few and form one chain, and each command resumes its own work, so either
# would replace only a list and a record of completed stages. The rest would still have to be written: serving a model on a free port
# during a stage, ending child processes with their parent even if it is killed, and giving an interrupted stage time to save.
# By default Snakemake also removes the declared output of a failed task, from which the commands here resume. A stage is an ordinary
# command, so a study with many runs can call it from either tool.

INTERRUPT_SECONDS = 20
"""How long a stage that was interrupted by the terminal may take to save and end by itself."""
RECORDS = "stages"
"""Folder, within that of the run, of the stages' records."""
_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2)."""
_SEED = re.compile(r"\{seeds\.([^{}]*)\}")


@dataclasses.dataclass(frozen=True)
class Serve:
    """A model that is served while a stage runs."""

    model: str
    """The run folder to serve."""
    url: str
    """The key of the command's config that is set to the server's address, which ends in /v1."""
    name: str | None = None
    """The key that is set to the checkpoint's name: its path relative to `out`, so that it is the same in any run folder."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command. In `set` and `serve.model`, `{out}`, `{seed}` and `{seeds.NAME}` stand for the run's values."""

    name: str
    """Name of the stage, in messages, in its record and in its log."""
    module: str
    """The module of the command, which is run as `python -m MODULE`."""
    about: str = ""
    """Description, printed when the stage starts."""
    config: str | None = None
    """The config file of the command."""
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Keys of the command's config to values. `{out}`, `{seed}` and `{seeds.NAME}` are replaced by the values of the run."""
    serve: Serve | None = None
    """A model that is served while the stage runs."""
    always: bool = False
    """Runs the stage also if it is complete, for example a report that prints a table."""


@dataclasses.dataclass(frozen=True)
class PhasesConfig:
    stages: list[Stage]
    """The commands, in order."""
    out: str = "runs/demo"
    """Folder of the run."""
    seed: Natural = 0
    """Replaces {seed} in the stages."""
    seeds: dict[str, Natural] = dataclasses.field(default_factory=dict)
    """Name to an offset. {seeds.NAME} in the stages is replaced by `seed` plus the offset."""
    serve_config: str | None = None
    """The config file of the server of `serve`, see `mira serve --help`."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError("stages", f"two stages have the same name, {twice}; give each its own")
        for stage in self.stages:
            for name in _SEED.findall(json.dumps([stage.set, stage.serve and stage.serve.model])):
                if name not in self.seeds:
                    raise ConfigError("stages", f"stage {stage.name} uses {{seeds.{name}}}, but seeds has no {name}; add it to seeds")


def main(config: PhasesConfig) -> int:
    out = Path(config.out)
    fingerprint = _fingerprint(config)
    with sole_writer(out, "a run of phases"):
        _move_other_run_aside(out, fingerprint)
    records = out / RECORDS
    started = time.monotonic()
    with sole_writer(out, "a run of phases"), _sigterm_as_interrupt():
        for number, stage in enumerate(config.stages, 1):
            record = StageRecord(records / f"{stage.name}.json")
            title = f"[{number}/{len(config.stages)}] {stage.name}"
            if record.complete and not stage.always:
                _say(f"{title}: done before, {record.seconds / 60:.1f} min")
                continue
            _say(f"{title}: {stage.about}" if stage.about else title)
            with record.timed(), _served(config, stage) as overrides:
                _run(stage, config, overrides)
            _say(f"{title}: {record.seconds / 60:.1f} min ({(time.monotonic() - started) / 60:.1f} min in all)")
    minutes = {stage.name: StageRecord(records / f"{stage.name}.json").seconds / 60 for stage in config.stages}
    _say("minutes: " + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items()) + f"; in all {sum(minutes.values()):.1f}")
    return 0


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
    def timed(self) -> Iterator[None]:
        started, before = time.monotonic(), self.seconds
        try:
            yield
            self.complete = True
        finally:
            self.seconds = before + time.monotonic() - started
            write_atomically(self._path, to_json({"seconds": self.seconds, "complete": self.complete}).encode())


def _command(stage: Stage, config: PhasesConfig, overrides: dict[str, Any]) -> list[str]:
    command = [sys.executable, "-m", stage.module]
    if stage.config:
        command += ["--config", stage.config]
    for key, value in (stage.set | overrides).items():
        command += ["--set", override(key, filled(value, config))]
    return command


def override(key: str, value: Any) -> str:
    """The argument of `--set` for a value of a stage."""
    return f"{key}={json.dumps(value)}"


def _run(stage: Stage, config: PhasesConfig, overrides: dict[str, Any]) -> None:
    command = _command(stage, config, overrides)
    process = _start(command)
    try:
        code = process.wait()
    except KeyboardInterrupt as interrupt:
        if interrupt.args != (signal.SIGTERM,):
            # Ctrl-C reached the stage too, and a second signal would cut its saving short.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(INTERRUPT_SECONDS)
        process.send_signal(signal.SIGTERM)
        _wait_or_kill(process, 60)
        raise
    if code:
        raise UserError(
            f"stage {stage.name} failed with exit code {code}; its message is above. "
            f"Run the same command again to resume. The stage was: {shlex.join(command)}"
        )


def _start(command: list[str], **options: Any) -> subprocess.Popen:
    """A child that does not outlive this process, however this process ends. Only Linux promises that; elsewhere a child
    of a killed process runs on, and its folder stays locked until it ends."""
    prepare = _killed_with(os.getpid()) if sys.platform == "linux" else None
    return subprocess.Popen(command, preexec_fn=prepare, **options)


def _killed_with(parent: int) -> Callable[[], None]:
    """To be called in a child, before it becomes another program: the kernel then kills it when `parent` dies."""
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


@contextlib.contextmanager
def _served(config: PhasesConfig, stage: Stage) -> Iterator[dict[str, Any]]:
    """Serves `stage.serve.model` on a free port of this machine, and yields the overrides that point at it."""
    if not stage.serve:
        yield {}
        return
    out = Path(config.out)
    ready = out / RECORDS / f"{stage.name}.serve.json"
    ready.parent.mkdir(parents=True, exist_ok=True)
    ready.unlink(missing_ok=True)
    (out / "logs").mkdir(exist_ok=True)
    log = out / "logs" / f"serve-{stage.name}.log"
    model = filled(stage.serve.model, config)
    command = [sys.executable, "-m", "mira_jax.serve", "--model", model, "--port", "0", "--set", f"ready_file={ready}"]
    if config.serve_config:
        command += ["--config", config.serve_config]
    with open(log, "w") as file:
        process = _start(command, stdout=file, stderr=file)
        try:
            overrides = {stage.serve.url: _wait_until_ready(process, ready, log) + "/v1"}
            if stage.serve.name:
                # The name is part of every episode's key and so of its random draws: the same in any run folder.
                overrides[stage.serve.name] = os.path.relpath(model, out)
            yield overrides
        finally:
            process.send_signal(signal.SIGTERM)
            _wait_or_kill(process, 20)


def _wait_until_ready(process: subprocess.Popen, ready: Path, log: Path, timeout: float = 300) -> str:
    deadline = time.monotonic() + timeout
    while not ready.exists():
        if process.poll() is not None:
            raise UserError(f"the policy server stopped with exit code {process.returncode}; see {log}")
        if time.monotonic() > deadline:
            raise UserError(f"the policy server was not ready after {timeout:.0f} s; see {log}")
        time.sleep(0.05)
    return read_json(ready, f"see {log}")["url"]


def _wait_or_kill(process: subprocess.Popen, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def filled(value: Any, config: PhasesConfig) -> Any:
    """Replaces the placeholders in strings by the run's values, also inside lists and mappings. A string that is only a seed's
    placeholder becomes a number."""
    if isinstance(value, str):
        numbers = {"{seed}": config.seed} | {f"{{seeds.{name}}}": config.seed + offset for name, offset in config.seeds.items()}
        if value in numbers:
            return numbers[value]
        value = value.replace("{out}", config.out)
        for text, number in numbers.items():
            value = value.replace(text, str(number))
        return value
    if isinstance(value, list):
        return [filled(item, config) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, config) for key, item in value.items()}
    return value


def _fingerprint(config: PhasesConfig) -> str:
    """Changes with the seed, the stages, and the text of every config they name."""
    parts = [json.dumps({key: value for key, value in configs.to_tree(config).items() if key != "out"}, sort_keys=True)]
    named = [(f"stage {stage.name}", stage.config) for stage in config.stages] + [("serve_config", config.serve_config)]
    for where, path in named:
        if path:
            try:
                parts.append(configs.find(Path(path)).read_text(encoding="utf-8", errors="surrogateescape"))
            except OSError as error:
                raise UserError(f"{where}: {path}: cannot read the config: {error.strerror}") from None
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def _move_other_run_aside(out: Path, fingerprint: str) -> None:
    mark = out / RECORDS / "fingerprint"
    if mark.exists() and mark.read_bytes() == fingerprint.encode():
        return
    if out.exists() and any(out.iterdir()):
        if not mark.exists():
            raise UserError(f"{out}: exists and is not a run of this command; choose another folder with --set out=DIR")
        number = next(n for n in range(1, 10_000) if not out.with_name(f"{out.name}-{n}").exists())
        aside = out.with_name(f"{out.name}-{number}")
        out.rename(aside)
        _say(f"{out} held a run with other settings; it is now {aside}")
    mark.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(mark, fingerprint.encode())


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


COMMAND = commands.Command("phases", main, PhasesConfig, __doc__, flags=("out",))

if __name__ == "__main__":
    sys.exit(COMMAND.run())
