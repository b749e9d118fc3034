"""The two drivers of episodes: Chromium, and the interpreter of server pages without a browser. The engine knows only the protocols."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Protocol

from playwright.async_api import BrowserContext
from playwright.async_api import Page as BrowserPage

from mira_jax.trajectories.records import Action
from rollouts.web.asgi.sites import Context as AsgiContext
from rollouts.web.asgi.sites import Sites
from rollouts.web.asgi.tabs import AsgiPages
from rollouts.web.browser import BrowserConfig, BrowserPool
from rollouts.web.executor import Executor
from rollouts.web.observation import Observation, ObservationConfig
from rollouts.web.tabs import Tabs


class Pages(Protocol):
    """The pages of one episode. Methods raise `InfraError` if browser or site fail."""

    async def open(self, urls: Sequence[str]) -> None:
        """Opens a tab for each address, with the first in front."""
        ...

    async def observe(self) -> Observation:
        """Reads the page in front."""
        ...

    async def perform(self, action: Action, observation: Observation) -> None:
        """Performs one action, and waits for its effects. `observation` is the page as the policy saw it.

        Raises:
            ActionError: the page does not allow the action.
        """
        ...

    async def screenshot(self) -> bytes | None:
        """Returns a JPEG of the viewport, if the driver can make one."""
        ...

    @property
    def front(self) -> BrowserPage | None:
        """The browser's page in front, if there is one."""
        ...


class Driver(Protocol):
    """Provides each episode with its own context."""

    config: BrowserConfig

    async def context(self) -> Any:
        """Returns a new, empty context, which `Suite.open` connects to the sites."""
        ...

    def pages(self, context: Any, hosts: Iterable[str], observation: ObservationConfig) -> Pages:
        """Returns the pages of a context. They reach `hosts` (`host:port`) and nothing else."""
        ...

    async def close(self, context: Any) -> None:
        """Closes a context, once."""
        ...


class Chromium(BrowserPool):
    """Drives a real browser."""

    def pages(self, context: BrowserContext, hosts: Iterable[str], observation: ObservationConfig) -> Pages:
        hosts = frozenset(hosts)
        self.allow(context, hosts)
        return _ChromiumPages(Tabs(context, self.config, observation), hosts)


class _ChromiumPages:
    def __init__(self, tabs: Tabs, hosts: frozenset[str]):
        self._tabs, self._hosts, self._executor = tabs, hosts, Executor(tabs)

    async def open(self, urls: Sequence[str]) -> None:
        await self._tabs.open(urls, self._hosts)

    async def observe(self) -> Observation:
        return await self._tabs.observe()

    async def perform(self, action: Action, observation: Observation) -> None:
        await self._executor.perform(action, observation)

    async def screenshot(self) -> bytes | None:
        return await self._tabs.screenshot()

    @property
    def front(self) -> BrowserPage | None:
        return self._tabs.page if self._tabs.count else None


class Asgi:
    """Interprets the pages of a suite's applications in this process."""

    def __init__(self, config: BrowserConfig, sites: Sites):
        self.config, self.sites = config, sites

    async def context(self) -> AsgiContext:
        return AsgiContext(self.sites, self.config.width)

    def pages(self, context: AsgiContext, hosts: Iterable[str], observation: ObservationConfig) -> Pages:
        return AsgiPages(context, hosts, observation)

    async def close(self, context: AsgiContext) -> None:
        return None


@contextlib.asynccontextmanager
async def drive(config: BrowserConfig, hosts: Iterable[str], sites: Sites | None) -> AsyncIterator[Driver]:
    """Starts the configured driver, and stops it.

    Args:
        hosts: the `host:port` of the suite's servers.
        sites: the suite's applications, which the driver `asgi` needs.

    Raises:
        UserError: there is no browser, or it does not start.
    """
    if config.driver == "asgi":
        assert sites is not None
        yield Asgi(config, sites)
        return
    async with Chromium(config, hosts) as browsers:
        yield browsers
