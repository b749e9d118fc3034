"""Runs phases from end to end: lists of commands, each a process, each skipped if it is complete.

    mira demo --set seed=1
    mira phases --config configs/phases/tours.yaml --dry-run

`mira_jax.stages` describes the stages and their placeholders, and docs/phases.md the phases of MiRA. If it is interrupted, the same
command resumes. A run folder with other settings is renamed, never overwritten.
"""

import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mira_jax import commands, pruning
from mira_jax import config as configs
from mira_jax.errors import UserError
from mira_jax.files import read_json, sole_writer, to_json, write_atomically
from mira_jax.stages import PhasesConfig, Stage, expand, fill_values, phase_stages, prunable_paths

# doit and Snakemake were considered. Both run a graph of tasks in parallel, and rerun only the tasks whose inputs have changed;
# Snakemake also submits to clusters. Here the stages are few and form one chain, and each command resumes its own work, so either
# would replace only a list and a record of completed stages. The rest would still have to be written: serving a model on a free port
# during a stage, ending child processes with their parent even if it is killed, and giving an interrupted stage time to save.
# By default Snakemake also removes the declared output of a failed task, from which the commands here resume. A stage is an ordinary
# command, so a study with many runs can call it from either tool.

INTERRUPT_SECONDS = 20
"""How long a stage that was interrupted by the terminal may take to save and end by itself."""
_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2)."""
COMPILED = "compiled"
"""Folder of the programs that JAX has compiled, in that of the run: the stages share them."""
RECORDS = "stages"
"""Folder of the stages' records, in that of the run."""


def main(config: PhasesConfig) -> int:
    stages = expand(config)
    if config.dry_run:
        return dry_run(config, stages)
    out = Path(config.out)
    if missing := missing_needs(config):
        raise UserError("needs: " + "; ".join(missing))
    fingerprint = _fingerprint(config, stages)
    with sole_writer(out, "a run of phases"):
        _move_other_run_aside(out, fingerprint)
    started = time.monotonic()
    with sole_writer(out, "a run of phases"), _sigterm_as_interrupt():
        for number, stage in enumerate(stages, 1):
            record = _record(out, stage)
            title = f"[{number}/{len(stages)}] {stage.name}"
            if record.complete and not stage.always:
                _say(f"{title}: done before, {record.seconds / 60:.1f} min")
            else:
                _say(f"{title}: {stage.about}" if stage.about else title)
                with record.timed(), _served(config, stage) as overrides:
                    _run(out, stage, overrides)
                _say(f"{title}: {record.seconds / 60:.1f} min ({(time.monotonic() - started) / 60:.1f} min in all)")
            if config.prune:
                _prune(config, stages)
    minutes = {stage.name: _record(out, stage).seconds / 60 for stage in stages}
    _say("minutes: " + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items()) + f"; in all {sum(minutes.values()):.1f}")
    return 0


def _record(out: Path, stage: Stage) -> "StageRecord":
    return StageRecord(out / RECORDS / f"{stage.name}.json")


def _prune(config: PhasesConfig, stages: Sequence[Stage]) -> None:
    """Removes what is prunable of the phases that are complete."""
    complete = {stage.name for stage in stages if _record(Path(config.out), stage).complete}
    ahead = [stage for stage in stages if stage.name not in complete or stage.always]
    for phase in range(1, config.phases + 1):
        if all(stage.name in complete for stage in phase_stages(config, phase)):
            for path, size in pruning.prune(config.out, prunable_paths(config, phase), ahead):
                _say(f"pruned {path}: {size / 1e6:,.1f} MB")


def dry_run(config: PhasesConfig, stages: Sequence[Stage]) -> int:
    """Prints the stages, and what is missing to run them. Returns 1 if anything is missing."""
    out, missing = Path(config.out), missing_needs(config)
    for number, stage in enumerate(stages, 1):
        done = (out / RECORDS / f"{stage.name}.json").exists() and _record(out, stage).complete
        print(f"[{number}/{len(stages)}] {stage.name}: {'done' if done else 'to run'}" + (f"; {stage.about}" if stage.about else ""))
        overrides = {stage.serve.url: "http://127.0.0.1:1/v1"} if stage.serve else {}
        if stage.serve and stage.serve.name:
            overrides[stage.serve.name] = stage.serve.model
        print(f"    {shlex.join(_command(stage, overrides)[1:])}")
        missing += [f"stage {stage.name}: {problem}" for problem in _problems(stage, overrides)]
    print(f"{out}: {len(stages)} stages, {config.phases} phases; " + ("nothing is missing" if not missing else "missing:"))
    for line in missing:
        print(f"  {line}")
    return 1 if missing else 0


def _problems(stage: Stage, overrides: dict[str, Any]) -> Iterator[str]:
    """Why the stage's command or config does not load."""
    try:
        command = importlib.import_module(stage.module).COMMAND
        configs.load(command.config_type, stage.configs, [override(key, value) for key, value in (stage.set | overrides).items()])
    except (UserError, ImportError) as error:
        yield str(error)


def missing_needs(config: PhasesConfig) -> list[str]:
    """What the run needs and does not find, each with how to get it."""
    missing = []
    for name, advice in config.needs.items():
        name = fill_values(name, config)
        found = bool(os.environ.get(name[1:])) if name.startswith("$") else configs.find(Path(name)).exists()
        if not found:
            what = f"the environment variable {name[1:]} is not set" if name.startswith("$") else f"{name} does not exist"
            missing.append(f"{what}: {advice}")
    return missing


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


def override(key: str, value: Any) -> str:
    """The argument of `--set` for a value of a stage."""
    return f"{key}={json.dumps(value)}"


def _command(stage: Stage, overrides: dict[str, Any]) -> list[str]:
    command = [sys.executable, "-m", stage.module]
    for path in stage.configs:
        command += ["--config", path]
    for key, value in (stage.set | overrides).items():
        command += ["--set", override(key, value)]
    return command


def _run(out: Path, stage: Stage, overrides: dict[str, Any]) -> None:
    command = _command(stage, overrides)
    process = _start(command, env=_environment(out))
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


def _environment(out: Path) -> dict[str, str]:
    """That of this process, with a folder of the run in which JAX keeps compiled programs, unless the user has named another."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str((out / COMPILED).resolve()), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
    return kept | os.environ


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
    model = stage.serve.model
    command = [sys.executable, "-m", "mira_jax.serve", "--model", model, "--port", "0", "--set", f"ready_file={ready}"]
    if config.serve_config:
        command += ["--config", fill_values(config.serve_config, config)]
    with open(log, "w") as file:
        process = _start(command, stdout=file, stderr=file, env=_environment(out))
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


def _fingerprint(config: PhasesConfig, stages: Sequence[Stage]) -> str:
    """Changes with the seed, the stages of one phase, and the content of every config they name, comments aside. It does not depend on
    the number of phases, so a run can be resumed with more."""
    free = ("out", "phases", "needs", "prune", "prunable", "dry_run")
    parts = [json.dumps({key: value for key, value in configs.to_tree(config).items() if key not in free}, sort_keys=True)]
    named = {path: f"stage {stage.name}" for stage in reversed(stages) for path in stage.configs}
    if config.serve_config:
        named[fill_values(config.serve_config, config)] = "serve_config"
    for path, where in sorted(named.items()):
        try:
            parts.append(json.dumps(configs.read(Path(path)), sort_keys=True, default=str))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
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


COMMAND = commands.Command("phases", main, PhasesConfig, __doc__, flags=("out", "prune", "dry_run"))

if __name__ == "__main__":
    sys.exit(COMMAND.run())
