"""Facts: the changeable attributes of a site by name, and their differences from the initial state."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from mira_arena.sites.state import State

Sources = Sequence[tuple[str, str, tuple[str, ...]]]
"""Each source is an SQL expression that names a row, its table, its attributes."""
AnyState = TypeVar("AnyState", bound=State)


def read(database: sqlite3.Connection, sources: Sources, nothing: tuple = ("",)) -> dict[str, str]:
    """Reads all facts, such as `review 312 status` to `pending`. Attributes with a value in `nothing` are left out."""
    found = {}
    for subject, table, attributes in sources:
        for name, *values in database.execute(f"SELECT {subject}, {', '.join(attributes)} FROM {table}"):
            for attribute, value in zip(attributes, values, strict=True):
                if value not in nothing:
                    found[f"{name} {attribute}"] = str(value).replace("\n", " / ")
    return found


def initial(make_state: Callable[[int], AnyState], read_facts: Callable[[AnyState], dict[str, str]], seed: int) -> dict[str, str]:
    """The facts of the initial state."""
    state = make_state(seed)
    try:
        return read_facts(state)
    finally:
        state.close()


def change(fact: str, value: str) -> str:
    """Formats a line of the list of changes: `review 312 status: deleted`."""
    return f"{fact}: {value or 'none'}"


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Returns a line for each fact that differs, ordered by name."""
    return [change(fact, now.get(fact, "")) for fact in sorted(before.keys() | now.keys()) if before.get(fact) != now.get(fact)]
