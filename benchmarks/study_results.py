"""Tables and figures of a study, from the folder that `benchmarks/study.py` has written (docs/results.md).

python benchmarks/study_results.py table    # success rates by template, and comparisons over seeds
python benchmarks/study_results.py record   # outcomes of every task, to benchmarks/results/tours.jsonl
python benchmarks/study_results.py plot     # success by the number of legs, and the gate, as SVG files in the folder of the study
python benchmarks/study_results.py gate     # what the critics of all seeds are worth
python benchmarks/study_results.py costs    # minutes of computation, and steps in the environment
python benchmarks/study_results.py errors   # what failures have in common
python benchmarks/study_results.py power    # the power of the comparison, before it is run

With --recorded, `table` and `plot` read the file of `record` in place of the folder. All take --series.
"""

import argparse
import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from outcomes import ALL, OfMethods, Outcomes, interval, load, outcomes, print_table, rates, save
from scipy import stats

from mira_jax.files import sha256
from mira_jax.recipes.labels import column, mean_of_milestones, read_labels
from mira_jax.recipes.quality import critic_quality
from mira_jax.rl.calibration import reliability
from mira_jax.training.load import model_fingerprint
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable
from rollouts.analysis import statistics
from rollouts.analysis.evaluation import Evaluation
from rollouts.analysis.paired import compare_tasks
from rollouts.pages import charts, critics, frame

CONFIGS = Path("configs/study")
MISTAKES = {"rare": 0.5, "common": 0.1}
"""Of each series of tours, the share of wrong choices in the demonstrations."""
METHODS = {
    "rare": sorted(path.stem for path in (CONFIGS / "methods").glob("*.yaml")),
    "common": ["filtered_bc", "prefix_bc", "recommended"],
}
SFT = "sft"
PHASES, PHASED = 4, "_phases"
"""The number of phases, and the end of a method's name if it is run in phases."""
RECORDED = {"rare": Path("benchmarks/results/tours.jsonl"), "common": Path("benchmarks/results/tours-common.jsonl")}
SEEDS = range(1, 9)
BASELINES = ("template", "constant")
TRAINED = ("first", "sft", "critic", "potential", "actor")
"""Beginnings of the names of stages that train."""
EFFECTS, DEVIATIONS = (5, 8, 15, 30), (3, 5, 8)
"""Differences of success, and their standard deviations over seeds, in percentage points."""


