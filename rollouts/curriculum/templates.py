"""New tasks from templates: other instances of the templates that failed, and instances of their neighbours."""

import dataclasses
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from mira_jax.trajectories.records import Status, Task, Trajectory
from rollouts.suites.base import Suite


@runtime_checkable
class Templates(Suite, Protocol):
    """A suite that draws tasks from templates and knows how long they are."""

    def expert_steps(self, template: str) -> int:
        """Number of steps in which an expert does an instance of the template."""
        ...

    def related(self, template: str, split: str) -> Sequence[str]:
        """The templates of the split on the same sites, the template itself among them."""
        ...


@dataclasses.dataclass
class Rate:
    """Attempts at a template, and how many succeeded."""

    attempts: int = 0
    successes: int = 0

    @property
    def share(self) -> float:
        """Successes per attempt; 0 without attempts."""
        return self.successes / self.attempts if self.attempts else 0.0


def rates(episodes: Iterable[Trajectory]) -> dict[str, Rate]:
    """Template to its rate over the episodes that have an outcome."""
    found: dict[str, Rate] = {}
    for episode in episodes:
        if episode.status is not Status.INFRA_ERROR and episode.outcome is not None:
            rate = found.setdefault(episode.task.template, Rate())
            rate.attempts += 1
            rate.successes += episode.success
    return found


def failed_tasks(episodes: Iterable[Trajectory]) -> list[Task]:
    """The tasks that were attempted and never done, each once, in the order of the episodes."""
    failed: dict[tuple[str, int], Task] = {}
    done: set[tuple[str, int]] = set()
    for episode in episodes:
        if episode.status is Status.INFRA_ERROR or episode.outcome is None:
            continue
        key = episode.task.id, episode.task.seed
        failed.setdefault(key, episode.task)
        if episode.success:
            done.add(key)
    return [task for key, task in failed.items() if key not in done]


def neighbour(template: str, known: Sequence[str], steps: dict[str, int], found: dict[str, Rate], lowest: float) -> str:
    """The next harder one of `known`, or the next easier one if the template's success rate is below `lowest`. A template is harder
    than another if its expert needs more steps or, at equally many, if its success rate so far is lower. If there is none, the template
    itself."""

    def difficulty(name: str) -> tuple[int, float, str]:
        return steps[name], -found.get(name, Rate()).share, name

    order = sorted({*known, template}, key=difficulty)
    place = order.index(template) + (1 if found.get(template, Rate()).share >= lowest else -1)
    return order[min(max(place, 0), len(order) - 1)]


def propose(
    suite: Templates, episodes: Sequence[Trajectory], count: int, split: str, seed: int, allowed: Sequence[str] | None, lowest: float
) -> list[Task]:
    """New tasks: for each failed task in turn, in random order, another instance of its template and an instance of the template's
    neighbour, until there are `count`. No task that was attempted is proposed. Deterministic in the arguments.

    Args:
        episodes: the labelled episodes so far.
        allowed: the templates to use. Default: all of the split.
        lowest: success rate below which the neighbour is the next easier template.
    """
    failed, found = failed_tasks(episodes), rates(episodes)
    draw = random.Random(seed)
    draw.shuffle(failed)
    steps: dict[str, int] = {}
    wanted: list[str] = []
    for task in failed:
        known = [name for name in suite.related(task.template, split) if allowed is None or name in allowed]
        steps |= {name: suite.expert_steps(name) for name in {*known, task.template} if name not in steps}
        beside = neighbour(task.template, known, steps, found, lowest)
        wanted += [name for name in (task.template, beside) if allowed is None or name in allowed]
    if not wanted:
        return []
    tried = {(episode.task.id, episode.task.seed) for episode in episodes}
    drawn = {name: _instances(suite, split, name, seed, tried) for name in dict.fromkeys(wanted)}
    return [next(drawn[wanted[place % len(wanted)]]) for place in range(count)]


def _instances(suite: Suite, split: str, template: str, seed: int, tried: set[tuple[str, int]]) -> Iterator[Task]:
    start, size = 0, 64
    while True:
        tasks = suite.tasks(split, [template], start + size, seed)[start:]
        yield from (task for task in tasks if (task.id, task.seed) not in tried)
        start, size = start + size, 2 * size
