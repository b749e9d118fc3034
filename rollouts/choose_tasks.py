"""Keeps the proposed tasks that are neither too easy nor too hard for the policy, and that can be done.

    mira choose-tasks --set proposed=runs/x/proposed.json --set episodes=[runs/x/trial] --out runs/x/tasks.json

WebRL (arXiv 2411.02337, section 3) keeps the instructions whose first state the critic scores in [0.05, 0.75], and then those that are
feasible. Both come from one attempt at each task (`mira collect` with `tasks`): its first page, which the critic scores (`mira score`),
and, if the attempt is an expert's and labelled (`mira label`), whether the task can be done. For a suite without an expert, collect one
step with `policy.kind: idle`, which needs no label, and set `feasible: false`; a chat model has then judged the feasibility
(`writer.check` of `mira propose-tasks`).
"""

import dataclasses
import random
import sys
from pathlib import Path
from typing import Any

from mira_jax import commands
from mira_jax.config import Count, Fraction, Natural
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import parse_json, to_json
from mira_jax.trajectories.records import Status, Task, Trajectory
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable, check
from rollouts.suites import task_list


@dataclasses.dataclass(frozen=True)
class ChooseConfig:
    proposed: str = ""
    """The file of proposed tasks."""
    episodes: list[str] = dataclasses.field(default_factory=list)
    """Folders with an attempt at each proposed task."""
    scores: list[str] = dataclasses.field(default_factory=list)
    """Side tables with `value` of these episodes. Empty: tasks are not filtered by value."""
    out: str = ""
    """The file of tasks to write."""
    count: Count = 500
    """Maximum number of tasks to keep, drawn at random."""
    lowest: Fraction = 0.05
    """Lowest value of a first state."""
    highest: Fraction = 0.75
    """Highest value of a first state."""
    feasible: bool = True
    """Keep only tasks of which an attempt succeeded. The attempts must be an expert's."""
    seed: Natural = 0
    """Seed that draws the tasks."""


def main(config: ChooseConfig) -> int:
    _require(config)
    proposed = task_list.read(config.proposed)
    reader = ShardReader(config.episodes)
    tables = [SideTable.read(path) for path in config.scores]
    out, made_from = Path(config.out), _made_from(config, proposed, reader, tables)
    if out.exists():
        if task_list.read(out).made_from != parse_json(to_json(made_from)):
            raise UserError(f"{out}: was made from other inputs; choose another out, or remove it")
        print(f"{out}: complete")
        return 0
    if tables:
        check(tables, reader.sha256)
    chosen, counts = choose(proposed.tasks, list(reader), tables, config)
    line = ", ".join(f"{count} {name}" for name, count in counts.items())
    if not chosen:
        raise UserError(f"{config.proposed}: no task is left ({line}); widen lowest and highest, or propose other tasks")
    task_list.write(out, chosen, made_from)
    print(f"{out}: {len(chosen)} tasks; {line}")
    return 0


def _require(config: ChooseConfig) -> None:
    for key in ("proposed", "episodes", "out"):
        if not getattr(config, key):
            raise ConfigError(key, "missing; see mira choose-tasks --help")
    if config.lowest > config.highest:
        raise ConfigError("lowest", f"{config.lowest} is higher than highest, {config.highest}")


def _made_from(config: ChooseConfig, proposed: task_list.TaskList, reader: ShardReader, tables: list[SideTable]) -> dict[str, Any]:
    return {
        "proposed": [[task.id, task.seed] for task in proposed.tasks],
        "shards": list(reader.sha256),
        "critics": sorted(made.fingerprint for table in tables for made in table.made_by),
        **{key: getattr(config, key) for key in ("count", "lowest", "highest", "feasible", "seed")},
    }


def choose(
    proposed: tuple[Task, ...], episodes: list[Trajectory], tables: list[SideTable], config: ChooseConfig
) -> tuple[list[Task], dict[str, int]]:
    """Returns the tasks to keep, in the order of `proposed`, and how many were proposed, attempted, in the bounds, and feasible."""
    values = {name: value for table in tables if "value" in table.columns for name, value in _first(table).items()}
    attempts: dict[tuple[str, int], list[Trajectory]] = {}
    for episode in episodes:
        if episode.status is Status.INFRA_ERROR or not episode.steps:
            continue
        if config.feasible and episode.outcome is None:
            raise UserError(f"episodes: {episode.task.id} has no outcome; label these episodes (`mira label`), or set feasible=false")
        if tables and episode.id not in values:
            raise UserError(f"scores: no value of the first step of {episode.task.id}; score these episodes with a critic (`mira score`)")
        attempts.setdefault((episode.task.id, episode.task.seed), []).append(episode)
    attempted = [task for task in proposed if (task.id, task.seed) in attempts]
    counts = {"proposed": len(proposed), "attempted": len(attempted)}
    if tables:
        attempted = [task for task in attempted if config.lowest <= values[attempts[task.id, task.seed][0].id] <= config.highest]
        counts["of a suitable value"] = len(attempted)
    if config.feasible:
        attempted = [task for task in attempted if any(episode.success for episode in attempts[task.id, task.seed])]
        counts["feasible"] = len(attempted)
    places = sorted(random.Random(config.seed).sample(range(len(attempted)), min(config.count, len(attempted))))
    return [attempted[place] for place in places], counts


def _first(table: SideTable) -> dict[str, float]:
    """Trajectory id to the value of its first step."""
    rows = zip(table.ids, table.steps.tolist(), table.columns["value"].tolist(), strict=True)
    return {name: value for name, step, value in rows if step == 0}


COMMAND = commands.Command("choose-tasks", main, ChooseConfig, __doc__, flags=("out",))

if __name__ == "__main__":
    sys.exit(COMMAND.run())
