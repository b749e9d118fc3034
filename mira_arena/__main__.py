"""Serves the arena to a browser: an index of sites and tasks, and each application on its own port."""

import contextlib
import dataclasses
import socket
import sys
from collections.abc import Iterable
from typing import Literal

import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from mira_arena import index
from mira_arena.sites import registry
from mira_arena.sites.server import serve
from mira_arena.sites.world import Visits, World
from mira_jax import commands
from mira_jax.config import Natural, Port
from mira_jax.errors import UserError
from mira_jax.needs import Needs


@dataclasses.dataclass(frozen=True)
class ArenaConfig:
    seed: Natural = 1
    """Seed of the content."""
    port: Port = 8000
    """First port on 127.0.0.1; the applications use the ports after it. 0 selects free ports."""
    site: Literal[tuple(registry.SITES)] | None = None  # pyright: ignore[reportInvalidTypeForm]: the choices are the registry's
    """Serves only the application of this site, without the index."""
    count: bool = False
    """Prints the number of task templates and exits."""


def main(config: ArenaConfig) -> None:
    if config.count:
        print(index.counts())
        return
    with contextlib.suppress(KeyboardInterrupt):
        _serve(config.seed, config.port, config.site)


def _serve(seed: int, port: int, site: str | None) -> None:
    visits: Visits = {}
    addresses: dict[str, str] = {}
    names = [registry.SITES[site]] if site else registry.APPLICATIONS
    applications = [registry.application(name) for name in names]
    apps = [serve(application, visits, fallback=lambda: World(seed)) for application in applications]
    if not site:
        apps.insert(0, index.serve(visits, seed, addresses))
    listeners = [_listen(port and port + place) for place in range(len(apps))]
    ports = [listener.getsockname()[1] for listener in listeners]
    for application, own in zip(applications, ports[-len(applications) :], strict=True):
        addresses |= {site: f"http://127.0.0.1:{own}{path}/" for site, path in application.sites.items()}
    if not site:
        print(f"{'index':14} http://127.0.0.1:{ports[0]}/")
    for name, address in addresses.items():
        print(f"{name:14} {address}")
    print("each browser session has its own copy of the sites; press Ctrl-C to stop", flush=True)
    server = uvicorn.Server(
        uvicorn.Config(
            _ByPort(zip(ports, apps, strict=True)),
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    server.run(sockets=listeners)


def _listen(port: int) -> socket.socket:
    """Opens a listening socket. Connections made before the server runs are queued."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port}: {error}; choose another, or 0 for any that is free") from None


class _ByPort:
    """Routes a request to the application of the port on which it arrived."""

    def __init__(self, apps: Iterable[tuple[int, Starlette]]):
        self._apps = dict(apps)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._apps[scope["server"][1]](scope, receive, send)


def needs(config: ArenaConfig, found: Needs) -> None:
    for place in range(1 if config.site else len(registry.APPLICATIONS) + 1):
        found.port("port", "127.0.0.1", config.port and config.port + place)


COMMAND = commands.Command("arena", main, ArenaConfig, __doc__, flags=("seed", "port", "site", "count"), needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
