"""The state of one site in one episode: an SQLite database in memory."""

import sqlite3
from collections.abc import Callable
from typing import Any, Self

Row = sqlite3.Row


class Refused(Exception):
    """A form was refused; the message is shown on the page."""


class State:
    """A database that begins as a copy of an image. Not safe to use from two threads at once.

    Every site has a table `visit` of one row: who visits, and the `notice` that the next page will show.
    """

    def __init__(self, image: bytes):
        """`image`: a database as SQLite serialises it (see `make_image`)."""
        self._database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._database.deserialize(image)
        self._database.row_factory = sqlite3.Row

    def close(self) -> None:
        self._database.close()

    def copy(self) -> Self:
        """An independent copy: reading its pages leaves no trace in the original."""
        copy = type(self).__new__(type(self))
        State.__init__(copy, self._database.serialize())
        copy.say("")
        return copy

    def snapshot(self) -> dict[str, Any]:
        """What milestones are checked on, as plain data. Changes nothing."""
        raise NotImplementedError

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
        """The row of a query that always has one."""
        row = self._one(query, *values)
        assert row is not None
        return row

    def _do(self, query: str, *values: Any) -> None:
        self._database.execute(query, values)


def make_image(schema: str, fill: Callable[[sqlite3.Connection], None]) -> bytes:
    """A database with the tables of `schema`, filled by `fill(database)`, as SQLite serialises it."""
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(schema)
        fill(database)
        database.commit()
        return database.serialize()
    finally:
        database.close()
