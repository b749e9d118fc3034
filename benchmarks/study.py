"""Compares training methods over seeds on the arena's tours (docs/results.md). What is complete is not run again.

    python benchmarks/study.py run              # 8 seeds, all methods, on the test tasks
    python benchmarks/study.py gate             # what the critics of all seeds are worth
    python benchmarks/study.py table            # success rates by template, and comparisons over seeds
    python benchmarks/study.py plot             # success by the number of legs, and the gate, as SVG files in the folder of the study
    python benchmarks/study.py costs            # minutes of computation, and steps in the environment
    python benchmarks/study.py confirm          # the policies of seed 1 once more, in Chromium, and where outcomes differ
    python benchmarks/study.py values           # options of V: what V is worth, and the actor that learns with it, on validation tasks
    python benchmarks/study.py search           # the settings of configs/study/search.yaml, on validation tasks
    python benchmarks/study.py power            # the power of the comparison, before it is run

`run` trains the SFT policy (configs/study/policy.yaml), and for each seed what the methods share (seed.yaml) and each method (method.yaml
with methods/NAME.yaml). Each runs on one core, as many at once as --jobs. `search` does the same for every setting of every method,
on seeds of its own.
"""

import argparse
import collections
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
from markupsafe import Markup
from scipy import stats

from mira_jax.recipes.labels import column, mean_of_milestones, read_labels
from mira_jax.recipes.quality import critic_quality
from mira_jax.rl.calibration import reliability
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable
from rollouts.analysis import statistics
from rollouts.analysis.evaluation import Evaluation
from rollouts.analysis.paired import Paired, compare_tasks, over_seeds
from rollouts.pages import charts, critics, frame

