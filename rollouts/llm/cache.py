"""Answers of models and of other services on disk, so that a question that was asked before costs nothing."""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from mira_jax.errors import UserError

Answer = TypeVar("Answer")
VERSION = 1
"""Version of the file. Another one is refused."""
SECONDS = 60.0
"""Maximum seconds to wait for another process that writes."""


def question_key(question: Any) -> str:
    """SHA-256 of a question as JSON, in hexadecimal. `question` must contain all that determines the answer."""
    return hashlib.sha256(json.dumps(question, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class AnswerCache(Generic[Answer]):
    """A SQLite database of answers by the key of their question. Several processes may use it at once. An answer is written in one
    transaction, so a killed process leaves no part of one."""

    def __init__(self, path: Path | None, form: type[Answer]):
        """Opens the database, and creates it if there is none. Without a path, it is in memory. `form`: the type of an answer.

        Raises:
            UserError: not a database of this version, or it cannot be written.
        """
        self.path, self._form = path or Path(":memory:"), form
        with self._errors():
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=SECONDS, isolation_level=None)
        try:
            with self._errors():
                self._prepare()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def get(self, key: str) -> Answer | None:
        """Raises UserError if the database is damaged."""
        with self._errors():
            row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        try:
            return msgspec.json.decode(row[0], type=self._form) if row else None
        except msgspec.MsgspecError as error:
            raise UserError(f"{self.path}: a damaged answer ({error}); delete the file: the questions are then asked again") from None

    def put(self, key: str, answer: Answer) -> None:
        """Raises UserError if the database cannot be written."""
        with self._errors():
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, msgspec.json.encode(answer)))

    def _prepare(self) -> None:
        # An empty file has version 0 and no table.
        self._database.execute("BEGIN IMMEDIATE")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables and not version:
            self._database.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, answer BLOB NOT NULL) WITHOUT ROWID")
            self._database.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise UserError(f"{self.path}: not a cache of answers of version {VERSION} (its version is {version}); name another file")
        self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{self.path}: cannot be used as a cache of answers ({error}); name another file") from None
