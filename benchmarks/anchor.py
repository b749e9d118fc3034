"""Compares methods of online training on questions of the suite seeking (docs/anchor.md). What is complete is not run again.

    mira phases --config configs/anchor/policy.yaml     # the policy that all start from
    python benchmarks/anchor.py run                     # 8 seeds, all methods
    python benchmarks/anchor.py table                   # success by hops, and comparisons over seeds
    python benchmarks/anchor.py record                  # outcomes of every task, to benchmarks/results/anchor.jsonl
    python benchmarks/anchor.py costs                   # episodes, steps, updates, tokens and seconds

With --recorded, `table` reads the file of `record` in place of the runs. All methods draw about the same number of steps. Each run
is on one core, as many at once as --jobs.
"""

import argparse
import collections
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from outcomes import OfMethods, load, outcomes, print_table, save
from study import in_parallel

from mira_jax.trajectories.shards import ShardReader
from rollouts.analysis.evaluation import Evaluation

CONFIGS = Path("configs/anchor")
GRPO: Mapping[str, Any] = {"name": "actor", "objective": "grpo"}
ONLINE: Mapping[str, Mapping[str, Any]] = {
    "grpo": GRPO,
    "first_step": {**GRPO, "credit": "plan", "length": 20.0},
    "entropy": {**GRPO, "entropy_weight": 0.4},
    "rejection": {"name": "actor", "objective": "filtered_bc"},
}
"""Method to the recipe of the trainer. anchor has two stages, in configs/anchor/anchor.yaml."""
ANCHOR, SFT = "anchor", "sft"
METHODS = (SFT, *ONLINE, ANCHOR)
SEEDS = range(1, 9)
RECORDED = Path("benchmarks/results/anchor.jsonl")
EVALUATION = "test"
"""What the stage of the evaluation writes, in the folder of a version."""


def main() -> None:
    actions = {"run": run, "table": table, "record": record, "costs": costs}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=actions)
    parser.add_argument("--out", type=Path, default=Path("runs/anchor"), help="folder of the study, with the policy in sft")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--recorded", action="store_true", help=f"table: from {RECORDED}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at once, each on its own core")
    parser.add_argument("--questions", type=int, default=24, help="of a round, with eight attempts each")
    parser.add_argument("--rounds", type=int, default=10, help="of a method with one stage")
    parser.add_argument("--plan-rounds", type=int, default=20, help="of the first stage of anchor, of one step an episode")
    arguments = parser.parse_args()
    actions[arguments.action](arguments)


def run(arguments: argparse.Namespace) -> None:
    jobs = [job(arguments, seed, method) for seed in arguments.seeds for method in arguments.methods if method != SFT]
    in_parallel(jobs, arguments.jobs)
    table(arguments)


def job(arguments: argparse.Namespace, seed: int, method: str) -> Callable[[int], None]:
    out = folder(arguments.out, seed, method)
    sets = [f"seed={seed}", f"values.policy={arguments.out / SFT}", f"values.questions={arguments.questions}"]
    if method == ANCHOR:
        command = ["mira_jax.phases", "--config", str(CONFIGS / "anchor.yaml")]
        plan = arguments.plan_rounds
        # An episode has about ten steps, and a plan one.
        sets += [f"values.plan_rounds={plan}", f"values.rounds={max(1, arguments.rounds - round(plan / 10))}"]
    else:
        command = ["mira_jax.online", "--config", str(CONFIGS / "grpo.yaml")]
        sets.append(f"rounds={arguments.rounds}")
        # SFT is evaluated once for each seed.
        sets += [f"trainer.set.recipe={json.dumps(ONLINE[method])}", *(["evaluate_every=1000"] if method == "grpo" else [])]
    command += ["--out", str(out), *itertools.chain.from_iterable(("--set", one) for one in sets)]

    def start(core: int) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        cache = {"JAX_COMPILATION_CACHE_DIR": str((arguments.out / "compiled").resolve())}
        with open(f"{out}.log", "a") as log:
            subprocess.run(
                [sys.executable, "-m", *command], check=True, stdout=log, stderr=log, env={**os.environ, **cache},
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )  # fmt: skip
        print(f"{out}: complete", flush=True)

    return start


def folder(out: Path, seed: int, method: str) -> Path:
    return out / f"seed-{seed}" / method


def last_evaluation(out: Path, seed: int, method: str) -> Evaluation:
    """The evaluation after the last round; that of SFT is the one before the first round of another method."""
    place = folder(out, seed, "grpo" if method == SFT else method) / ("execution" if method == ANCHOR else "") / "evaluations"
    versions = sorted(int(path.name) for path in place.iterdir() if path.name.isdigit())
    return Evaluation(method, place / str(0 if method == SFT else versions[-1]) / EVALUATION)


def table(arguments: argparse.Namespace) -> None:
    found = load(RECORDED) if arguments.recorded else finished(arguments)
    rows = {method: {seed: found[method][seed] for seed in arguments.seeds} for method in arguments.methods if method in found}
    print_table(rows, [method for method in ("grpo",) if method in rows])


def record(arguments: argparse.Namespace) -> None:
    save(RECORDED, finished(arguments))


def finished(arguments: argparse.Namespace) -> OfMethods:
    return {
        method: {seed: outcomes(last_evaluation(arguments.out, seed, method)) for seed in arguments.seeds} for method in arguments.methods
    }


def costs(arguments: argparse.Namespace) -> None:
    """Episodes, steps, updates, trained tokens and seconds of each method, summed over its rounds and the seeds."""
    for method in arguments.methods:
        totals: collections.Counter[str] = collections.Counter()
        for seed in arguments.seeds:
            for path in folder(arguments.out, seed, method).rglob("rounds.jsonl"):
                for line in map(json.loads, path.read_text().splitlines()):
                    for key in ("episodes", "updates", "tokens", "wait_seconds", "train_seconds"):
                        totals[key] += line.get(key, 0)
            for path in folder(arguments.out, seed, method).rglob("rounds/*/labelled"):
                totals["steps"] += int(ShardReader([str(path)]).steps_per_record.sum())
        print(f"{method:12} " + ", ".join(f"{key} {value:,.0f}" for key, value in totals.items()))


if __name__ == "__main__":
    main()
