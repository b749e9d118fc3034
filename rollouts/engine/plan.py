"""Describes a run from its config and folder, for a dry run. It starts nothing, sends no request and writes no file."""

import bisect
import collections
from pathlib import Path

from mira_jax.trajectories.shards import Spool
from rollouts.agents.policy import make_policy
from rollouts.engine.pool import LOST, RolloutConfig, check_suite, lost_episodes
from rollouts.suites import make_suite
from rollouts.web.browser import find_executables


def plan(config: RolloutConfig, folder: Path) -> str:
    """Lists tasks by template and site, policy, browser, and the number of episodes that `folder` contains already.

    Raises:
        UserError: a config that a run would refuse at its start.
    """
    suite = make_suite(config.suite.name, **config.suite.options)
    check_suite(config, suite)
    tasks = suite.tasks(config.split, config.templates, config.episodes, config.seed)
    templates = collections.Counter(task.template for task in tasks)
    sites = collections.Counter(site for task in tasks for site in task.sites)
    wanted = [f"{task.id}|{task.seed}|{attempt}|" for task in tasks for attempt in range(config.attempts)]
    done = _begun(wanted, Spool(folder).keys())
    lost = _begun(wanted, {episode.key for episode in lost_episodes(folder / LOST)})
    width = max(map(len, templates))
    policy = make_policy(config.policy, suite).record.name
    if config.policy.kind in ("endpoint", "chat"):
        endpoint = config.policy.endpoint
        policy += f" at {endpoint.base_url}, model {endpoint.model or 'the first that it lists'}, temperature {config.policy.temperature:g}"
    browser = _browser(config)
    return "\n".join(
        (
            f"suite      {config.suite.name}, split {config.split}: {len(tasks)} tasks of {len(templates)} templates",
            *(f"             {name:{width}}  {count:5d}" for name, count in sorted(templates.items())),
            f"sites      {', '.join(f'{site} ({count} tasks)' for site, count in sorted(sites.items()))}",
            f"policy     {policy}",
            *_planner(config),
            f"browser    {browser}",
            f"episodes   {len(wanted)}: attempts per task {config.attempts}; {done} are there, {len(wanted) - done} to run"
            + (f", {lost} of them lost before" if lost else ""),
        )
    )


def _planner(config: RolloutConfig) -> list[str]:
    planner, endpoint = config.planner, config.planner.model.endpoint
    if planner.kind == "none":
        return []
    place = f", {endpoint.model or 'the first model'} at {endpoint.base_url}" if planner.kind == "model" else ""
    return [f"planner    {planner.kind}{place}"]


def _browser(config: RolloutConfig) -> str:
    contexts = config.browser.contexts
    if config.browser.driver == "asgi":
        return f"none: the driver asgi, {contexts} episodes at once"
    if config.pool == "ray":
        return f"{config.ray.workers or 'as many Ray workers as there is room for'}, {contexts} episodes at once in each"
    found = find_executables(config.browser.executable)[0] or "Playwright's own, if it was downloaded"
    return f"{found}, {contexts} episodes at once"


def _begun(prefixes: list[str], keys: set[str]) -> int:
    """Counts the prefixes that begin a key. The rest of a key identifies the policy, which may be known only to its endpoint."""
    ordered = sorted(keys)
    places = ((prefix, bisect.bisect_left(ordered, prefix)) for prefix in prefixes)
    return sum(place < len(ordered) and ordered[place].startswith(prefix) for prefix, place in places)
