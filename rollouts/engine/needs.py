"""What a run of episodes needs before it starts: tasks, policy, browser, sites and endpoints. For `mira preflight` and a dry run."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Collection

from playwright.async_api import BrowserContext

from mira_jax import extras
from mira_jax.errors import ConfigError, UserError, first_line
from mira_jax.needs import Needs
from mira_jax.trajectories.tokenizer import Tokenizer
from rollouts.agents.base import PolicyConfig
from rollouts.agents.completion import EndpointPolicy
from rollouts.agents.planner import Planner
from rollouts.agents.suite_planner import milestone_texts
from rollouts.engine.pool import RolloutConfig, check_suite
from rollouts.engine.ray_pool import check_modules
from rollouts.engine.worker import SuiteConfig
from rollouts.errors import InfraError
from rollouts.llm.endpoint import Endpoint
from rollouts.llm.probe import ask_chat, ask_completion, quick, role_needs
from rollouts.suites import Suite, make_suite
from rollouts.suites.base import CheckedSuite, Planned
from rollouts.web.browser import BrowserConfig, BrowserPool, find_executables

KEY = "policy.endpoint"
CONTEXTS = 16
"""Most browser contexts that questions may open: one per account, and one to see that the browser starts."""


def rollout_needs(config: RolloutConfig, found: Needs) -> None:
    """Adds the needs of a run, except its output."""
    suite = None
    with found.attempt("suite"):
        suite = make_suite(config.suite.name, **config.suite.options)
    if suite is not None:
        with found.attempt("suite"):
            tasks = suite.tasks(config.split, config.templates, config.episodes, config.seed)
            found.ok("suite", f"{config.suite.name}: {len(tasks)} tasks")
            if config.policy.kind == "expert":
                suite.expert(tasks[0], config.policy.habits)
        if config.policy.forced_plan != "none" and not isinstance(suite, Planned):
            found.missing("policy.forced_plan", f"the suite {config.suite.name} knows no plans; set it to none")
    browser = _Browser(config.browser)
    if config.policy.kind == "endpoint":
        _policy_needs(config.policy, found)
    if config.policy.kind == "chat":
        found.variable(f"{KEY}.api_key_env", config.policy.endpoint.api_key_env)
        found.ask(KEY, lambda _: ask_chat(config.policy.endpoint, KEY), config.policy.endpoint)
    _planner_needs(config, suite, found)
    if suite is not None:
        with found.attempt("browser.driver"):
            check_suite(config, suite)
    if config.pool == "ray":
        with found.attempt("pool"):
            extras.require("ray")
            check_modules(config.ray.py_modules)
        if config.ray.address:
            found.ask("ray.address", lambda _: _ask_cluster(config.ray.address), config.ray.address)
    elif config.browser.driver == "chromium":
        with found.attempt("browser.executable"):
            find_executables(config.browser.executable)
            found.ask("browser", browser.ask, config.browser)
    if isinstance(suite, CheckedSuite):
        suite.needs(found, browser.new_context)


def _planner_needs(config: RolloutConfig, suite: Suite | None, found: Needs) -> None:
    planner = config.planner
    if suite is None or planner.kind == "none":
        return
    with found.attempt("planner"):
        Planner(planner, suite)
        if planner.kind == "checklist":
            milestone_texts(suite, suite.tasks(config.split, config.templates, 1, config.seed)[0])
    if planner.kind == "model":
        role_needs("planner.model", planner.model, found)


def suite_needs(config: SuiteConfig, found: Needs) -> None:
    """Adds the needs of labelling episodes."""
    suite: Suite | None = None
    with found.attempt("suite"):
        suite = make_suite(config.name, **config.options)
    if isinstance(suite, CheckedSuite):
        suite.needs(found, None)


def _policy_needs(config: PolicyConfig, found: Needs) -> None:
    found.variable(f"{KEY}.api_key_env", config.endpoint.api_key_env)
    known = False
    if found.input("policy.tokenizer", config.tokenizer):
        with found.attempt("policy.tokenizer"):
            Tokenizer(config.tokenizer)
            known = True
    found.ask(KEY, lambda _: _ask_policy(config) if known else _ask_endpoint(config), config)


async def _ask_policy(config: PolicyConfig) -> str:
    """Requests one token, and compares the model's maximum length with that of the prompts. Raises UserError."""
    policy = EndpointPolicy(dataclasses.replace(config, endpoint=quick(config.endpoint)))
    async with policy:
        return await ask_completion(policy.endpoint, policy.tokenizer.encode("ready"))


async def _ask_endpoint(config: PolicyConfig) -> str:
    """As `_ask_policy`, before there is a tokenizer."""
    async with Endpoint(quick(config.endpoint), KEY) as endpoint:
        return await ask_completion(endpoint, "ready")


async def _ask_cluster(address: str) -> str:
    """Connects to the head node of a Ray cluster. Raises UserError."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, ValueError) as error:
        raise ConfigError("ray.address", f"{address}: {first_line(error)}; start the cluster, or correct the address") from None
    writer.close()
    return f"{address} accepts connections"


class _Browser:
    """One browser for all questions, started by the first that needs it and closed with the stack of the questions."""

    def __init__(self, config: BrowserConfig):
        self._config = dataclasses.replace(config, contexts=CONTEXTS)
        self._lock = asyncio.Lock()
        self._pool: BrowserPool | None = None

    async def new_context(self, stack: contextlib.AsyncExitStack, hosts: Collection[str] = ()) -> BrowserContext:
        async with self._lock:
            if self._pool is None:
                self._pool = await stack.enter_async_context(BrowserPool(self._config))
        try:
            context = await self._pool.context()
        except InfraError as error:
            raise UserError(str(error)) from None
        self._pool.allow(context, hosts)
        return context

    async def ask(self, stack: contextlib.AsyncExitStack) -> str:
        await self.new_context(stack)
        return "Chromium starts"