CONFIGS = Path("configs/study")
METHODS = sorted(path.stem for path in (CONFIGS / "methods").glob("*.yaml"))
SFT = "sft"
CACHE = "runs/study/compiled"
REFERENCE = "webrl"
"""The method that the others are compared with by default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "gate", "table", "plot", "costs", "confirm", "values", "search", "power"])
    parser.add_argument("--out", type=Path, default=Path("runs/study/rare"), help="folder of the study")
    parser.add_argument("--mistakes", type=float, default=0.5, help="share of wrong choices in the demonstrations")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 1 to 8, and 101 for search")
    parser.add_argument("--methods", nargs="+", choices=[SFT, *METHODS], default=[SFT, *METHODS])
    parser.add_argument("--against", nargs="+", default=[REFERENCE], help="table: the methods that all others are compared with")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at once, each on its own core")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of seed.yaml")
    arguments = parser.parse_args()
    if arguments.action == "power":
        print_power(len(arguments.seeds or range(1, 9)), len(arguments.methods) - 1)
        return
    if arguments.action == "gate":
        print_gate(arguments.out, arguments.seeds or range(1, 9))
        return
    if arguments.action == "table":
        table(arguments.out, arguments.methods, arguments.seeds or range(1, 9), arguments.against)
        return
    if arguments.action == "costs":
        print_costs(arguments.out, arguments.methods, arguments.seeds or range(1, 9))
        return
    if arguments.action == "confirm":
        confirm(arguments.out, arguments.methods, arguments.seeds or [1], arguments.jobs)
        return
    if arguments.action == "values":
        compare_values(arguments.out, arguments.jobs)
        return
    if arguments.action == "plot":
        plot(arguments.out, arguments.methods, arguments.seeds or range(1, 9))
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
        values, name = {"policy": f"{out}/{SFT}", "name": method, "split": split}, "baseline"
        if method != SFT:
            values, name = values | {"data": f"{out}/seed-{seed}", "config": str(path)}, "method"
        return lambda core: phases(name, out / f"seed-{seed}" / folder / method, seed, values, core)

    in_parallel([prepare(seed) for seed in seeds], arguments.jobs)
    in_parallel([evaluate(seed, method, path) for seed in seeds for method, path in methods.items()], arguments.jobs)
    if arguments.action == "search":
        print_search(out, seeds, methods)


def confirm(out: Path, methods: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    """Evaluates the policies of the study in Chromium, and compares the outcomes task by task with those without a browser."""

    def again(seed: int, method: str) -> Callable[[int], None]:
        before = out / f"seed-{seed}" / "test" / method
        model = out / SFT if method == SFT else before / "actor"
        values = {"name": method, "model": model, "tokenizer": out / SFT, "checkpoint": os.path.relpath(model, before)}
        return lambda core: phases("confirm", out / f"seed-{seed}" / "chromium" / method, seed, values, core)

    in_parallel([again(seed, method) for seed in seeds for method in methods], jobs)
    print("\n| seed | method | without a browser | in Chromium | other outcome |\n|---|---|---|---|---|")
    for seed, method in itertools.product(seeds, methods):
        without, within = (evaluations(out, [seed], folder, method)[seed] for folder in ("test", "chromium"))
        pair = compare_tasks(without, within)
        rates = (100 * np.mean([one.success for one in evaluation.judged]) for evaluation in (without, within))
        print(f"| {seed} | {method} | " + " | ".join(f"{rate:.1f} %" for rate in rates) + f" | {len(pair.wins) + len(pair.losses)} |")


def compare_values(out: Path, jobs: int) -> None:
    """Trains critics with every option of V, and an actor with each, on the data of seed 1. Prints the measures of V on the rollouts of
    seed 2, and the success of the actors on validation tasks. The critics without an option are trained with three seeds."""
    runs = {path.stem: (path.stem, 1) for path in sorted((CONFIGS / "values").glob("*.yaml"))}
    runs |= {f"plain-{seed}": ("plain", seed) for seed in (11, 12)}
    shared = {"policy": out / SFT, "critic": out / "first-critic", "data": out / "seed-1", "other": out / "seed-2"}

    def run(name: str, config: str, seed: int) -> Callable[[int], None]:
        values = {**shared, "config": CONFIGS / "values" / f"{config}.yaml"}
        return lambda core: phases("value", out / "values" / name, seed, values, core)

    in_parallel([run(name, *of) for name, of in runs.items()], jobs)
    labels = read_labels(ShardReader(out / "seed-2" / "labelled"))
    tables = {name: SideTable.read(out / "values" / name / "scores-other" / "critic.npz") for name in runs}
    found = {name: column(labels, [table], "value") for name, table in tables.items()}
    found["mean of the three plain"] = np.mean([value for name, value in found.items() if name.startswith("plain")], axis=0)
    print("\n| V | NLL | Brier | AUROC | success of the actor |\n|---|---|---|---|---|")
    for name, value in found.items():
        measures = critic_quality(labels, {"value": value})["value"]
        rate = ""
        if name in runs:
            judged = Evaluation(name, out / "values" / name / "evaluation").judged
            rate = f"{100 * np.mean([one.success for one in judged]):.1f} %"
        print(f"| {name} | " + " | ".join(f"{measures[key]:.3f}" for key in ("nll", "brier", "auroc")) + f" | {rate} |")


def settings(folder: Path, methods: Iterable[str]) -> dict[str, Path]:
    """Writes one config for each setting of each method. Returns NAME-NUMBER to its path. Exits if the settings of a method differ in
    their keys: a key that one of them lacks would be that of methods/, which is the best setting and changes with the search."""
    tried: Mapping[str, Sequence[Mapping[str, Any]]] = yaml.safe_load((CONFIGS / "search.yaml").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for method in methods:
        if len({frozenset(setting) for setting in tried[method]}) > 1:
            sys.exit(f"{CONFIGS}/search.yaml: the settings of {method} differ in their keys; name the same ones in each")
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


ALL = "all"
BASELINES = ("template", "constant")
TRAINED = ("first", "sft", "critic", "potential", "actor")
"""Beginnings of the names of stages that train."""
EFFECTS, DEVIATIONS = (5, 8, 15, 30), (3, 5, 8)
"""Differences of success, and their standard deviations over seeds, in percentage points."""


def evaluations(out: Path, seeds: Iterable[int], folder: str, method: str) -> dict[int, Evaluation]:
    return {seed: Evaluation(method, out / f"seed-{seed}" / folder / method / "evaluation") for seed in seeds}


def print_search(out: Path, seeds: Sequence[int], methods: Iterable[str]) -> None:
    """Prints the success rate of every setting, those of a method together, the best first."""
    found = {method: float(np.mean(rates(evaluations(out, seeds, "search", method))[ALL])) for method in methods}
    for method, rate in sorted(found.items(), key=lambda item: (item[0].rpartition("-")[0], -item[1])):
        print(f"{method:24} {100 * rate:5.1f} %")


def table(out: Path, methods: Sequence[str], seeds: Sequence[int], against: Sequence[str]) -> None:
    """Prints success rates by template, and each method minus those in `against`, paired by task."""
    of_method = {method: evaluations(out, seeds, "test", method) for method in methods}
    rows = {method: rates(of_seed) for method, of_seed in of_method.items()}
    templates = sorted(next(iter(rows.values())), key=lambda name: (name == ALL, len(name), name))
    print(f"success in % over {len(seeds)} seeds, with {statistics.SEED_INTERVAL}, 95 %\n")
    print("| method | " + " | ".join(templates) + " |\n" + "|---" * (len(templates) + 1) + "|")
    for method, row in sorted(rows.items(), key=lambda item: -np.mean(item[1][ALL])):
        print(f"| {method} | " + " | ".join(interval(row[template]) for template in templates) + " |")
    if len(seeds) < 2:
        return
    for reference in against:
        others = [method for method in methods if method != reference]
        pairs = {other: {seed: compare_tasks(of_method[reference][seed], of_method[other][seed]) for seed in seeds} for other in others}
        rows = {other: differences(pairs[other].values()) for other in others}
        p_values = {other: float(stats.ttest_1samp(rows[other][ALL], 0).pvalue) for other in others}
        adjusted = statistics.holm(p_values)
        print(f"\n| minus {reference} | " + " | ".join(templates) + " | p (paired t) | Holm | p (sign flip) |")
        print("|---" * (len(templates) + 4) + "|")
        for other in others:
            cells = " | ".join(interval(rows[other][template]) for template in templates)
            flipped = over_seeds(pairs[other], (reference, other)).p_value
            print(f"| {other} | {cells} | {p_values[other]:.2g} | {adjusted[other]:.2g} | {flipped:.2g} |")


def plot(out: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Draws the success rates of the methods, in this order, over the number of legs, with Student's 95 % intervals over seeds."""
    series, bands = [], {}
    for place, method in enumerate(methods):
        found = {template: values for template, values in rates(evaluations(out, seeds, "test", method)).items() if template != ALL}
        by_legs = sorted((int(template.rpartition("_")[2]), 100 * np.asarray(values)) for template, values in found.items())
        series.append((place, method, [(legs, float(values.mean())) for legs, values in by_legs]))
        if len(seeds) > 1:
            # Seeds that are all equal, such as 0 of 75, have no interval: a band of no width.
            intervals = [(legs, *(statistics.t_interval(values) or (values[0], values[0]))) for legs, values in by_legs]
            bands[method] = [(legs, max(low, 0.0), min(high, 100.0)) for legs, low, high in intervals]
    title = f"Success by the number of legs, means over {len(seeds)} seeds with 95 % intervals"
    chart = charts.lines(title, series, "Legs of the tour (K)", "Tasks solved (%)", bands, (0, 100), 760, 420, dots=True, named=True)
    write_chart(out / "success.svg", chart)
    plot_gate(out, seeds)


