"""Starts a user's site for one episode, on a port of its own, and ends it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence

import httpx

from mira_jax.errors import ConfigError
from rollouts.errors import SiteError

PORT = "{port}"
TRIES = 3
"""Another process may take the port between its choice and its use."""
_LOOPBACK = "127.0.0.1"


_taken: set[int] = set()
"""Ports of the sites of this process, some of which do not listen yet."""


class ServedSite:
    """A running site, in a process group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int):
        self._process, self._port = process, port
        self.address = f"http://{_LOOPBACK}:{port}"

    @classmethod
    async def start(cls, site: str, command: Sequence[str], seconds: float) -> "ServedSite":
        """Starts the command with a free port in place of `{port}`, and waits until the site answers.

        Raises:
            SiteError: it ends, or does not answer in time.
            ConfigError: there is no such program.
        """
        for _ in range(TRIES):
            port = _free_port()
            parts = [part.replace(PORT, str(port)) for part in command]
            try:
                process = await asyncio.create_subprocess_exec(
                    *parts, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise ConfigError(f"suite.options.commands.{site}", f"{parts[0]}: {error.strerror}") from None
            served = cls(process, port)
            try:
                if await served._answers(seconds):
                    return served
            except BaseException:
                await served.close()
                raise
            await served.close()
        raise SiteError(f"{site}: {' '.join(parts)} ended with status {process.returncode} before it answered; run it by hand to see why")

    async def _answers(self, seconds: float) -> bool:
        """Waits for an answer. False if the process ends before. Raises SiteError."""
        limit = asyncio.get_running_loop().time() + seconds
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            while asyncio.get_running_loop().time() < limit:
                if self._process.returncode is not None:
                    return False
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(self.address)).status_code < 500:
                        return True
                await asyncio.sleep(0.02)
        raise SiteError(f"{self.address} did not answer within {seconds:g} s")

    async def close(self) -> None:
        """Kills the process group. May be called twice."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        _taken.discard(self._port)


def _free_port() -> int:
    while True:
        with socket.socket() as one:
            one.bind((_LOOPBACK, 0))
            port = one.getsockname()[1]
        if port not in _taken:
            _taken.add(port)
            return port
