"""Many episodes at once: workers over a queue, each finished episode written before the next begins."""

import asyncio
import collections
import contextlib
import dataclasses
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from playwright.async_api import Error
from tqdm import tqdm

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Status, Task, Trajectory, episode_key
from mira_jax.trajectories.shards import Spool, pack, sole_writer
from rollouts.agents.policy import Policy, PolicyConfig, make_policy
from rollouts.episode import LimitConfig, failed_episode, run_episode
from rollouts.errors import InfraError
from rollouts.suites import Suite, make_suite
from rollouts.web.browser import BrowserConfig, BrowserPool
from rollouts.web.observation import ObservationConfig

Result = TypeVar("Result")
LOST = "infra_errors"
"""The folder beside the episodes for those lost to infrastructure errors. Collecting again tries them again."""


@dataclasses.dataclass(frozen=True)
class SuiteConfig:
    name: str = "arena"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the suite itself takes."""


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """Which episodes, by which policy, in what browser."""

    out: str = ""
    """The folder to write."""
    suite: SuiteConfig = dataclasses.field(default_factory=SuiteConfig)
    split: str = "train"
    templates: list[str] | None = None
    """Only these task templates. Default: all of the suite."""
    episodes: int = 100
    """How many tasks are drawn."""
    attempts: int = 1
    """How often each of them is tried."""
    seed: int = 0
    """Draws the tasks."""
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    observation: ObservationConfig = dataclasses.field(default_factory=ObservationConfig)
    browser: BrowserConfig = dataclasses.field(default_factory=BrowserConfig)
    limits: LimitConfig = dataclasses.field(default_factory=LimitConfig)

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.attempts < 1:
            raise UserError("episodes and attempts must be at least 1")


@dataclasses.dataclass
class Tally:
    """What a run has done so far."""

    wanted: int = 0
    skipped: int = 0
    """Collected by an earlier run."""
    steps: int = 0
    retries: int = 0
    seconds: float = 0.0
    status: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def infra_errors(self) -> int:
        return self.status[Status.INFRA_ERROR.value]


def collect(config: RolloutConfig, folder: Path, begun: Callable[[], None] = lambda: None) -> Tally:
    """Collects the episodes that `folder` has not got yet, and packs them into shards.

    Interrupted (Ctrl-C, SIGTERM) it closes browser and sites and raises KeyboardInterrupt; finished episodes are kept.
    `begun` is called just before the first episode, when policy, sites and browser are there.

    Raises:
        UserError: no browser, no endpoint, no such task template, a full disk, another process that collects into
            `folder`, or nothing but infrastructure errors.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a folder; choose another out")
    suite = make_suite(config.suite.name, **config.suite.options)
    tasks = suite.tasks(config.split, config.templates, config.episodes, config.seed)
    policy = make_policy(config.policy, suite)
    specs = [(task, attempt) for attempt in range(config.attempts) for task in tasks]
    with sole_writer(folder):
        tally = run(_collect(config, suite, policy, specs, folder, begun))
        pack(folder)
    return tally


