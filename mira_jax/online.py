"""Trains a policy on its own episodes: rounds of rollouts with the newest weights, and updates on them.

    mira online --config configs/anchor/plan.yaml --out runs/anchor/plan

Each round, the stages of `rollouts` run one after the other, such as `mira collect` and `mira label`, with the policy behind a server.
The trainer (`mira train-online`) is one process for all rounds. It reads the episodes of a round, updates the policy, and saves it. The
server then reads the new weights without a restart. If it is interrupted, the same command resumes.

The parts exchange files only, in `out`, so they can run on different hosts with a common file system (docs/online.md):

    policy/           the run folder of the trainer; its round.json names the newest round and the fingerprint of its weights
    rounds/R/         the episodes of round R, from 1; its done.json says that they are complete, and with which weights they were drawn
    evaluations/R/    what the stages of `evaluate` write about the policy after round R
"""

import contextlib
import dataclasses
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from mira_jax import commands, stage_processes
from mira_jax import config as configs
from mira_jax.config import Count, Natural
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import read_json, sole_writer, to_json, write_atomically
from mira_jax.rounds import DONE, ROUND, Version, read_version
from mira_jax.stage_records import fingerprint, move_other_run_aside
from mira_jax.stages import Stage, fill, parallel_groups, placeholders

POLICY = "policy"
SERVED = "{policy}"
"""The model of the stages that need one."""
ROUNDS = "rounds"
EXPORTS, NEWEST = "exports", "newest"
STARTED = "started.json"
"""In the folder of a round: with which weights its episodes are drawn."""
SEEDS = 10_000
"""Difference between the round seeds of two runs with adjacent seeds."""
POLL_SECONDS = 0.2
RELOAD_SECONDS = 600
"""How long a server may take to read new weights."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A request to the server, after which it uses the new weights."""

    path: str
    """Path on the server, for example /reload."""
    body: dict[str, Any] | None = None
    """JSON, in which placeholders are replaced."""


@dataclasses.dataclass(frozen=True)
class ServerConfig:
    url: str = ""
    """Address of a server that runs already, with its /v1. Default: `mira serve` is started here."""
    config: str | None = None
    """The config file of `mira serve`."""
    export: bool = False
    """Before the reload, export the policy in the format of Hugging Face, for vLLM and SGLang. exports/newest in `out` is a link to the
    newest export. Earlier ones are removed."""
    reload: list[Request] = dataclasses.field(default_factory=lambda: [Request("/reload")])
    """What makes the server use the newest weights. {export} stands for the newest export. docs/online.md has the requests of vLLM and
    SGLang."""


@dataclasses.dataclass(frozen=True)
class OnlineConfig:
    rollouts: list[Stage]
    """The commands of a round, in order. In `set` and `config` there are {out}, {seed}, {round}, {round_seed}, {version}, {policy} and
    {values.NAME}: the folder and the seed of the run, the number of the round, a seed of its own for each round of each seed, the round
    whose weights are used, and the folder of the trainer. With `serve`, whose model is {policy}, a command gets the address of the server,
    and as name of the checkpoint round-VERSION."""
    trainer: Stage | None = None
    """`mira train-online`. null: it runs on another host."""
    evaluate: list[Stage] = dataclasses.field(default_factory=list)
    """Commands that measure the policy, with the same placeholders; {round} is {version}."""
    evaluate_every: Natural = 0
    """Number of rounds between two evaluations. The first is before round 1. 0: only after the last round."""
    rounds: Count = 1
    """Number of rounds. A run can be resumed with more rounds."""
    staleness: Natural = 0
    """How many rounds of updates the weights of a round's rollouts may lack. 0: rollouts and updates take turns. 1: the next rollouts run
    during the updates."""
    server: ServerConfig = dataclasses.field(default_factory=ServerConfig)
    """The server of the policy."""
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Name to a value that stands for {values.NAME}."""
    out: str = ""
    """Folder of the run."""
    seed: Natural = 0
    """Seed of the run."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in (*self.rollouts, *self.evaluate)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError("rollouts", f"two stages have the same name, {twice}; give each its own")
        if not self.rollouts:
            raise ConfigError("rollouts", "no stages; name the commands of a round, such as rollouts.collect and rollouts.label")
        known = {"out", "seed", "round", "round_seed", "version", "policy", *(f"values.{name}" for name in self.values)}
        stages = [*self.rollouts, *self.evaluate, *([self.trainer] if self.trainer else [])]
        for stage in stages:
            if stage.always or (stage.serve and stage.serve.model != SERVED):
                raise ConfigError("rollouts", f"stage {stage.name}: always has no effect here, and the model to serve is {SERVED}")
            for name in placeholders([stage.set, stage.configs]):
                if name not in known:
                    raise ConfigError("rollouts", f"stage {stage.name} uses {{{name}}}, which has no value there; see `mira online --help`")


