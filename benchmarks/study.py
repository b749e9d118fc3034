"""Compares training methods over seeds on the arena's tours (docs/results.md). What is complete is not run again.

    python benchmarks/study.py run          # 8 seeds, all methods, on the test tasks, where successes are rare
    python benchmarks/study.py run --series common     # and where they are common
    python benchmarks/study.py run --methods recommended_phases prefix_bc_phases   # in four phases
    python benchmarks/study.py confirm      # the policies of seed 1 once more, in Chromium
    python benchmarks/study.py search       # the settings of configs/study/search.yaml, on validation tasks
    python benchmarks/study.py values       # options of V, and an actor with each, on validation tasks
    python benchmarks/study_results.py      # tables and figures

`run` trains the SFT policy (configs/study/policy.yaml), and for each seed what the methods share (seed.yaml) and each method (method.yaml
with methods/NAME.yaml). NAME_phases is a method with a quarter of the episodes in each of four phases (configs/phases/tours.yaml). Each
runs on one core, as many at once as --jobs. `search` does the same for every setting of every method, on seeds of its own. The series
`common` has settings of its own in common/.
"""

import argparse
import itertools
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import study_results as results
import yaml
from study_results import CONFIGS, SFT

CACHE = "runs/study/compiled"
PHASE = {"episodes": 250, "proposals": 250, "tasks": 125}
"""Of each of four phases, so that a method has as many episodes as in one phase."""


def main() -> None:
    actions = {"run": run, "confirm": confirm, "search": search, "values": values}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=actions)
    results.add_arguments(parser)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at once, each on its own core")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of seed.yaml")
    arguments = results.parse(parser)
    actions[arguments.action](arguments)


def run(arguments: argparse.Namespace) -> None:
    configs = {method: results.config(arguments.series, method) for method in arguments.methods}
    train_policy(arguments)
    run_methods(arguments, configs, arguments.seeds or results.SEEDS, "test", "test")


def search(arguments: argparse.Namespace) -> None:
    train_policy(arguments)
    configs = settings(arguments.series, arguments.out / "settings", [method for method in arguments.methods if method != SFT])
    seeds = arguments.seeds or [101]
    run_methods(arguments, configs, seeds, "search", "validation")
    results.print_search(arguments.out, seeds, configs)


def train_policy(arguments: argparse.Namespace) -> None:
    """Trains the policy that all methods start from, and the first critic."""
    phases(CONFIGS / "policy.yaml", arguments.out, 0, {"mistakes": results.MISTAKES[arguments.series]})


def run_methods(arguments: argparse.Namespace, configs: Mapping[str, Path], seeds: Sequence[int], folder: str, split: str) -> None:
    """Runs what the methods of each seed share, and the methods, each in `seed-N/FOLDER/NAME` of the study."""
    out = arguments.out

    def prepare(seed: int) -> Callable[[int], None]:
        shared = {"policy": f"{out}/{SFT}", "critic": f"{out}/first-critic"}
        return lambda core: phases(CONFIGS / "seed.yaml", out / f"seed-{seed}", seed, shared, core, arguments.set)

    def evaluate(seed: int, method: str, path: Path) -> Callable[[int], None]:
        values: dict[str, Any] = {"policy": f"{out}/{SFT}", "name": method, "split": split}
        config = CONFIGS / "baseline.yaml"
        if method.endswith(results.PHASED):
            config = Path("configs/phases/tours.yaml")
            values = {"policy": f"{out}/{SFT}", "critic": f"{out}/first-critic", "config": str(path), **PHASE}
        elif method != SFT:
            config = CONFIGS / "method.yaml"
            values |= {"data": f"{out}/seed-{seed}", "config": str(path)}
        return lambda core: phases(config, out / f"seed-{seed}" / folder / method, seed, values, core)

    in_parallel([prepare(seed) for seed in seeds], arguments.jobs)
    in_parallel([evaluate(seed, method, path) for seed in seeds for method, path in configs.items()], arguments.jobs)