def main() -> None:
    actions = {
        "table": table,
        "record": record,
        "plot": plot,
        "gate": print_gate,
        "costs": print_costs,
        "errors": print_errors,
        "power": print_power,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=actions)
    add_arguments(parser)
    parser.add_argument("--against", nargs="+", default=["webrl"], help="table: the methods that all others are compared with")
    parser.add_argument("--recorded", action="store_true", help="table, plot: read the file of `record`")
    arguments = parse(parser)
    out, methods, seeds = arguments.out, arguments.methods, arguments.seeds or SEEDS
    path = RECORDED[arguments.series]
    recorded = path if arguments.recorded else None
    of_action = {
        "table": (out, methods, seeds, arguments.against, recorded),
        "record": (out, methods, seeds, path),
        "plot": (out, methods, seeds, recorded),
        "gate": (out, seeds),
        "power": (len(seeds), len(methods) - 1),
    }
    actions[arguments.action](*of_action.get(arguments.action, (out, methods, seeds)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that name the parts of a study."""
    parser.add_argument("--series", choices=MISTAKES, default="rare", help="whether successes of the SFT policy are rare or common")
    parser.add_argument("--out", type=Path, help="folder of the study; default: runs/study/SERIES")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 1 to 8, and 101 for a search")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=[SFT, *METHODS["rare"], *(name + PHASED for name in METHODS["rare"])],
        help=f"default: all of the series, each in one phase; NAME{PHASED} is a method in {PHASES} phases",
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, with the defaults that depend on the series."""
    arguments = parser.parse_args()
    arguments.out = arguments.out or Path("runs/study", arguments.series)
    arguments.methods = arguments.methods or [SFT, *METHODS[arguments.series]]
    return arguments


def config(series: str, name: str) -> Path:
    """The config of a method, or `search`, in a series: its own if it has one."""
    places = (CONFIGS / folder / f"{name.removesuffix(PHASED)}.yaml" for folder in (series, "methods", ""))
    return next(path for path in places if path.exists())


def evaluations(out: Path, seeds: Iterable[int], folder: str, method: str) -> dict[int, Evaluation]:
    """The evaluations of a method's last policies."""
    last = f"evaluations/phase-{PHASES}" if method.endswith(PHASED) else "evaluation"
    return {seed: Evaluation(method, out / f"seed-{seed}" / folder / method / last) for seed in seeds}


def print_search(out: Path, seeds: Sequence[int], methods: Iterable[str]) -> None:
    """Prints the success rate of every setting, those of a method together, the best first."""
    found = {method: float(np.mean(rates(map(outcomes, evaluations(out, seeds, "search", method).values()))[ALL])) for method in methods}
    for method, rate in sorted(found.items(), key=lambda item: (item[0].rpartition("-")[0], -item[1])):
        print(f"{method:24} {100 * rate:5.1f} %")


def print_confirmation(out: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Prints the success with and without a browser, and how many outcomes differ."""
    print("\n| seed | method | without a browser | in Chromium | tasks with another outcome |\n|---|---|---|---|---|")
    for seed, method in itertools.product(seeds, methods):
        without, within = (evaluations(out, [seed], folder, method)[seed] for folder in ("test", "chromium"))
        pair = compare_tasks(without, within)
        rates = " | ".join(f"{100 * success(evaluation):.1f} %" for evaluation in (without, within))
        print(f"| {seed} | {method} | {rates} | {len(pair.wins) + len(pair.losses)} |")


def print_values(out: Path, runs: Sequence[str]) -> None:
    """Prints the measures of V on the rollouts of seed 2, which no critic has seen, and the success of the actors on validation tasks."""
    labels = read_labels(ShardReader(out / "seed-2" / "labelled"))
    tables = {name: SideTable.read(out / "values" / name / "scores-other" / "critic.npz") for name in runs}
    found = {name: column(labels, [table], "value") for name, table in tables.items()}
    found["mean of the plain ones"] = np.mean([value for name, value in found.items() if name.startswith("plain")], axis=0)
    print("\n| V | NLL | Brier | AUROC | success of the actor |\n|---|---|---|---|---|")
    for name, value in found.items():
        measures = critic_quality(labels, {"value": value})["value"]
        rate = f"{100 * success(Evaluation(name, out / 'values' / name / 'evaluation')):.1f} %" if name in runs else ""
        print(f"| {name} | " + " | ".join(f"{measures[key]:.3f}" for key in ("nll", "brier", "auroc")) + f" | {rate} |")


def success(evaluation: Evaluation) -> float:
    return float(np.mean([one.success for one in evaluation.judged]))


def table(out: Path, methods: Sequence[str], seeds: Sequence[int], against: Sequence[str], recorded: Path | None) -> None:
    """Prints the table of the evaluations on test tasks."""
    found = read(out, methods, seeds, recorded)
    if missing := sorted(set(against) - found.keys()):
        print(f"not compared with {', '.join(missing)}: no outcomes of all these seeds\n")
    print_table(found, [method for method in against if method in found])


def record(out: Path, methods: Sequence[str], seeds: Sequence[int], path: Path) -> None:
    """Writes the outcomes of the evaluations on test tasks that are complete."""
    methods = [*methods, *(method + PHASED for method in methods if not method.endswith(PHASED))]
    for method, seed in itertools.product(methods, seeds):
        last = f"evaluate-{PHASES}.json" if method.endswith(PHASED) else "evaluate.json"
        stage = out / f"seed-{seed}" / "test" / method / "stages" / last
        if stage.exists() and json.loads(stage.read_text()).get("complete"):
            save(path, {method: {seed: tested(out, seed, method)}})
    print(f"{path}: " + ", ".join(f"{method} {len(of_seed)}" for method, of_seed in load(path).items()))


def tested(out: Path, seed: int, method: str) -> Outcomes:
    """The outcomes on test tasks, with what the methods of the seed began with."""
    scores = sha256(out / f"seed-{seed}" / "scores" / "critic.npz")
    start = hashlib.sha256(f"{model_fingerprint(out / SFT)} {scores}".encode()).hexdigest()[:16]
    return dataclasses.replace(outcomes(evaluations(out, [seed], "test", method)[seed]), start=start)


def read(out: Path, methods: Sequence[str], seeds: Sequence[int], recorded: Path | None) -> OfMethods:
    """The outcomes on test tasks, from the study or from a file of `record`."""
    if recorded is None:
        return {method: {seed: tested(out, seed, method) for seed in seeds} for method in methods}
    found = load(recorded)
    return {method: {seed: found[method][seed] for seed in seeds} for method in methods if set(seeds) <= found.get(method, {}).keys()}


def plot(out: Path, methods: Sequence[str], seeds: Sequence[int], recorded: Path | None) -> None:
    """Draws the success rates of the methods, in this order, over the number of legs, with Student's 95 % intervals over seeds."""
    series, bands = [], {}
    for place, (method, of_seed) in enumerate(read(out, methods, seeds, recorded).items()):
        found = {template: values for template, values in rates(of_seed.values()).items() if template != ALL}
        by_legs = sorted((int(template.rpartition("_")[2]), 100 * np.asarray(values)) for template, values in found.items())
        series.append((place, method, [(legs, float(values.mean())) for legs, values in by_legs]))
        if len(seeds) > 1:
            # Seeds that are all equal, such as 0 of 75, have no interval: a band of no width.
            intervals = [(legs, *(statistics.t_interval(values) or (values[0], values[0]))) for legs, values in by_legs]
            bands[method] = [(legs, max(low, 0.0), min(high, 100.0)) for legs, low, high in intervals]
    title = f"Success by the number of legs, means over {len(seeds)} seeds with 95 % intervals"
    chart = charts.lines(title, series, "Legs of the tour (K)", "Tasks solved (%)", bands, (0, 100), 760, 420, dots=True, named=True)
    write_chart(out / "success.svg", chart)
    if recorded is None:
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


def print_errors(out: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Prints what the failures have in common: the first response that could not be done, if there is one."""
    print("| method | failures | text that is no action | an element that is not there | every action was done |\n|---|---|---|---|---|")
    for method in methods:
        found = collections.Counter()
        for evaluation in evaluations(out, seeds, "test", method).values():
            for episode in ShardReader(evaluation.folder / "labelled"):
                if not episode.outcome.success:
                    wrong = next((step for step in episode.steps if step.error), None)
                    found["done" if wrong is None else "no action" if wrong.action is None else "no element"] += 1
        print(f"| {method} | {found.total()} | {found['no action']} | {found['no element']} | {found['done']} |")


def print_power(seeds: int, comparisons: int) -> None:
    """Prints the probability that a paired t test over seeds finds a difference, at p < .01 and at Holm's strictest level."""
    print(f"| {seeds} seeds | " + " | ".join(f"{effect} points" for effect in EFFECTS) + " |\n" + "|---" * (len(EFFECTS) + 1) + "|")
    for deviation, level in itertools.product(DEVIATIONS, (0.01, 0.01 / comparisons)):
        drawn = np.random.default_rng(0).normal(0, deviation, (100_000, seeds))
        cells = [f"{np.mean(stats.ttest_1samp(drawn + effect, 0, axis=1).pvalue < level):.2f}" for effect in EFFECTS]
        print(f"| differences of seeds vary by {deviation} points (sd), p < {level:.3g} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