def main(config: OnlineConfig) -> int:
    out = Path(config.out)
    fingerprint_of_run = _fingerprint(config)
    with sole_writer(out, "online training"):
        # On another host the trainer may have started before, and the first weights of a server may be linked.
        move_other_run_aside(out, fingerprint_of_run, (POLICY, EXPORTS), rename=config.trainer is not None)
    with sole_writer(out, "online training"), stage_processes.sigterm_as_interrupt(), _trainer(config, out) as trainer:
        _wait_for(out, 0, trainer)
        with _server(config, out) as address:
            rollouts = _Rollouts(config, out, address, trainer)
            for number in range(1, config.rounds + 1):
                rollouts.evaluate_if_due(number - 1)
                rollouts.round(number)
            rollouts.evaluate_if_due(config.rounds)
        if trainer and trainer.wait():
            raise UserError(f"the trainer ended with exit code {trainer.returncode}; its message is above")
    return 0


class _Rollouts:
    """The rounds on the side of the rollouts."""

    def __init__(self, config: OnlineConfig, out: Path, address: str, trainer: subprocess.Popen | None):
        self._config, self._out, self._address, self._trainer = config, out, address, trainer
        self._loaded: Version | None = None

    def round(self, number: int) -> None:
        """Runs the stages of a round, unless they are complete."""
        folder = self._out / ROUNDS / str(number)
        if (folder / DONE).exists():
            return
        version = self._load(number - 1 - self._config.staleness)
        self._begin(folder, version)
        started = time.monotonic()
        self._run(self._config.rollouts, number, version)
        seconds = round(time.monotonic() - started, 3)
        write_atomically(folder / DONE, to_json({**dataclasses.asdict(version), "seconds": seconds}).encode())
        _say(f"round {number} of {self._config.rounds}: rollouts with the weights of round {version.round}, {seconds:.0f} s")

    def evaluate_if_due(self, number: int) -> None:
        """Runs the stages of `evaluate` on the policy after round `number`, if they are due and not complete."""
        every, last = self._config.evaluate_every, number == self._config.rounds
        folder = self._out / "evaluations" / str(number)
        if not self._config.evaluate or (folder / DONE).exists() or not (last or (every and number % every == 0)):
            return
        version = self._load(number)
        if version.round != number:
            _say(f"the policy after round {number} is not evaluated: its weights are replaced by those of round {version.round}")
            return
        self._run(self._config.evaluate, number, version)
        write_atomically(folder / DONE, to_json(dataclasses.asdict(version)).encode())

    def _load(self, least: int) -> Version:
        """Waits for the weights of round `least` or later, and makes the server use them."""
        while (version := _wait_for(self._out, max(least, 0), self._trainer)) != self._loaded:
            try:
                reload(self._config, self._out, self._address, version)
            except UserError:
                # The trainer may have saved newer weights while the server read these.
                if read_version(self._out / POLICY / ROUND) == version:
                    raise
                continue
            self._loaded = version
        return version

    def _begin(self, folder: Path, version: Version) -> None:
        """Records the weights of a round. Episodes that an interrupted run drew with other weights are removed."""
        path, advice = folder / STARTED, "remove the folder of this round, and run the same command again"
        if path.exists() and read_json(path, advice).get("fingerprint") != version.fingerprint:
            _say(f"{folder}: its episodes were drawn with other weights, and are drawn again")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_json(dataclasses.asdict(version)).encode())

    def _run(self, stages: list[Stage], number: int, version: Version) -> None:
        for group in parallel_groups([_filled(stage, self._config, number, version.round) for stage in stages]):
            stage_processes.run(self._out, [(stage, self._overrides(stage, version)) for stage in group])

    def _overrides(self, stage: Stage, version: Version) -> dict[str, Any]:
        if not stage.serve:
            return {}
        return {stage.serve.url: self._address} | ({stage.serve.name: f"round-{version.round}"} if stage.serve.name else {})


