"""Judges collected episodes: the outcome of each, and its milestones after every step. Needs no site and no browser.

python -m rollouts.label --set folder=runs/demo/rollouts --out runs/demo/labelled
"""

import dataclasses
import sys
from pathlib import Path

from mira_jax import commands
from mira_jax.config import to_tree
from mira_jax.errors import UserError
from mira_jax.trajectories.shards import ShardReader
from rollouts.labels.outcome import label_folder
from rollouts.suites import make_suite
from rollouts.worker import SuiteConfig


@dataclasses.dataclass(frozen=True)
class LabelConfig:
    folder: str = ""
    """Where the collected episodes are."""
    out: str = ""
    """The folder to write the labelled ones to."""
    suite: SuiteConfig = dataclasses.field(default_factory=SuiteConfig)
    overwrite: bool = False
    """Replaces what is in `out`."""


def main(config: LabelConfig) -> int:
    if not config.folder or not config.out:
        raise UserError("folder and out: name the folder of episodes and the one to write")
    suite = make_suite(config.suite.name, **config.suite.options)
    if not label_folder(Path(config.folder), Path(config.out), suite, config.overwrite, to_tree(config.suite)):
        print(f"{config.out}: labelled already")
        return 0
    labelled = ShardReader(config.out)
    judged = [trajectory.success for trajectory in labelled if trajectory.outcome is not None]
    print(f"{config.out}: {len(labelled)} episodes labelled, {sum(judged)} of {len(judged)} judged a success")
    return 0


if __name__ == "__main__":
    sys.exit(commands.run(main, LabelConfig, __doc__, flags=("folder", "out")))
