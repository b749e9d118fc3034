"""WebArena-Infinity as a suite: one server per episode. The benchmark's own verifiers decide the outcome.

The page owns the application's state and sends it to its server, where verifiers read it. Episodes therefore can't share a server.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import httpx
import msgspec
from playwright.async_api import BrowserContext, Request
from playwright.async_api import Page as BrowserPage

from mira_jax import config
from mira_jax.config import Positive
from mira_jax.errors import ConfigError, UserError
from mira_jax.trajectories.records import Evidence, Outcome, Page, Subgoal, Task, Trajectory
from rollouts.errors import SiteError
from rollouts.suites.base import spread
from rollouts.suites.infinity.processes import Child, serve, verify
from rollouts.suites.infinity.tasks import SUITE, Item, fingerprint, placeholder, read_apps

STATE_SECONDS = 15.0
"""Maximum seconds until a page has sent its state to the server."""


class Checked(msgspec.Struct, frozen=True):
    """Result of the check for one application."""

    fingerprint: str
    tasks: int
    passed: tuple[str, ...]
    """Ids of the tasks that pass in the initial state."""


@dataclasses.dataclass(frozen=True)
class InfinityOptions:
    checkout: str = ""
    """Path of the checkout. It is not modified."""
    check: str = ""
    """Path of the file written by `mira infinity-check`."""
    python: str = sys.executable
    """Interpreter for servers and verifiers. The verifiers need the package requests."""
    verify_seconds: Positive = 60.0
    """Maximum seconds of a verifier."""

    def __post_init__(self) -> None:
        if not shutil.which(self.python):
            raise ConfigError("python", f"{self.python!r} is not an executable file")


class InfinitySuite:
    """WebArena-Infinity. Each application of a checkout is a template, and its real tasks are the tasks. For evaluation only."""

    name = SUITE
    Options = InfinityOptions
    hosts: frozenset[str] = frozenset()

    def __init__(self, **options: Any):
        """`options`: the fields of `InfinityOptions`. Raises UserError."""
        self.options = config.build(InfinityOptions, options, prefix="suite.options.")
        # An absolute path, since servers and verifiers run in other folders than this process.
        self._python = os.path.abspath(str(shutil.which(self.options.python)))
        self.apps = read_apps(self.options.checkout)
        self._items = {item.task.id: item for items in self.apps.values() for item in items}

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        """Returns the tasks in the checkout's order, without those that pass in the initial state.

        Raises:
            UserError: a split other than test, too many tasks, an unknown application, or no check of the checkout in its current state.
        """
        if split != "test":
            raise UserError(f"split: {split!r}: {SUITE} has only the split test: its tasks are for evaluation")
        for template in templates or ():
            if template not in self.apps:
                raise UserError(f"templates: {template!r} is none of {', '.join(self.apps)}")
        apps = [app for app in self.apps if templates is None or app in templates]
        passed = {name for app in apps for name in self._checked(app).passed}
        pool = [item.task for app in apps for item in self.apps[app] if item.task.id not in passed]
        if count > len(pool):
            refused = f"; refused, since they pass untouched: {', '.join(sorted(passed))}" if passed else ""
            raise UserError(f"episodes: {count} tasks are wanted, and there are {len(pool)}{refused}")
        return pool if count == len(pool) else spread(pool, count, seed)

    def task(self, task_id: str) -> Task:
        return self._item(task_id).task

    async def reset(self) -> None:
        return None

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def open(self, task: Task, context: BrowserContext) -> "InfinitySession":
        """Starts the episode's server. Raises SiteError."""
        item = self._item(task.id)
        server, host = await serve(self._python, item.folder)
        return InfinitySession(item, self._python, self.options.verify_seconds, server, host, context)

    def judge(self, trajectory: Trajectory) -> Outcome:
        """Returns the verdict of the verifier at the end of the episode."""
        verdict = json.loads(trajectory.evidence.contents[0])
        return Outcome(success=verdict["passed"], score=float(verdict["passed"]), source="rule", detail=verdict["message"])

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        """No subgoals: WebArena-Infinity defines none."""
        return (), [() for _ in trajectory.steps]

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> NoReturn:
        raise UserError(f"policy.kind: {SUITE} has no expert; choose endpoint, random or idle")

    def _item(self, task_id: str) -> Item:
        if task_id not in self._items:
            raise UserError(f"{task_id}: no such task in {self.options.checkout}")
        return self._items[task_id]

    def _checked(self, app: str) -> Checked:
        """Raises UserError if the application's files have changed since the check."""
        command = f"mira infinity-check --checkout {self.options.checkout} --out FILE"
        if not self.options.check:
            raise UserError(f"suite.options.check is not set: run `{command}` once, which finds tasks that pass untouched, and name FILE")
        path = Path(self.options.check)
        try:
            checks = msgspec.json.decode(path.read_bytes(), type=dict[str, Checked])
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise UserError(f"suite.options.check: {path}: {error}; run `{command}` and name FILE") from None
        if app not in checks or checks[app].fingerprint != fingerprint(self.apps[app][0].folder):
            raise UserError(f"suite.options.check: {path} is not of {app} as it is now; run `{command}` again and name FILE")
        return checks[app]


