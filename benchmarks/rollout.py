"""Steps a second of the rollout engine: the arena's scripted expert in Chromium, by the number of contexts, beside plain Playwright.

    python benchmarks/rollout.py --contexts 1 4 --rounds 5 --json rollout.json

A step is an action with real input, its page load, one observation, and the record of it. Plain Playwright is the loop that
one writes first: click a link, take a JPEG, take an aria_snapshot, on the same sites in the same browser, a context an episode.
Each round runs everything once, in turn, so that a noisy machine is noisy for all alike; figures are medians over the rounds.
"""

import argparse
import asyncio
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from playwright.async_api import Browser, async_playwright

from mira_jax.trajectories.records import Task
from rollouts.pool import RolloutConfig, collect
from rollouts.suites import Suite, make_suite
from rollouts.suites.arena.tasks import instances
from rollouts.suites.base import to_address
from rollouts.web.browser import BrowserConfig, find_executables
from rollouts.web.observation import ObservationConfig

PLAIN_STEPS = 8
"""In an episode of plain Playwright: about as many as the expert takes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=44, help="in each run; 22 are one of every template")
    parser.add_argument("--draw", action="store_true", help="paint the pages, as sites with animation need")
    parser.add_argument("--screenshots", action="store_true", help="keep a JPEG of every page")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write every figure here")
    arguments = parser.parse_args()
    sides = {f"{who}, {contexts} contexts": (run, contexts) for contexts in arguments.contexts
             for who, run in (("ours", steps_per_second), ("plain Playwright", plain_steps_per_second))}  # fmt: skip
    runs: dict[str, list[float]] = {side: [] for side in sides}
    machine = f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, playwright {importlib.metadata.version('playwright')}")
    instances("train", None, arguments.episodes, 0)  # Drawing the tasks is no part of a step.
    for _ in range(arguments.rounds):
        for side, (run, contexts) in sides.items():
            runs[side].append(run(contexts, arguments))
    medians = {side: statistics.median(measured) for side, measured in runs.items()}
    print("| | steps/s, median | least - most |\n|---|---|---|")
    for side, measured in runs.items():
        print(f"| {side} | {medians[side]:.1f} | {min(measured):.1f} - {max(measured):.1f} |")
    ratios = {}
    for contexts in arguments.contexts:
        ours, plain = (medians[f"{who}, {contexts} contexts"] for who in ("ours", "plain Playwright"))
        ratios[f"plain/{contexts}"] = ours / plain
        print(f"ours / plain Playwright, {contexts} contexts: {ours / plain:.2f}")
    if arguments.json:
        figures = {"machine": machine, "episodes": arguments.episodes, "steps_per_second": medians, "runs": runs, "ratios": ratios}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def steps_per_second(contexts: int, arguments: argparse.Namespace) -> float:
    """Of one run, the start of browser and site left out."""
    browser = BrowserConfig(contexts=contexts, draw=arguments.draw or arguments.screenshots, screenshots=arguments.screenshots)
    config = RolloutConfig(episodes=arguments.episodes, browser=browser, observation=ObservationConfig(handles="name", compact=True))
    with tempfile.TemporaryDirectory() as folder:
        tally = collect(config, Path(folder))
    assert tally.status == {"finished": arguments.episodes}, tally.status
    return tally.steps_per_second


def plain_steps_per_second(contexts: int, arguments: argparse.Namespace) -> float:
    return asyncio.run(_plain(contexts, arguments.episodes))


async def _plain(contexts: int, episodes: int) -> float:
    suite = make_suite("arena")
    await suite.start()
    tasks = iter(suite.tasks("train", None, episodes, 0))
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_executables(None)[0], chromium_sandbox=not root)
        started = time.perf_counter()
        taken = await asyncio.gather(*(_visit(browser, suite, tasks) for _ in range(contexts)))
        seconds = time.perf_counter() - started
        await browser.close()
    await suite.stop()
    return sum(taken) / seconds


async def _visit(browser: Browser, suite: Suite, tasks: Iterator[Task]) -> int:
    """Takes tasks until there are none; returns the steps made."""
    steps = 0
    for task in tasks:
        draw = Random(task.id)
        context = await browser.new_context(viewport={"width": 1280, "height": 720})
        session = await suite.open(task, context)
        page = await context.new_page()
        await page.goto(to_address(task.start_url, session.addresses))
        for _ in range(PLAIN_STEPS):
            links = page.get_by_role("link")
            await links.nth(draw.randrange(await links.count())).click()
            await page.screenshot(type="jpeg", quality=50)
            await page.locator("body").aria_snapshot()
            steps += 1
        await session.close()
        await context.close()
    return steps


if __name__ == "__main__":
    main()
