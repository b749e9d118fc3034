"""Episodes whose responses come from a caller, one at a time, in place of a policy."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Sequence

from mira_jax.trajectories import records
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Plan, Task, Trajectory
from rollouts.agents.base import Reply
from rollouts.engine.episode import LimitConfig, run_episode
from rollouts.errors import InfraError
from rollouts.suites import Suite
from rollouts.web.drivers import Driver
from rollouts.web.observation import Observation, ObservationConfig


@dataclasses.dataclass(frozen=True)
class Shown:
    """What the caller has to respond to."""

    task: Task
    """With the instruction, which some suites state only on the page."""
    observation: Observation
    past: Sequence[Round]
    """The responses so far, each with its error, if any."""


class StepwiseEpisode:
    """One episode of `run_episode`, with the same limits and evidence. Use it from one event loop, and close it."""

    def __init__(self, suite: Suite, driver: Driver, observation: ObservationConfig, limits: LimitConfig, policy: str):
        """`policy`: name of the caller in the record."""
        self._suite, self._driver, self._observation, self._limits = suite, driver, observation, limits
        self._caller = _Caller(policy)
        self._episode: asyncio.Future[Trajectory] | None = None

    async def start(self, task: Task, attempt: int = 0) -> Shown:
        """Opens the task's sites. Called once.

        Raises:
            InfraError: browser or site failed.
        """
        self._episode = asyncio.ensure_future(self._run(task, attempt))
        found = await self._next()
        assert isinstance(found, Shown)
        return found

    async def respond(self, text: str) -> Shown | Trajectory:
        """Performs the response. Returns the page after it, or the record of the episode if that has ended.

        Raises:
            InfraError: browser or site failed, or the episode took longer than `limits.episode_seconds`. It is over, without a record.
        """
        if self._episode is not None and self._episode.done():
            self._episode.result()
        if self._episode is None or self._episode.done():
            raise RuntimeError("no episode is running")
        self._caller.replies.put_nowait(text)
        return await self._next()

    async def close(self) -> None:
        """Ends the episode if it is running, and closes its sites. May be called twice."""
        if self._episode is not None:
            self._episode.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._episode

    async def _run(self, task: Task, attempt: int) -> Trajectory:
        episode = run_episode(self._suite, task, attempt, self._caller, self._driver, self._observation, self._limits)
        try:
            return await asyncio.wait_for(episode, self._limits.episode_seconds)
        except TimeoutError:
            raise InfraError(f"the episode took more than {self._limits.episode_seconds:g} s (limits.episode_seconds)") from None

    async def _next(self) -> Shown | Trajectory:
        assert self._episode is not None
        shown = asyncio.ensure_future(self._caller.shown.get())
        try:
            await asyncio.wait((shown, self._episode), return_when=asyncio.FIRST_COMPLETED)
            return shown.result() if shown.done() else self._episode.result()
        finally:
            shown.cancel()


class _Caller:
    """The policy and the agent of the one episode: it passes on what it is shown, and waits for the reply."""

    def __init__(self, name: str):
        self.record = records.Policy(name=name)
        self.shown: asyncio.Queue[Shown] = asyncio.Queue()
        self.replies: asyncio.Queue[str] = asyncio.Queue()
        self._task: Task | None = None

    async def __aenter__(self) -> "_Caller":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def agent(self, task: Task, attempt: int) -> "_Caller":
        self._task = task
        return self

    async def respond(self, past: Sequence[Round], observation: Observation, plan: Plan | None = None) -> Reply:
        assert self._task is not None
        self.shown.put_nowait(Shown(self._task, observation, past))
        return Reply(await self.replies.get())
