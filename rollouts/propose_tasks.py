"""Proposes tasks for the next phase from the failed tasks of the phases so far.

    mira propose-tasks --set labelled=[runs/x/phase-1/labelled] --out runs/x/phase-1/proposed.json

A suite that draws tasks from templates, such as the arena, gives other instances of the templates that failed, and instances of the
next harder template, or of the next easier one where hardly any attempt succeeds (`rollouts.curriculum.templates`). For other suites,
or with `writer`, a chat model writes instructions (`rollouts.curriculum.writer`). `mira collect` attempts the tasks, with `tasks`, and
`mira choose-tasks` keeps the useful ones. Run again, the command keeps a file that was made from the same inputs.
"""

import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import Any

from mira_jax import commands
from mira_jax.config import Count, Fraction, Natural, to_tree
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import parse_json, to_json
from mira_jax.needs import Needs
from mira_jax.trajectories.records import Task
from mira_jax.trajectories.shards import ShardReader
from rollouts.curriculum import templates, writer
from rollouts.curriculum.writer import WriterConfig
from rollouts.engine.worker import SuiteConfig
from rollouts.errors import EndpointError
from rollouts.llm.probe import role_needs
from rollouts.llm.role import Role
from rollouts.llm.usage import show
from rollouts.suites import make_suite, task_list

WRITER = "writer"


@dataclasses.dataclass(frozen=True)
class ProposeConfig:
    labelled: list[str] = dataclasses.field(default_factory=list)
    """Folders of the labelled episodes so far."""
    out: str = ""
    """The file of tasks to write."""
    suite: SuiteConfig = dataclasses.field(default_factory=SuiteConfig)
    """The suite of the episodes."""
    count: Count = 500
    """Number of tasks to propose. More are proposed than are needed, because choosing leaves some out."""
    split: str = "train"
    """Split of the suite's tasks."""
    templates: list[str] | None = None
    """Templates to draw from. Default: all of the split."""
    easier_below: Fraction = 0.05
    """Success rate of a template below which its neighbour is the next easier template instead of the next harder one."""
    writer: WriterConfig | None = None
    """A chat model that writes the tasks. Default: the suite's templates."""
    seed: Natural = 0
    """Seed that draws the tasks. Phases need different seeds."""


def main(config: ProposeConfig) -> int:
    if not config.labelled:
        raise ConfigError("labelled", "name the folders of the labelled episodes so far")
    if not config.out:
        raise ConfigError("out", "name the file to write, for example --out runs/x/proposed.json")
    reader = ShardReader(config.labelled)
    made_from = _made_from(config, reader)
    out = Path(config.out)
    if out.exists():
        if task_list.read(out).made_from != parse_json(to_json(made_from)):
            raise UserError(f"{out}: was made from other inputs; choose another out, or remove it")
        print(f"{out}: complete")
        return 0
    role = Role(config.writer, WRITER) if config.writer else None
    tasks = asyncio.run(_written(config, reader, role)) if role else _drawn(config, reader)
    if not tasks:
        raise UserError(f"{', '.join(config.labelled)}: no task to propose: no attempted task failed, or none of its templates is allowed")
    task_list.write(out, tasks, made_from)
    print(f"{out}: {len(tasks)} tasks of {len({task.template for task in tasks})} templates")
    show({WRITER: role.usage} if role else {})
    return 0


def _made_from(config: ProposeConfig, reader: ShardReader) -> dict[str, Any]:
    tree = {key: value for key, value in to_tree(config).items() if key not in ("labelled", "out", "writer")}
    if config.writer:
        tree["writer"] = {key: value for key, value in to_tree(config.writer).items() if key not in ("endpoint", "cache")}
        tree["writer"]["model"] = config.writer.endpoint.model
    return tree | {"shards": list(reader.sha256)}


async def _written(config: ProposeConfig, reader: ShardReader, role: Role) -> list[Task]:
    """Raises UserError, also if the endpoint fails."""
    episodes = list(reader)
    known = sorted({episode.task.intent for episode in episodes})
    try:
        async with role:
            return await writer.write(templates.failed_tasks(episodes), config.count, role, config.seed, known)
    except EndpointError as error:
        raise UserError(str(error)) from None


def _drawn(config: ProposeConfig, reader: ShardReader) -> list[Task]:
    suite = make_suite(config.suite.name, **config.suite.options)
    if not isinstance(suite, templates.Templates):
        raise ConfigError("writer", f"{config.suite.name} draws no tasks from templates; name a chat model with writer.endpoint")
    return templates.propose(suite, list(reader), config.count, config.split, config.seed, config.templates, config.easier_below)


def needs(config: ProposeConfig, found: Needs) -> None:
    for folder in config.labelled:
        found.shards("labelled", folder)
    found.output("out", config.out)
    if config.writer:
        role_needs(WRITER, config.writer, found)
        return
    with found.attempt("suite"):
        make_suite(config.suite.name, **config.suite.options)


COMMAND = commands.Command("propose-tasks", main, ProposeConfig, __doc__, flags=("out",), needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
