"""Compares training methods over seeds on the arena's tours. Resumable: what is complete is not run again.

    python benchmarks/study.py run --out runs/study/rare --seeds 1 2 3 4 5 6 7 8
    python benchmarks/study.py table --out runs/study/rare --seeds 1 2 3 4 5 6 7 8

`run` trains the SFT policy (configs/study/policy.yaml), and for each seed what the methods share (seed.yaml) and each method (method.yaml
with methods/NAME.yaml). Each seed runs on one core, as many at once as --jobs. `table` prints success rates by template and the
comparisons over seeds.
"""

import argparse
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from scipy import stats

CONFIGS = "configs/study"
METHODS = sorted(path.stem for path in Path(CONFIGS, "methods").glob("*.yaml"))
SFT = "sft"
CACHE = "runs/study/compiled"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--out", default="runs/study/rare", help="folder of the study")
    parser.add_argument("--mistakes", type=float, default=0.5, help="share of wrong choices in the demonstrations")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--methods", nargs="+", choices=[SFT, *METHODS], default=[SFT, *METHODS])
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="seeds at once, each on its own core")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of seed.yaml")
    arguments = parser.parse_args()
    if arguments.action == "run":
        run(arguments)
    else:
        table(arguments)


def run(arguments: argparse.Namespace) -> None:
    out = Path(arguments.out)
    phases(0, "policy", out, [f"values.mistakes={arguments.mistakes}"], cores=None)
    seeds: queue.SimpleQueue[int] = queue.SimpleQueue()
    for seed in arguments.seeds:
        seeds.put(seed)
    failed = []

    def work(core: int) -> None:
        while True:
            try:
                seed = seeds.get_nowait()
            except queue.Empty:
                return
            folder, policy = out / f"seed-{seed}", f"values.policy={out}/{SFT}"
            try:
                phases(seed, "seed", folder, [policy, f"values.critic={out}/first-critic", *arguments.set], {core})
                for method in arguments.methods:
                    values = [policy, f"values.data={folder}", f"values.method={method}", f"values.split={arguments.split}"]
                    name = "baseline" if method == SFT else "method"
                    phases(seed, name, folder / arguments.split / method, values, {core})
            except subprocess.CalledProcessError as error:
                failed.append(f"seed {seed}: {error}")

    cores = sorted(os.sched_getaffinity(0))
    workers = [threading.Thread(target=work, args=(core,)) for core in itertools.islice(itertools.cycle(cores), arguments.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        sys.exit("\n".join(failed))


def phases(seed: int, name: str, out: Path, values: list[str], cores: set[int] | None) -> None:
    """Runs one config of configs/study, on the given cores. Its output is in OUT.log."""
    command = [sys.executable, "-m", "mira_jax.phases", "--config", f"{CONFIGS}/{name}.yaml", "--out", str(out), "--set", f"seed={seed}"]
    command += itertools.chain.from_iterable(("--set", value) for value in values)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Every stage is a process, so programs are compiled once and kept.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(CACHE).resolve()), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
    with open(f"{out}.log", "a") as log:
        pinned = cores and (lambda: os.sched_setaffinity(0, cores))
        subprocess.run(command, check=True, stdout=log, stderr=log, preexec_fn=pinned, env={**os.environ, **cache})
    print(f"{out}: complete", flush=True)


def table(arguments: argparse.Namespace) -> None:
    rates = {method: read(arguments, method) for method in arguments.methods}
    templates = sorted(next(iter(rates.values())), key=lambda name: int(name.partition("_")[2] or 0))
    print("| method | " + " | ".join(templates) + " | all |")
    print("|---" * (len(templates) + 2) + "|")
    for method, by_template in rates.items():
        cells = [interval(by_template[template]) for template in templates]
        print(f"| {method} | {' | '.join(cells)} | {interval(overall(by_template))} |")


def read(arguments: argparse.Namespace, method: str) -> dict[str, np.ndarray]:
    """Success rate by template, one value per seed."""
    found: dict[str, list[float]] = {}
    for seed in arguments.seeds:
        folder = Path(arguments.out, f"seed-{seed}", arguments.split, method, "evaluation")
        summary = json.loads((folder / "summary.json").read_text())
        (of_method,) = summary["methods"].values()
        for template, rate in of_method["per_template"].items():
            found.setdefault(template, []).append(rate["mean"])
    return {template: np.array(values) for template, values in found.items()}


def overall(by_template: dict[str, np.ndarray]) -> np.ndarray:
    return np.mean(list(by_template.values()), axis=0)


def interval(values: np.ndarray) -> str:
    """Mean and Student's 95 % interval over seeds, in percent."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{100 * values.mean():.1f} ± {100 * half:.1f}"


if __name__ == "__main__":
    main()
