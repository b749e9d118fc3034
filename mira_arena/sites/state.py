"""The state of one site in one episode: an SQLite database in memory."""

import sqlite3
from collections.abc import Callable
from typing import Any, Self

Row = sqlite3.Row


class Refused(Exception):
    """A form was rejected. The message is shown on the page."""


class State:
    """A database that starts as a copy of an image. Not thread-safe.

    Every site has a table `visit` with one row: the visitor, and the `notice` to show on the next page.
    """

    def __init__(self, image: bytes):
        """`image`: a database serialised by SQLite (see `make_image`)."""
        self._database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._database.deserialize(image)
        self._database.row_factory = sqlite3.Row

    def close(self) -> None:
        self._database.close()

    def copy(self) -> Self:
        """An independent copy. Reading its pages does not change the original."""
        copy = type(self).__new__(type(self))
        State.__init__(copy, self._database.serialize())
        copy.say("")
        return copy

    def snapshot(self) -> dict[str, Any]:
        """The data that milestones check, as plain data. Does not change the state."""
        raise NotImplementedError

    @property
    def version(self) -> int:
        """Number of rows changed since the connection was opened. While it stays the same, so does the snapshot."""
        return self._database.total_changes

    @property
    def visit(self) -> Row:
        return self._row("SELECT * FROM visit")

    def say(self, notice: str) -> None:
        """Shows `notice` on the next page."""
        self._do("UPDATE visit SET notice = ?", notice)

    def take_notice(self) -> str:
        notice = self.visit["notice"]
        if notice:
            self.say("")
        return notice

    def _all(self, query: str, *values: Any) -> list[Row]:
        return self._database.execute(query, values).fetchall()

    def _one(self, query: str, *values: Any) -> Row | None:
        return self._database.execute(query, values).fetchone()

    def _row(self, query: str, *values: Any) -> Row:
        """Returns the row of a query that always has exactly one."""
        row = self._one(query, *values)
        assert row is not None
        return row

    def _do(self, query: str, *values: Any) -> None:
        self._database.execute(query, values)


def make_image(schema: str, fill: Callable[[sqlite3.Connection], None]) -> bytes:
    """Creates a database with the tables of `schema`, fills it by `fill(database)`, and returns it as serialised by SQLite."""
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(schema)
        fill(database)
        database.commit()
        return database.serialize()
    finally:
        database.close()
