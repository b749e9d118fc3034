"""What the keys of a config class are: path, type, range, choices, default and documentation.

The text of `--help`, the messages about wrong values and shell completion are made from it. It reads types by
`msgspec.inspect` and the strings below attributes by `ast`. tyro was considered: it parses the command line itself, knows no YAML
file, and needs four more packages on browser hosts. msgspec's JSON schema lacks the attributes' documentation and the keys' paths,
so most of this module would be needed with it too.
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
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml

from mira_jax.errors import first_line


@dataclasses.dataclass(frozen=True)
class Options:
    """Marks a mapping whose keys are the fields of a class: `Annotated[dict[str, Any], Options({...})]`."""

    classes: Mapping[str, str | Mapping[str, str]]
    """Name to `module:Class`, imported when it is needed, or to a table of such names."""
    chosen_by: tuple[str, ...] = ()
    """The keys whose values are these names, one for each level of tables. Empty: there is one class."""
    defaults: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of the keys in `chosen_by`."""
    beside: bool = False
    """Those keys are next to the mapping, not in it."""
    attribute: str = ""
    """Where a chosen class keeps its config class; a user's own `module:Class` may then be chosen too. Empty: it is the config class."""

    def config_class(self, place: str) -> type:
        """The config class of a known place."""
        return getattr(load_class(place), self.attribute) if self.attribute else load_class(place)

    def places(self) -> Iterator[tuple[dict[str, str], str]]:
        """The values of `chosen_by` and the class that they choose, for all classes."""
        for name, place in self.classes.items():
            first = dict(zip(self.chosen_by[:1], [name], strict=False))
            if isinstance(place, str):
                yield first, place
            else:
                yield from (({**first, self.chosen_by[1]: other}, inner) for other, inner in place.items())


def load_class(place: str) -> type:
    """`place`: module:Class."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_own(place: str, attribute: str) -> type:
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
    """One key as `--help` shows it."""

    path: str
    """With NAME for a key that the user names, and N for a place in a list."""
    kind: str
    default: str
    """As YAML; empty if the key must be given."""
    doc: str = ""
    choices: tuple[str, ...] = ()
    when: str = ""
    """The choices that the key belongs to, for example recipe.name=sft."""


def keys(config_type: type) -> list[Key]:
    """All keys that a config class reads, groups before their members."""
    return list(_keys(config_type, "", None, ""))


def _keys(config_type: type, prefix: str, instance: Any, when: str) -> Iterator[Key]:
    hints, docs = hints_of(config_type), docs_of(config_type)
    if instance is not None and instance == config_type():
        # The fields' own defaults: `__post_init__` may have filled in others.
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
    parent = path.rpartition(".")[0] if options.beside else path
    chooser = {name: ".".join(filter(None, (parent, name))) for name in options.chosen_by}
    tables = [((), options.classes)]
    tables += [((name,), table) for name, table in options.classes.items() if not isinstance(table, str)]
    for outer, table in tables if not options.beside else ():
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
    """The annotations of its fields, with their metadata."""
    return typing.get_type_hints(config_type, include_extras=True)


@functools.cache
def docs_of(config_type: type) -> dict[str, str]:
    """The strings below the attributes of a class and of those that it inherits from. Empty where there is no source."""
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
    """The config class in an annotation, also as item of a list or value of a mapping, and what the path has for the item."""
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
    """Without its metadata, and without `| None`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return strip(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
        return strip(rest[0]) if len(rest) == 1 else annotation
    return annotation


def describe(annotation: Any) -> str:
    """The type and its range in words."""
    inner, suffix = group_in(annotation)
    if inner:
        group = {"": "group", "N.": "list of groups", "NAME.": "mapping of names to groups"}[suffix]
        return group + (" or null" if _allows_null(annotation) else "")
    if options_in(annotation):
        return "group"
    if typing.get_origin(strip(annotation)) is typing.Literal:
        # msgspec sorts the values.
        return f"one of {', '.join(choices_of(annotation))}" + (" or null" if _allows_null(annotation) else "")
    return _words(msgspec.inspect.type_info(annotation))


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The values that a key takes, if they are few."""
    plain = strip(annotation)
    if typing.get_origin(plain) is typing.Literal:
        return tuple(str(value) or "''" for value in typing.get_args(plain))
    return ("true", "false") if plain is bool else ()


def range_of(annotation: Any) -> str:
    """For example "at least 0 and below 1"; empty if there is none."""
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


def help_text(config_type: type, width: int | None = None) -> str:
    """All keys, as a command's `--help` ends."""
    width = min(width or shutil.get_terminal_size().columns, 120)
    lines = ["keys, for --set KEY=VALUE and, nested, for the YAML of --config:"]
    when = ""
    for key in keys(config_type):
        if key.when != when:
            when = key.when
            lines += ["", f"  with {when}:"] if when else [""]
        indent = 4 if when else 2
        default = f"default {key.default}" if key.default else "no default"
        lines.append(" " * indent + f"{key.path}  ({key.kind}; {default})")
        margin = " " * (indent + 4)
        lines += textwrap.wrap(key.doc, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
    return "\n".join(lines) + "\n"
