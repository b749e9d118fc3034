"""What decides the milestones of recorded episodes: the subgoals of their suite or of a file, checked by rules or a model."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from mira_jax.config import to_tree
from mira_jax.errors import ConfigError
from mira_jax.files import sha256
from mira_jax.needs import Needs
from mira_jax.trajectories.records import Status, Subgoal, Trajectory
from rollouts.labels.answers import answer_model_needs
from rollouts.labels.checker import PROMPT_VERSION, ModelChecker, ModelCheckerConfig
from rollouts.labels.labeller import AskedModel, Labeller, OpenLabeller, chain
from rollouts.labels.subgoals import files
from rollouts.labels.subgoals.files import Goal, SubgoalFile
from rollouts.labels.trained_checker import TrainedChecker, TrainedCheckerConfig
from rollouts.llm.probe import role_needs
from rollouts.llm.role import NoAnswer
from rollouts.suites import Suite
from rollouts.suites.tasks.checks import done_after_steps

GoalsOf = Callable[[Trajectory], tuple[Goal, ...]]
"""The subgoals of an episode's task. None: it has none."""
KEY = "milestones.checker"
"""Followed by the kind, the path of the config of a checker that asks a model."""


@dataclasses.dataclass(frozen=True)
class CheckerConfig:
    kind: Literal["rules", "model", "trained"] = "rules"
    """rules: the checks that the suite or the file has for each subgoal. model: a chat model, which reads the episode. trained: a run of
    the recipe checker, which is asked about each subgoal after each step."""
    model: ModelCheckerConfig = dataclasses.field(default_factory=ModelCheckerConfig)
    """model: the chat model."""
    trained: TrainedCheckerConfig = dataclasses.field(default_factory=TrainedCheckerConfig)
    """trained: the model, which `endpoint` serves."""

    def __post_init__(self) -> None:
        if self.kind == "trained" and not self.trained.tokenizer:
            raise ConfigError("trained.tokenizer", "prompts are sent as tokens; name the folder of the model that the endpoint serves")

    def settings(self) -> dict[str, Any]:
        """What determines the milestones of given subgoals."""
        if self.kind == "rules":
            return {}
        # Which model an address without a name serves is not known before it is asked.
        config = self.model if self.kind == "model" else self.trained
        named = config.endpoint.model or config.endpoint.base_url
        tree = to_tree(config)
        if self.kind == "trained":
            return {"trained": {key: tree[key] for key in ("tokenizer", "prompt", "threshold")} | {"model": named}}
        kept = ("window", "page_characters", "temperature", "max_tokens", "answer_format")
        return {"model": {key: tree[key] for key in kept} | {"version": PROMPT_VERSION, "model": named, "body": config.endpoint.body}}


@dataclasses.dataclass(frozen=True)
class MilestonesConfig:
    kind: Literal["suite", "subgoals"] = "suite"
    """suite: the subgoals of the suite. subgoals: those of `file`."""
    file: str = ""
    """subgoals: a file that `mira subgoals` has written."""
    checker: CheckerConfig = dataclasses.field(default_factory=CheckerConfig)
    """What decides when a subgoal is done."""

    def __post_init__(self) -> None:
        if self.kind == "subgoals" and not self.file:
            raise ConfigError("file", "name the file of the subgoals, which `mira subgoals` writes")
        if self.kind == "suite" and self.file:
            raise ConfigError("kind", "suite has its own subgoals; set $.kind=subgoals to use those of $.file")

    @property
    def by_default(self) -> bool:
        """Whether the suite's rules decide about the suite's subgoals."""
        return self.kind == "suite" and self.checker.kind == "rules"

    def settings(self) -> dict[str, Any]:
        """What determines the milestones, for the record of a labelled folder. Empty for the default. Raises UserError."""
        if self.by_default:
            return {}
        tree: dict[str, Any] = {"kind": self.kind, "checker": self.checker.kind, **self.checker.settings()}
        if self.kind == "subgoals":
            files.read(self.file)
            tree["sha256"] = sha256(self.file)
        return tree


