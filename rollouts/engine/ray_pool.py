"""Runs episodes on a Ray cluster. Each worker is an actor with its own sites, browser and policy client.

The collecting process sends a worker one task at a time for each of its contexts, receives the finished episode and writes it;
workers write nothing. A worker that dies, on its own or with its node, is restarted wherever there is room. Its unfinished
episodes go to the next free slots.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from types import ModuleType
from typing import Any

import msgspec

from mira_jax.config import Count
from mira_jax.errors import ConfigError, UserError, first_line
from mira_jax.extras import install
from mira_jax.trajectories.records import Policy, Task, Trajectory, decode, encode
from rollouts.agents.planner import Planner
from rollouts.agents.policy import make_policy, opened
from rollouts.engine.worker import Slot, Slots, SuiteConfig, WorkerConfig, ignore_abandoned_calls, work
from rollouts.errors import InfraError, WorkerError
from rollouts.suites import Suite, make_suite

log = logging.getLogger(__name__)
ANSWER_SECONDS = 60.0
"""Seconds, beyond the limit of its episode, after which a silent worker is stopped."""
STOP_SECONDS = 20.0
"""Maximum seconds for a worker to close its browser and sites."""


@dataclasses.dataclass(frozen=True)
class RayConfig:
    """Config of the Ray pool, used if `pool` is `ray`."""

    address: str = ""
    """HOST:PORT of the cluster's head node. Empty: the variable RAY_ADDRESS, else the cluster of which this machine is a node,
    else a new cluster on this machine."""
    workers: Count | None = None
    """Number of workers. Each has a browser with `browser.contexts` concurrent episodes. Default: as many as the CPUs allow."""
    cpus: Count = 2
    """CPUs that one worker reserves on its node."""
    py_modules: list[str] = dataclasses.field(default_factory=list)
    """Folders of packages, and single .py files, that are sent to the workers: those that a suite `module:Class` of your own needs.
    Default: every node has them installed."""

    def __post_init__(self) -> None:
        if "://" in self.address:
            raise ConfigError(
                "address", f"{self.address} is the address of a Ray client; run the command on a node of the cluster, with HOST:PORT"
            )


@contextlib.asynccontextmanager
async def ray_workers(config: WorkerConfig, options: RayConfig, policy: Policy) -> AsyncIterator[Slots]:
    """Starts workers on the cluster, and stops them.

    Args:
        policy: the policy that the episodes record. A worker whose policy differs is left out.

    Raises:
        UserError: no Ray, no cluster, no free resources, or no worker that starts.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]: the extra `ray` is not part of `dev`
    except ImportError:
        raise ConfigError("pool", f"Ray is not installed; {install('ray')}") from None
    _connect(ray, options)
    try:
        workers = options.workers or _room(ray, options.cpus)
        slots = _RaySlots(ray, config, options.cpus, workers, policy)
        keepers = [asyncio.create_task(slots.keep_worker()) for _ in range(workers)]
        try:
            yield slots
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
    finally:
        ray.shutdown()


def check_modules(paths: Sequence[str]) -> None:
    """Raises ConfigError if one of the modules to send is neither a folder nor a .py file."""
    for path in paths:
        if not (os.path.isdir(path) or (path.endswith(".py") and os.path.isfile(path))):
            raise ConfigError(
                "ray.py_modules", f"{path}: neither a folder nor a .py file; name the folder of a package, or a module's file"
            )


def _connect(ray: ModuleType, options: RayConfig) -> None:
    check_modules(options.py_modules)
    address = options.address or os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if host and port.isdigit():
            # Fails fast: Ray itself would wait for minutes.
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address or None, runtime_env={"py_modules": options.py_modules} if options.py_modules else None)
    except ray.exceptions.RuntimeEnvSetupError as error:
        raise ConfigError("ray.py_modules", f"can't be sent to the cluster: {_cause(error)}") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"ray.address: no connection to {address or 'a Ray cluster'}: {first_line(error)}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            # Ray installs a handler that ends the process at once. This restores the previous one.
            signal.signal(signal.SIGTERM, handler)


