"""Steps a second of the rollout engine: the arena's scripted expert in Chromium, by the number of contexts.

    python benchmarks/rollout.py --contexts 1 4 --rounds 5 --json rollout.json

A step is an action with real input, its page load, one observation, and the record of it. Each round runs every number
of contexts once, in turn, so that a noisy machine is noisy for all alike; the figures are medians over the rounds.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

from rollouts.pool import RolloutConfig, collect
from rollouts.suites.arena.tasks import instances
from rollouts.web.browser import BrowserConfig
from rollouts.web.observation import ObservationConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=44, help="in each run; 22 are one of every template")
    parser.add_argument("--draw", action="store_true", help="paint the pages, as sites with animation need")
    parser.add_argument("--screenshots", action="store_true", help="keep a JPEG of every page")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write every figure here")
    arguments = parser.parse_args()
    rates: dict[int, list[float]] = {contexts: [] for contexts in arguments.contexts}
    machine = f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, playwright {importlib.metadata.version('playwright')}")
    instances("train", None, arguments.episodes, 0)  # Drawing the tasks is no part of a step.
    for _ in range(arguments.rounds):
        for contexts, measured in rates.items():
            measured.append(steps_per_second(contexts, arguments))
    print("| contexts | steps/s, median | least - most |\n|---|---|---|")
    for contexts, measured in rates.items():
        print(f"| {contexts} | {statistics.median(measured):.1f} | {min(measured):.1f} - {max(measured):.1f} |")
    if arguments.json:
        medians = {str(contexts): statistics.median(measured) for contexts, measured in rates.items()}
        figures = {"machine": machine, "episodes": arguments.episodes, "steps_per_second": medians, "runs": rates}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def steps_per_second(contexts: int, arguments: argparse.Namespace) -> float:
    """Of one run, the start of browser and site left out."""
    browser = BrowserConfig(contexts=contexts, draw=arguments.draw or arguments.screenshots, screenshots=arguments.screenshots)
    config = RolloutConfig(episodes=arguments.episodes, browser=browser, observation=ObservationConfig(handles="name", compact=True))
    with tempfile.TemporaryDirectory() as folder:
        tally = collect(config, Path(folder))
    assert tally.status == {"finished": arguments.episodes}, tally.status
    return tally.steps_per_second


if __name__ == "__main__":
    main()
