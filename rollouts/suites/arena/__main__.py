"""Serves the arena to a person's browser: an index of sites and tasks, and every application on a port of its own."""

import argparse
import asyncio
import sys

from mira_jax.errors import UserError
from rollouts.suites.arena import index
from rollouts.suites.arena.apps import APPS
from rollouts.suites.arena.world import Visits, World
from rollouts.suites.server import LocalServer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rollouts.suites.arena", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="draws the content (default 1)")
    parser.add_argument(
        "--port", type=int, default=8000, help="the index's, on 127.0.0.1, the others after it; 0 takes free ones (default 8000)"
    )
    parser.add_argument("--count", action="store_true", help="print how many templates of tasks there are, and serve nothing")
    arguments = parser.parse_args()
    if arguments.count:
        print(index.counts())
        return 0
    try:
        asyncio.run(_serve(arguments.seed, arguments.port))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


async def _serve(seed: int, port: int) -> None:
    visits: Visits = {}
    addresses: dict[str, str] = {}
    front = LocalServer(index.serve(visits, seed, addresses), port)
    await front.start()
    print(f"{'index':14} http://{front.host}/")
    for place, app in enumerate(APPS.values(), 1):
        server = LocalServer(app.serve(visits, fallback=lambda: World(seed)), port and port + place)
        await server.start()
        addresses |= {site: f"http://{server.host}{path}/" for site, path in app.sites.items()}
    for site, address in addresses.items():
        print(f"{site:14} {address}")
    print("each browser gets sites of its own; stop with ctrl-c", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
