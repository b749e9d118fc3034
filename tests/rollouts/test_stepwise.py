"""Episodes whose responses come from a caller: the same records as those of a policy with the same responses."""

import asyncio

import msgspec
import pytest

from mira_jax.trajectories.records import Status, Trajectory
from rollouts.agents.base import PolicyConfig
from rollouts.agents.scripts import ScriptPolicy
from rollouts.engine.episode import LimitConfig, run_episode
from rollouts.engine.stepwise import Shown, StepwiseEpisode
from rollouts.engine.worker import driver_of
from rollouts.errors import InfraError
from rollouts.labels.outcome import label
from rollouts.suites.arena.suite import ArenaSuite
from rollouts.web.browser import BrowserConfig
from rollouts.web.observation import ObservationConfig

ASGI = BrowserConfig(driver="asgi", contexts=1)
PAGES, LIMITS = ObservationConfig(handles="name"), LimitConfig(parse_failures=2)


def timeless(trajectory):
    steps = tuple(msgspec.structs.replace(step, seconds=None) for step in trajectory.steps)
    return msgspec.structs.replace(trajectory, id="", created="", policy=None, steps=steps)


async def test_a_caller_that_acts_as_the_expert_makes_its_record():
    suite = ArenaSuite()
    (task,) = suite.tasks("test", ["buy_with_coupon"], 1, 0)
    async with driver_of(ASGI, suite) as driver:
        expected = await run_episode(suite, task, 0, ScriptPolicy(PolicyConfig(kind="expert"), suite), driver, PAGES, LIMITS)
        episode, expert = StepwiseEpisode(suite, driver, PAGES, LIMITS, "caller"), suite.expert(task)
        found = await episode.start(task)
        while isinstance(found, Shown):
            assert found.task.intent == task.intent
            found = await episode.respond(expert.respond(task, found.past, found.observation.text))
        assert timeless(found) == timeless(expected) and found.policy.name == "caller"
        with pytest.raises(RuntimeError, match="no episode is running"):
            await episode.respond("again")
        await episode.close()
    assert (await asyncio.to_thread(label, found, suite)).success


async def test_limits_end_it_and_errors_are_shown():
    suite = ArenaSuite()
    (task,) = suite.tasks("test", ["buy"], 1, 0)
    async with driver_of(ASGI, suite) as driver:
        episode = StepwiseEpisode(suite, driver, PAGES, LIMITS, "caller")
        await episode.start(task)
        found = await episode.respond("garbage")
        assert isinstance(found, Shown) and found.past[0].response == "garbage" and found.past[0].error
        found = await episode.respond("\0" * 1000)
        assert isinstance(found, Trajectory) and found.status is Status.PARSE_FAILURES


async def test_a_closed_or_slow_episode_leaves_nothing_running():
    suite = ArenaSuite()
    (task,) = suite.tasks("test", ["buy"], 1, 0)
    async with driver_of(ASGI, suite) as driver:
        before = asyncio.all_tasks()
        episode = StepwiseEpisode(suite, driver, PAGES, LIMITS, "caller")
        await episode.start(task)
        await episode.close()
        await episode.close()
        assert asyncio.all_tasks() == before
        slow = StepwiseEpisode(suite, driver, PAGES, LimitConfig(episode_seconds=0.2), "caller")
        with pytest.raises(InfraError, match=r"took more than 0\.2 s"):
            await slow.start(task)
            await asyncio.sleep(0.3)
            await slow.respond("go_backward()")
        await slow.close()
        assert asyncio.all_tasks() == before
