"""Generates the subgoals of many tasks, by rules or by a model."""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

from mira_jax.progress import Progress
from mira_jax.trajectories.records import Task
from rollouts.labels.subgoals.examples import Examples
from rollouts.labels.subgoals.files import Goal
from rollouts.labels.subgoals.tasks import Subject
from rollouts.labels.subgoals.validation import leak
from rollouts.labels.subgoals.writer import Writer, WriterConfig
from rollouts.llm.role import NoAnswer, Role
from rollouts.llm.usage import Usage


@dataclasses.dataclass(frozen=True)
class Generated:
    subgoals: dict[str, tuple[Goal, ...]]
    left_out: dict[str, str]
    usage: Usage = dataclasses.field(default_factory=Usage)


def by_rules(subjects: Sequence[Subject], goals: Callable[[Task], tuple[Goal, ...]], why_none: str) -> Generated:
    """Subgoals by a function of the task. Those that reveal a part of the reference answer are left out."""
    made: dict[str, tuple[Goal, ...]] = {}
    left_out: dict[str, str] = {}
    for one in subjects:
        found = tuple(goal for goal in goals(one.task) if not leak(goal.text, one.task.intent, one.references))
        if found:
            made[one.task.id] = found
        else:
            left_out[one.task.id] = why_none
    return Generated(made, left_out)


async def by_model(subjects: Sequence[Subject], config: WriterConfig, examples: Examples, count: int, seed: int, key: str) -> Generated:
    """Subgoals by a chat model. Tasks for which it gives none are left out.

    Raises:
        EndpointError, UserError: the endpoint fails, or the spending limit is reached. The answers so far are in the cache.
    """
    made: dict[str, tuple[Goal, ...]] = {}
    left_out: dict[str, str] = {}
    async with Role(config.model, key) as role:
        writer = Writer(role, examples, config, count, seed)

        async def write(subject: Subject) -> None:
            try:
                made[subject.task.id] = await writer.goals(subject.task, subject.page, subject.references)
            except NoAnswer as error:
                left_out[subject.task.id] = str(error)
            progress.update()

        with Progress("subgoals", "tasks", len(subjects)) as progress:
            await _all([write(subject) for subject in subjects])
    # In the order of the tasks, not of the answers.
    names = [subject.task.id for subject in subjects]
    return Generated(
        {name: made[name] for name in names if name in made}, {name: left_out[name] for name in names if name in left_out}, role.usage
    )


async def _all(work: Sequence) -> None:
    """Runs all at once. The first error cancels the others and is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
