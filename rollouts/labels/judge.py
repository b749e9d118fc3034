"""What decides the outcome of recorded episodes: the rules of their suite, an outcome reward model (ORM), or a chat model."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Literal, Protocol

from msgspec import Meta

from mira_jax.errors import ConfigError
from mira_jax.needs import Needs
from mira_jax.trajectories.answer_prompts import outcome_prompt_ids
from mira_jax.trajectories.prompts import PromptConfig, refuse_subgoals
from mira_jax.trajectories.records import Outcome, Status, Task, Trajectory
from rollouts.labels.answers import AnswerModel, answer_model_needs
from rollouts.labels.chat_judge import KEY as MODEL
from rollouts.labels.chat_judge import ChatJudge, ChatJudgeConfig
from rollouts.llm.endpoint import EndpointConfig
from rollouts.llm.kept import KeptOpen, together
from rollouts.llm.probe import role_needs
from rollouts.llm.usage import Usage
from rollouts.suites import Suite
from rollouts.suites.base import AsksModels, PartlyJudged
from rollouts.suites.judge import naming_what_is_kept

AT_ONCE = 64
"""Maximum number of episodes that the rules of a suite judge at once, if they ask a model."""
BY_MODEL = "set judge.kind=model or judge.kind=orm, so that a model decides (docs/judging.md)"


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    kind: Literal["rule", "orm", "model"] = "rule"
    """rule: the evaluators of the suite. orm: an outcome reward model, a run of the recipe orm that `endpoint` serves. model: any chat
    model, by criteria that it writes for each task."""
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    """orm: the server of the model."""
    tokenizer: str = ""
    """orm: the folder of the model, for its tokenizer. Required."""
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    """orm: how an episode is turned into a prompt. Set this to `data.prompt` of the model's run."""
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """orm: an episode is a success if the probability P(YES) / (P(YES) + P(NO)) is at least this."""

    model: ChatJudgeConfig = dataclasses.field(default_factory=ChatJudgeConfig)
    """model: the chat model. Its cache is by default the file OUT.answers, next to the labelled folder."""

    def __post_init__(self) -> None:
        if self.kind == "orm" and not self.tokenizer:
            raise ConfigError("tokenizer", "prompts are sent as tokens; name the folder of the model that the endpoint serves")
        refuse_subgoals(self.prompt, "prompt")


class OutcomeJudge(Protocol):
    @property
    def usage(self) -> Mapping[str, Usage]:
        """What requests to models used so far, by the path of the model's config."""
        ...

    def outcomes(self, trajectories: Sequence[Trajectory]) -> Iterator[Outcome | None]:
        """Yields the outcome of each trajectory, in order. None after an infrastructure error, and where the judge gave no verdict."""
        ...


def make_judge(config: JudgeConfig, suite: Suite, cache: str = "") -> OutcomeJudge:
    """The judge of the config. `cache`: file of a chat model's answers if the config names none.

    Raises:
        UserError: the tokenizer cannot be read or used.
    """
    if config.kind == "model":
        return ChatJudge(config.model if config.model.cache else dataclasses.replace(config.model, cache=cache))
    return OutcomeRewardModel(config) if config.kind == "orm" else Rules(suite)


def judge_needs(config: JudgeConfig, found: Needs) -> None:
    """Adds what the judge needs: its tokenizer, its key, and an endpoint that answers."""
    if config.kind == "model":
        role_needs(MODEL, config.model, found)
    if config.kind == "orm":
        answer_model_needs(config.endpoint, config.tokenizer, config.prompt, "judge", "orm", found)


def refuse_without_rules(suite: Suite, tasks: Sequence[Task], key: str, remedy: str) -> None:
    """Raises ConfigError if no rule of the suite decides the outcome of some of the tasks. They would have no outcome, which is neither a
    success nor a failure."""
    without = [task.id for task in tasks if isinstance(suite, PartlyJudged) and not suite.has_rules(task)]
    if without:
        raise ConfigError(key, f"no rule evaluates {without[0]} (it has no eval), nor {len(without) - 1} others of {len(tasks)}; {remedy}")


class Rules:
    """The rules of a suite. Episodes are judged concurrently if the rules ask a model."""

    def __init__(self, suite: Suite):
        self.suite = suite

    @property
    def usage(self) -> Mapping[str, Usage]:
        return self.suite.usage if isinstance(self.suite, AsksModels) else {}

    def outcomes(self, trajectories: Sequence[Trajectory]) -> Iterator[Outcome | None]:
        """Raises ConfigError if no rule decides the outcome of some of the tasks."""
        refuse_without_rules(self.suite, [trajectory.task for trajectory in trajectories], "judge.kind", BY_MODEL)
        if not self.usage:
            yield from map(self._outcome, trajectories)
            return
        with ThreadPoolExecutor(AT_ONCE) as threads:
            yield from threads.map(self._outcome, trajectories)

    def _outcome(self, trajectory: Trajectory) -> Outcome | None:
        return None if trajectory.status is Status.INFRA_ERROR else self.suite.judge(trajectory)


class OutcomeRewardModel:
    """An ORM behind an endpoint."""

    def __init__(self, config: JudgeConfig):
        self.config = config
        self._model = AnswerModel(config.endpoint, config.tokenizer, config.prompt, "judge", "orm")
        self._open_endpoint = KeptOpen(self._model.endpoint)

    @property
    def usage(self) -> Mapping[str, Usage]:
        return {"judge.endpoint": self._model.endpoint.usage}

    def outcomes(self, trajectories: Sequence[Trajectory]) -> Iterator[Outcome | None]:
        """Yields outcomes with the source "orm" and the probability as score, also in words in `detail`.

        All episodes are judged concurrently, up to `endpoint.concurrency` requests.

        Raises:
            ConfigError: the endpoint does not answer, serves a model whose context is too short, or reports no log-probabilities.
        """
        with naming_what_is_kept("judge"):
            yield from self._open_endpoint.run(lambda _: self._judge(trajectories))

    async def _judge(self, trajectories: Sequence[Trajectory]) -> list[Outcome | None]:
        self._model.check_length()
        return await together(map(self._outcome, trajectories))

    async def _outcome(self, trajectory: Trajectory) -> Outcome | None:
        if trajectory.status is Status.INFRA_ERROR:
            return None
        if not trajectory.steps:
            return Outcome(success=False, score=0.0, source="orm", detail="no step was taken")
        probability = await self._model.probability(outcome_prompt_ids(trajectory, self.config.prompt, self._model.tokenizer))
        return Outcome(
            success=probability >= self.config.threshold,
            score=probability,
            source="orm",
            detail=f"P(YES) {probability:.6f}, threshold {self.config.threshold:g}, by {self._model.name}",
        )
