"""How every command reads its config, and how it fails."""

import argparse
import sys
import typing
from collections.abc import Callable, Sequence
from typing import TypeVar

from mira_jax.config import load
from mira_jax.errors import UserError

Config = TypeVar("Config")


def run(
    main: Callable[[Config], int | None],
    config_type: type[Config],
    description: str,
    flags: Sequence[str] = (),
    argv: Sequence[str] | None = None,
    positional: Sequence[str] = (),
) -> int:
    """Reads `--config` and `--set`, calls `main(config)` and returns the exit code.

    `flags` names top-level config fields that also get a flag of their own: `out` gives `--out DIR`,
    which means the same as `--set out=DIR`; a field that is true or false takes no value. `positional` names
    fields that are given by their place. A `UserError` is printed as one message, with exit code 2.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="YAML", help="what differs from the defaults")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one key, dots between levels; repeatable")
    kinds = typing.get_type_hints(config_type)
    for name in positional:
        parser.add_argument("flag_" + name, metavar=name.upper(), nargs="?", help=f"short for --set {name}={name.upper()}")
    for flag in flags:
        value = {"action": "store_const", "const": "true"} if kinds[flag] is bool else {"metavar": "VALUE"}
        parser.add_argument(
            "--" + flag.replace("_", "-"), dest="flag_" + flag, help=f"short for --set {flag}={value.get('const', 'VALUE')}", **value
        )
    arguments = parser.parse_intermixed_args(argv)
    overrides = list(arguments.set)
    overrides += [f"{name}={value}" for name in (*positional, *flags) if (value := getattr(arguments, "flag_" + name)) is not None]
    try:
        return main(load(config_type, arguments.config, overrides)) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
