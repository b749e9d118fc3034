"""An OpenEnv environment: `reset` opens a task of a suite, `step` performs a response, the rules of the suite give the reward."""

import asyncio
import contextlib
import functools
import random
from typing import Any, Literal

from openenv.core.env_server import Environment, create_app
from openenv.core.env_server.types import Action, EnvironmentMetadata, Observation, State
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp

from mira_jax.errors import UserError
from mira_jax.trajectories.instructions import INSTRUCTIONS
from mira_jax.trajectories.records import Status, Task, Trajectory
from mira_jax.trajectories.tasks import SPLITS
from rollouts.engine.episode import LimitConfig
from rollouts.engine.stepwise import Shown, StepwiseEpisode
from rollouts.labels.outcome import label
from rollouts.suites import Suite
from rollouts.web.drivers import Driver
from rollouts.web.observation import ObservationConfig

NAME = "openenv"
"""Name of the policy in records."""
LONGEST = 100_000
"""Maximum characters of a response."""


class WebAction(Action):
    response: str = Field(max_length=LONGEST, description="a response in the grammar of actions, which the environment's metadata explain")


class WebObservation(Observation):
    """`reward` and `metadata` are set at the end of the episode: 1 for a success, else 0."""

    instruction: str = Field(description="what to do")
    url: str = Field(default="", description="address of the page")
    page: str = Field(default="", description="the page as text; empty at the end of the episode")
    error: str = Field(default="", description="why the last response could not be read, or its action failed")


class WebState(State):
    task: str = Field(default="", description="id of the task")


class ResetArguments(BaseModel):
    """What `reset` takes. One task is chosen: by its id, by split and index, or at random."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seed: int | None = Field(default=None, description="of the draw, if neither task nor index is given")
    episode_id: str | None = None
    task: str | None = Field(default=None, description="id of a task")
    split: Literal[SPLITS] = "train"  # pyright: ignore[reportInvalidTypeForm]
    index: int | None = Field(default=None, ge=0, description="of a task in the split")


class Tasks:
    """The tasks that clients can name or draw."""

    def __init__(self, suite: Suite, templates: list[str] | None, count: int, seed: int):
        """Arguments as of `Suite.tasks`, for each split."""
        self.suite = suite
        self._of = functools.cache(lambda split: suite.tasks(split, templates, count, seed))

    def of(self, split: str) -> list[Task]:
        if split not in SPLITS:
            raise ValueError(f"split: {split!r} is none of {', '.join(SPLITS)}")
        return self._of(split)

    def choose(self, asked: ResetArguments) -> Task:
        """Raises ValueError if there is no such task."""
        if asked.task is not None:
            try:
                return self.suite.task(asked.task)
            except UserError as error:
                raise ValueError(f"task: {error}") from None
        found = self.of(asked.split)
        if asked.index is None:
            return random.Random(asked.seed).choice(found)
        if asked.index >= len(found):
            raise ValueError(f"index: {asked.index}; the split {asked.split} has {len(found)} tasks")
        return found[asked.index]


class WebEnvironment(Environment[WebAction, WebObservation, WebState]):
    """One session of a client. The methods are called in the event loop of the server, except the constructor and `close`."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, tasks: Tasks, driver: Driver, observation: ObservationConfig, limits: LimitConfig):
        super().__init__()
        self._tasks, self._driver, self._observation, self._limits = tasks, driver, observation, limits
        self._episode: StepwiseEpisode | None = None
        self._task: Task | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state = WebState()

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> WebObservation:
        raise NotImplementedError("the server calls reset_async")

    def step(self, action: WebAction, timeout_s: float | None = None, **kwargs: Any) -> WebObservation:
        raise NotImplementedError("the server calls step_async")

    async def reset_async(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> WebObservation:
        """Ends the running episode, if any, and starts one. Arguments as in `ResetArguments`."""
        asked = ResetArguments(seed=seed, episode_id=episode_id, **kwargs)
        chosen = self._tasks.choose(asked)
        await self._end()
        self._loop = asyncio.get_running_loop()
        self._episode = StepwiseEpisode(self._tasks.suite, self._driver, self._observation, self._limits, NAME)
        try:
            shown = await self._episode.start(chosen)
        except BaseException:
            await self._end()
            raise
        self._task = shown.task
        self._state = WebState(episode_id=episode_id, step_count=0, task=chosen.id)
        return _shown(shown)

    async def step_async(self, action: WebAction, timeout_s: float | None = None) -> WebObservation:
        if self._episode is None or self._task is None:
            raise ValueError("no episode is running; call reset first, over the same WebSocket")
        try:
            found = await self._episode.respond(action.response)
        except BaseException:
            await self._end()
            raise
        self._state.step_count += 1
        if isinstance(found, Shown):
            return _shown(found)
        await self._end()
        return await asyncio.to_thread(_ended, found, self._task.intent, self._tasks.suite)

    @property
    def state(self) -> WebState:
        return self._state

    def get_metadata(self) -> EnvironmentMetadata:
        return EnvironmentMetadata(name=self._tasks.suite.name, description=INSTRUCTIONS)

    def list_splits(self) -> list[str]:
        return list(SPLITS)

    def num_tasks(self, split: str) -> int:
        return len(self._tasks.of(split))

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        return [_described(task, index) for index, task in enumerate(self._tasks.of(split))]

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        if index < 0:
            raise IndexError(index)
        return self.list_tasks(split)[index]

    def get_task_range(self, split: str, start: int | None = None, stop: int | None = None) -> list[dict[str, Any]]:
        return self.list_tasks(split)[start:stop]

    def close(self) -> None:
        """Called in a thread when the client is gone."""
        if self._loop is not None and self._episode is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                asyncio.run_coroutine_threadsafe(self._end(), self._loop)

    async def _end(self) -> None:
        episode, self._episode = self._episode, None
        if episode is not None:
            await episode.close()


def make_app(tasks: Tasks, driver: Driver, observation: ObservationConfig, limits: LimitConfig, sessions: int) -> ASGIApp:
    """The server of OpenEnv, for at most `sessions` clients at once."""
    return create_app(
        lambda: WebEnvironment(tasks, driver, observation, limits),
        WebAction,
        WebObservation,
        env_name=tasks.suite.name,
        max_concurrent_envs=sessions,
        state_cls=WebState,
    )


def _shown(shown: Shown) -> WebObservation:
    error = shown.past[-1].error if shown.past else None
    return WebObservation(instruction=shown.task.intent, url=shown.observation.url, page=shown.observation.text, error=error or "")


def _ended(trajectory: Trajectory, instruction: str, suite: Suite) -> WebObservation:
    labelled = label(trajectory, suite)
    about = {
        "task": labelled.task.id,
        "status": Status(labelled.status).value,
        "subgoals": [subgoal.text for subgoal in labelled.subgoals],
        "milestones": list(labelled.steps[-1].milestones),
        "detail": labelled.outcome.detail if labelled.outcome else "",
    }
    error = labelled.steps[-1].error or ""
    return WebObservation(instruction=instruction, error=error, done=True, reward=float(labelled.success), metadata=about)


def _described(task: Task, index: int) -> dict[str, Any]:
    return {"id": task.id, "index": index, "instruction": task.intent, "template": task.template}
