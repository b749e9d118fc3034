"""Episodes in one process: what they need there, and one at a time in each of its places."""

import asyncio
import contextlib
import dataclasses
import traceback
from collections.abc import AsyncIterator
from typing import Annotated, Any, Protocol

from playwright.async_api import Error

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Task, Trajectory
from rollouts.agents.policy import Policy, PolicyConfig
from rollouts.engine.episode import LimitConfig, run_episode
from rollouts.errors import InfraError
from rollouts.suites import OPTIONS, Suite
from rollouts.web.browser import BrowserConfig, BrowserPool
from rollouts.web.observation import ObservationConfig
from rollouts.web.playwright_errors import is_driver_gone


@dataclasses.dataclass(frozen=True)
class SuiteConfig:
    name: str = "arena"
    """Which tasks, on which sites: a suite of the package, or `module:Class` of your own."""
    options: Annotated[dict[str, Any], OPTIONS] = dataclasses.field(default_factory=dict)
    """What the suite itself takes."""


@dataclasses.dataclass(frozen=True)
class WorkerConfig:
    """How an episode is run, whichever it is."""

    suite: SuiteConfig = dataclasses.field(default_factory=SuiteConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    observation: ObservationConfig = dataclasses.field(default_factory=ObservationConfig)
    browser: BrowserConfig = dataclasses.field(default_factory=BrowserConfig)
    limits: LimitConfig = dataclasses.field(default_factory=LimitConfig)


class Place(Protocol):
    """Where one episode runs at a time."""

    async def run(self, task: Task, attempt: int, seconds: float) -> Trajectory:
        """Tries an episode once.

        Raises:
            InfraError: the try says nothing about the policy.
            TimeoutError: it took more than `seconds`.
            UserError: no episode can be run like this.
        """
        ...


class Places(Protocol):
    """All the places of a run."""

    count: int

    def free(self) -> contextlib.AbstractAsyncContextManager[Place]:
        """A place that runs nothing else until it is given back. Waits for one."""
        ...


class Worker:
    """The places of this process: as many as its browser has contexts."""

    def __init__(self, config: WorkerConfig, suite: Suite, policy: Policy, browsers: BrowserPool):
        self.config, self.suite, self.policy, self.browsers = config, suite, policy, browsers
        self.count = config.browser.contexts

    @contextlib.asynccontextmanager
    async def free(self) -> AsyncIterator[Place]:
        # Whoever runs no more than `count` at once finds a free context.
        yield self

    async def run(self, task: Task, attempt: int, seconds: float) -> Trajectory:
        episode = run_episode(self.suite, task, attempt, self.policy, self.browsers, self.config.observation, self.config.limits)
        try:
            return await asyncio.wait_for(episode, seconds)
        except (InfraError, TimeoutError, UserError):
            raise
        except Exception as error:
            # One odd page must not end a run of days. The traceback is shown, and many of these in a row do end it.
            traceback.print_exc()
            raise InfraError(f"{type(error).__name__}: {error}") from error


@contextlib.asynccontextmanager
async def work(config: WorkerConfig, suite: Suite, policy: Policy) -> AsyncIterator[Worker]:
    """Starts sites and browser of this process, and stops them. Raises UserError if one of them does not start."""
    await suite.start()
    try:
        async with BrowserPool(config.browser, suite.hosts) as browsers:
            yield Worker(config, suite, policy, browsers)
    finally:
        await suite.stop()


def quieter(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Browser calls that were given up fail once more when their page or driver closes; nobody waits for them then."""
    error = context.get("exception")
    if not isinstance(error, Error) and not is_driver_gone(error):
        loop.default_exception_handler(context)
