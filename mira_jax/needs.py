"""What a command needs before it starts, and the checks of it: files, folders, environment variables, ports, services.

`mira preflight` and `mira evaluate --dry-run` run the checks and print them. A check writes nothing.
"""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from mira_jax.errors import ConfigError, UserError, UserErrors, first_line

OK, MISSING, FAILED = "ok", "missing", "failed"
SECONDS = 30.0
"""Maximum seconds of one question."""
LEAST_SPACE = 2**30
"""Free bytes that an output needs if its size is not known."""


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check: a line of the report."""

    key: str
    """The full key of the config, or the name of what is checked."""
    result: Literal["ok", "missing", "failed"]
    text: str
    """What was found. For missing and failed, the problem and its remedy."""

    def line(self) -> str:
        return f"{self.result:8} {self.key}: {self.text}" if self.key else f"{self.result:8} {self.text}"


@dataclasses.dataclass(frozen=True)
class Question:
    """One request to something outside of this process: a site, an account, an endpoint, a browser."""

    key: str
    ask: Callable[[contextlib.AsyncExitStack], Awaitable[str]]
    """Returns what was found, or raises UserError. Resources entered into the stack are closed when all questions are answered."""
    about: Any = None
    """What the question is about. Of several questions with the same key and equal `about`, the first is asked."""


class Needs:
    """Collects the checks of one command. Those that need no request run at once; questions wait for `answers`."""

    def __init__(self, produced: Sequence[str] = (), run: str = "", alternatives: dict[str, int] | None = None):
        """`produced`: paths that earlier commands will write. `run`: a folder that is checked already; outputs in it get no line if
        they are ok. `alternatives`: by path of the side tables that earlier commands will write, the likely tokens that they store; `mira
        score` adds its own."""
        self.alternatives = {} if alternatives is None else alternatives
        self._run = os.path.abspath(run) if run else None
        self.checks: list[Check] = []
        self.questions: list[Question] = []
        self.outputs: list[str] = []
        self._produced = [os.path.abspath(path) for path in produced]

    def ok(self, key: str, text: str) -> None:
        self.checks.append(Check(key, OK, text))

    def missing(self, key: str, text: str) -> None:
        self.checks.append(Check(key, MISSING, text))

    def is_produced(self, path: str | Path) -> bool:
        """Whether an earlier command writes this path, or a folder that contains it."""
        return any(_is_within(path, one) for one in self._produced)

    def required(self, key: str, remedy: str) -> None:
        self.missing(key, f"not set; {remedy}")

    def input(self, key: str, path: str | None) -> bool:
        """A file or folder to read. Returns whether it can be read now. A path that is not set needs no check."""
        if not path:
            return False
        if self.is_produced(path):
            self.ok(key, f"{path}: written by an earlier stage")
            return False
        if not os.path.exists(path):
            self.missing(key, f"{path}: no such file or folder; create it, or correct the path")
            return False
        if not os.access(path, os.R_OK):
            self.checks.append(Check(key, FAILED, f"{path}: no permission to read it"))
            return False
        self.ok(key, str(path))
        return True

    def shards(self, key: str, folder: str) -> None:
        """A folder of episodes to read."""
        if self.input(key, folder) and not any(Path(folder).glob("*.array_record")):
            self.checks.pop()
            self.missing(key, f"{folder}: contains no shards (*.array_record); name a folder written by mira collect or mira label")

    def output(self, key: str, path: str, size: int = LEAST_SPACE) -> None:
        """A file or folder to write. `size`: bytes that it is expected to need."""
        if not path:
            return
        self.outputs.append(path)
        place = next(one for one in (Path(path).absolute(), *Path(path).absolute().parents) if one.exists())
        folder = place if place.is_dir() else place.parent
        if place.is_file() and place != Path(path).absolute():
            self.checks.append(Check(key, FAILED, f"{path}: {place} is a file; choose another path"))
        elif not os.access(folder, os.W_OK | os.X_OK):
            self.checks.append(Check(key, FAILED, f"{path}: no permission to write in {folder}; choose another path"))
        elif (free := shutil.disk_usage(folder).free) < size:
            self.checks.append(
                Check(key, FAILED, f"{path}: {_gib(free)} of disk space free, {_gib(size)} needed; free some, or choose another disk")
            )
        elif not self._run or not _is_within(path, self._run):
            self.ok(key, f"{path}: {_gib(free)} of disk space free")

    def variable(self, key: str, name: str) -> None:
        """An environment variable, named by the key. Its value is never shown."""
        if not name:
            return
        if os.environ.get(name, "").strip():
            self.ok(key, f"the environment variable {name} is set")
        else:
            self.missing(key, f"the environment variable {name} is not set; export it")

    def port(self, key: str, host: str, port: int) -> None:
        """A port to listen on. 0 is any free port and needs no check."""
        if not port:
            return
        try:
            with socket.create_server((host, port)):
                self.ok(key, f"{host}:{port} is free")
        except (OSError, OverflowError) as error:
            self.checks.append(Check(key, FAILED, f"{host}:{port}: {first_line(error)}; choose another, or 0 for any free port"))

    @contextlib.contextmanager
    def attempt(self, key: str = "") -> Iterator[None]:
        """Records a UserError raised in this context, or the several in a UserErrors, as failed checks, each once."""
        try:
            yield
        except UserError as error:
            self.failed(error, key)

    def failed(self, error: UserError, key: str = "") -> None:
        failed = [_of(one, key) for one in (error.errors if isinstance(error, UserErrors) else [error])]
        self.checks += [check for check in failed if check not in self.checks]

    def ask(self, key: str, ask: Callable[[contextlib.AsyncExitStack], Awaitable[str]], about: Any) -> None:
        self.questions.append(Question(key, ask, about))


async def answers(questions: Iterable[Question], seconds: float = SECONDS) -> list[Check]:
    """Asks all questions concurrently. Each has `seconds` to answer."""
    async with contextlib.AsyncExitStack() as stack:
        return await asyncio.gather(*[_answer(question, stack, seconds) for question in questions])


async def _answer(question: Question, stack: contextlib.AsyncExitStack, seconds: float) -> Check:
    began = time.monotonic()
    try:
        text = await asyncio.wait_for(question.ask(stack), seconds)
        return Check(question.key, OK, f"{text} ({time.monotonic() - began:.1f} s)")
    except TimeoutError:
        return Check(question.key, FAILED, f"no answer within {seconds:g} s; check the address and the network")
    except UserError as error:
        return _of(error, question.key)
    except Exception as error:
        # The other checks are still reported if one of them has a defect.
        return Check(question.key, FAILED, f"{type(error).__name__}: {first_line(error)}")


def report(checks: Sequence[Check], unasked: int = 0) -> int:
    """Prints a line per check and a summary. Returns the exit code: 0 if all are ok, otherwise 2."""
    for check in checks:
        print(check.line())
    counts = {result: sum(check.result == result for check in checks) for result in (OK, MISSING, FAILED)}
    print(", ".join(f"{count} {result}" for result, count in counts.items()) + (f"; {unasked} questions not asked" if unasked else ""))
    sys.stdout.flush()
    return 2 if counts[MISSING] or counts[FAILED] else 0


def _of(error: UserError, key: str) -> Check:
    if isinstance(error, ConfigError) and error.path:
        origin = f" ({error.origin})" if error.origin else ""
        return Check(error.path + origin, FAILED, error.message().removeprefix(f"{error.path}: "))
    return Check(key, FAILED, str(error))


def _is_within(path: str | Path, folder: str) -> bool:
    path = os.path.abspath(path)
    return path == folder or path.startswith(folder + os.sep)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
