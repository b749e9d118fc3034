"""Serves an application on a port. The port is bound early, the server runs in a thread and shuts down gracefully."""

import asyncio
import errno
import json
import os
import resource
import socket
import threading
from pathlib import Path

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from mira_jax.errors import UserError
from mira_jax.files import write_atomically

BACKLOG = 1024
GRACE = 10
"""Seconds that running requests may take to finish after the server is stopped."""
KEEP_ALIVE = 75
"""Seconds after which an idle connection is closed. Clients close idle connections after 5 to 60 s. If the server closed first,
a client could send a request on a connection that is being closed, and lose it."""

ARRIVAL = 30
"""Maximum seconds for the arrival of a request, from its first byte or the opening of the connection to the end of its body."""
LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def bind(host: str, port: int) -> socket.socket:
    """Binds a socket to the address, so that a port in use is detected before slow initialisation. Port 0 selects any free port.

    Raises:
        UserError: the port is in use or not allowed, or the host is not an address of this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port: {port} is no port; expected 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(f"host: {host!r} is not an address: {error}") from None
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _explained(error, host, port) from None
    return bound


class Server:
    """Serves an application on a bound socket in a separate thread.

    The main thread remains available for signals, and tests can run a server in their own process.
    """

    def __init__(self, app: Starlette, bound: socket.socket):
        host, port = bound.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        try:
            # Two sockets may bind the same port before either listens, but only one may listen.
            bound.listen(BACKLOG)
        except OSError as error:
            raise _explained(error, host, port) from None
        timeouts = {"timeout_keep_alive": KEEP_ALIVE, "timeout_graceful_shutdown": GRACE}
        config = uvicorn.Config(
            app, http=_Timed, log_config=None, log_level="warning", access_log=False, lifespan="off", ws="none", **timeouts
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([bound],), name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops accepting requests, waits for the running ones, and returns."""
        self._server.should_exit = True
        self._thread.join()


class _Timed(H11Protocol):
    """A connection that is closed if a request takes longer than ARRIVAL to arrive."""

    _arriving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._arriving = self.loop.call_later(ARRIVAL, self._late)

    def data_received(self, data: bytes) -> None:
        self._arriving = self._arriving or self.loop.call_later(ARRIVAL, self._late)
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _stop(self) -> None:
        if self._arriving:
            self._arriving.cancel()
        self._arriving = None

    def _late(self) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(LATE)
        self.transport.close()


def allow_connections() -> None:
    """Raises the limit on open files, and so on connections, to the maximum for this process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def write_ready_file(path: str | Path, url: str, model: str) -> None:
    """Atomically writes the address of the server for other programs: JSON with `url`, `model` and `pid`. Raises UserError."""
    write_atomically(Path(path), (json.dumps({"url": url, "model": model, "pid": os.getpid()}) + "\n").encode())


def _explained(error: OSError, host: str, port: int) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(f"port {port} on {host} is in use; choose another with --port, or --port 0 for any free one")
    if error.errno == errno.EACCES:
        return UserError(f"port {port}: not allowed for this user; choose one above 1023")
    return UserError(f"cannot listen on {host} port {port}: {error.strerror}")
