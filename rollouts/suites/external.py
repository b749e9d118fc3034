"""Sites that run elsewhere: their addresses and accounts, resets, and whether they answer."""

import asyncio
import contextlib
import dataclasses
import os
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx

from mira_jax.errors import ConfigError, UserError, raise_all
from rollouts.text import scrub

_PORTS = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True)
class AccountConfig:
    user: str = ""
    """Environment variable that contains the user name."""
    password: str = ""
    """Environment variable that contains the password."""


def address(site: str, url: str) -> str:
    """Normalises a URL as browsers do, without a trailing slash. Raises UserError."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or parts.query or parts.fragment or not re.fullmatch(r"[\w.-]+(?::\d*)?", parts.netloc):
            raise ValueError
        return f"{parts.scheme}://{host_of(url)}{parts.path.rstrip('/')}"
    except ValueError:
        raise UserError(f"suite.options.sites.{site}: {scrub(url)!r} is not an address such as http://127.0.0.1:7770") from None


def host_of(url: str) -> str:
    parts = urlsplit(url)
    return str(parts.hostname) + (f":{parts.port}" if parts.port not in (None, _PORTS[parts.scheme]) else "")


def read_account(name: str, account: AccountConfig) -> tuple[str, str]:
    """Returns user name and password. Raises UserError."""
    raise_all(unset(name, account))
    return os.environ[account.user], os.environ[account.password]


def unset(name: str, account: AccountConfig) -> list[UserError]:
    return [
        ConfigError(f"suite.options.accounts.{name}", f"the environment variable {variable} is not set")
        for variable in (account.user, account.password)
        if not os.environ.get(variable)
    ]


async def reset(site: str, command: Sequence[str], limit: float) -> None:
    """Runs a site's reset command. Raises UserError."""
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    except OSError as error:
        raise UserError(f"suite.options.reset.{site}: {command[0]}: {error.strerror}") from None
    try:
        async with asyncio.timeout_at(limit):
            status = await process.wait()
    except TimeoutError:
        raise UserError(f"suite.options.reset.{site}: the command was not done within reset_seconds") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if status:
        raise UserError(f"suite.options.reset.{site}: {command[0]} ended with status {status}")


async def ask_site(site: str, url: str, _: object) -> str:
    """Requests the site's first page. Raises UserError."""
    await wait_for(site, url, 0.0)
    return f"{url} answers"


async def wait_for(site: str, url: str, limit: float) -> None:
    """Polls the site until it answers, at least once. Raises UserError."""
    async with httpx.AsyncClient(timeout=10.0, follow_redirects=True) as client:
        while True:
            try:
                response = await client.get(url)
                failure = f"HTTP {response.status_code}"
                if response.status_code < 500:
                    return
            except httpx.HTTPError as error:
                failure = type(error).__name__
            if asyncio.get_running_loop().time() >= limit:
                raise ConfigError(
                    f"suite.options.sites.{site}", f"{url} does not answer ({failure}); start the site, or correct its address"
                )
            await asyncio.sleep(1.0)