def lost_episodes(folder: Path) -> list[Trajectory]:
    """The episodes lost to infrastructure errors in `folder`, empty if there is none."""
    return list(Spool(folder).trajectories()) if folder.is_dir() else []


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.run`, where SIGTERM ends as Ctrl-C does. Raises KeyboardInterrupt then."""

    async def guarded() -> Result:
        task = asyncio.ensure_future(main)
        stopped = []

        def stop() -> None:
            stopped.append(True)
            task.cancel()

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_quieter)
        handled = (signal.SIGINT, signal.SIGTERM)
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            for number in handled:
                loop.add_signal_handler(number, stop)
        try:
            return await task
        except asyncio.CancelledError:
            if stopped:
                raise KeyboardInterrupt from None
            raise
        finally:
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                for number in handled:
                    loop.remove_signal_handler(number)

    return asyncio.run(guarded())


def _quieter(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Browser calls that were given up fail once more when their page or driver closes; nobody waits for them then."""
    error = context.get("exception")
    if not isinstance(error, Error) and "reading from the driver" not in str(error):
        loop.default_exception_handler(context)


async def _collect(
    config: RolloutConfig, suite: Suite, policy: Policy, specs: Sequence[tuple[Task, int]], folder: Path, begun: Callable[[], None]
) -> Tally:
    async with policy:
        spool, lost = Spool(folder), Spool(folder / LOST)
        spool.sweep()
        lost.sweep()
        done = spool.keys()
        waiting = [(task, attempt) for task, attempt in specs if episode_key(task, attempt, policy.record) not in done]
        tally = Tally(wanted=len(specs), skipped=len(specs) - len(waiting))
        if not waiting:
            return tally
        await suite.start()
        try:
            async with BrowserPool(config.browser, suite.hosts) as browsers:
                begun()
                await _Run(config, suite, policy, browsers, spool, lost, tally).all(waiting)
        finally:
            await suite.stop()
        return tally


class _Run:
    def __init__(self, config: RolloutConfig, suite: Suite, policy: Policy, browsers: BrowserPool, spool: Spool, lost: Spool, tally: Tally):
        self.config, self.suite, self.policy, self.browsers = config, suite, policy, browsers
        self.spool, self.lost, self.tally = spool, lost, tally
        self.lost_in_a_row = 0

    async def all(self, specs: Sequence[tuple[Task, int]]) -> None:
        queue = iter(specs)
        started = time.perf_counter()
        with _bar(self.tally) as bar:

            def report(trajectory: Trajectory) -> None:
                self.tally.seconds = time.perf_counter() - started
                self.tally.steps += len(trajectory.steps)
                self.tally.status[trajectory.status.value] += 1
                counts = " ".join(f"{name} {count}" for name, count in sorted(self.tally.status.items()))
                bar.set_postfix_str(f"{self.tally.steps_per_second:.1f} steps/s, {counts}", refresh=False)
                bar.update()

            workers = [asyncio.create_task(self._work(queue, report)) for _ in range(min(self.config.browser.contexts, len(specs)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    # Once: a second time would end the closing of its context.
                    if not worker.cancelling():
                        worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                self.tally.seconds = time.perf_counter() - started

    async def _work(self, queue: Iterator[tuple[Task, int]], report: Callable[[Trajectory], None]) -> None:
        for task, attempt in queue:
            trajectory = await self._episode(task, attempt)
            if trajectory.status is Status.INFRA_ERROR:
                self.lost.add(trajectory)
                self.lost_in_a_row += 1
            else:
                # In this order: killed between the two, it is not there and lost as well.
                self.lost.discard(trajectory.key)
                self.spool.add(trajectory)
                self.lost_in_a_row = 0
            report(trajectory)
            if self.lost_in_a_row >= self.config.limits.give_up_after:
                raise UserError(
                    f"the last {self.lost_in_a_row} episodes were lost to infrastructure errors, the last one to: {trajectory.error}; "
                    "mend it and run the same command again"
                )

    async def _episode(self, task: Task, attempt: int) -> Trajectory:
        limits = self.config.limits
        deadline = time.monotonic() + limits.episode_seconds
        for try_ in range(limits.tries):
            try:
                episode = run_episode(self.suite, task, attempt, self.policy, self.browsers, self.config.observation, limits)
                return await asyncio.wait_for(episode, deadline - time.monotonic())
            except InfraError as error:
                failure = error
            except TimeoutError:
                failure = InfraError(f"the episode took more than {limits.episode_seconds:g} s")
                break
            except UserError:
                raise
            except Exception as error:
                # One odd page must not end a run of days. The traceback is shown, and many of these in a row do end it.
                traceback.print_exc()
                failure = InfraError(f"{type(error).__name__}: {error}")
            self.tally.retries += 1
            await asyncio.sleep(min(0.1 * 4**try_, 5.0))
        return failed_episode(task, attempt, self.policy, failure)


def _bar(tally: Tally) -> tqdm:
    return tqdm(total=tally.wanted, initial=tally.skipped, desc="episodes", unit="ep", mininterval=1.0, file=sys.stderr, dynamic_ncols=True)
