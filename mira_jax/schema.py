"""The keys of a config class: path, type, range, choices, default and documentation.

`--help`, the messages about invalid values and shell completion are generated from this. Types are read with
`msgspec.inspect`, and the docstrings below attributes with `ast`. We considered tyro: it parses the command line itself, does
not read YAML files, and requires four more packages on browser hosts. msgspec's JSON schema contains neither the
documentation of attributes nor the paths of keys, so most of this module would still be needed.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import shutil
import textwrap
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec
import yaml

from mira_jax.errors import first_line


@dataclasses.dataclass(frozen=True)
class Options:
    """Marks a mapping whose keys are the fields of a class: `Annotated[dict[str, Any], Options({...})]`."""

    classes: Mapping[str, str | Mapping[str, str]]
    """Maps a name to `module:Class`, imported on demand, or to another such mapping."""
    chosen_by: tuple[str, ...] = ()
    """The keys whose values select the class, one per level of `classes`. Empty if there is only one class."""
    defaults: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Default values of the keys in `chosen_by`."""
    chosen_by_siblings: bool = False
    """Whether the keys in `chosen_by` are next to the mapping, not in it."""
    attribute: str = ""
    """The attribute of a chosen class that holds its config class. A user's own `module:Class` may then be chosen too. If empty, the
    chosen class is the config class."""

    def config_class(self, place: str) -> type:
        """The config class of a known place."""
        return getattr(load_class(place), self.attribute) if self.attribute else load_class(place)

    def places(self) -> Iterator[tuple[dict[str, str], str]]:
        """For every class, the values of `chosen_by` and the class that they select."""
        for name, place in self.classes.items():
            first = dict(zip(self.chosen_by[:1], [name], strict=False))
            if isinstance(place, str):
                yield first, place
            else:
                yield from (({**first, self.chosen_by[1]: other}, inner) for other, inner in place.items())


def load_class(place: str) -> type:
    """Imports a class. `place`: module:Class."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_user_class(place: str, attribute: str) -> type:
    """A class that a user names, as `module:Class`. Raises ValueError if there is none, or its `attribute` is no dataclass."""
    module = place.partition(":")[0]
    try:
        found = load_class(place)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{place!r} can't be imported ({first_line(error)}); give module:Class, and install {module or 'its package'} "
            "or put its folder in PYTHONPATH"
        ) from error
    if not dataclasses.is_dataclass(getattr(found, attribute, None)):
        raise ValueError(f"{place!r} has no dataclass {attribute}; give it one, whose fields are its options")
    return found


@dataclasses.dataclass(frozen=True)
class Key:
    """A key as shown by `--help`."""

    path: str
    """The full path. NAME stands for a key chosen by the user, and N for an index of a list."""
    kind: str
    default: str
    """The default as YAML. Empty if the key is required."""
    doc: str = ""
    choices: tuple[str, ...] = ()
    when: str = ""
    """The choices for which the key exists, for example recipe.name=sft."""


def keys(config_type: type) -> list[Key]:
    """All keys of a config class, each group before its members."""
    return list(_keys(config_type, "", None, ""))


def _keys(config_type: type, prefix: str, instance: Any, when: str) -> Iterator[Key]:
    hints, docs = hints_of(config_type), docs_of(config_type)
    if instance is not None and instance == config_type():
        # Uses the defaults of the fields, because `__post_init__` may have changed the values of an instance.
        instance = None
    for field in dataclasses.fields(config_type):
        path, annotation = prefix + field.name, hints[field.name]
        value = getattr(instance, field.name, _default(field))
        inner, suffix = group_in(annotation)
        default = "" if value is dataclasses.MISSING else _yaml(value, inner is not None)
        if not (inner and not suffix and value is not None):
            yield Key(path, describe(annotation), default, docs.get(field.name, ""), choices_of(annotation), when)
        if inner:
            below = value if dataclasses.is_dataclass(value) else None
            yield from _keys(inner, f"{path}.{suffix}", below, when)
        if options := options_in(annotation):
            yield from _option_keys(options, path, when, value if isinstance(value, dict) else {})


def _option_keys(options: Options, path: str, when: str, given: Mapping[str, Any]) -> Iterator[Key]:
    parent = path.rpartition(".")[0] if options.chosen_by_siblings else path
    chooser = {name: ".".join(filter(None, (parent, name))) for name in options.chosen_by}
    tables = [((), options.classes)]
    tables += [((name,), table) for name, table in options.classes.items() if not isinstance(table, str)]
    for outer, table in tables if not options.chosen_by_siblings else ():
        if options.chosen_by:
            key = options.chosen_by[len(outer)]
            condition = " ".join(f"{chooser[one]}={name}" for one, name in zip(options.chosen_by, outer, strict=False))
            kind, default = "one of " + ", ".join(table), given.get(key, options.defaults.get(key, ""))
            yield Key(chooser[key], kind, default, f"Chooses the other keys of {path}.", tuple(table), condition or when)
    for chosen, place in options.places():
        try:
            found = options.config_class(place)
        except ImportError:
            continue
        yield from _keys(found, f"{path}.", None, " ".join(f"{chooser[key]}={name}" for key, name in chosen.items()) or when)


@functools.cache
def hints_of(config_type: type) -> dict[str, Any]:
    """The annotations of the class's fields, with metadata."""
    return typing.get_type_hints(config_type, include_extras=True)


