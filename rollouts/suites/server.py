"""Serves a suite's own sites on loopback, in the process that runs the episodes."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from mira_jax.errors import UserError
from mira_jax.needs import Needs
from rollouts.suites.base import NewContext

_START_SECONDS = 10.0
_STOP_SECONDS = 5.0


class OneSite:
    """What the suites have in common whose pages are one application, served on 127.0.0.1 at the option `port`."""

    def __init__(self, app: Any, port: int):
        """`port`: 0 selects a free port."""
        self._server, self._port = LocalServer(app, port), port

    @property
    def hosts(self) -> frozenset[str]:
        """`host:port` while it serves."""
        return frozenset({self._server.host} if self._server.host else ())

    def needs(self, found: Needs, new_context: NewContext | None) -> None:
        if new_context:
            found.port("suite.options.port", "127.0.0.1", self._port)

    async def reset(self) -> None:
        return None

    async def start(self) -> None:
        """Starts the server. Raises UserError if the port is in use."""
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()


class LocalServer:
    """An ASGI application on 127.0.0.1, served in the event loop in which `start` is called."""

    def __init__(self, app: Any, port: int = 0):
        """`port`: 0 selects a free port."""
        self.host = ""
        """`host:port` while it serves, else empty."""
        self._app, self._port = app, port
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts serving. Raises UserError if the port is in use."""
        if self._serving:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self._port))
        except (OSError, OverflowError) as error:
            listener.close()
            raise UserError(f"port {self._port}: {error}; choose another, or 0 for any that is free") from None
        config = uvicorn.Config(
            self._app, log_config=None, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        async with asyncio.timeout(_START_SECONDS):
            while not self._server.started:
                if self._serving.done():
                    self._serving.result()
                await asyncio.sleep(0.005)
        self.host = f"127.0.0.1:{listener.getsockname()[1]}"

    async def stop(self) -> None:
        """Stops serving. May be called twice."""
        if not (self._serving and self._server):
            return
        self._server.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._serving, _STOP_SECONDS)
        self._server = self._serving = None
        self.host = ""


class _Server(uvicorn.Server):
    """Does not install signal handlers, which belong to the surrounding process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