def plot_gate(out: Path, seeds: Sequence[int]) -> None:
    """Draws the reliability of V over all steps of all seeds, and P at the last states of their failures."""
    value, success, share = [], [], []
    potentials: dict[str, list[np.ndarray]] = {"P of the milestone heads": [], "P learned from successes": []}
    for seed in seeds:
        labels = read_labels(ShardReader(out / f"seed-{seed}" / "labelled"))
        table = SideTable.read(out / f"seed-{seed}" / "scores" / "critic.npz")
        columns = {name: column(labels, [table], name) for name in table.columns}
        ends = labels.sound & labels.last & ~labels.success
        value.append(columns["value"][labels.sound])
        success.append(labels.success[labels.sound])
        share.append(labels.count[ends])
        for found, of in zip(potentials.values(), (mean_of_milestones(labels, columns), columns["potential"]), strict=True):
            found.append(of[ends])
    write_chart(out / "reliability.svg", critics.reliability(reliability(np.concatenate(value), np.concatenate(success))))
    curves = [(name, reliability(np.concatenate(share), np.concatenate(found))) for name, found in potentials.items()]
    write_chart(out / "potential.svg", critics.progress(curves, named=True))


def write_chart(path: Path, chart: Markup) -> None:
    path.write_text(frame.svg_file(chart), encoding="utf-8")
    print(path)


