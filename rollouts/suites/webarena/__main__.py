"""Reports an evaluation of WebArena-Lite by the paper's domains and by sets of sites.

mira webarena-report --folder runs/webarena
"""

import dataclasses
import sys
from pathlib import Path

from mira_jax import commands
from mira_jax.errors import UserError
from mira_jax.needs import Needs
from mira_jax.trajectories.shards import ShardReader
from rollouts.suites.webarena.report import tables
from rollouts.suites.webarena.tasks import SUITE, read_tasks, to_task


@dataclasses.dataclass(frozen=True)
class WebArenaReportConfig:
    folder: str = ""
    """Folder of the evaluation, with labelled episodes in labelled/."""
    tasks: str = ""
    """The tasks, as in suite.options.tasks."""


def main(settings: WebArenaReportConfig) -> int:
    tasks = [to_task(task_id, item) for task_id, item in read_tasks(settings.tasks).items()]
    successes: dict[str, bool] = {}
    for trajectory in ShardReader(Path(settings.folder) / "labelled"):
        if trajectory.task.suite != SUITE:
            raise UserError(f"{settings.folder}: holds episodes of the suite {trajectory.task.suite!r}, not of {SUITE}")
        if trajectory.task.split != "test":
            raise UserError(
                f"{settings.folder}: holds {trajectory.task.id}, which is none of the benchmark's tasks; evaluate the split test"
            )
        if trajectory.attempt == 0 and trajectory.outcome is not None:
            if trajectory.task.id in successes:
                raise UserError(f"{settings.folder}: two first attempts at {trajectory.task.id}; an evaluation has one policy")
            successes[trajectory.task.id] = trajectory.success
    print(tables(tasks, successes))
    return 0


def needs(settings: WebArenaReportConfig, found: Needs) -> None:
    found.input("folder", settings.folder)
    with found.attempt("tasks"):
        read_tasks(settings.tasks)


REQUIRED = {"folder": "name the folder of an evaluation"}
COMMAND = commands.Command("webarena-report", main, WebArenaReportConfig, __doc__, flags=("folder",), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