def reload(config: OnlineConfig, out: Path, address: str, version: Version) -> None:
    """Makes the server use the newest weights.

    Raises:
        UserError: it refuses, cannot be reached, or uses weights other than those of `version`.
    """
    base = address.removesuffix("/v1")
    values = {"{policy}": str(out / POLICY), "{out}": str(out), "{version}": version.round}
    if config.server.export:
        values["{export}"] = str(_export(out, version))
    for request in config.server.reload:
        try:
            response = httpx.post(base + request.path, json=fill(request.body, values), timeout=RELOAD_SECONDS)
        except httpx.HTTPError as error:
            raise UserError(f"server.reload: POST {base}{request.path} failed: {type(error).__name__}: {error}") from None
        if not response.is_success:
            raise UserError(f"server.reload: POST {base}{request.path} was answered with {response.status_code}: {response.text[:300]}")
        with contextlib.suppress(ValueError):
            body = response.json()
            used = body.get("fingerprint") if isinstance(body, dict) else None
            if used is not None and used != version.fingerprint:
                raise UserError(f"server.reload: {base} uses the weights {used}, not those of round {version.round}, {version.fingerprint}")


def _export(out: Path, version: Version) -> Path:
    """Writes the policy to exports/ROUND, links exports/newest to it, and removes earlier exports. Returns the path of the export."""
    folder = (out / EXPORTS / str(version.round)).absolute()
    stage = Stage("export", "mira_jax.export", set={"checkpoint": str(out / POLICY), "out": str(folder)})
    stage_processes.run(out, [(stage, {})])
    link, fresh = folder.with_name(NEWEST), folder.with_name(f"{NEWEST}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(link)
    for earlier in folder.parent.iterdir():
        if earlier.name.isdigit() and earlier != folder:
            shutil.rmtree(earlier)
    return folder


def _filled(stage: Stage, config: OnlineConfig, number: int, version: int) -> Stage:
    values = {
        "{out}": config.out, "{seed}": config.seed, "{round}": number, "{version}": version,
        "{round_seed}": config.seed * SEEDS + number, "{policy}": str(Path(config.out) / POLICY),
        **{f"{{values.{name}}}": value for name, value in config.values.items()},
    }  # fmt: skip
    paths = [str(fill(path, values)) for path in stage.configs]
    return dataclasses.replace(stage, config=paths or None, set=fill(stage.set, values))


@contextlib.contextmanager
def _trainer(config: OnlineConfig, out: Path) -> Iterator[subprocess.Popen | None]:
    """Runs the trainer meanwhile."""
    if config.trainer is None:
        yield None
        return
    stage = _filled(config.trainer, config, 0, 0)
    overrides = {
        "out": str(out / POLICY), "rollouts": str(out / ROUNDS), "rounds": config.rounds, "staleness": config.staleness,
        "seed": config.seed,
    }  # fmt: skip
    process = stage_processes.start(stage_processes.command_of(stage, overrides), out)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            stage_processes.wait_or_kill(process, 60)


@contextlib.contextmanager
def _server(config: OnlineConfig, out: Path) -> Iterator[str]:
    if config.server.url:
        yield config.server.url
        return
    ready = out / "server.json"
    with stage_processes.served(out, POLICY, str(out / POLICY), ready, config.server.config, {"reload": True, "name": POLICY}) as address:
        yield address


def _wait_for(out: Path, least: int, trainer: subprocess.Popen | None) -> Version:
    """Waits until the trainer has saved the weights of round `least` or a later one. Raises UserError if it ends before."""
    path = out / POLICY / ROUND
    while True:
        if path.exists() and (version := read_version(path)).round >= least:
            return version
        if trainer and trainer.poll() is not None:
            raise UserError(f"the trainer ended with exit code {trainer.returncode}; its message is above")
        time.sleep(POLL_SECONDS)


def _fingerprint(config: OnlineConfig) -> str:
    free = ("out", "rounds", "server", "evaluate_every")
    tree = {key: value for key, value in configs.to_tree(config).items() if key not in free}
    stages = [*config.rollouts, *config.evaluate, *([config.trainer] if config.trainer else [])]
    named = {path: f"stage {stage.name}" for stage in stages for path in stage.configs}
    return fingerprint(tree, named | ({config.server.config: "server.config"} if config.server.config else {}))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


REQUIRED = {"out": "name the folder to write, for example --out runs/online"}
COMMAND = commands.Command("online", main, OnlineConfig, __doc__, flags=("out",), required=REQUIRED)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
