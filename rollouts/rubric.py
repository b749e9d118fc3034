"""Proposes later versions of a rubric for plans, from labelled episodes: successes, failures, and pairs of both at the same task.

    mira rubric --set episodes=[runs/x/labelled] --set model.endpoint.base_url=http://127.0.0.1:8000/v1 --out runs/x/rubrics

writes rubric-0000.yaml, a copy of `rubric`, and rubric-0001.yaml, with a record of what it was made from. No version is overwritten. The
same command with more `updates` adds versions, and continues a run that was killed. `mira analyze rubric` says whether one is accepted
(docs/plans.md).
"""

import asyncio
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from mira_jax import commands
from mira_jax.config import Count, Natural, same
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import sha256, sole_writer
from mira_jax.needs import Needs
from mira_jax.trajectories.shards import ShardReader
from rollouts.errors import EndpointError
from rollouts.labels import human_grades, rubric_versions, rubrics
from rollouts.labels.human_grades import HumanGrade
from rollouts.labels.rubric_update import PROMPT_VERSION, Batch, Proposal, RubricWriterConfig, draw_batch, propose, usable
from rollouts.labels.rubric_versions import Origin, path_of, read_origin, task_of
from rollouts.labels.rubrics import Rubric
from rollouts.llm.probe import role_needs
from rollouts.llm.role import NoAnswer, Role
from rollouts.llm.usage import show

KEY = "model"


@dataclasses.dataclass(frozen=True)
class RubricConfig:
    out: str = ""
    """Folder of the versions."""
    rubric: str = rubrics.DEFAULT
    """The rubric to begin with."""
    episodes: list[str] = dataclasses.field(default_factory=list)
    """Folders of labelled episodes. Keep other tasks for the acceptance."""
    corrections: str = ""
    """Optional file of grades and comments of people (docs/plans.md)."""
    updates: Count = 1
    """Number of versions after the first that the folder shall have."""
    batch: Annotated[int, Meta(ge=2)] = 24
    """Maximum number of episodes that a version is made from, half of them successes."""
    seed: Natural = 0
    """Seed of the batches."""
    model: RubricWriterConfig = dataclasses.field(default_factory=RubricWriterConfig)
    """The chat model."""


def main(config: RubricConfig) -> int:
    folder, reader = Path(config.out), ShardReader(config.episodes)
    people = human_grades.read(config.corrections) if config.corrections else {}
    role = Role(config.model.with_cache(f"{config.out}.answers"), KEY)
    with sole_writer(folder, f"versions of a rubric in {folder}"):
        rubric, tasks, version = rubric_versions.begin(folder, config.rubric), set[str](), 1
        while version <= config.updates and (origin := _known(path_of(folder, version), _made_from(config, reader, rubric.sha256))):
            rubric, tasks, version = rubrics.read(path_of(folder, version)), set(origin.tasks), version + 1
        if version > config.updates:
            print(f"{folder}: has {config.updates} versions after the first already")
            return 0
        try:
            asyncio.run(_add(config, reader, role, people, rubric, tasks, version))
        except (NoAnswer, EndpointError) as error:
            raise ConfigError(KEY, f"{error}; earlier versions and answers are kept, and the same command continues") from None
    show({KEY: role.usage})
    return 0


async def _add(
    config: RubricConfig, reader: ShardReader, role: Role, people: Mapping[str, HumanGrade], rubric: Rubric, tasks: set[str], first: int
) -> None:
    """Writes the versions from `first` on.

    Args:
        rubric: the version before.
        tasks: those of earlier batches.

    Raises:
        NoAnswer, EndpointError, UserError: see `propose`.
    """
    folder, episodes = Path(config.out), usable(reader)
    async with role:
        for version in range(first, config.updates + 1):
            batch = draw_batch(episodes, config.batch, config.seed, version)
            tasks |= set(map(task_of, batch.episodes))
            proposal = await propose(role, config.model, rubric, batch, people)
            origin = _origin(_made_from(config, reader, rubric.sha256), batch, proposal, sorted(tasks))
            rubric_versions.write(folder, version, proposal.dimensions, origin)
            path = path_of(folder, version)
            rubric = rubrics.read(path)
            print(f"{path}: {len(origin.insights)} insights from {len(origin.episodes)} episodes")


def _known(path: Path, made_from: dict[str, Any]) -> Origin | None:
    """The origin of a version that exists. Raises UserError if it was made from other inputs."""
    if not path.exists():
        return None
    origin = read_origin(path)
    if origin is None or not same(origin.made_from, made_from):
        raise UserError(f"{path}: was made from other episodes, corrections or settings; choose another out")
    return origin


def _made_from(config: RubricConfig, reader: ShardReader, previous: str) -> dict[str, Any]:
    model = config.model
    return {
        "previous": previous,
        "episodes": list(reader.sha256),
        "corrections": sha256(config.corrections) if config.corrections else "",
        "batch": config.batch,
        "seed": config.seed,
        "version": PROMPT_VERSION,
        "model": model.endpoint.model or model.endpoint.base_url,
        "body": model.endpoint.body,
        "temperature": model.temperature,
        "max_tokens": model.max_tokens,
        "answer_format": model.answer_format,
        "max_characters": model.max_characters,
    }


def _origin(made_from: dict[str, Any], batch: Batch, proposal: Proposal, tasks: list[str]) -> Origin:
    return Origin(
        made_from=made_from,
        episodes=[one.id for one in batch.episodes],
        tasks=tasks,
        insights=proposal.insights,
        reason=proposal.reason,
        unanswered=proposal.unanswered,
    )


def needs(config: RubricConfig, found: Needs) -> None:
    found.output("out", config.out)
    for place, folder in enumerate(config.episodes):
        found.shards(f"episodes.{place}", folder)
    with found.attempt("rubric"):
        rubrics.read(config.rubric)
        found.ok("rubric", config.rubric)
    if config.corrections:
        with found.attempt("corrections"):
            human_grades.read(config.corrections)
            found.ok("corrections", config.corrections)
    role_needs(KEY, config.model, found)


REQUIRED = {
    "out": "name the folder to write, for example --out runs/rubrics",
    "episodes": "name folders of labelled episodes, for example --set episodes=[runs/labelled]",
}
COMMAND = commands.Command("rubric", main, RubricConfig, __doc__, flags=("out",), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