class Checker(AskedModel, Protocol):
    """Decides with a model."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    async def rows(self, trajectory: Trajectory, subgoals: Sequence[str]) -> list[tuple[bool, ...]]:
        """For each step, whether each subgoal is done by the end of that step. What was done once stays done. Raises NoAnswer."""
        ...


@contextlib.contextmanager
def open_milestones(config: MilestonesConfig, suite: Suite, cache: str = "") -> Iterator[OpenLabeller]:
    """What labels with milestones as the config says. `cache`: file of a model's answers if the config names none.

    Raises:
        UserError: the file cannot be read, or has no checks for the rules.
    """
    checker = _checker(config.checker, cache)
    goals_of = of_file(files.read(config.file)) if config.kind == "subgoals" else of_suite(suite)
    if checker:
        labeller = by_model(goals_of, checker)
    elif config.kind == "suite":
        labeller = by_suite(suite)
    else:
        labeller = chain(cleared, by_rules(files.read(config.file)))
    with contextlib.closing(OpenLabeller(labeller, KEY, checker)) as opened:
        yield opened


def _checker(config: CheckerConfig, cache: str) -> Checker | None:
    """None: rules decide."""
    if config.kind == "rules":
        return None
    key = f"{KEY}.{config.kind}"
    return ModelChecker(config.model.with_cache(cache), key) if config.kind == "model" else TrainedChecker(config.trained, key)


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


def of_file(content: SubgoalFile) -> GoalsOf:
    """The subgoals of a file."""
    return lambda trajectory: _goals(content, trajectory)


def of_suite(suite: Suite) -> GoalsOf:
    """The subgoals of the suite."""

    def goals_of(trajectory: Trajectory) -> tuple[Goal, ...]:
        lost = trajectory.status is Status.INFRA_ERROR
        return () if lost else tuple(Goal(subgoal.text) for subgoal in suite.milestones(trajectory)[0])

    return goals_of


def by_model(goals_of: GoalsOf, checker: Checker) -> Labeller:
    """The subgoals of an episode, by a model. Without subgoals or without a valid answer, it has no milestones."""

    async def labeller(trajectory: Trajectory) -> Trajectory:
        goals = goals_of(trajectory)
        if not goals:
            return await cleared(trajectory)
        try:
            rows = await checker.rows(trajectory, [goal.text for goal in goals])
        except NoAnswer:
            return await cleared(trajectory)
        return _with_milestones(trajectory, _subgoals(goals, checker.name), rows)

    return labeller


def _with_milestones(trajectory: Trajectory, subgoals: tuple[Subgoal, ...], rows: Sequence[tuple[bool, ...]]) -> Trajectory:
    steps = tuple(msgspec.structs.replace(step, milestones=row) for step, row in zip(trajectory.steps, rows, strict=True))
    return msgspec.structs.replace(trajectory, subgoals=subgoals, steps=steps)


def milestone_needs(config: MilestonesConfig, found: Needs) -> None:
    """Adds what labelling with milestones needs: the file, and an endpoint that answers."""
    if config.kind == "subgoals" and found.input("milestones.file", config.file):
        with found.attempt("milestones.file"):
            content = files.read(config.file)
            if config.checker.kind == "rules":
                by_rules(content)
    if config.checker.kind == "model":
        role_needs(f"{KEY}.model", config.checker.model, found)
    if config.checker.kind == "trained":
        trained = config.checker.trained
        answer_model_needs(trained.endpoint, trained.tokenizer, trained.prompt, f"{KEY}.trained", "checker", found)


def without_milestones(trajectories: Sequence[Trajectory], known: Mapping[str, Any] | None) -> tuple[int, int]:
    """The number of episodes without milestones because their tasks are not in `known`, and for other reasons. None: all are known."""
    none = [one for one in trajectories if one.status is not Status.INFRA_ERROR and one.steps and not one.subgoals]
    without_subgoals = sum(known is not None and one.task.id not in known for one in none)
    return without_subgoals, len(none) - without_subgoals


def _goals(content: SubgoalFile, trajectory: Trajectory) -> tuple[Goal, ...]:
    return content.subgoals.get(trajectory.task.id, ()) if trajectory.status is not Status.INFRA_ERROR else ()


def _subgoals(goals: Sequence[Goal], by: str = "") -> tuple[Subgoal, ...]:
    return tuple(Subgoal(text=goal.text, check=f"by {by}" if by else goal.check) for goal in goals)
