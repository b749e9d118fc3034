"""Collects episodes: a policy attempts a suite's tasks, in a real browser by default, and the episodes are written as trajectory shards.

    mira collect --config configs/shop/demonstrate.yaml --out runs/shop/demonstrations

Run the same command again to resume: existing episodes are skipped.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from mira_jax import commands, config
from mira_jax.errors import UserError
from mira_jax.files import write_atomically
from mira_jax.needs import Needs
from rollouts.agents.plans import identity
from rollouts.engine.needs import rollout_needs
from rollouts.engine.pool import LOST, RolloutConfig, Tally, collect
from rollouts.suites import task_list

CONFIG = "collect.yaml"
TASKS = "tasks.json"
"""The list of tasks that a folder's episodes are of, if `tasks` names one."""
UNTOKENISED = "steps have no token ids, because the endpoint returns none; training will tokenise their responses again"


@dataclasses.dataclass(frozen=True)
class CollectConfig(RolloutConfig):
    tasks: str = ""
    """File of the tasks to attempt, by `mira propose-tasks` or `mira choose-tasks`, instead of drawing tasks by split, templates,
    episodes and seed."""


def main(settings: CollectConfig) -> int:
    folder = Path(settings.out)
    _same_collection(settings, folder)
    given = task_list.read(settings.tasks, settings.suite.name) if settings.tasks else None
    _same_tasks(given, folder)

    def begun() -> None:
        write_atomically(folder / CONFIG, config.to_yaml(settings).encode())
        if given:
            task_list.write(folder / TASKS, given.tasks, given.made_from)

    tally = collect(settings, folder, begun, given.tasks if given else None)
    print(summary_line(tally, folder))
    return 0


def _same_collection(settings: CollectConfig, folder: Path) -> None:
    """Raises UserError if the folder's episodes were collected with other settings. Their keys do not record all settings."""
    path = folder / CONFIG
    if path.exists():
        before, now = _compared_settings(config.load(CollectConfig, path)), _compared_settings(settings)
        changed = [name for name in now if not config.same(config.to_tree(before[name]), config.to_tree(now[name]))]
        if changed:
            raise UserError(f"{folder}: holds episodes collected with other settings ({', '.join(changed)}); choose another folder")


def _same_tasks(given: task_list.TaskList | None, folder: Path) -> None:
    """Raises UserError if the folder's episodes are of another list of tasks."""
    path = folder / TASKS
    before = task_list.read(path) if path.exists() else None
    if (folder / CONFIG).exists() and (before and before.tasks) != (given and given.tasks):
        raise UserError(f"{folder}: holds episodes of other tasks (tasks); choose another folder")


def _compared_settings(settings: CollectConfig) -> dict[str, Any]:
    policy, limits = settings.policy, settings.limits
    return {
        "suite": settings.suite,
        "observation": settings.observation,
        "browser.driver": settings.browser.driver,
        "policy.habits": policy.habits,
        "policy.forced_plan": policy.forced_plan,
        "policy.prompt": policy.prompt,
        "policy.chat": policy.chat,
        "policy.endpoint.body": policy.endpoint.body,
        "planner": identity(settings.planner),
        "limits.horizon": limits.horizon,
        "limits.stuck_after": limits.stuck_after,
        "limits.parse_failures": limits.parse_failures,
    }


def summary_line(tally: Tally, folder: Path) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in sorted(tally.status.items())) or "nothing new"
    line = f"{folder}: {tally.wanted} episodes wanted, {tally.skipped} were there; {counts}; {tally.steps} steps"
    if tally.seconds:
        line += f" at {tally.steps_per_second:.1f} steps/s"
    if tally.untokenised:
        line += f"\n{tally.untokenised} {UNTOKENISED}"
    if tally.infra_errors:
        line += f"\n{tally.infra_errors} were lost to infrastructure errors (see {folder / LOST}); the same command tries them again"
    return line


def needs(settings: CollectConfig, found: Needs) -> None:
    found.output("out", settings.out)
    if settings.out:
        with found.attempt("out"):
            _same_collection(settings, Path(settings.out))
    rollout_needs(settings, found)


REQUIRED = {"out": "name the folder to write, for example --out runs/rollouts"}
COMMAND = commands.Command("collect", main, CollectConfig, __doc__, flags=("out",), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