def _room(ray: ModuleType, cpus: int) -> int:
    workers = sum(int(node["Resources"].get("CPU", 0)) // cpus for node in ray.nodes() if node["Alive"])
    if not workers:
        raise UserError(f"ray.cpus: no node of the cluster has {cpus} CPUs for a worker; set fewer, or ray.workers to wait for nodes")
    return workers


class _RaySlots:
    def __init__(self, ray: ModuleType, config: WorkerConfig, cpus: int, workers: int, policy: Policy):
        self.count = workers * config.browser.contexts
        self._ray, self._policy, self._tries, self._contexts = ray, policy, config.limits.tries, config.browser.contexts
        self._config = msgspec.msgpack.encode(config)
        # The extra concurrency is for the calls `wait` and `stop`, which run alongside the episodes.
        self._actor = ray.remote(RolloutActor).options(num_cpus=cpus, max_concurrency=self._contexts + 2, scheduling_strategy="SPREAD")
        self._free: asyncio.Queue[_RayWorker | UserError] = asyncio.Queue()
        """Holds a worker once per free slot, or the error because of which there are no workers left."""
        self._kept = workers

    @contextlib.asynccontextmanager
    async def free(self) -> AsyncIterator[Slot]:
        slot = await self._free.get()
        while isinstance(slot, _RayWorker) and not slot.alive:
            slot = await self._free.get()
        try:
            if isinstance(slot, UserError):
                raise slot
            yield slot
        finally:
            self._free.put_nowait(slot)

    async def keep_worker(self) -> None:
        """Restarts the worker whenever it ends. A worker that does not start is left out; if no worker is left, the run ends."""
        failures, problem = 0, ""
        while failures < self._tries:
            failures += 1
            try:
                async with self._worker() as worker:
                    failures = 0
                    for _ in range(self._contexts):
                        self._free.put_nowait(worker)
                    await worker.actor.wait.remote()
            except UserError as error:
                problem = str(error)
                break
            except self._ray.exceptions.RayError as error:
                problem = f"{_cause(error)} (is the same mira_jax installed on every node?)"
            await asyncio.sleep(0.1 * 4**failures)
        self._kept -= 1
        if self._kept:
            log.warning("a Ray worker does not start and is left out: %s", problem)
        else:
            self._free.put_nowait(UserError(f"no Ray worker starts: {problem}"))

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator["_RayWorker"]:
        """Yields a worker once it is ready, for as long as it lives. Raises RayError, UserError."""
        actor, worker = self._actor.remote(), None
        try:
            ready = msgspec.msgpack.decode(await actor.start.remote(self._config), type=_Ready)
            if ready.refusal:
                raise UserError(f"{ready.address}: {ready.refusal}")
            if ready.policy != self._policy:
                raise UserError(
                    f"{ready.address}: its policy is {ready.policy}, but here it is {self._policy}; every node must reach the same endpoint"
                )
            worker = _RayWorker(self._ray, actor, ready.address)
            yield worker
        finally:
            if worker:
                worker.alive = False
                with contextlib.suppress(TimeoutError, self._ray.exceptions.RayError):
                    await asyncio.wait_for(actor.stop.remote(), STOP_SECONDS)
            self._ray.kill(actor)


class _RayWorker:
    """The local handle of a worker."""

    def __init__(self, ray: ModuleType, actor: Any, address: str):
        self.actor, self.alive = actor, True
        self._ray, self._address = ray, address

    async def run(self, task: Task, attempt: int, seconds: float) -> Trajectory:
        try:
            spec = msgspec.msgpack.encode((task, attempt, seconds))
            answer = await asyncio.wait_for(self.actor.run.remote(spec), seconds + ANSWER_SECONDS)
        except TimeoutError:
            self.alive = False
            self._ray.kill(self.actor)
            raise WorkerError(f"{self._address} does not answer") from None
        except self._ray.exceptions.RayError as error:
            self.alive = False
            raise WorkerError(f"{self._address}: {_cause(error)}") from None
        reply = msgspec.msgpack.decode(answer, type=_Reply)
        if reply.refusal:
            raise UserError(f"{self._address}: {reply.refusal}")
        if reply.late:
            raise TimeoutError
        if reply.failure:
            raise WorkerError(f"{self._address}: {reply.failure}")
        return decode(reply.episode, f"an episode from {self._address}")


def _cause(error: Exception) -> str:
    """The last line of a Ray error, which follows a traceback or a description of the actor."""
    return str(error).strip().splitlines()[-1][:300]


class _Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's message after it has started or failed to start."""

    address: str
    policy: Policy | None = None
    refusal: str = ""
    """Message of a UserError."""


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's message about an episode. Exactly one field is set."""

    episode: bytes = b""
    """The episode, encoded as in the spool."""
    failure: str = ""
    """Message of an InfraError."""
    refusal: str = ""
    """Message of a UserError."""
    late: bool = False


def _make_suite(config: SuiteConfig) -> Suite:
    try:
        return make_suite(config.name, **config.options)
    except ConfigError as error:
        if error.path == "suite.name":
            # The driver has made the suite already, so that only the import can fail here.
            raise ConfigError(error.path, f"{error.problem} on every node, or name it in ray.py_modules") from None
        raise


class RolloutActor:
    """The remote side of a worker, which Ray runs in its own process. Arguments and results are plain bytes."""

    async def start(self, config: bytes) -> bytes:
        import ray  # pyright: ignore[reportMissingImports]: the extra `ray` is not part of `dev`

        asyncio.get_running_loop().set_exception_handler(ignore_abandoned_calls)
        self._episodes: set[asyncio.Task[Trajectory]] = set()
        self._open = contextlib.AsyncExitStack()
        settings = msgspec.msgpack.decode(config, type=WorkerConfig)
        address = ray.util.get_node_ip_address()
        try:
            suite = _make_suite(settings.suite)
            policy, planner = make_policy(settings.policy, suite, settings.planner), Planner(settings.planner, suite)
            await self._open.enter_async_context(opened(policy, planner))
            self._worker = await self._open.enter_async_context(work(settings, suite, policy, planner))
        except UserError as error:
            await self._open.aclose()
            return msgspec.msgpack.encode(_Ready(address=address, refusal=str(error)))
        return msgspec.msgpack.encode(_Ready(address=address, policy=policy.record))

    async def run(self, spec: bytes) -> bytes:
        task, attempt, seconds = msgspec.msgpack.decode(spec, type=tuple[Task, int, float])
        episode = asyncio.create_task(self._worker.run(task, attempt, seconds))
        self._episodes.add(episode)
        try:
            reply = _Reply(episode=encode(await episode))
        except UserError as error:
            reply = _Reply(refusal=str(error))
        except InfraError as error:
            reply = _Reply(failure=str(error))
        except TimeoutError:
            reply = _Reply(late=True)
        finally:
            self._episodes.discard(episode)
        return msgspec.msgpack.encode(reply)

    async def wait(self) -> None:
        """Never returns. Awaiting it therefore raises as soon as the worker ends."""
        await asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        episodes = tuple(self._episodes)
        for episode in episodes:
            episode.cancel()
        await asyncio.gather(*episodes, return_exceptions=True)
        await self._open.aclose()