def confirm(arguments: argparse.Namespace) -> None:
    """Evaluates the policies of `run` in Chromium, and prints where outcomes differ. Exits if a method is in several phases."""
    if phased := [method for method in arguments.methods if method.endswith(results.PHASED)]:
        sys.exit(f"confirm: {', '.join(phased)}: only methods in one phase are evaluated again")
    out, seeds = arguments.out, arguments.seeds or [1]

    def again(seed: int, method: str) -> Callable[[int], None]:
        before = out / f"seed-{seed}" / "test" / method
        model = out / SFT if method == SFT else before / "actor"
        values = {"name": method, "model": model, "tokenizer": out / SFT, "checkpoint": os.path.relpath(model, before)}
        return lambda core: phases(CONFIGS / "confirm.yaml", out / f"seed-{seed}" / "chromium" / method, seed, values, core)

    in_parallel([again(seed, method) for seed in seeds for method in arguments.methods], arguments.jobs)
    results.print_confirmation(out, arguments.methods, seeds)


def values(arguments: argparse.Namespace) -> None:
    """Trains critics with every option of V, and an actor with each, on the data of seed 1. The critics without an option are trained
    with three seeds."""
    out = arguments.out
    runs = {path.stem: (path.stem, 1) for path in sorted((CONFIGS / "values").glob("*.yaml"))}
    runs |= {f"plain-{seed}": ("plain", seed) for seed in (11, 12)}
    shared = {"policy": out / SFT, "critic": out / "first-critic", "data": out / "seed-1", "other": out / "seed-2"}

    def train(name: str, config: str, seed: int) -> Callable[[int], None]:
        of_run = {**shared, "config": CONFIGS / "values" / f"{config}.yaml"}
        return lambda core: phases(CONFIGS / "value.yaml", out / "values" / name, seed, of_run, core)

    in_parallel([train(name, *of) for name, of in runs.items()], arguments.jobs)
    results.print_values(out, list(runs))


def settings(series: str, folder: Path, methods: Iterable[str]) -> dict[str, Path]:
    """Writes one config for each setting of each method. Returns NAME-NUMBER to its path. Exits if there are none, or if they differ
    in their keys: a key that one of them lacks would be that of methods/, which is the best setting and changes with the search."""
    search = results.config(series, "search")
    tried: Mapping[str, Sequence[Mapping[str, Any]]] = yaml.safe_load(search.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    if unknown := [method for method in methods if method not in tried]:
        sys.exit(f"{search}: has no settings of {', '.join(unknown)}; name methods that it has with --methods")
    for method in methods:
        if len({frozenset(setting) for setting in tried[method]}) > 1:
            sys.exit(f"{search}: the settings of {method} differ in their keys; name the same ones in each")
        for number, setting in enumerate(tried[method], 1):
            config = yaml.safe_load(results.config(series, method).read_text())
            recipe = {**config.get("recipe", {}), **{key: value for key, value in setting.items() if key != "epochs"}}
            config |= {"recipe": recipe, **{key: value for key, value in setting.items() if key == "epochs"}}
            paths[f"{method}-{number}"] = path = folder / f"{method}-{number}.yaml"
            path.write_text(yaml.safe_dump(config))
    return paths


def in_parallel(jobs: Sequence[Callable[[int], None]], count: int) -> None:
    """Runs jobs, each with a core of its own. Exits with 1 at the end if one failed."""
    waiting: queue.SimpleQueue[Callable[[int], None]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failed: list[str] = []

    def work(core: int) -> None:
        while True:
            try:
                waiting.get_nowait()(core)
            except queue.Empty:
                return
            except subprocess.CalledProcessError as error:
                failed.append(str(error))

    cores = itertools.islice(itertools.cycle(sorted(os.sched_getaffinity(0))), count)
    workers = [threading.Thread(target=work, args=(core,)) for core in cores]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        sys.exit("\n".join(failed))


def phases(config: Path, out: Path, seed: int, values: Mapping[str, Any], core: int | None = None, sets: Sequence[str] = ()) -> None:
    """Runs a config of phases, on the given core. Its output is in OUT.log. Raises CalledProcessError."""
    command = [sys.executable, "-m", "mira_jax.phases", "--config", str(config), "--out", str(out), "--set", f"seed={seed}"]
    command += itertools.chain.from_iterable(("--set", one) for one in (*sets, *(f"values.{key}={value}" for key, value in values.items())))
    out.parent.mkdir(parents=True, exist_ok=True)
    # The runs of a study share what they compile.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(CACHE).resolve())}
    pinned = None if core is None else lambda: os.sched_setaffinity(0, {core})
    with open(f"{out}.log", "a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, preexec_fn=pinned, env={**os.environ, **cache})
    print(f"{out}: complete", flush=True)


if __name__ == "__main__":
    main()
