"""Sites that run elsewhere: their addresses and accounts, resets, and whether they answer."""

import asyncio
import contextlib
import dataclasses
import functools
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import urlsplit

import httpx
from playwright.async_api import Error

from mira_jax.errors import ConfigError, UserError, first_line, raise_all
from mira_jax.needs import Needs
from rollouts.errors import InfraError
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


def program_needs(found: Needs, key: str, commands: Mapping[str, Sequence[str]]) -> None:
    """Adds the programs of the commands of the sites, which stand at `key` of the options."""
    for site, command in commands.items():
        if not shutil.which(command[0]):
            found.missing(f"suite.options.{key}.{site}", f"{command[0]}: no such program; install it, or give its path")


def site_needs(found: Needs, sites: Mapping[str, str]) -> None:
    for site, url in sites.items():
        found.ask(f"suite.options.sites.{site}", functools.partial(ask_site, site, url), url)


def account_needs(
    found: Needs, name: str, account: AccountConfig, sign_in: Callable[[contextlib.AsyncExitStack], Awaitable[object]] | None
) -> None:
    """Adds an account: its environment variables, and a login by `sign_in`. None: nothing can be asked."""

    async def ask(stack: contextlib.AsyncExitStack) -> str:
        assert sign_in
        try:
            await sign_in(stack)
        except (InfraError, Error) as error:
            raise ConfigError(f"suite.options.accounts.{name}", f"no login: {first_line(error)}") from None
        return f"logged in, with the account in {account.user}"

    missing = unset(name, account)
    for error in missing:
        found.failed(error)
    if sign_in and not missing:
        found.ask(f"suite.options.accounts.{name}", ask, account)


async def reset_all(commands: Mapping[str, Sequence[str]], limit: float) -> None:
    """Runs the reset commands of all sites concurrently. Raises UserError."""
    await asyncio.gather(*[reset(site, command, limit) for site, command in commands.items()])


async def wait_for_all(sites: Mapping[str, str], limit: float) -> None:
    """Polls all sites until they answer. Raises UserError."""
    await asyncio.gather(*[wait_for(site, url, limit) for site, url in sites.items()])


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
