"""Typed configs from YAML, with strict checks and overrides.

A config is a dataclass in which every key with a sensible default has one. The YAML file contains the keys that differ from
the defaults. The annotation of a key declares its choices with `Literal` and its range with `msgspec.Meta`. `__post_init__`
checks conditions that involve several keys, and raises `ConfigError`.
"""

import contextlib
import dataclasses
import difflib
import math
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import yaml
from msgspec import Meta

from mira_jax import schema
from mira_jax.errors import ConfigError, UnknownKeyError, UserError, UserErrors
from mira_jax.files import is_url

Config = TypeVar("Config")
WEB = ("http", "https", "ws", "wss", "ray")
"""URL schemes that keys may contain: for sites, endpoints and a Ray cluster."""

Natural = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
ProperFraction = Annotated[float, Meta(ge=0, lt=1)]
OpenFraction = Annotated[float, Meta(gt=0, lt=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Level = Annotated[float, Meta(gt=0, lt=1)]
"""The level of a confidence interval."""


class Origins:
    """The origin of each value of a config: `--set` or a flag, a file, or the defaults."""

    def __init__(self, config_type: type, files: Sequence[tuple[str | Path, Mapping[str, Any]]], overrides: Mapping[str, str]):
        """`files` are the paths and their contents, the last of which takes precedence. `overrides` maps keys to the flags that set
        them."""
        self._config_type, self._files, self._overrides = config_type, files, overrides

    def of(self, key: str) -> str:
        """The flag or the file that gave the value; "" for a default."""
        for given, flag in reversed(self._overrides.items()):
            if key == given or key.startswith(f"{given}.") or given.startswith(f"{key}."):
                return flag
        return next((str(path) for path, tree in reversed(self._files) if _gives(tree, key)), "")

    def _knows(self, key: str) -> bool:
        """Whether `key` is a key of the config, or below one. A message about a group of keys is not about a single value."""
        paths = [known.path.split(".") for known in schema.keys(self._config_type)]
        parts = key.split(".")
        return any(
            all(one in (part, "NAME", "N") for one, part in zip(path, parts, strict=False)) and len(path) <= len(parts) for path in paths
        )

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Adds the origin of the value to an error raised in this context: a ConfigError, or an error whose message begins with a key."""
        try:
            yield
        except ConfigError as error:
            raise self._with_origin(error) from None
        except UserErrors as error:
            raise UserErrors([self._with_origin(one) for one in error.errors]) from error
        except UserError as error:
            if (named := self._with_origin(error)) is error:
                raise
            raise named from error

    def _with_origin(self, error: UserError) -> UserError:
        if isinstance(error, ConfigError):
            return error if error.origin else error.given_by(self.of(error.path))
        key, colon, problem = str(error).partition(": ")
        return ConfigError(key, problem, origin=self.of(key)) if colon and self._knows(key) else error


def load(config_type: type[Config], path: str | Path | Sequence[str | Path] | None = None, overrides: Sequence[str] = ()) -> Config:
    """Builds a `config_type` from YAML files and `KEY=VALUE` overrides, in which dots separate the levels.

    Args:
        path: a file, or several; see `gather`.

    Raises:
        UserError: the file is missing, the YAML is invalid, a key is unknown (the nearest known key is named), or a value is
            wrong. The message names its origin: the file, `--set` or a default.
    """
    paths = [path] if isinstance(path, str | Path) else path or ()
    tree, origins = gather(config_type, paths, [(override, "--set") for override in overrides])
    with origins.named():
        return build(config_type, tree)


def gather(config_type: type, paths: Sequence[str | Path], overrides: Sequence[tuple[str, str]] = ()) -> tuple[dict[str, Any], Origins]:
    """Merges the files and the overrides.

    Args:
        paths: each file takes precedence over those before it. Mappings are merged key by key; any other value, such as a list, is
            replaced.
        overrides: pairs of `KEY=VALUE` and the flag that messages name for it.
    """
    files = [(path, read(Path(path))) for path in paths]
    tree: dict[str, Any] = {}
    for _, written in files:
        _merge(tree, written)
    flags: dict[str, str] = {}
    for override, flag in overrides:
        _set(tree, override)
        key = override.partition("=")[0]
        flags.pop(key, None)
        flags[key] = flag
    return tree, Origins(config_type, files, flags)


def build(config_type: type[Config], tree: dict[str, Any], source: str = "", prefix: str = "") -> Config:
    """Converts plain data to `config_type`. Raises the same UserErrors as `load`.

    Args:
        source: the origin of the data, for messages.
        prefix: the prefix of keys in messages, with a trailing dot.
    """
    try:
        _refuse_stores(tree, prefix)
        return _make(config_type, tree, prefix)
    except ConfigError as error:
        raise error.given_by(source) if source and not error.origin else error from None


def build_leniently(config_type: type[Config], tree: Mapping[str, Any]) -> tuple[Config | None, list[ConfigError]]:
    """As `build`, but finds all errors. Values that are refused are replaced by their defaults; where a condition on several keys is
    not met, the values are kept.

    Returns:
        The config, None if a required key is missing, and the errors.
    """
    errors: list[ConfigError] = []
    with _recorded(errors):
        _refuse_stores(tree, "")
    with _recorded(errors):
        return _make(config_type, dict(tree), "", errors), errors
    return None, errors


@contextlib.contextmanager
def _recorded(errors: list[ConfigError] | None) -> Iterator[None]:
    """Records a ConfigError in `errors`. If that is None, the error is raised."""
    try:
        yield
    except ConfigError as error:
        if errors is None:
            raise
        errors.append(error)


def to_tree(config: Any) -> dict[str, Any]:
    """The config as plain data, defaults included, as it is saved with every run."""
    # msgspec.to_builtins leaves out the defaults of dataclasses that msgspec constructed itself.
    return msgspec.to_builtins(dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config)


def to_yaml(config: Any) -> str:
    """The complete config as YAML, defaults included, in the form that `load` reads."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises the same UserErrors as `load`."""
    path = find(path)
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


def find(path: Path) -> Path:
    """`path` if it exists, otherwise the packaged file of that name, so that `configs/shop/sft.yaml` works in any folder."""
    packaged = Path(__file__).parent / path
    return packaged if not path.exists() and path.parts[:1] == ("configs",) and packaged.is_file() else path


def _gives(tree: Any, key: str) -> bool:
    """Whether the content of a file contains `key`, or a value in its place."""
    for part in key.split("."):
        if isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, dict) and (part in tree or (part.isdigit() and int(part) in tree)):
            tree = tree[part] if part in tree else tree[int(part)]
        else:
            return not isinstance(tree, dict | list) and tree is not None
    return True


def _merge(tree: dict[Any, Any], other: Mapping[Any, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = _copy(value)


def _copy(tree: Any) -> Any:
    """Copies the containers, so that overrides do not change the original."""
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree


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


def _make(config_type: Any, tree: dict[Any, Any], prefix: str, errors: list[ConfigError] | None = None) -> Any:
    """Builds a config class from its keys. `errors`: records the errors, see `build_leniently`."""
    fields = {field.name: field for field in dataclasses.fields(config_type) if field.init}
    hints, values = schema.hints_of(config_type), {}
    for key in tree:
        with _recorded(errors):
            if key not in fields:
                near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.0)
                raise UnknownKeyError(str(key), near[0] if near else "nothing", prefix)
    for key, item in tree.items():
        with _recorded(errors):
            if key in fields:
                values[key] = _value(hints[key], item, prefix + key, errors)
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(name, f"missing; give {schema.describe(hints[name])}", prefix)
    with _recorded(errors):
        _check_options(config_type, values, prefix, errors)
    with _recorded(errors):
        return _instantiate(config_type, values, prefix)
    made = object.__new__(config_type)
    for field in dataclasses.fields(config_type):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        object.__setattr__(made, field.name, values.get(field.name, default))
    return made


def _instantiate(config_type: Any, values: dict[str, Any], prefix: str) -> Any:
    try:
        return config_type(**values)
    except ConfigError as error:
        raise error.below(prefix) from None
    except (UserError, ValueError) as error:
        # The message may already begin with the full path of its key.
        path, colon, problem = str(error).partition(": ")
        named = colon and prefix and path.startswith(prefix)
        raise (ConfigError(path.removeprefix(prefix), problem, prefix) if named else ConfigError("", str(error), prefix)) from None


def _check_options(config_type: Any, values: dict[str, Any], prefix: str, errors: list[ConfigError] | None) -> None:
    """Refuses invalid options of a class that is selected by name, before the class is instantiated."""
    for field in dataclasses.fields(config_type):
        options = schema.options_in(schema.hints_of(config_type)[field.name])
        if not options or not options.chosen_by:
            continue
        given = dict(values.get(field.name, {} if field.default_factory is dataclasses.MISSING else field.default_factory()))
        siblings = {one.name: one.default for one in dataclasses.fields(config_type)} | values
        chosen: Any = options.classes
        for key in options.chosen_by:
            if isinstance(chosen, str):
                break
            name = siblings.get(key) if options.chosen_by_siblings else given.pop(key, options.defaults.get(key))
            path = key if options.chosen_by_siblings else f"{field.name}.{key}"
            if options.attribute and isinstance(name, str) and ":" in name:
                try:
                    schema.load_user_class(name, options.attribute)
                except ValueError as error:
                    raise ConfigError(path, str(error), prefix) from None
                chosen = name
            elif not isinstance(name, str) or name not in chosen:
                own = ", nor the module:Class of your own" if options.attribute else ""
                raise ConfigError(path, f"{name!r} is none of {', '.join(chosen)}{own}", prefix)
            else:
                chosen = chosen[name]
        _make(options.config_class(chosen), given, f"{prefix}{field.name}.", errors)


def _value(annotation: Any, value: Any, key: str, errors: list[ConfigError] | None) -> Any:
    """Converts one value to its annotation. Raises ConfigError with the path of the invalid part."""
    plain = schema.strip(annotation)
    group, _ = schema.group_in(annotation)
    if group and value is not None:
        if plain is group:
            if not isinstance(value, dict):
                raise _wrong(annotation, value, key)
            return _make(group, value, f"{key}.", errors)
        container = typing.get_origin(plain)
        if container is dict and isinstance(value, dict):
            return {str(name): _value(group, item, f"{key}.{name}", errors) for name, item in value.items()}
        if container in (list, tuple) and isinstance(value, list | tuple):
            return container(_value(group, item, f"{key}.{place}", errors) for place, item in enumerate(value))
        raise _wrong(annotation, value, key)
    try:
        made = msgspec.convert(value, annotation, strict=False)
    except msgspec.ValidationError:
        raise _wrong(annotation, value, key) from None
    if isinstance(made, float) and not math.isfinite(made):
        raise ConfigError(key, f"{value}; it must be a finite number")
    return made


def _wrong(annotation: Any, value: Any, key: str) -> ConfigError:
    """Describes why a value does not convert. For a list or mapping, describes its first invalid item."""
    plain = schema.strip(annotation)
    container, arguments = typing.get_origin(plain), typing.get_args(plain)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if container in (list, tuple, dict) and isinstance(value, dict) == (container is dict):
        for name, item in items:
            if not _converts(item, arguments[container is dict]):
                return _wrong(arguments[container is dict], item, f"{key}.{name}")
    choices, limits = schema.choices_of(annotation), schema.range_of(annotation)
    if choices and not isinstance(value, dict | list):
        return ConfigError(key, f"{value!r} is none of {', '.join(choices)}")
    if limits and _converts(value, plain):
        return ConfigError(key, f"{msgspec.convert(value, plain, strict=False)}; it must be {limits}")
    return ConfigError(key, f"{value!r}; expected: {schema.describe(annotation)}")


def _converts(value: Any, annotation: Any) -> bool:
    try:
        msgspec.convert(value, annotation, strict=False)
    except msgspec.ValidationError:
        return False
    return True


def _refuse_stores(value: Any, key: str) -> None:
    """Refuses addresses of object stores: every folder must be on a mounted file system."""
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_stores(item, f"{key}{name}.")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _refuse_stores(item, f"{key}{place}.")
    elif isinstance(value, str) and is_url(value) and value.partition(":")[0].lower() not in WEB:
        raise ConfigError(
            key.rstrip("."),
            f"{value!r} is the address of a store; only paths of mounted file systems are read and written: mount the store, or copy the "
            "folder, and give its path",
        )


def same(one: Any, other: Any) -> bool:
    """Whether two config trees are equal. Different spellings of the same path count as equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, str) and isinstance(other, str) and one and other and "\0" not in one + other:
        return one == other or os.path.realpath(one) == os.path.realpath(other)
    return one == other
