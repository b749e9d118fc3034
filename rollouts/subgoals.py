"""Writes subgoals for the tasks of a suite or of collected episodes, so that tasks without milestones of their own get some.

    mira subgoals --set generator=model --set episodes=[runs/x/episodes] --set writer.model.endpoint.base_url=http://127.0.0.1:8000/v1 \\
        --out runs/x/subgoals.json

`mira label` with `milestones.kind=subgoals` reads the file. The generators are compared in docs/subgoals.md. Run the same command again
to continue a run that was killed: answers of the model are kept. A complete file that was made from the same inputs is kept.
"""

import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mira_jax import commands
from mira_jax.config import Count, Natural, to_tree
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import parse_json, sole_writer, to_json
from mira_jax.needs import Needs
from mira_jax.trajectories.shards import ShardReader
from rollouts.engine.needs import suite_needs
from rollouts.engine.worker import SuiteConfig
from rollouts.errors import EndpointError
from rollouts.labels.subgoals import files, generate, successes, template
from rollouts.labels.subgoals.examples import Examples
from rollouts.labels.subgoals.files import MOST, SubgoalFile
from rollouts.labels.subgoals.tasks import Subject, from_episodes, from_tasks
from rollouts.labels.subgoals.writer import PROMPT_VERSION, WriterConfig
from rollouts.llm.probe import role_needs
from rollouts.suites import Suite, make_suite

KEY = "writer.model"
VERSIONS = {"template": 1, "successes": 1, "model": PROMPT_VERSION}
"""Versions of the generators. Files of other versions are not continued."""


@dataclasses.dataclass(frozen=True)
class SuccessesConfig:
    episodes: list[str] = dataclasses.field(default_factory=list)
    """Folders of labelled episodes, whose successes are read. Default: `episodes`."""
    least: Annotated[int, Meta(ge=2)] = 2
    """Minimum number of successes at tasks of the same kind."""


@dataclasses.dataclass(frozen=True)
class SubgoalsConfig:
    out: str = ""
    """The file to write."""
    generator: Literal["model", "template", "successes"] = "model"
    """model: a chat model. template: rules, which read only the instruction. successes: what successful episodes at tasks of the same kind
    have in common."""
    count: Annotated[int, Meta(ge=1, le=MOST)] = 4
    """Number of subgoals of a task. A model must write as many; rules write at most as many."""
    suite: SuiteConfig = dataclasses.field(default_factory=SuiteConfig)
    """The suite of the tasks."""
    episodes: list[str] = dataclasses.field(default_factory=list)
    """Folders of collected episodes: their tasks get subgoals, and the model reads the first page of each. Default: tasks of the suite, by
    split, templates, tasks and seed, without pages."""
    split: str = "train"
    """Split of the suite's tasks."""
    templates: list[str] | None = None
    """Task templates to use. Default: all templates of the suite."""
    tasks: Count = 100
    """Number of tasks to draw."""
    seed: Natural = 0
    """Seed that draws the tasks and the examples for the model, and of the model's sampling."""
    writer: WriterConfig = dataclasses.field(default_factory=WriterConfig)
    """model: the chat model."""
    successes: SuccessesConfig = dataclasses.field(default_factory=SuccessesConfig)
    """successes: the episodes to learn from."""

    def __post_init__(self) -> None:
        if self.generator == "successes" and not (self.episodes or self.successes.episodes):
            raise ConfigError("successes.episodes", "name folders of labelled episodes, whose successes are read")