def print_gate(out: Path, seeds: Sequence[int]) -> None:
    """Prints the measures of V and of both potentials, each step scored by the critic that has not seen its task."""
    found = [json.loads((out / f"seed-{seed}" / "scores" / "critic.json").read_text()) for seed in seeds]
    print(f"means over {len(seeds)} seeds, with {statistics.SEED_INTERVAL}, 95 %\n\n| V | NLL | Brier | AUROC |\n|---|---|---|---|")
    for name in ("critic", *BASELINES):
        rows = [one["value"] if name == "critic" else one["value"][name] for one in found]
        # A constant that leaves the own task out is a bit lower for successes, which says nothing.
        keys = ("nll", "brier") if name == "constant" else ("nll", "brier", "auroc")
        print(f"| {name} | " + " | ".join(interval([row[key] for row in rows], 1, 3) for key in keys) + " |")
    keys = ("true_mean", "mean", "mae", "mae_of_constant", "correlation", "concordance")
    print("\n| P at the last states of failures | " + " | ".join(keys).replace("_", " ") + " |\n" + "|---" * (len(keys) + 1) + "|")
    for name in ("milestones", "potential"):
        print(f"| {name} | " + " | ".join(interval([one[name][key] for one in found], 1, 3) for key in keys) + " |")


def print_costs(out: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Prints the minutes that each part of the study took on its core, and the steps taken in the environment: means over seeds."""
    parts = {"policy and first critics, for all seeds": [(out, ["first-demonstrations", "demonstrations"])]}
    parts["rollouts, critics and scores of a seed"] = [(out / f"seed-{seed}", ["rollouts"]) for seed in seeds]
    for method in methods:
        parts[method] = [(out / f"seed-{seed}" / "test" / method, ["evaluation/labelled"]) for seed in seeds]
    print("| | minutes | of them training | steps in the environment |\n|---|---|---|---|")
    for name, runs in parts.items():
        minutes, trained, taken = [], [], []
        for folder, shards in runs:
            records = {path.stem: json.loads(path.read_text()) for path in (folder / "stages").glob("*.json")}
            spent = {stage: record["seconds"] / 60 for stage, record in records.items() if "seconds" in record}
            minutes.append(sum(spent.values()))
            trained.append(sum(value for stage, value in spent.items() if stage.startswith(TRAINED)))
            taken.append(sum(int(ShardReader(folder / one).steps_per_record.sum()) for one in shards))
        print(f"| {name} | {np.mean(minutes):.1f} | {np.mean(trained):.1f} | {np.mean(taken):,.0f} |")


def print_power(seeds: int, comparisons: int) -> None:
    """Prints the probability that a paired t test over seeds finds a difference, at p < .01 and at Holm's strictest level."""
    print(f"| {seeds} seeds | " + " | ".join(f"{effect} points" for effect in EFFECTS) + " |\n" + "|---" * (len(EFFECTS) + 1) + "|")
    for deviation, level in itertools.product(DEVIATIONS, (0.01, 0.01 / comparisons)):
        drawn = np.random.default_rng(0).normal(0, deviation, (100_000, seeds))
        cells = [f"{np.mean(stats.ttest_1samp(drawn + effect, 0, axis=1).pvalue < level):.2f}" for effect in EFFECTS]
        print(f"| differences of seeds vary by {deviation} points (sd), p < {level:.3g} | " + " | ".join(cells) + " |")


def rates(of_seed: Mapping[int, Evaluation]) -> dict[str, list[float]]:
    """Success rate by template and of all tasks, one value per seed."""
    found = collections.defaultdict(list)
    for evaluation in of_seed.values():
        for template, values in by_template((one.template, one.success) for one in evaluation.judged).items():
            found[template].append(float(np.mean(values)))
    return found


def differences(pairs: Iterable[Paired]) -> dict[str, list[float]]:
    """Mean difference over the tasks of a template, and over all tasks, one value per seed."""
    found = collections.defaultdict(list)
    for pair in pairs:
        tasks = [*pair.wins, *pair.losses, *pair.ties]
        for template, values in by_template((task.template, float(task.difference)) for task in tasks).items():
            found[template].append(float(np.mean(values)))
    return found


def by_template(values: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """Values by template, and all of them."""
    found = collections.defaultdict(list)
    for template, value in values:
        found[template].append(value)
        found[ALL].append(value)
    return found


def interval(values: Sequence[float], scale: float = 100, digits: int = 1) -> str:
    """Mean and half the width of Student's 95 % interval, by default in percent."""
    bounds = statistics.t_interval(values) if len(values) > 1 else None
    half = f" ± {scale * (bounds[1] - bounds[0]) / 2:.{digits}f}" if bounds else ""
    return f"{scale * np.mean(values):.{digits}f}{half}"


if __name__ == "__main__":
    main()
