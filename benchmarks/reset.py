"""Milliseconds to reset an episode's sites, by application, for a new seed and for a seed used before.

python benchmarks/reset.py --seeds 200 --json reset.json
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from pathlib import Path

from mira_arena.sites.registry import APPLICATIONS
from mira_arena.sites.world import World

FIRST = 50_000
"""First seed. It is beyond the seeds for which drawing tasks would already have created content."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="PATH", help="file for all figures")
    arguments = parser.parse_args()
    machine = f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(machine)
    print("| application | new seed, median ms | 95th percentile | seen before, median | 95th percentile |\n|---|---|---|---|---|")
    figures = {}
    for app in APPLICATIONS:
        measured = {"new": [], "seen": []}
        for seed in range(FIRST, FIRST + arguments.seeds):
            for kind in measured:
                measured[kind].append(reset(app, seed))
        figures[app] = {kind: (statistics.median(times), statistics.quantiles(times, n=20)[-1]) for kind, times in measured.items()}
        print(f"| {app} | " + " | ".join(f"{time:.2f}" for kind in measured for time in figures[app][kind]) + " |")
    if arguments.json:
        ratios = {f"{app}/new/seen": kinds["new"][0] / kinds["seen"][0] for app, kinds in figures.items()}
        arguments.json.write_text(json.dumps({"machine": machine, "milliseconds": figures, "ratios": ratios}, indent=1) + "\n")


def reset(app: str, seed: int) -> float:
    """Milliseconds to create one application's state."""
    began = time.perf_counter()
    world = World(seed)
    world[app].snapshot()
    world.close()
    return 1e3 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
