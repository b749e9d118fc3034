"""Runs episodes in one process: its sites, browser and policy, and one episode at a time in each of its slots."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any, Protocol

from playwright.async_api import Error

from mira_jax.errors import ConfigError, UserError
from mira_jax.trajectories.records import Task, Trajectory
from rollouts.agents.base import AgentFactory, PolicyConfig
from rollouts.agents.planner import Planner
from rollouts.agents.plans import PlannerConfig
from rollouts.engine.episode import LimitConfig, run_episode
from rollouts.errors import InfraError
from rollouts.suites import OPTIONS, Suite
from rollouts.suites.base import InProcess, OneAtATime
from rollouts.web.browser import BrowserConfig
from rollouts.web.drivers import Driver, drive
from rollouts.web.observation import ObservationConfig
from rollouts.web.playwright_errors import is_driver_gone

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SuiteConfig:
    name: str = "arena"
    """Name of a built-in suite, or `module:Class` of your own."""
    options: Annotated[dict[str, Any], OPTIONS] = dataclasses.field(default_factory=dict)
    """Options of the suite."""


@dataclasses.dataclass(frozen=True)
class WorkerConfig:
    """Settings of an episode that do not depend on its task."""

    suite: SuiteConfig = dataclasses.field(default_factory=SuiteConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    planner: PlannerConfig = dataclasses.field(default_factory=PlannerConfig)
    observation: ObservationConfig = dataclasses.field(default_factory=ObservationConfig)
    browser: BrowserConfig = dataclasses.field(default_factory=BrowserConfig)
    limits: LimitConfig = dataclasses.field(default_factory=LimitConfig)

    def __post_init__(self) -> None:
        if self.policy.kind == "chat" and self.policy.chat.images and not self.browser.screenshots:
            raise ConfigError("policy.chat.images", "needs the pictures of the pages; set browser.screenshots=true")
        if self.planner.kind == "joint" and self.policy.forced_plan != "none":
            raise ConfigError("policy.forced_plan", "the response has no checklist, which planner.kind=joint needs; set this to none")
        if self.planner.kind == "joint" and self.policy.kind != "chat":
            raise ConfigError("planner.kind", f"joint needs a policy that writes checklists, of kind chat, not {self.policy.kind}")


class Slot(Protocol):
    """A slot, which runs one episode at a time."""

    async def run(self, task: Task, attempt: int, seconds: float) -> Trajectory:
        """Runs one try of an episode.

        Raises:
            InfraError: the try failed and says nothing about the policy.
            TimeoutError: it took longer than `seconds`.
            UserError: no episode can run with these settings.
        """
        ...


class Slots(Protocol):
    """All slots of a run."""

    count: int

    def free(self) -> contextlib.AbstractAsyncContextManager[Slot]:
        """Waits for a free slot and reserves it for the duration of the context."""
        ...


class Worker:
    """The slots of this process: one per browser context."""

    def __init__(self, config: WorkerConfig, suite: Suite, policy: AgentFactory, driver: Driver, planner: Planner | None = None):
        self.config, self.suite, self.policy, self.planner, self.driver = config, suite, policy, planner, driver
        self.count = config.browser.contexts

    @contextlib.asynccontextmanager
    async def free(self) -> AsyncIterator[Slot]:
        # A caller that runs at most `count` episodes at once always finds a free context.
        yield self

    async def run(self, task: Task, attempt: int, seconds: float) -> Trajectory:
        config = self.config
        episode = run_episode(self.suite, task, attempt, self.policy, self.driver, config.observation, config.limits, self.planner)
        try:
            return await asyncio.wait_for(episode, seconds)
        except (InfraError, TimeoutError, UserError):
            raise
        except Exception as error:
            # One unusual page must not end a run of several days. `give_up_after` of these in a row end the run.
            log.exception("episode %s, seed %d, attempt %d: unexpected error", task.id, task.seed, attempt)
            raise InfraError(f"{type(error).__name__}: {error}") from error


@contextlib.asynccontextmanager
async def work(config: WorkerConfig, suite: Suite, policy: AgentFactory, planner: Planner | None = None) -> AsyncIterator[Worker]:
    """Starts the sites and the browser of this process, and stops them. Raises UserError if one of them does not start."""
    async with driver_of(config.browser, suite) as driver:
        yield Worker(config, suite, policy, driver, planner)


@contextlib.asynccontextmanager
async def driver_of(config: BrowserConfig, suite: Suite) -> AsyncIterator[Driver]:
    """Starts a suite's sites and the driver for them, and stops both. Raises UserError if one of them does not start."""
    check_driver(config, suite)
    await suite.start()
    try:
        async with drive(config, suite.hosts, suite.in_process_sites() if isinstance(suite, InProcess) else None) as driver:
            yield driver
    finally:
        await suite.stop()


def check_driver(config: BrowserConfig, suite: Suite) -> None:
    """Raises UserError if the configured driver, or its number of contexts, does not support the suite."""
    if config.driver == "asgi" and not isinstance(suite, InProcess):
        raise ConfigError(
            "browser.driver", f"asgi serves only suites whose applications run in this process, and {suite.name} is none; set chromium"
        )
    if isinstance(suite, OneAtATime) and suite.one_at_a_time and config.contexts > 1:
        raise ConfigError("browser.contexts", f"with {suite.one_at_a_time} episodes run one at a time; set browser.contexts=1")


def ignore_abandoned_calls(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Silences the second failure of an abandoned browser call, which occurs when its page or driver closes and nothing awaits the call."""
    error = context.get("exception")
    if not isinstance(error, Error) and not is_driver_gone(error):
        loop.default_exception_handler(context)
