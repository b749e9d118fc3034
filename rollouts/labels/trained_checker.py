"""A checker that was trained (the recipe `checker`) decides after which steps of an episode the subgoals were done."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from mira_jax.trajectories.answer_prompts import subgoal_prompt_ids
from mira_jax.trajectories.prompts import PromptConfig, refuse_subgoals
from mira_jax.trajectories.records import Trajectory
from rollouts.labels.answers import AnswerModel
from rollouts.llm.endpoint import EndpointConfig
from rollouts.llm.kept import together
from rollouts.llm.usage import Usage


@dataclasses.dataclass(frozen=True)
class TrainedCheckerConfig:
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    """The server of the model."""
    tokenizer: str = ""
    """The folder of the model, for its tokenizer. Required."""
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    """How an episode is turned into a prompt. Set this to `data.prompt` of the model's run."""
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """A subgoal is done if the probability P(YES) / (P(YES) + P(NO)) is at least this."""

    def __post_init__(self) -> None:
        refuse_subgoals(self.prompt, "prompt")


class TrainedChecker:
    """Asks about each subgoal after each step, until it is done."""

    def __init__(self, config: TrainedCheckerConfig, key: str):
        """Raises UserError: see `AnswerModel`."""
        self.key, self._threshold = key, config.threshold
        self._model = AnswerModel(config.endpoint, config.tokenizer, config.prompt, key, "checker")

    async def __aenter__(self) -> "TrainedChecker":
        """Raises UserError if the endpoint can't be reached, or its model's context is too short for the prompts."""
        await self._model.endpoint.__aenter__()
        try:
            self._model.check_length()
        except BaseException:
            await self._model.endpoint.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._model.endpoint.__aexit__()

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def usage(self) -> Usage:
        return self._model.endpoint.usage

    async def rows(self, trajectory: Trajectory, subgoals: Sequence[str]) -> list[tuple[bool, ...]]:
        """For each step, whether each subgoal is done by the end of that step. What was done once stays done.

        Raises:
            EndpointError, UserError: see `AnswerModel.probability`.
        """
        done = [False] * len(subgoals)
        rows = []
        for step in range(len(trajectory.steps)):
            asked = [number for number, already in enumerate(done) if not already]
            prompts = (
                subgoal_prompt_ids(trajectory, step, subgoals[number], self._model.prompt, self._model.tokenizer) for number in asked
            )
            for number, p in zip(asked, await together(map(self._model.probability, prompts)), strict=True):
                done[number] = p >= self._threshold
            rows.append(tuple(done))
        return rows
