"""Compares training methods over seeds on the arena's tours (docs/results.md). What is complete is not run again.

    python benchmarks/study.py run              # 8 seeds, all methods, on the test tasks
    python benchmarks/study.py table            # success rates by template, and comparisons over seeds
    python benchmarks/study.py search           # the settings of configs/study/search.yaml, on validation tasks

`run` trains the SFT policy (configs/study/policy.yaml), and for each seed what the methods share (seed.yaml) and each method (method.yaml
with methods/NAME.yaml). Each seed runs on one core, as many at once as --jobs. `search` does the same for every setting of every method,
on seeds of its own.
"""

import argparse
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

CONFIGS = Path("configs/study")
METHODS = sorted(path.stem for path in (CONFIGS / "methods").glob("*.yaml"))
SFT = "sft"
CACHE = "runs/study/compiled"
REFERENCE = "webrl"
"""The method that the others are compared with by default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table", "search"])
    parser.add_argument("--out", type=Path, default=Path("runs/study/rare"), help="folder of the study")
    parser.add_argument("--mistakes", type=float, default=0.5, help="share of wrong choices in the demonstrations")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 1 to 8, and 101 for search")
    parser.add_argument("--methods", nargs="+", choices=[SFT, *METHODS], default=[SFT, *METHODS])
    parser.add_argument("--against", nargs="+", default=[REFERENCE], help="table: the methods that all others are compared with")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="seeds at once, each on its own core")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of seed.yaml")
    arguments = parser.parse_args()
    if arguments.action == "table":
        table(arguments.out, arguments.methods, arguments.seeds or range(1, 9), arguments.against)
        return
    out = arguments.out
    phases("policy", out, 0, {"mistakes": arguments.mistakes})
    if arguments.action == "run":
        seeds, folder, split = arguments.seeds or range(1, 9), "test", "test"
        methods = {method: CONFIGS / "methods" / f"{method}.yaml" for method in arguments.methods}
    else:
        seeds, folder, split = arguments.seeds or [101], "search", "validation"
        methods = settings(out / "settings", [method for method in arguments.methods if method != SFT])

    def prepare(seed: int) -> Callable[[int], None]:
        shared = {"policy": f"{out}/{SFT}", "critic": f"{out}/first-critic"}
        return lambda core: phases("seed", out / f"seed-{seed}", seed, shared, core, arguments.set)

    def evaluate(seed: int, method: str, path: Path) -> Callable[[int], None]:
        values = {"policy": f"{out}/{SFT}", "data": f"{out}/seed-{seed}", "name": method, "config": str(path), "split": split}
        name = "baseline" if method == SFT else "method"
        return lambda core: phases(name, out / f"seed-{seed}" / folder / method, seed, values, core)

    in_parallel([prepare(seed) for seed in seeds], arguments.jobs)
    in_parallel([evaluate(seed, method, path) for seed in seeds for method, path in methods.items()], arguments.jobs)
    if arguments.action == "search":
        print_search(out, seeds, methods)


def settings(folder: Path, methods: Iterable[str]) -> dict[str, Path]:
    """Writes one config for each setting of each method. Returns NAME-NUMBER to its path."""
    tried: Mapping[str, Sequence[Mapping[str, Any]]] = yaml.safe_load((CONFIGS / "search.yaml").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for method in methods:
        for number, setting in enumerate(tried[method], 1):
            config = yaml.safe_load((CONFIGS / "methods" / f"{method}.yaml").read_text())
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


def phases(name: str, out: Path, seed: int, values: Mapping[str, Any], core: int | None = None, sets: Sequence[str] = ()) -> None:
    """Runs one config of configs/study, on the given core. Its output is in OUT.log. Raises CalledProcessError."""
    command = [sys.executable, "-m", "mira_jax.phases", "--config", f"{CONFIGS}/{name}.yaml", "--out", str(out), "--set", f"seed={seed}"]
    command += itertools.chain.from_iterable(("--set", one) for one in (*sets, *(f"values.{key}={value}" for key, value in values.items())))
    out.parent.mkdir(parents=True, exist_ok=True)
    # Every stage is a process, so programs are compiled once and kept.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(CACHE).resolve()), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
    pinned = None if core is None else lambda: os.sched_setaffinity(0, {core})
    with open(f"{out}.log", "a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, preexec_fn=pinned, env={**os.environ, **cache})
    print(f"{out}: complete", flush=True)


def rates(out: Path, seeds: Iterable[int], folder: str, method: str) -> dict[str, np.ndarray]:
    """Success rate by template, one value per seed, and their mean as `all`."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        summary = json.loads((out / f"seed-{seed}" / folder / method / "evaluation" / "summary.json").read_text())
        (of_method,) = summary["methods"].values()
        for template, rate in of_method["per_template"].items():
            found.setdefault(template, []).append(rate["mean"])
    ordered = sorted(found, key=lambda name: (len(name), name))
    by_template = {template: np.array(found[template]) for template in ordered}
    return {**by_template, "all": np.mean(list(by_template.values()), axis=0)}


def print_search(out: Path, seeds: Sequence[int], methods: Iterable[str]) -> None:
    found = {method: float(rates(out, seeds, "search", method)["all"].mean()) for method in methods}
    for method, rate in sorted(found.items(), key=lambda item: (item[0].rpartition("-")[0], -item[1])):
        print(f"{method:24} {100 * rate:5.1f} %")


def table(out: Path, methods: Sequence[str], seeds: Sequence[int], against: Sequence[str]) -> None:
    of_method = {method: rates(out, seeds, "test", method) for method in methods}
    templates = list(next(iter(of_method.values())))
    print(f"success in % over {len(seeds)} seeds, with Student's 95 % intervals\n")
    print("| method | " + " | ".join(templates) + " |\n" + "|---" * (len(templates) + 1) + "|")
    for method, by_template in sorted(of_method.items(), key=lambda item: -item[1]["all"].mean()):
        print(f"| {method} | " + " | ".join(interval(by_template[template]) for template in templates) + " |")
    for reference in against:
        others = [method for method in methods if method != reference]
        differences = {method: of_method[method]["all"] - of_method[reference]["all"] for method in others}
        p_values = {method: stats.ttest_1samp(values, 0).pvalue for method, values in differences.items()}
        adjusted = holm(p_values)
        print(f"\n| minus {reference} | " + " | ".join(templates) + " | p (paired t) | Holm | p (sign flip) |")
        print("|---" * (len(templates) + 4) + "|")
        for method in others:
            cells = [interval(of_method[method][template] - of_method[reference][template]) for template in templates]
            p = f"{p_values[method]:.2g} | {adjusted[method]:.2g} | {sign_flip(differences[method]):.2g}"
            print(f"| {method} | " + " | ".join(cells) + f" | {p} |")
    spread = np.mean([np.std(values["all"], ddof=1) for values in of_method.values()])
    print(f"\nstandard deviation over seeds: {100 * spread:.1f} points on average over methods")


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p values."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    steps = [min(1.0, (len(ordered) - rank) * p_values[name]) for rank, name in enumerate(ordered)]
    return dict(zip(ordered, np.maximum.accumulate(steps).tolist(), strict=True))


def sign_flip(differences: np.ndarray) -> float:
    """Two-sided p value of the mean over all assignments of signs."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    return float(np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12))


def interval(values: np.ndarray) -> str:
    """Mean and Student's 95 % interval over seeds, in percent."""
    if len(values) < 2:
        return f"{100 * values.mean():.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{100 * values.mean():.1f} ± {100 * half:.1f}"


if __name__ == "__main__":
    main()
