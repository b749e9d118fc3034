"""Typed configs from YAML: strict, small, with overrides.

A config is a dataclass with a default for everything that has a good one. The YAML states what differs.
"""

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from mira_jax.errors import UserError
from mira_jax.files import is_url

Config = TypeVar("Config")
WEB = ("http", "https", "ws", "wss", "ray")
"""Schemes of addresses that keys may hold: of sites, endpoints and a Ray cluster."""


def load(config_type: type[Config], path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Builds a `config_type` from a YAML file and `KEY=VALUE` overrides, dots between levels.

    Raises:
        UserError: a missing file, YAML that does not parse, an unknown key (the nearest known one is
            named), or a value of the wrong type.
    """
    tree = read(Path(path)) if path else {}
    for override in overrides:
        _set(tree, override)
    return build(config_type, tree, source=str(path or "--set"))


def build(config_type: type[Config], tree: dict[str, Any], source: str = "config") -> Config:
    """Converts plain data to `config_type`. Raises UserError as `load` does; `source` names the origin."""
    _refuse_unknown(config_type, tree, source, prefix="")
    _refuse_stores(tree, source, prefix="")
    try:
        return msgspec.convert(tree, config_type, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(f"{source}: {error}") from None
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None


def to_tree(config: Any) -> dict[str, Any]:
    """The config as plain data, defaults included, as written beside every run."""
    # msgspec leaves out what it has not itself set: defaults of dataclasses that it made.
    return msgspec.to_builtins(dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config)


def to_yaml(config: Any) -> str:
    """The whole config, defaults included, as `load` reads it."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError as `load` does."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot read the config: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a config, which is YAML in UTF-8: {error}") from None
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values, not a {type(tree).__name__}")
    return tree


def _set(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected KEY=VALUE, for example optimizer.learning_rate=1e-6")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UserError(f"--set {override}: {parent!r} is a value, not a group of keys")
    try:
        tree[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        tree[last] = text


def _refuse_unknown(config_type: Any, tree: Any, source: str, prefix: str) -> None:
    """Walks dataclasses (also inside Optional, list and dict) beside the tree."""
    config_type = _strip_optional(config_type)
    origin, arguments = typing.get_origin(config_type), typing.get_args(config_type)
    if origin in (list, tuple) and isinstance(tree, list):
        for index, item in enumerate(tree):
            _refuse_unknown(arguments[0], item, source, f"{prefix}{index}.")
    elif origin is dict and isinstance(tree, dict):
        for key, item in tree.items():
            _refuse_unknown(arguments[1], item, source, f"{prefix}{key}.")
    elif dataclasses.is_dataclass(config_type) and isinstance(tree, dict):
        known = typing.get_type_hints(config_type)
        names = [field.name for field in dataclasses.fields(config_type)]
        for key, item in tree.items():
            if key not in names:
                near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)
                raise UserError(f"{source}: unknown key {prefix}{key!s}; did you mean {prefix}{near[0]}?")
            _refuse_unknown(known[key], item, source, f"{prefix}{key}.")


def _refuse_stores(value: Any, source: str, prefix: str) -> None:
    """No key takes the address of an object store: every folder is one of a mounted file system."""
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_stores(item, source, f"{prefix}{key}.")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_stores(item, source, f"{prefix}{index}.")
    elif isinstance(value, str) and is_url(value) and value.partition(":")[0].lower() not in WEB:
        raise UserError(
            f"{source}: {prefix.rstrip('.')}: {value!r} is the address of a store; only paths of mounted file systems are read and "
            "written: mount the store, or copy the folder, and give its path"
        )


def _strip_optional(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def same(one: Any, other: Any) -> bool:
    """Whether two trees of settings mean the same. The same path may be spelled in several ways."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, str) and isinstance(other, str) and one and other and "\0" not in one + other:
        return one == other or os.path.realpath(one) == os.path.realpath(other)
    return one == other
