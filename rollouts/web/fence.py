"""The network fence of a browser context: a SOCKS5 proxy on loopback that connects only to the task's sites.

Every connection of the context passes through it, whatever its origin: links, each hop of a redirect, scripts, workers, sockets,
prefetches, popups, downloads. The decision depends only on host and port; the traffic is not inspected.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Iterable
from typing import cast
from urllib.parse import urlsplit

from rollouts.web.addresses import Refused, Unreachable, public_addresses

PUBLIC = "*"
"""Among the hosts of a fence: every host of the public internet. Its name is resolved when it is connected to, and the connection goes to
that address. A name with an address that is not public is refused."""
CONNECT_SECONDS = 10.0
_VERSION, _NO_PASSWORD, _CONNECT = 5, 0, 1
_DONE, _UNREACHABLE = 0, 4
_IP4, _NAME, _IP6 = 1, 3, 4


class Fence:
    """Refuses connections to all hosts except the allowed ones. Initially none is allowed."""

    def __init__(self) -> None:
        self._hosts: frozenset[str] = frozenset()
        self._addresses: dict[str, asyncio.Task[list[str]]] = {}
        """Addresses of each allowed name, resolved when it was allowed. Later DNS changes have no effect (no DNS rebinding)."""
        self._server: asyncio.Server | None = None
        self._tunnels: set[_Tunnel] = set()

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Tunnel(self), "127.0.0.1", 0)

    def stop(self) -> None:
        self.allow(())
        if self._server is not None:
            self._server.close()

    @property
    def address(self) -> str:
        """`host:port` of the proxy."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def allow(self, hosts: Iterable[str]) -> None:
        """Allows `hosts` (`host:port`, a host for the ports 80 and 443, or `PUBLIC`) and nothing else.

        The addresses of a name are resolved once, in this call, and kept as long as the name stays allowed.
        """
        self._hosts = frozenset(host.lower() for host in hosts)
        names = {_name(host) for host in self._hosts if host != PUBLIC}
        for name in [name for name in self._addresses if name not in names]:
            self._addresses.pop(name).cancel()
        for name in names - set(self._addresses):
            self._addresses[name] = asyncio.get_running_loop().create_task(_look_up(name))
        for tunnel in [tunnel for tunnel in self._tunnels if not self.allows(*tunnel.target)]:
            tunnel.cut()

    async def connect(self, protocol: asyncio.Protocol, host: str, port: int) -> None:
        """Connects to an allowed host. Raises OSError."""
        failure = OSError(f"{host} has no address")
        for address in await self._resolved(host, port):
            try:
                await asyncio.get_running_loop().create_connection(lambda: protocol, address, port)
                return
            except OSError as error:
                failure = error
        raise failure

    async def _resolved(self, host: str, port: int) -> list[str]:
        if is_among(host, port, self._hosts):
            return await asyncio.shield(self._addresses[host]) if host in self._addresses else []
        try:
            return await public_addresses(host, port) if PUBLIC in self._hosts else []
        except (Refused, Unreachable):
            return []

    def allows(self, host: str, port: int) -> bool:
        return PUBLIC in self._hosts or is_among(host, port, self._hosts)


def _name(host: str) -> str:
    """`host` without its port."""
    return host.rpartition(":")[0] if host.rpartition("]")[2].count(":") else host


async def _look_up(name: str) -> list[str]:
    """Resolves a name. Empty if it has no address."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


def is_among(host: str, port: int, hosts: Collection[str]) -> bool:
    """Whether `hosts` (`host:port`, or a host for the ports 80 and 443) contain the host and port."""
    return f"{host}:{port}" in hosts or (port in (80, 443) and host in hosts)


def is_inside(url: str, hosts: Iterable[str]) -> bool:
    """Whether `url` is allowed for an episode with these `hosts`."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("data", "blob", "about"):
            return True
        host = parts.netloc.rpartition("@")[2].lower()
        port = parts.port or {"http": 80, "ws": 80, "https": 443, "wss": 443}[parts.scheme]
    except (KeyError, ValueError):
        return False
    return is_among(host.rpartition(":")[0] if parts.port else host, port, {allowed.lower() for allowed in hosts})


async def accepts(url: str) -> bool:
    """Whether the site at `url` accepts connections. Nothing is sent to it."""
    try:
        parts = urlsplit(url)
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or {"https": 443}.get(parts.scheme, 80))
    except (OSError, ValueError):
        return False
    writer.close()
    return True


class _End(asyncio.Protocol):
    """One of the two connections of a tunnel. It forwards data to the other, no faster than that accepts it (backpressure)."""

    transport: asyncio.Transport
    other: "_End | None" = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class _Tunnel(_End):
    """The browser's connection: reads the target from the SOCKS5 request, then connects the tunnel to it."""

    def __init__(self, fence: Fence):
        self.fence = fence
        self.target = ("", 0)
        self._read = b""
        self._greeted = False
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.fence._tunnels.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fence._tunnels.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)
            return
        self._read += data
        try:
            self._negotiate()
        except (ValueError, UnicodeError):
            self.cut()

    def cut(self) -> None:
        self.transport.abort()

    def _negotiate(self) -> None:
        """Parses the browser's greeting and request as far as received. Raises ValueError if they are malformed."""
        if self._read[:1] not in (b"", bytes([_VERSION])):
            raise ValueError("not SOCKS5")
        if not self._greeted and len(self._read) >= 2 and len(self._read) >= 2 + self._read[1]:
            if _NO_PASSWORD not in self._read[2 : 2 + self._read[1]]:
                raise ValueError("a password is asked for")
            self._read = self._read[2 + self._read[1] :]
            self._greeted = True
            self.transport.write(bytes([_VERSION, _NO_PASSWORD]))
        target = _target(self._read) if self._greeted else None
        if target is not None:
            if self._connecting is not None:
                raise ValueError("more than one request")
            self.target = target
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        outer = _End()
        try:
            if not self.fence.allows(*self.target):
                raise ConnectionRefusedError
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.fence.connect(outer, *self.target)
        except (OSError, UnicodeError):
            self.transport.write(_reply(_UNREACHABLE))
            self.transport.close()
            return
        self.other, outer.other = outer, self
        if self.transport.is_closing() or not self.fence.allows(*self.target):
            outer.transport.abort()
            return
        self.transport.write(_reply(_DONE))


def _target(request: bytes) -> tuple[str, int] | None:
    """Parses host and port of a request. None if the request is incomplete. Raises ValueError."""
    if len(request) < 5:
        return None
    version, command, _, kind, length = request[:5]
    if version != _VERSION or command != _CONNECT or kind not in (_IP4, _NAME, _IP6):
        raise ValueError("not a request to connect")
    start, end = {_IP4: (4, 8), _NAME: (5, 5 + length), _IP6: (4, 20)}[kind]
    if len(request) < end + 2:
        return None
    if len(request) > end + 2:
        raise ValueError("more than a request")
    part = request[start:end]
    host = part.decode("ascii").lower().strip("[]") if kind == _NAME else str(ipaddress.ip_address(part))
    return (f"[{host}]" if ":" in host else host), int.from_bytes(request[end:], "big")


def _reply(code: int) -> bytes:
    return bytes([_VERSION, code, 0, _IP4, 0, 0, 0, 0, 0, 0])