@functools.cache
def docs_of(config_type: type) -> dict[str, str]:
    """The docstrings of the attributes of a class and its base classes. Empty if the source is not available."""
    docs: dict[str, str] = {}
    for base in reversed(config_type.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError):
            continue
        for statement, following in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


def group_in(annotation: Any) -> tuple[type | None, str]:
    """The config class in an annotation, or in the items of a list or the values of a mapping, and the placeholder of the item
    in the path."""
    annotation = strip(annotation)
    if dataclasses.is_dataclass(annotation):
        return annotation, ""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (list, tuple) and dataclasses.is_dataclass(strip(arguments[0])):
        return strip(arguments[0]), "N."
    if origin is dict and dataclasses.is_dataclass(strip(arguments[1])):
        return strip(arguments[1]), "NAME."
    return None, ""


def options_in(annotation: Any) -> Options | None:
    return next((mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Options)), None)


def strip(annotation: Any) -> Any:
    """The annotation without metadata and without `| None`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return strip(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
        return strip(rest[0]) if len(rest) == 1 else annotation
    return annotation


def describe(annotation: Any) -> str:
    """Describes the type and its range in words."""
    inner, suffix = group_in(annotation)
    if inner:
        group = {"": "group", "N.": "list of groups", "NAME.": "mapping of names to groups"}[suffix]
        return group + (" or null" if _allows_null(annotation) else "")
    if options_in(annotation):
        return "group"
    if typing.get_origin(strip(annotation)) is typing.Literal:
        # msgspec sorts the values. This keeps the order of the annotation.
        return f"one of {', '.join(choices_of(annotation))}" + (" or null" if _allows_null(annotation) else "")
    return _words(msgspec.inspect.type_info(annotation))


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The values that a key accepts, if there are few."""
    plain = strip(annotation)
    if typing.get_origin(plain) is typing.Literal:
        return tuple(str(value) for value in typing.get_args(plain))
    return ("true", "false") if plain is bool else ()


def range_of(annotation: Any) -> str:
    """For example "at least 0 and below 1". Empty if the range is unlimited."""
    return _range(msgspec.inspect.type_info(annotation))


def _allows_null(annotation: Any) -> bool:
    return type(None) in typing.get_args(annotation)


def _words(info: Any) -> str:
    words = _kind(info)
    return ", ".join(filter(None, (words, _range(info))))


def _kind(info: Any) -> str:
    inspect_ = msgspec.inspect
    match info:
        case inspect_.IntType():
            return "integer"
        case inspect_.FloatType():
            return "number"
        case inspect_.BoolType():
            return "true or false"
        case inspect_.StrType():
            return "string"
        case inspect_.NoneType():
            return "null"
        case inspect_.LiteralType():
            return "one of " + ", ".join(map(str, info.values))
        case inspect_.ListType() | inspect_.VarTupleType():
            return f"list of {_plural(info.item_type)}"
        case inspect_.DictType():
            return f"mapping of names to {_plural(info.value_type)}"
        case inspect_.UnionType():
            ordered = sorted(info.types, key=lambda one: isinstance(one, inspect_.NoneType))
            return " or ".join(_kind(one) for one in ordered)
        case _:
            return "any value"


def _plural(info: Any) -> str:
    words = _words(info)
    for singular in ("integer", "number", "string", "list"):
        if words.startswith(singular):
            return words.replace(singular, singular + "s", 1)
    return "any values" if words == "any value" else words


def _range(info: Any) -> str:
    if isinstance(info, msgspec.inspect.UnionType):
        return next(filter(None, map(_range, info.types)), "")
    bounds = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
    parts = [f"{words} {bound:g}" for name, words in bounds if (bound := getattr(info, name, None)) is not None]
    if least := getattr(info, "min_length", None):
        parts.append(f"at least {least} of them")
    return " and ".join(parts)


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _yaml(value: Any, group: bool) -> str:
    if group and value and not isinstance(value, dict | list | tuple):
        return ""
    plain = msgspec.to_builtins(value)
    text = yaml.safe_dump(list(plain) if isinstance(plain, tuple) else plain, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def help_text(config_type: type, width: int | None = None, required: Collection[str] = ()) -> str:
    """The list of all keys, shown at the end of a command's `--help`. `required`: keys that must be set although they have a default."""
    width = min(width or shutil.get_terminal_size().columns, 120)
    lines = ["keys, for --set KEY=VALUE and, nested, for the YAML of --config:"]
    when = ""
    for key in keys(config_type):
        if key.when != when:
            when = key.when
            lines += ["", f"  with {when}:"] if when else [""]
        indent = 4 if when else 2
        default = "required" if key.path in required or not key.default else f"default {key.default}"
        lines.append(" " * indent + f"{key.path}  ({key.kind}; {default})")
        margin = " " * (indent + 4)
        lines += textwrap.wrap(key.doc, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
    return "\n".join(lines) + "\n"
