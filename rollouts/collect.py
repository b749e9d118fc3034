"""Collects episodes: tasks of a suite, tried by a policy in a real browser, written as trajectory shards.

    python -m rollouts.collect --config configs/demo/collect.yaml --out runs/demo/rollouts

The same command again goes on where the last one ended: episodes that are there are skipped.
"""

import dataclasses
import sys
from pathlib import Path

from mira_jax import commands, config
from mira_jax.errors import UserError
from rollouts.pool import LOST, RolloutConfig, Tally, collect


@dataclasses.dataclass(frozen=True)
class CollectConfig(RolloutConfig):
    pass


def main(settings: CollectConfig) -> int:
    if not settings.out:
        raise UserError("out: name the folder to write, for example --out runs/rollouts")
    folder = Path(settings.out)
    tally = collect(settings, folder)
    config.save(settings, folder / "collect.yaml")
    print(summary_line(tally, folder))
    return 0


def summary_line(tally: Tally, folder: Path) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in sorted(tally.status.items())) or "nothing new"
    line = f"{folder}: {tally.wanted} episodes wanted, {tally.skipped} were there; {counts}; {tally.steps} steps"
    if tally.seconds:
        line += f" at {tally.steps_per_second:.1f} steps/s"
    if tally.infra_errors:
        line += f"\n{tally.infra_errors} were lost to infrastructure errors (see {folder / LOST}); the same command tries them again"
    return line


if __name__ == "__main__":
    sys.exit(commands.run(main, CollectConfig, __doc__, flags=("out",)))
