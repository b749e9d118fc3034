"""What grades the plans of recorded episodes: the rules of their suite, or a chat model with a rubric or without."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from mira_jax.config import to_tree
from mira_jax.errors import ConfigError
from mira_jax.needs import Needs
from mira_jax.trajectories.records import Status, Trajectory
from rollouts.labels import rubrics
from rollouts.labels.chat_grader import KEY, PROMPT_VERSION, ChatGrader, ChatGraderConfig
from rollouts.labels.labeller import Labeller, OpenLabeller
from rollouts.llm.probe import role_needs
from rollouts.llm.role import NoAnswer
from rollouts.suites import Suite
from rollouts.suites.base import Planned


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    kind: Literal["none", "suite", "model", "holistic"] = "none"
    """none: plans get no grade. suite: the rules of the suite, which knows the right plan. model: a chat model, by `rubric`. holistic: a
    chat model, which gives one grade from 0 to 10 without a rubric."""
    rubric: str = rubrics.DEFAULT
    """model: the file of the rubric."""
    model: ChatGraderConfig = dataclasses.field(default_factory=ChatGraderConfig)
    """model, holistic: the chat model."""

    def settings(self, suite: Suite) -> dict[str, Any]:
        """What determines the grades, for the record of a labelled folder. Empty for none. Raises UserError."""
        if self.kind == "none":
            return {}
        if self.kind == "suite":
            return {"kind": self.kind, "rules": planned(suite).plan_rules}
        tree = to_tree(self.model)
        kept = {key: tree[key] for key in ("max_characters", "temperature", "max_tokens", "answer_format")}
        # Which model an address without a name serves is not known before it is asked.
        endpoint = self.model.endpoint
        kept |= {"kind": self.kind, "version": PROMPT_VERSION, "model": endpoint.model or endpoint.base_url, "body": endpoint.body}
        return kept | ({"rubric": rubrics.read(self.rubric).sha256} if self.kind == "model" else {})


def planned(suite: Suite) -> Planned:
    """Raises ConfigError if the suite has no rules for plans."""
    if not isinstance(suite, Planned):
        raise ConfigError("plan.kind", f"the suite {suite.name} has no rules for plans; set it to model, which asks a chat model")
    return suite


@contextlib.contextmanager
def open_plans(config: PlanConfig, suite: Suite, cache: str = "") -> Iterator[OpenLabeller | None]:
    """What grades plans as the config says. None: nothing. `cache`: file of a model's answers if the config names none.

    Raises:
        UserError: the rubric cannot be read, or the suite has no rules for plans.
    """
    if config.kind == "none":
        yield None
        return
    if config.kind == "suite":
        opened = OpenLabeller(by_suite(planned(suite)), "plan")
    else:
        rubric = rubrics.read(config.rubric) if config.kind == "model" else None
        grader = ChatGrader(config.model.with_cache(cache), rubric)
        opened = OpenLabeller(by_model(grader), KEY, grader)
    with contextlib.closing(opened):
        yield opened


def by_suite(suite: Planned) -> Labeller:
    """Grades by the rules of the suite."""

    async def labeller(trajectory: Trajectory) -> Trajectory:
        return msgspec.structs.replace(trajectory, plan_grade=suite.grade_plan(trajectory) if has_plan(trajectory) else None)

    return labeller


def by_model(grader: ChatGrader) -> Labeller:
    """Grades by a model. Without a valid answer, a plan has no grade."""

    async def labeller(trajectory: Trajectory) -> Trajectory:
        try:
            grade = await grader.grade(trajectory) if has_plan(trajectory) else None
        except NoAnswer:
            grade = None
        return msgspec.structs.replace(trajectory, plan_grade=grade)

    return labeller


def has_plan(trajectory: Trajectory) -> bool:
    """Whether the episode has a first response, and was not lost to an infrastructure error."""
    return trajectory.status is not Status.INFRA_ERROR and bool(trajectory.steps)


def plan_needs(config: PlanConfig, found: Needs) -> None:
    """Adds what grading plans needs: the rubric, and an endpoint that answers."""
    if config.kind == "model":
        with found.attempt("plan.rubric"):
            rubrics.read(config.rubric)
            found.ok("plan.rubric", config.rubric)
    if config.kind in ("model", "holistic"):
        role_needs(KEY, config.model, found)