class InfinitySession:
    """One episode's application, on its own server."""

    def __init__(self, item: Item, python: str, verify_seconds: float, server: Child, host: str, context: BrowserContext):
        self.task = item.task
        self.addresses = {placeholder(item.task.template): f"http://{host}"}
        self.hosts = frozenset({host})
        self.server = server
        self._item, self._python, self._verify_seconds = item, python, verify_seconds
        self._url = f"http://{host}"
        self._uploads: set[Request] = set()
        context.on("request", self._begin)
        context.on("requestfinished", self._end)
        context.on("requestfailed", self._end)

    async def state(self) -> dict[str, Any]:
        """Returns an empty snapshot: the state is large and is only evaluated at the end. Raises SiteError if the server has ended."""
        self._check_server()
        return {}

    async def evidence(self, page: Page | None, answer: str | None, front: BrowserPage | None = None) -> Evidence:
        """Returns the verdict of the task's verifier on the state that the page has sent."""
        verdicts = await self.verify([self._item])
        return Evidence(answer=answer, page=page, contents=(json.dumps(verdicts[0]),))

    async def verify(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Runs verifiers on the application's current state. Returns and raises as `processes.verify`."""
        await self._wait_for_state()
        files = [item.verifier for item in items]
        verdicts = await verify(self._python, self._item.folder, self._url, files, self._verify_seconds)
        # Checked first: without a server, a verifier may report that the task is not done.
        self._check_server()
        return verdicts

    async def close(self) -> None:
        await self.server.end()

    def _begin(self, request: Request) -> None:
        if request.method == "PUT":
            self._uploads.add(request)

    def _end(self, request: Request) -> None:
        self._uploads.discard(request)

    async def _wait_for_state(self) -> None:
        """Waits until the page has sent its state. Raises SiteError if it did not in time, or if the server has ended."""
        with contextlib.suppress(TimeoutError):
            # A request of a page that was left may never finish.
            async with asyncio.timeout(STATE_SECONDS):
                while self._uploads:
                    await asyncio.sleep(0.01)
        self._check_server()
        try:
            async with asyncio.timeout(STATE_SECONDS), httpx.AsyncClient(timeout=STATE_SECONDS, trust_env=False) as client:
                while (await client.get(f"{self._url}/api/state")).status_code != 200:
                    await asyncio.sleep(0.05)
        except (TimeoutError, httpx.HTTPError):
            self._check_server()
            raise SiteError(f"{self.task.template}: the page has not sent its state to the server") from None

    def _check_server(self) -> None:
        if self.server.status is not None:
            raise SiteError(f"the server of {self.task.template} ended with status {self.server.status}")
