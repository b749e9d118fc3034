"""Starts child processes for code of a checkout, each in its own process group, with PATH as the only environment variable."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mira_jax.errors import UserError
from rollouts.errors import SiteError

START_SECONDS = 30.0
"""Maximum seconds until a server listens."""

_CHILD = Path(__file__).with_name("child.py")


class Child:
    """A running `child.py`. It writes no bytecode, so the checkout is not modified."""

    def __init__(self, process: asyncio.subprocess.Process):
        self._process = process
        self._ending = False

    @classmethod
    async def start(cls, python: str, folder: Path, *arguments: str) -> "Child":
        """Starts the child in `folder`. Raises UserError if the interpreter does not start."""
        try:
            process = await asyncio.create_subprocess_exec(
                python,
                "-B",
                str(_CHILD),
                *arguments,
                cwd=folder,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"suite.options.python: {python}: {error.strerror}") from None
        return cls(process)

    @property
    def pid(self) -> int:
        """Id of the process and of its group."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status. None while the process runs."""
        return self._process.returncode

    async def read_line(self, seconds: float) -> str:
        """Returns the next line that the child reports. Empty if it has ended. Raises TimeoutError."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), seconds)
        return line.decode().strip()

    async def end(self) -> None:
        """Kills the process group. May be called twice."""
        if not self._ending:
            self._ending = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()


async def serve(python: str, folder: Path) -> tuple[Child, str]:
    """Starts the server of the application in `folder`. Returns the child and its `host:port`.

    Raises:
        SiteError: the server ends, or does not listen in time.
        UserError: the interpreter does not start.
    """
    child = await Child.start(python, folder, "serve")
    try:
        port = await child.read_line(START_SECONDS)
        if not port:
            raise SiteError(f"{folder / 'server.py'} ended before it listened; run it by hand to see why")
        return child, f"127.0.0.1:{port}"
    except BaseException as error:
        await child.end()
        if isinstance(error, TimeoutError):
            raise SiteError(f"{folder / 'server.py'} did not listen within {START_SECONDS:g} s") from None
        raise


async def verify(python: str, folder: Path, url: str, files: Sequence[Path], seconds: float) -> list[dict[str, Any]]:
    """Runs verifiers on the application at `url`. Returns `{"passed": bool, "message": str}` for each.

    Args:
        seconds: maximum seconds of each verifier.

    Raises:
        SiteError: a verifier does not end in time, ends without a verdict, or can't reach the application.
        UserError: a verifier can't be loaded, or the interpreter does not start.
    """
    child = await Child.start(python, folder, "verify", url, *map(str, files))
    verdicts = []
    try:
        for file in files:
            line = await _bounded(child, file, seconds)
            if not line:
                raise SiteError(f"{file} ended without a verdict")
            said = json.loads(line)
            if "unloadable" in said:
                raise UserError(
                    f"{file} can't be loaded by {python} ({said['unloadable']}); "
                    "set suite.options.python to an interpreter that has the packages of the verifiers, such as requests"
                )
            if "unreachable" in said:
                raise SiteError(f"{file} can't reach the application: {said['unreachable']}")
            verdicts.append(said)
    finally:
        await child.end()
    return verdicts


async def _bounded(child: Child, file: Path, seconds: float) -> str:
    try:
        return await child.read_line(seconds)
    except TimeoutError:
        raise SiteError(f"{file} took more than {seconds:g} s") from None
