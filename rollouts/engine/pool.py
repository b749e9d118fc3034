"""Runs many episodes concurrently: workers take them from a queue, and write each finished episode before starting the next."""

import asyncio
import collections
import contextlib
import dataclasses
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from mira_jax.config import Count, Natural
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import sole_writer
from mira_jax.progress import Progress
from mira_jax.trajectories import records
from mira_jax.trajectories.records import Status, Task, Trajectory, episode_key
from mira_jax.trajectories.shards import Spool, pack
from rollouts.agents.base import AgentFactory
from rollouts.agents.planner import Planner
from rollouts.agents.policy import make_policy, opened
from rollouts.analysis.evaluation import LOST
from rollouts.engine.episode import LimitConfig, failed_episode
from rollouts.engine.ray_pool import RayConfig, ray_workers
from rollouts.engine.worker import Slots, WorkerConfig, check_driver, ignore_abandoned_calls, work
from rollouts.errors import InfraError
from rollouts.suites import Suite, make_suite
from rollouts.suites.base import OneAtATime
from rollouts.text import sanitize

Result = TypeVar("Result")
MESSAGE = 300
"""Maximum characters of a reason in the log."""
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RolloutConfig(WorkerConfig):
    """Config of a run: tasks, policy, browser and pool."""

    out: str = ""
    """Output folder."""
    split: str = "train"
    """Split of the suite's tasks: train, validation or test."""
    templates: list[str] | None = None
    """Task templates to use. Default: all templates of the suite."""
    episodes: Count = 100
    """Number of tasks to draw."""
    attempts: Count = 1
    """Number of attempts at each task."""
    seed: Natural = 0
    """Seed that draws the tasks."""
    pool: Literal["local", "ray"] = "local"
    """local: episodes run in this process. ray: episodes run in the workers of a Ray cluster."""
    ray: RayConfig = dataclasses.field(default_factory=RayConfig)


@dataclasses.dataclass
class Tally:
    """Counts of a run so far."""

    wanted: int = 0
    skipped: int = 0
    """Episodes collected by an earlier run."""
    steps: int = 0
    untokenised: int = 0
    """Steps of a model whose endpoint returned no token ids."""
    retries: int = 0
    seconds: float = 0.0
    status: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def infra_errors(self) -> int:
        return self.status[Status.INFRA_ERROR.value]


def collect(config: RolloutConfig, folder: Path, begun: Callable[[], None] = lambda: None, tasks: Sequence[Task] | None = None) -> Tally:
    """Collects the episodes that are missing in `folder`, and packs them into shards.

    On interruption (Ctrl-C, SIGTERM) it closes browser and sites and raises KeyboardInterrupt. Finished episodes are kept.
    `begun` is called just before the first episode, when policy, sites and browser are ready. `tasks` replaces those that the config
    draws.

    Raises:
        UserError: no browser, no endpoint, an unknown task template, a full disk, another process that collects into
            `folder`, or nothing but infrastructure errors.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a folder; choose another out")
    suite = make_suite(config.suite.name, **config.suite.options)
    check_suite(config, suite)
    if tasks is None:
        tasks = suite.tasks(config.split, config.templates, config.episodes, config.seed)
    policy, planner = make_policy(config.policy, suite, config.planner), Planner(config.planner, suite)
    planner.check_tasks(tasks)
    specs = [(task, attempt) for attempt in range(config.attempts) for task in tasks]
    with sole_writer(folder, "episodes"):
        tally = run(_collect(config, suite, policy, planner, specs, folder, begun))
        pack(folder)
    return tally


def check_suite(config: RolloutConfig, suite: Suite) -> None:
    """Raises UserError if the suite can't run with the configured driver, pool or number of contexts."""
    if isinstance(suite, OneAtATime) and suite.one_at_a_time and config.pool == "ray":
        raise ConfigError("pool", f"with {suite.one_at_a_time} episodes run one at a time; set pool=local")
    check_driver(config.browser, suite)


