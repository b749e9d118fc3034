"""The tasks that subgoals are written for, with the first page of each and its reference answer."""

import dataclasses
from collections.abc import Iterable

from mira_jax.trajectories.records import Status, Task, Trajectory
from rollouts.suites.base import Referenced, Suite


@dataclasses.dataclass(frozen=True)
class Subject:
    """A task, and what is known about it."""

    task: Task
    page: str = ""
    """Text of the first page of a recorded episode. Empty: no episode is known."""
    references: tuple[str, ...] = ()
    """Texts of the reference answer."""


def from_tasks(tasks: Iterable[Task], suite: Suite) -> list[Subject]:
    return [Subject(task, references=_references(task, suite)) for task in {task.id: task for task in tasks}.values()]


def from_episodes(episodes: Iterable[Trajectory], suite: Suite) -> list[Subject]:
    """One per task, in the order of their first episodes, with the page of the first episode that has a step."""
    tasks: dict[str, Task] = {}
    pages: dict[str, str] = {}
    for episode in episodes:
        tasks.setdefault(episode.task.id, episode.task)
        if episode.steps and episode.status is not Status.INFRA_ERROR:
            pages.setdefault(episode.task.id, episode.steps[0].page.observation)
    return [Subject(task, pages.get(name, ""), _references(task, suite)) for name, task in tasks.items()]


def _references(task: Task, suite: Suite) -> tuple[str, ...]:
    return tuple(suite.references(task)) if isinstance(suite, Referenced) else ()
