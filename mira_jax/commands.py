"""Common parts of all commands: a config class, flags, and a function that takes the config."""

import argparse
import dataclasses
import logging
import operator
import sys
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from mira_jax import config as configs
from mira_jax import extras, schema
from mira_jax.errors import ConfigError, UserError
from mira_jax.needs import Needs

PACKAGES = ("mira_jax", "rollouts")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, run by `mira NAME` or by `python -m` with its module."""

    name: str
    main: Callable[[Any], int | None]
    """Takes the config and returns the exit code, None for 0."""
    config_type: type
    description: str | None
    flags: tuple[str, ...] = ()
    """Top-level keys that are also flags. `out` defines `--out DIR`, which is equivalent to `--set out=DIR`. A flag for a
    boolean key takes no value."""
    positional: tuple[str, ...] = ()
    """Top-level keys that are also positional arguments."""
    required: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Keys that must be set, although they have a default, to the remedy that is shown if one is not."""
    needs: Callable[[Any, Needs], None] | None = None
    """Adds what the command needs before it starts, for `mira preflight`."""

    def run(self, argv: Sequence[str] | None = None, config: str | None = None) -> int:
        """Reads the config, calls `main` and returns the exit code. A `UserError` is printed as one message, with exit code 2.

        Args:
            argv: the arguments without the program name. Default: those of this process.
            config: the config file to read when `--config` is not given.
        """
        arguments = self.parser().parse_intermixed_args(argv)
        log_to_stderr()
        try:
            if "rollouts" in sys.modules:
                extras.refuse_foreign_rollouts()
            tree, origins = self.gather(arguments, config)
            with origins.named():
                settings = configs.build(self.config_type, tree)
                if arguments.print_config:
                    print(configs.to_yaml(settings), end="")
                    return 0
                for key, remedy in self.unset(settings):
                    raise ConfigError(key, remedy)
                return self.main(settings) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; run the same command again to resume", file=sys.stderr)
            return 130

    def gather(self, arguments: argparse.Namespace, config: str | None = None) -> tuple[dict[str, Any], configs.Origins]:
        """Merges the config file and the overrides of a command line. `config`: as in `run`. Raises UserError."""
        overrides = [(text, "--set") for text in arguments.set]
        for name in (*self.positional, *self.flags):
            value = getattr(arguments, "flag_" + name)
            if value is not None:
                overrides.append((f"{name}={value}", name.upper() if name in self.positional else _flag(name)))
        return configs.gather(self.config_type, arguments.config or ([config] if config else []), overrides)

    def unset(self, settings: Any) -> list[tuple[str, str]]:
        """The required keys that are not set, and the remedy of each."""
        return [(key, remedy) for key, remedy in self.required.items() if not operator.attrgetter(key)(settings)]

    def parser(self) -> argparse.ArgumentParser:
        parser = _CommandParser(self.config_type, self.required, prog=f"mira {self.name}", description=self.description)
        parser.add_argument(
            "--config",
            metavar="YAML",
            action="append",
            help="config file with the keys that differ from the defaults; may be given several times, a later file takes precedence",
        )
        parser.add_argument(
            "--set",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="set one key, with dots between levels; may be given several times",
        )
        parser.add_argument(
            "--print-config", action="store_true", help="print the complete config as YAML, in the form that --config reads, and exit"
        )
        kinds = typing.get_type_hints(self.config_type)
        for name in self.positional:
            parser.add_argument("flag_" + name, metavar=name.upper(), nargs="?", help=f"short for --set {name}={name.upper()}")
        for name in self.flags:
            value = {"action": "store_const", "const": "true"} if kinds[name] is bool else {"metavar": "VALUE"}
            parser.add_argument(_flag(name), dest="flag_" + name, help=f"short for --set {name}={value.get('const', 'VALUE')}", **value)
        return parser


class _CommandParser(argparse.ArgumentParser):
    """An argument parser whose help ends with the keys of the config."""

    def __init__(self, config_type: type, required: Collection[str], **options: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self._config_type, self._required = config_type, required

    def format_help(self) -> str:
        return super().format_help() + "\n" + schema.help_text(self._config_type, required=self._required)


class _Stderr(logging.Handler):
    """Writes each record to the current `sys.stderr`, above a progress bar if one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
        sys.stderr.flush()


def log_to_stderr() -> None:
    """Prints the log messages of our packages to stderr as plain lines. The settings of other libraries are unchanged."""
    for name in PACKAGES:
        log = logging.getLogger(name)
        log.handlers = [_Stderr()]
        log.setLevel(logging.INFO)
        log.propagate = False


def flags_of(command: Command) -> list[str]:
    """All flags of the command."""
    return [flag for action in command.parser()._actions for flag in action.option_strings if flag.startswith("--")]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
