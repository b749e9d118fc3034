"""Serves the arena to a person's browser: the shop at /, its admin panel at /admin/."""

import argparse
import socket
import sys

import uvicorn

from rollouts.suites.arena.site import make_app
from rollouts.suites.arena.state import ShopState


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rollouts.suites.arena", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="draws the content (default 1)")
    parser.add_argument("--port", type=int, default=8000, help="on 127.0.0.1; 0 takes a free one (default 8000)")
    arguments = parser.parse_args()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", arguments.port))
    except (OSError, OverflowError) as error:
        print(f"error: port {arguments.port}: {error}; choose another with --port", file=sys.stderr)
        return 2
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    print(f"shop {address}/   admin panel {address}/admin/   (each browser gets a shop of its own; stop with ctrl-c)", flush=True)
    app = make_app({}, fallback=lambda: ShopState(arguments.seed))
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
