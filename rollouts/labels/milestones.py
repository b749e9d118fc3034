"""What decides the milestones of recorded episodes: the rules of their suite, or the subgoals of a file, checked by rules or a model.

A labeller is an async function from trajectories to trajectories. Labellers can be chained, and label several trajectories at once.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from mira_jax.config import to_tree
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import sha256
from mira_jax.needs import Needs
from mira_jax.trajectories.records import Status, Subgoal, Trajectory
from rollouts.errors import EndpointError
from rollouts.labels.checker import PROMPT_VERSION, ModelChecker, ModelCheckerConfig
from rollouts.labels.subgoals import files
from rollouts.labels.subgoals.files import Goal, SubgoalFile
from rollouts.llm.probe import role_needs
from rollouts.llm.role import NoAnswer
from rollouts.llm.usage import Usage
from rollouts.suites import Suite
from rollouts.suites.tasks.checks import done_after_steps

Labeller = Callable[[Trajectory], Awaitable[Trajectory]]
KEY = "milestones.checker.model"
KEPT = "the episodes are kept, and the same command labels them"


@dataclasses.dataclass(frozen=True)
class CheckerConfig:
    kind: Literal["rules", "model"] = "rules"
    """rules: the checks that the file has for each subgoal. model: a chat model, which reads the episode."""
    model: ModelCheckerConfig = dataclasses.field(default_factory=ModelCheckerConfig)
    """model: the chat model."""


@dataclasses.dataclass(frozen=True)
class MilestonesConfig:
    kind: Literal["suite", "subgoals"] = "suite"
    """suite: the subgoals and rules of the suite. subgoals: those of `file`."""
    file: str = ""
    """subgoals: a file that `mira subgoals` has written."""
    checker: CheckerConfig = dataclasses.field(default_factory=CheckerConfig)
    """subgoals: what decides when a subgoal is done."""

    def __post_init__(self) -> None:
        if self.kind == "subgoals" and not self.file:
            raise ConfigError("file", "name the file of the subgoals, which `mira subgoals` writes")
        if self.kind == "suite" and self.file:
            raise ConfigError("kind", "suite has its own subgoals; set $.kind=subgoals to use those of $.file")

    def settings(self) -> dict[str, Any]:
        """What determines the milestones, for the record of a labelled folder. Empty for the default. Raises UserError."""
        if self.kind == "suite":
            return {}
        files.read(self.file)
        tree: dict[str, Any] = {"kind": self.kind, "sha256": sha256(self.file), "checker": self.checker.kind}
        if self.checker.kind == "model":
            model = to_tree(self.checker.model)
            kept = ("window", "page_characters", "temperature", "max_tokens", "answer_format")
            # Which model an address without a name serves is not known before it is asked.
            named = self.checker.model.endpoint.model or self.checker.model.endpoint.base_url
            body = self.checker.model.endpoint.body
            tree["model"] = {key: model[key] for key in kept} | {"version": PROMPT_VERSION, "model": named, "body": body}
        return tree


class Milestones:
    """Labels trajectories with milestones. Close it after use. Must not be used from a running event loop."""

    def __init__(self, labeller: Labeller, checker: ModelChecker | None = None):
        self._labeller, self._checker = labeller, checker
        self._runner = asyncio.Runner()
        self._stack = contextlib.AsyncExitStack()
        self._opened = False

    @property
    def usage(self) -> Mapping[str, Usage]:
        """What a model used, by the path of its config. Empty without a model."""
        return {self._checker.role.key: self._checker.role.usage} if self._checker else {}

    def label(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Labels several at once.

        Raises:
            UserError: the endpoint fails, or the spending limit is reached.
        """
        try:
            return self._runner.run(self._label(trajectories))
        except ConfigError:
            raise
        except (EndpointError, UserError) as error:
            raise ConfigError(KEY, f"{error}; {KEPT}") from None

    async def _label(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        if self._checker and not self._opened:
            await self._stack.enter_async_context(self._checker.role)
            self._opened = True
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_caught(self._labeller, trajectory)) for trajectory in trajectories]
        results = [task.result() for task in tasks]
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [result for result in results if isinstance(result, Trajectory)]

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()


async def _caught(labeller: Labeller, trajectory: Trajectory) -> Trajectory | EndpointError | UserError:
    """Errors are returned, so that the other trajectories are labelled and their answers kept."""
    try:
        return await labeller(trajectory)
    except (EndpointError, UserError) as error:
        return error


