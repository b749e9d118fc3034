"""`python -m mira_arena`: serves the index and every site, or one application."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import httpx
import pytest

from mira_arena.sites.registry import SITES


@contextlib.asynccontextmanager
async def served(*flags):
    """The addresses that the command prints, by name."""
    command = (sys.executable, "-m", "mira_arena", "--seed", "3", "--port", "0", *flags)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    try:
        addresses = {}
        while not (line := (await asyncio.wait_for(server.stdout.readline(), 60)).decode()).startswith("each browser"):
            name, address = line.split()
            addresses[name] = address
        yield addresses
    finally:
        server.terminate()
        await server.wait()


async def test_one_command_serves_the_index_and_every_site():
    async with served() as addresses:
        assert list(addresses) == ["index", *SITES]
        async with httpx.AsyncClient(timeout=60) as client:
            answers = {name: await client.get(address) for name, address in addresses.items()}
    assert {answer.status_code for answer in answers.values()} == {200}
    assert all(f'href="{address}"' in answers["index"].text for name, address in addresses.items() if name != "index")


@pytest.mark.parametrize(("site", "expected"), [("shop", ["shop", "shop_admin"]), ("wiki", ["map", "wiki"]), ("forum", ["forum"])])
async def test_one_application_is_served_alone(site, expected):
    async with served("--site", site) as addresses:
        assert list(addresses) == expected
        async with httpx.AsyncClient() as client:
            assert {(await client.get(address)).status_code for address in addresses.values()} == {200}