def main(config: SubgoalsConfig) -> int:
    out = Path(config.out)
    suite = make_suite(config.suite.name, **config.suite.options)
    examples = Examples(config.writer.examples) if config.generator == "model" else None
    made_from = parse_json(to_json(_made_from(config, examples)))
    with sole_writer(out.parent / f".{out.name}.lock", f"subgoals of {out}"):
        if out.exists():
            if files.read(out).made_from != made_from:
                raise UserError(f"{out}: was made from other inputs; choose another out, or remove it")
            print(f"{out}: complete")
            return 0
        found = _generate(config, _subjects(config, suite), examples)
        usage = msgspec.to_builtins(found.usage.record()) if config.generator == "model" else {}
        files.write(out, SubgoalFile(made_from=made_from, subgoals=found.subgoals, left_out=found.left_out, usage=usage))
    print(f"{out}: subgoals of {len(found.subgoals)} tasks, {len(found.left_out)} left without")
    for task, reason in list(found.left_out.items())[:3]:
        print(f"  {task}: {reason}")
    if config.generator == "model":
        print(found.usage)
    return 0


def _subjects(config: SubgoalsConfig, suite: Suite) -> list[Subject]:
    if not config.episodes:
        return from_tasks(suite.tasks(config.split, config.templates, config.tasks, config.seed), suite)
    subjects = from_episodes(ShardReader(config.episodes), suite)
    for task in (subject.task for subject in subjects):
        if task.suite != suite.name:
            raise UserError(f"{task.id}: an episode of the suite {task.suite!r}, not of {suite.name!r}; set suite.name")
    return subjects


def _generate(config: SubgoalsConfig, subjects: list[Subject], examples: Examples | None) -> generate.Generated:
    if config.generator == "template":
        why = "the instruction names no value and asks for no answer"
        return generate.by_rules(subjects, lambda task: template.goals(task.intent, config.count), why)
    if config.generator == "successes":
        known = successes.Milestones(ShardReader(config.successes.episodes or config.episodes), config.successes.least)
        why = f"fewer than {config.successes.least} successes at tasks of this kind, or nothing in common"
        return generate.by_rules(subjects, lambda task: known.goals(task, config.count), why)
    assert examples is not None
    writer = dataclasses.replace(config.writer, model=config.writer.model.with_cache(f"{config.out}.answers"))
    try:
        return asyncio.run(generate.by_model(subjects, writer, examples, config.count, config.seed, KEY))
    except EndpointError as error:
        raise UserError(f"{KEY}: {error}; the answers so far are kept, and the same command continues") from None


def _made_from(config: SubgoalsConfig, examples: Examples | None) -> dict[str, Any]:
    """What determines the subgoals. Paths, addresses and limits of requests do not."""
    tree = {"generator": config.generator, "version": VERSIONS[config.generator], "count": config.count, "suite": to_tree(config.suite)}
    if config.episodes:
        tree["episodes"] = list(ShardReader(config.episodes).sha256)
    else:
        tree |= {"split": config.split, "templates": config.templates, "tasks": config.tasks, "seed": config.seed}
    if config.generator == "successes":
        folders = config.successes.episodes or config.episodes
        tree["successes"] = {"episodes": list(ShardReader(folders).sha256), "least": config.successes.least}
    if examples is not None:
        model = config.writer.model
        tree["writer"] = {
            "model": model.endpoint.model, "body": model.endpoint.body, "temperature": model.temperature, "max_tokens": model.max_tokens,
            "examples": examples.sha256, "page_characters": config.writer.page_characters, "seed": config.seed,
        }  # fmt: skip
    return tree


def needs(config: SubgoalsConfig, found: Needs) -> None:
    found.output("out", config.out)
    suite_needs(config.suite, found)
    for place, folder in enumerate(config.episodes):
        found.shards(f"episodes.{place}", folder)
    if config.generator == "successes":
        for place, folder in enumerate(config.successes.episodes):
            found.shards(f"successes.episodes.{place}", folder)
    if config.generator == "model":
        with found.attempt("writer.examples"):
            Examples(config.writer.examples)
        role_needs(KEY, config.writer.model, found)


REQUIRED = {"out": "name the file to write, for example --out runs/subgoals.json"}
COMMAND = commands.Command("subgoals", main, SubgoalsConfig, __doc__, flags=("out",), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