@contextlib.contextmanager
def open_milestones(config: MilestonesConfig, suite: Suite, cache: str = "") -> Iterator[Milestones]:
    """What labels with milestones as the config says. `cache`: file of a model's answers if the config names none.

    Raises:
        UserError: the file cannot be read, or has no checks for the rules.
    """
    checker = None
    if config.kind == "suite":
        labeller = by_suite(suite)
    else:
        content = files.read(config.file)
        if config.checker.kind == "rules":
            labeller = chain(cleared, by_rules(content))
        else:
            model = config.checker.model
            checker = ModelChecker(model.with_cache(cache), KEY)
            labeller = chain(cleared, by_model(content, checker))
    with contextlib.closing(Milestones(labeller, checker)) as opened:
        yield opened


def chain(*labellers: Labeller) -> Labeller:
    """Applies labellers one after the other."""

    async def labeller(trajectory: Trajectory) -> Trajectory:
        for one in labellers:
            trajectory = await one(trajectory)
        return trajectory

    return labeller


async def cleared(trajectory: Trajectory) -> Trajectory:
    """Without the subgoals and milestones of earlier labels."""
    return _with_milestones(trajectory, (), [()] * len(trajectory.steps))


def by_suite(suite: Suite) -> Labeller:
    """The subgoals of the suite, by its rules."""

    async def labeller(trajectory: Trajectory) -> Trajectory:
        if trajectory.status is Status.INFRA_ERROR:
            return await cleared(trajectory)
        subgoals, rows = suite.milestones(trajectory)
        if len(rows) != len(trajectory.steps) or any(len(row) != len(subgoals) for row in rows):
            raise ValueError(f"{trajectory.task.id}: the suite's milestones do not match the episode's steps and subgoals")
        return _with_milestones(trajectory, subgoals, rows)

    return labeller


def by_rules(content: SubgoalFile) -> Labeller:
    """The subgoals of a file, by their checks. An episode without subgoals is left as it is. Raises ConfigError if a subgoal has none."""
    for task, goals in content.subgoals.items():
        if not all(goal.done for goal in goals):
            raise ConfigError("milestones.checker.kind", f"the subgoals of {task} have no checks for rules; set it to model")

    async def labeller(trajectory: Trajectory) -> Trajectory:
        goals = _goals(content, trajectory)
        if not goals:
            return trajectory
        return _with_milestones(trajectory, _subgoals(goals), done_after_steps(trajectory, [goal.done for goal in goals]))

    return labeller


def by_model(content: SubgoalFile, checker: ModelChecker) -> Labeller:
    """The subgoals of a file, by a model. An episode without a valid answer is left as it is."""

    async def labeller(trajectory: Trajectory) -> Trajectory:
        goals = _goals(content, trajectory)
        if not goals:
            return trajectory
        try:
            rows = await checker.rows(trajectory, [goal.text for goal in goals])
        except NoAnswer:
            return trajectory
        return _with_milestones(trajectory, _subgoals(goals, checker.name), rows)

    return labeller


def _with_milestones(trajectory: Trajectory, subgoals: tuple[Subgoal, ...], rows: Sequence[tuple[bool, ...]]) -> Trajectory:
    steps = tuple(msgspec.structs.replace(step, milestones=row) for step, row in zip(trajectory.steps, rows, strict=True))
    return msgspec.structs.replace(trajectory, subgoals=subgoals, steps=steps)


def milestone_needs(config: MilestonesConfig, found: Needs) -> None:
    """Adds what labelling with milestones needs: the file, and an endpoint that answers."""
    if config.kind != "subgoals":
        return
    if found.input("milestones.file", config.file):
        with found.attempt("milestones.file"):
            content = files.read(config.file)
            if config.checker.kind == "rules":
                by_rules(content)
    if config.checker.kind == "model":
        role_needs(KEY, config.checker.model, found)


def without_milestones(trajectories: Sequence[Trajectory], known: Mapping[str, Any]) -> tuple[int, int]:
    """The number of episodes without milestones because their tasks are not in `known`, and for other reasons."""
    none = [one for one in trajectories if one.status is not Status.INFRA_ERROR and one.steps and not one.subgoals]
    without_subgoals = sum(one.task.id not in known for one in none)
    return without_subgoals, len(none) - without_subgoals


def _goals(content: SubgoalFile, trajectory: Trajectory) -> tuple[Goal, ...]:
    return content.subgoals.get(trajectory.task.id, ()) if trajectory.status is not Status.INFRA_ERROR else ()


def _subgoals(goals: Sequence[Goal], by: str = "") -> tuple[Subgoal, ...]:
    return tuple(Subgoal(text=goal.text, check=f"by {by}" if by else goal.check) for goal in goals)