def lost_episodes(folder: Path) -> list[Trajectory]:
    """Returns the episodes in `folder` that were lost to infrastructure errors."""
    return list(Spool(folder).trajectories()) if folder.is_dir() else []


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.run`, with SIGTERM handled as Ctrl-C. Raises KeyboardInterrupt then."""

    async def guarded() -> Result:
        task = asyncio.ensure_future(main)
        stopped = []

        def stop() -> None:
            stopped.append(True)
            task.cancel()

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(ignore_abandoned_calls)
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


async def _collect(
    config: RolloutConfig,
    suite: Suite,
    policy: AgentFactory,
    planner: Planner,
    specs: Sequence[tuple[Task, int]],
    folder: Path,
    begun: Callable[[], None],
) -> Tally:
    async with opened(policy, planner):
        spool, lost = Spool(folder), Spool(folder / LOST)
        spool.sweep()
        lost.sweep()
        done = spool.fingerprints()
        _refuse_other_model(spool, done, policy.record)
        waiting = [(task, attempt) for task, attempt in specs if episode_key(task, attempt, policy.record) not in done]
        tally = Tally(wanted=len(specs), skipped=len(specs) - len(waiting))
        if not waiting:
            return tally
        workers = ray_workers(config, config.ray, policy.record) if config.pool == "ray" else work(config, suite, policy, planner)
        async with workers as slots:
            await suite.reset()
            begun()
            await _Run(config.limits, slots, policy, spool, lost, tally).all(waiting)
        return tally


def _refuse_other_model(spool: Spool, done: Mapping[str, str], policy: records.Policy) -> None:
    """Refuses to skip or extend episodes that other weights or another tokenizer produced under this policy's name.

    Args:
        done: the result of `Spool.fingerprints`.
    """
    before = {key: mark for key, mark in done.items() if f"|{policy.name}@{policy.checkpoint}|" in key}
    if others := set(before.values()) - {policy.fingerprint}:
        raise UserError(
            f"{spool.folder}: holds episodes of {policy.name} by other weights: fingerprint {_mark(min(others))} there, "
            f"{_mark(policy.fingerprint)} at the endpoint; choose another out"
        )
    if not before or not policy.tokenizer:
        return
    # Each episode was compared with the earlier ones of its folder when it was added, so one episode represents all.
    known = spool.read(next(iter(before))).policy.tokenizer
    if known and known != policy.tokenizer:
        raise UserError(
            f"{spool.folder}: holds episodes of {policy.name} with another tokenizer than policy.tokenizer names "
            f"(sha256 {_mark(known)} there, {_mark(policy.tokenizer)} now); name that one, or choose another out"
        )
    if not policy.fingerprint:
        log.warning(
            "%s: the endpoint does not report which weights it serves; they are assumed to be those of the existing episodes", spool.folder
        )


def _mark(fingerprint: str) -> str:
    return fingerprint[:12] or "unknown"


class _Run:
    def __init__(self, limits: LimitConfig, slots: Slots, policy: AgentFactory, spool: Spool, lost: Spool, tally: Tally):
        self.limits, self.slots, self.policy = limits, slots, policy
        self.spool, self.lost, self.tally = spool, lost, tally
        self.lost_in_a_row = 0

    async def all(self, specs: Sequence[tuple[Task, int]]) -> None:
        queue = iter(specs)
        started = time.perf_counter()
        with Progress("collect", "episodes", self.tally.wanted, self.tally.skipped) as progress:

            def report(trajectory: Trajectory) -> None:
                self.tally.seconds = time.perf_counter() - started
                self.tally.steps += len(trajectory.steps)
                # Only model policies name a tokenizer, and they sample no forced plan.
                sampled = trajectory.steps[1:] if trajectory.policy.forced_plan else trajectory.steps
                self.tally.untokenised += sum(bool(trajectory.policy.tokenizer) and step.token_ids is None for step in sampled)
                self.tally.status[trajectory.status.value] += 1
                counts = " ".join(f"{name} {count}" for name, count in sorted(self.tally.status.items()))
                progress.note(f"{self.tally.steps_per_second:.1f} steps/s, {counts}")
                progress.update()

            workers = [asyncio.create_task(self._work(queue, report)) for _ in range(min(self.slots.count, len(specs)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    # Cancel only once: a second cancellation would interrupt the closing of the browser context.
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
                # In this order: a kill between the two leaves the episode in neither, and it is collected again. The reverse
                # order could leave it both finished and lost.
                self.lost.discard(trajectory.key)
                self.spool.add(trajectory)
                self.lost_in_a_row = 0
            report(trajectory)
            if self.lost_in_a_row >= self.limits.give_up_after:
                raise UserError(
                    f"the last {self.lost_in_a_row} episodes were lost to infrastructure errors, the last one to: {trajectory.error}; "
                    "fix the cause and run the same command again"
                )

    async def _episode(self, task: Task, attempt: int) -> Trajectory:
        left, name = self.limits.episode_seconds, f"episode {task.id}, seed {task.seed}, attempt {attempt}"
        failure = InfraError("not tried")
        for try_ in range(self.limits.tries):
            async with self.slots.free() as slot:
                began = time.monotonic()
                try:
                    return await slot.run(task, attempt, left)
                except InfraError as error:
                    failure = error
                except TimeoutError:
                    failure = InfraError(f"the episode took more than {self.limits.episode_seconds:g} s")
                    break
                left -= time.monotonic() - began
            self.tally.retries += 1
            if try_ + 1 < self.limits.tries:
                log.warning("%s: try %d of %d failed and is repeated: %s", name, try_ + 1, self.limits.tries, _line(failure))
            await asyncio.sleep(min(0.1 * 4**try_, 5.0))
        log.warning("%s: lost to an infrastructure error: %s", name, _line(failure))
        return failed_episode(task, attempt, self.policy, failure)


def _line(failure: InfraError) -> str:
    return sanitize(str(failure))[:MESSAGE]
