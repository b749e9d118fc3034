"""Success against the thinking budget of a planner or a policy, and against the seconds of a step (docs/planner.md).

    python benchmarks/planner.py --config my.yaml --budgets 256 1024 4096 --out runs/budgets
    python benchmarks/planner.py --config my.yaml --key policy.endpoint.body.thinking_budget --budgets 0 1024 --out runs/budgets

Each budget is an evaluation in OUT/budget-N, by `mira evaluate` with the config and --set KEY=N. What is complete is not run again. OUT
gets budgets.html, a page with the plots, and budgets.json.
"""

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mira_jax.files import to_json, write_atomically
from mira_jax.trajectories import summary
from rollouts.analysis.evaluation import SUMMARY
from rollouts.pages.budgets import Budget, budgets, render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", required=True, help="of mira evaluate; may be given several times")
    parser.add_argument("--budgets", type=int, nargs="+", required=True, help="tokens")
    parser.add_argument("--key", default="planner.model.max_tokens", help="the setting that is the budget")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of mira evaluate")
    arguments = parser.parse_args()
    found = {}
    for budget in arguments.budgets:
        folder = arguments.out / f"budget-{budget}"
        evaluate(folder, arguments.config, [*arguments.set, f"{arguments.key}={budget}"])
        found[budget] = summary.read(folder / SUMMARY)
    rows = budgets(found)
    suite = ", ".join(sorted({f"{one.suite}, split {one.split}" for one in found.values()}))
    write_atomically(arguments.out / "budgets.html", render(rows, arguments.key, suite).encode())
    write_atomically(arguments.out / "budgets.json", to_json([_row(one) for one in rows], indent=1).encode())
    print("\n".join(table(rows)))
    print(f"{arguments.out / 'budgets.html'}")


def evaluate(folder: Path, configs: Sequence[str], sets: Sequence[str]) -> None:
    """Runs `mira evaluate`, which continues what is incomplete. Exits with its status if it fails."""
    options = [part for path in configs for part in ("--config", path)] + [part for one in sets for part in ("--set", one)]
    done = subprocess.run([sys.executable, "-m", "rollouts.evaluate", "--out", str(folder), *options], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def table(rows: Sequence[Budget]) -> list[str]:
    head = f"{'budget':>8}  success   interval       s/step  tokens/step  unanswered"
    return [
        head,
        *(
            f"{one.tokens:8,}  {100 * one.rate.mean:5.1f} %  {100 * one.rate.low:5.1f} - {100 * one.rate.high:5.1f}  {one.seconds:8.2f}  "
            f"{one.used:11,.0f}  {one.unanswered:10}"
            for one in rows
        ),
    ]


def _row(one: Budget) -> dict[str, object]:
    return {**dataclasses.asdict(one), "rate": msgspec.to_builtins(one.rate)}


if __name__ == "__main__":
    main()
