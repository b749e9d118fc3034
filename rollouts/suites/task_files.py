"""Reads files of tasks that users write: JSON, JSON Lines, or a folder of both. Every task that is wrong is named with its file."""

import difflib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from mira_jax.errors import ConfigError, UserError, raise_all
from mira_jax.files import parse_json
from mira_jax.trajectories.tasks import PAGES
from rollouts.suites.base import to_address

MAX_BYTES = 64 * 2**20
"""Maximum size of a file of tasks."""
MAX_INTENT = 20_000
"""Maximum characters of an instruction. The longest of WebRL's has 5,907."""
MAX_ID = 200
MAX_HORIZON = 10_000
SHOWN = 20
"""Maximum number of wrong tasks that one message names."""
ENDINGS = (".json", ".jsonl")


class Identified(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Identified)
Record = TypeVar("Record", bound=msgspec.Struct)


def read_tasks(path: str, key: str, parse: Callable[[Any], Item | None]) -> dict[str, Item]:
    """The tasks by id, in the order of the files' names.

    Args:
        path: a file with a task, a list of tasks, or (`.jsonl`) a task per line; or a folder of such files.
        key: the option that names `path`.
        parse: reads one task. Returns None to leave it out. Raises ValueError if it is malformed.

    Raises:
        UserError: there are no tasks, or some are malformed or have the same id.
    """
    files = [Path(path)]
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).rglob("*") if file.suffix in ENDINGS)
    items: dict[str, Item] = {}
    where: dict[str, str] = {}
    errors: list[UserError] = []
    for file in files:
        for place, tree in _trees(file, key):
            try:
                item = parse(_sound(tree))
                if item is None:
                    continue
                if item.id in items:
                    raise ValueError(f"its id is also that of {where[item.id]}; give each task its own")
                items[item.id], where[item.id] = item, place
            except ValueError as error:
                errors.append(UserError(f"{place}: {error}"))
    if len(errors) > SHOWN:
        errors = [*errors[:SHOWN], UserError(f"{path}: {len(errors) - SHOWN} more tasks are wrong")]
    raise_all(errors)
    if not items:
        raise ConfigError(key, f"{path}: no tasks in it")
    return items


def _trees(file: Path, key: str) -> list[tuple[str, Any]]:
    """(where, task) of each task in a file. Raises UserError."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(key, f"{file}: larger than {MAX_BYTES >> 20} MiB; make it a folder of smaller files")
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(key, f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8, at byte {error.start}; save it in UTF-8") from None
    if file.suffix == ".jsonl":
        lines = [(f"{file}, line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        return [(_named(place, tree), tree) for place, tree in ((place, _parsed(place, line)) for place, line in lines)]
    tree = _parsed(str(file), text)
    if not isinstance(tree, list):
        return [(_named(str(file), tree), tree)]
    return [(_named(f"{file}, task {number} of {len(tree)}", one), one) for number, one in enumerate(tree, 1)]


def _parsed(place: str, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"{place}: not JSON: {error}") from None


def _named(place: str, tree: Any) -> str:
    """Adds the task's own id to its place, if it has one."""
    found = tree.get("task_id", tree.get("id")) if isinstance(tree, dict) else None
    return f"{place} (id {ascii(found)[:60]})" if isinstance(found, str | int) else place


def _sound(tree: Any) -> Any:
    """Raises ValueError for text that no file and no model can hold."""
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.object[error.start]!a} is half a character; a surrogate pair has two") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return tree


def convert(tree: Any, record: type[Record], unused: Collection[str] = ()) -> Record:
    """Reads a task. Raises ValueError.

    Args:
        unused: keys that are allowed and have no effect.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"not a task but {json.dumps(tree)[:60]}; a task is an object with an intent")
    known = {*record.__struct_fields__, *unused}
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(key[:MAX_ID], known, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown key {ascii(key)[1:-1][:60]}; did you mean {near}?")
    return msgspec.convert(tree, record)


def check_id(task_id: str | int) -> None:
    text = str(task_id)
    if not (text.isprintable() and 0 < len(text) <= MAX_ID and text == text.strip()):
        raise ValueError(f"the id {ascii(text)[:60]} is not 1 to {MAX_ID} printable characters, without a space at either end")


def check_intent(intent: str) -> None:
    if not intent.strip():
        raise ValueError("intent: empty; write the instruction")
    if len(intent) > MAX_INTENT:
        raise ValueError(f"intent: {len(intent):,} characters; at most {MAX_INTENT:,}")


def check_sites(sites: Collection[str], known: Collection[str], what: str) -> None:
    for site in sites:
        if site not in known:
            raise ValueError(f"the site {ascii(site)[1:-1][:60]} is not {what}; there are {', '.join(known) or 'none'}")


def check_url(key: str, url: str, addresses: Mapping[str, str]) -> None:
    """Refuses an address on none of the task's sites.

    Args:
        key: where the address stands in the task.
        addresses: placeholder to address, of the task's sites. An empty address is not known yet.
    """
    for one in url.split(PAGES):
        inside = any(address and (one == address or one.startswith((address + "/", address + "?"))) for address in addresses.values())
        if not inside and to_address(one, dict.fromkeys(addresses, "")) == one:
            raise ValueError(f"{key}: {one[:80]!r} is on none of the task's sites; begin it with {' or '.join(addresses)}")
