"""Serves the tasks of a suite to clients of OpenEnv (docs/interchange.md).

    mira openenv --set browser.driver=asgi --port 8000

Each WebSocket session of a client has an episode of its own. A response is a text in the grammar of actions.
"""

import asyncio
import contextlib
import dataclasses
import sys

import uvicorn

from mira_jax import commands, extras
from mira_jax.config import Count, Natural, Port
from mira_jax.needs import Needs
from rollouts.engine.episode import LimitConfig
from rollouts.engine.needs import suite_needs
from rollouts.engine.worker import SuiteConfig, driver_of
from rollouts.suites import make_suite
from rollouts.web.browser import BrowserConfig
from rollouts.web.observation import ObservationConfig


@dataclasses.dataclass(frozen=True)
class OpenEnvConfig:
    suite: SuiteConfig = dataclasses.field(default_factory=SuiteConfig)
    templates: list[str] | None = None
    """Task templates. Default: all."""
    tasks: Count = 1000
    """Number of tasks of each split that clients can name by index or draw from. Tasks with other ids can be named by id."""
    seed: Natural = 0
    """Seed of these tasks."""
    observation: ObservationConfig = dataclasses.field(default_factory=ObservationConfig)
    browser: BrowserConfig = dataclasses.field(default_factory=BrowserConfig)
    """`browser.contexts` is the maximum number of sessions at once."""
    limits: LimitConfig = dataclasses.field(default_factory=LimitConfig)
    """`tries` and `give_up_after` have no meaning here."""
    host: str = "127.0.0.1"
    """Address to listen on. Clients are not authenticated."""
    port: Port = 8000
    """Port to listen on."""


def main(config: OpenEnvConfig) -> None:
    extras.require("openenv")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(config))


async def _serve(config: OpenEnvConfig) -> None:
    from rollouts.openenv.environment import Tasks, make_app

    suite = make_suite(config.suite.name, **config.suite.options)
    await suite.reset()
    async with driver_of(config.browser, suite) as driver:
        tasks = Tasks(suite, config.templates, config.tasks, config.seed)
        app = make_app(tasks, driver, config.observation, config.limits, config.browser.contexts)
        print(f"the suite {suite.name} for clients of OpenEnv at http://{config.host}:{config.port}; press Ctrl-C to stop", flush=True)
        await uvicorn.Server(uvicorn.Config(app, config.host, config.port, log_level="warning")).serve()


def needs(config: OpenEnvConfig, found: Needs) -> None:
    with found.attempt():
        extras.require("openenv")
    suite_needs(config.suite, found)


COMMAND = commands.Command("openenv", main, OpenEnvConfig, __doc__, flags=("port",), needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
