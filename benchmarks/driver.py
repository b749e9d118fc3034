"""Speed of the two drivers of episodes, Chromium and `asgi`, with the scripted expert of the arena or of seeking.

    python benchmarks/driver.py                          # the templates of the shop, one process
    python benchmarks/driver.py --domains shop code --episodes 200 --contexts 8
    python benchmarks/driver.py --drivers asgi --profile # where the time goes
    python benchmarks/driver.py --suite seeking --episodes 340

A step is an action, its page load, one observation, and its record. Steps per second are by the clock, and per second of this process's
processor time, which leaves out the processes of the browser; so are episodes per minute. The episodes are not written.
"""

import argparse
import asyncio
import cProfile
import datetime
import os
import platform
import pstats
import time

from mira_arena.seeking.questions import TEMPLATES as QUESTIONS
from mira_arena.sites.registry import APPLICATIONS
from mira_arena.tasks.registry import TEMPLATES
from rollouts.agents.base import PolicyConfig
from rollouts.agents.policy import make_policy
from rollouts.engine.worker import WorkerConfig, work
from rollouts.suites import make_suite
from rollouts.web.browser import BrowserConfig
from rollouts.web.observation import ObservationConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=["arena", "seeking"], default="arena")
    parser.add_argument("--domains", nargs="+", choices=APPLICATIONS, default=["shop"], help="of the arena")
    parser.add_argument("--drivers", nargs="+", choices=["chromium", "asgi"], default=["asgi", "chromium"])
    parser.add_argument("--episodes", type=int, default=80)
    parser.add_argument("--contexts", type=int, default=4, help="episodes at once")
    parser.add_argument("--policy", choices=["expert", "random", "idle"], default="expert")
    parser.add_argument("--profile", action="store_true", help="list the functions that take the most time")
    arguments = parser.parse_args()
    subject = ", ".join(arguments.domains) if arguments.suite == "arena" else arguments.suite
    print(f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, {subject}")
    for driver in arguments.drivers:
        asyncio.run(measure(driver, arguments))


async def measure(driver: str, arguments: argparse.Namespace) -> None:
    suite = make_suite(arguments.suite)
    names = _templates(arguments)
    config = WorkerConfig(
        policy=PolicyConfig(kind=arguments.policy),
        observation=ObservationConfig(handles="name", compact=True),
        browser=BrowserConfig(driver=driver, contexts=arguments.contexts, draw=False),
    )
    tasks = iter(suite.tasks("train", names, arguments.episodes + len(names), seed=0))
    steps = 0

    async with work(config, suite, make_policy(config.policy, suite)) as worker:

        async def play() -> None:
            nonlocal steps
            for task in tasks:
                episode = await worker.run(task, 0, 900.0)
                steps += len(episode.steps)

        # One episode of each template fills the caches: templates of pages, style sheets, the content of seeds.
        for _ in names:
            await worker.run(next(tasks), 0, 900.0)
        profile = cProfile.Profile()
        if arguments.profile:
            profile.enable()
        began, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*(play() for _ in range(arguments.contexts)))
        seconds, used = time.perf_counter() - began, time.process_time() - used
        profile.disable()
    print(f"{driver:9} {steps:6} steps  {steps / seconds:7.1f} steps/s  {steps / used:7.1f} steps per CPU second of this process")
    count = arguments.episodes
    print(f"{'':9} {count:6} episodes  {60 * count / seconds:7.0f} episodes/min  {60 * count / used:7.0f} episodes per CPU minute")
    if arguments.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)


def _templates(arguments: argparse.Namespace) -> list[str]:
    """The templates with instances in the training split."""
    if arguments.suite == "seeking":
        return [name for name, made in QUESTIONS.items() if not made.held_out]
    return [name for name, made in TEMPLATES.items() if made.applications[0] in arguments.domains and not made.held_out]


if __name__ == "__main__":
    main()
