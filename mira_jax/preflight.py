"""Checks what a command needs, without starting it, and lists everything that is missing or wrong.

    mira preflight evaluate --config configs/webarena/evaluate.yaml --out runs/webarena
    mira preflight demo

The arguments after `preflight` are those of the command to check. `demo` and `phases` are checked stage by stage; a file that an
earlier stage writes need not exist. Each site, account, endpoint and judge is asked one question, all at the same time. `--offline`
before the command leaves the questions out. Nothing is written. The exit code is 0 if everything is ok, otherwise 2.
"""

import argparse
import asyncio
import dataclasses
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mira_jax import cli, commands, needs, phases, stage_processes, stage_records, stages
from mira_jax import config as configs
from mira_jax.commands import Command
from mira_jax.config import Origins
from mira_jax.errors import UserError
from mira_jax.needs import Check, Needs


@dataclasses.dataclass(frozen=True)
class PreflightConfig:
    """Preflight has no keys: it reads the config of the command that it checks."""


@dataclasses.dataclass(frozen=True)
class Preflight(Command):
    """`mira preflight [--offline] COMMAND ...`."""

    def run(self, argv: Sequence[str] | None = None, config: str | None = None) -> int:
        arguments = self.parser().parse_args(argv)
        commands.log_to_stderr()
        try:
            found = _check_command(arguments.command, arguments.arguments)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        try:
            asked = [] if arguments.offline else asyncio.run(needs.answers(found.questions))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        return needs.report([*found.checks, *asked], len(found.questions) if arguments.offline else 0)

    def parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"mira {self.name}", description=self.description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--offline", action="store_true", help="ask no site, account, endpoint or judge")
        parser.add_argument("command", metavar="COMMAND", help="the command to check, for example evaluate or demo")
        parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="its arguments")
        return parser


def _check_command(name: str, argv: Sequence[str]) -> Needs:
    entry = cli.entry(name)
    found = Needs()
    with found.attempt(name):
        command = cli.load(name)
        tree, origins = command.gather(command.parser().parse_intermixed_args(argv), entry.config)
        settings = _check(command, tree, origins, found)
        if isinstance(settings, stages.PhasesConfig):
            _check_stages(settings, found)
    return found


def _check(command: Command, tree: dict[str, Any], origins: Origins, found: Needs) -> Any:
    """Adds the checks of one command. Returns its config, None if that can't be built."""
    settings, errors = configs.build_leniently(command.config_type, tree)
    for error in errors:
        found.failed(error.given_by(error.origin or origins.of(error.path)))
    refused = [error.path for error in errors]
    if settings is not None:
        for key, remedy in command.unset(settings):
            if key not in refused:
                found.required(key, remedy)
        if command.needs:
            command.needs(settings, found)
    return settings


def _check_stages(config: stages.PhasesConfig, found: Needs) -> None:
    """Adds the checks of each stage, with the stage's name before each key."""
    found.output("out", config.out)
    found.checks += [Check("needs", "missing", missing) for missing in phases.missing_needs(config)]
    produced = [str(Path(config.out) / stage_records.RECORDS)]
    alternatives: dict[str, int] = {}
    asked: list[tuple[str, Any]] = []
    for stage in stages.expand(config):
        of_stage = Needs(produced, config.out, alternatives)
        with of_stage.attempt():
            _check_stage(stage, config, of_stage)
        produced += of_stage.outputs
        found.checks += [_within(stage.name, check) for check in of_stage.checks]
        for one in of_stage.questions:
            if (one.key, one.about) not in asked:
                asked.append((one.key, one.about))
                found.questions.append(dataclasses.replace(one, key=f"{stage.name}: {one.key}"))


def _check_stage(stage: stages.Stage, config: stages.PhasesConfig, found: Needs) -> None:
    command = _command_of(stage.module)
    values = dict(stage.set)
    served = ""
    if stage.serve:
        _check(*_server(stage.serve, config), found)
        # The address is known when the stage runs.
        values[stage.serve.url] = "http://127.0.0.1:1/v1"
        served = stage.serve.url.rpartition(".")[0]
    _check(command, *_gather(command, stage.configs, values), found)
    found.questions = [one for one in found.questions if one.key != served]


def _server(serve: stages.Serve, config: stages.PhasesConfig) -> tuple[Command, dict[str, Any], Origins]:
    """The server of a stage. Its port is chosen when it starts."""
    command = _command_of("mira_jax.serve")
    given = [stages.fill_values(config.serve_config, config)] if config.serve_config else []
    return command, *_gather(command, given, {"model": serve.model, "port": 0})


def _gather(command: Command, paths: Sequence[str], values: Mapping[str, Any]) -> tuple[dict[str, Any], Origins]:
    overrides = [(stage_processes.override(key, value), "set by the stage") for key, value in values.items()]
    return configs.gather(command.config_type, paths, overrides)


def _command_of(module: str) -> Command:
    """The command of a stage. Raises UserError."""
    for name, entry in cli.COMMANDS.items():
        if entry.module == module:
            return cli.load(name)
    try:
        command = importlib.import_module(module).COMMAND
    except (ImportError, AttributeError) as error:
        raise UserError(f"{module} has no COMMAND ({error}), so its settings are not checked") from None
    return command


def _within(stage: str, check: Check) -> Check:
    return dataclasses.replace(check, key=f"{stage}: {check.key}" if check.key else stage)


COMMAND = Preflight("preflight", lambda config: 0, PreflightConfig, __doc__)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
