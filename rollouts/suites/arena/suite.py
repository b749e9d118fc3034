"""The arena as a suite: its server, the sessions of its episodes, its judge."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import uvicorn
from playwright.async_api import BrowserContext

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Evidence, Outcome, Page, Subgoal, Task, Trajectory
from rollouts.errors import SiteError
from rollouts.suites import evaluators
from rollouts.suites.arena import milestones
from rollouts.suites.arena.expert import Expert, draw_habits
from rollouts.suites.arena.site import COOKIE, Visits, make_app
from rollouts.suites.arena.state import ShopState
from rollouts.suites.arena.tasks import PLACEHOLDERS, SUITE, Instance, instance, instances
from rollouts.suites.base import to_address

OPTIONS = ("port",)
_ADMIN_PATH = "/admin"
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0


class ArenaSuite:
    """The arena. The server runs in the event loop that calls `start`, on a free port of 127.0.0.1 unless `port` is given."""

    name = SUITE

    def __init__(self, port: int = 0):
        self._port = port
        self._visits: Visits = {}
        self.app = make_app(self._visits)
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._addresses: dict[str, str] = {}
        self._host = ""

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset({self._host} if self._host else ())

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        return [made.task for made in instances(split, templates, count, seed)]

    def task(self, task_id: str) -> Task:
        return instance(task_id).task

    def webarena_task(self, task_id: str) -> dict[str, Any]:
        """The task in WebArena's JSON form. Raises UserError if there is none."""
        return instance(task_id).webarena()

    async def start(self) -> None:
        """Serves the sites.

        Raises:
            UserError: the port is in use.
        """
        if self._serving:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self._port))
        except (OSError, OverflowError) as error:
            listener.close()
            raise UserError(f"suite.port: {self._port}: {error}; 0 takes a free one") from None
        self._host = f"127.0.0.1:{listener.getsockname()[1]}"
        self._addresses = {PLACEHOLDERS["shop"]: f"http://{self._host}", PLACEHOLDERS["shop_admin"]: f"http://{self._host}{_ADMIN_PATH}"}
        config = uvicorn.Config(self.app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        async with asyncio.timeout(_START_SECONDS):
            while not self._server.started:
                if self._serving.done():
                    self._serving.result()
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        if not (self._serving and self._server):
            return
        self._server.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._serving, _STOP_SECONDS)
        self._server = self._serving = None
        for state in self._visits.values():
            state.close()
        self._visits.clear()

    async def open(self, task: Task, context: BrowserContext) -> "ArenaSession":
        """Makes a shop for this episode alone and gives `context` the cookie that leads to it."""
        session = self.session(task)
        cookie = {"name": COOKIE, "value": session.token, "url": f"http://{self._host}", "httpOnly": True, "sameSite": "Strict"}
        try:
            await context.add_cookies([cookie])
        except BaseException:
            await session.close()
            raise
        return session

    def session(self, task: Task) -> "ArenaSession":
        """`open` without a browser."""
        if not self._serving:
            raise RuntimeError("start() comes before a session")
        return ArenaSession(instance(task.id), self._visits, self._addresses, self._host, self.app)

    def judge(self, trajectory: Trajectory) -> Outcome:
        return evaluators.judge(instance(trajectory.task.id).draft.evaluation, trajectory.evidence)

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        wanted = instance(trajectory.task.id).draft.milestones
        return tuple(milestone.subgoal for milestone in wanted), milestones.reached(wanted, trajectory)

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> Expert:
        """See `rollouts.suites.arena.expert.HABITS` for the habits there are."""
        return Expert(instance(task.id), draw_habits(habits or {}, task, seed, attempt))


class ArenaSession:
    """One episode's shop."""

    def __init__(self, made: Instance, visits: Visits, addresses: Mapping[str, str], host: str, app: Any):
        self.task = made.task
        self.addresses = addresses
        self.hosts = frozenset({host})
        self.token = secrets.token_urlsafe(16)
        self._draft = made.draft
        self._visits, self._app = visits, app
        self._state = ShopState(made.task.seed, {"cart": made.draft.cart, "signed_in": made.draft.signed_in})
        visits[self.token] = self._state

    async def state(self) -> dict[str, Any]:
        return self._state.snapshot()

    async def evidence(self, page: Page | None, answer: str | None) -> Evidence:
        """Reads the pages that `program_html` names, in a copy of the shop, so that reading leaves no trace."""
        token = secrets.token_urlsafe(16)
        copy = self._visits[token] = self._state.copy()
        pages: dict[str, str] = {}
        contents = []
        try:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, cookies={COOKIE: token}) as client:
                for target in self._draft.evaluation["program_html"]:
                    url = to_address(target["url"], self.addresses)
                    if url not in pages:
                        response = await client.get(url)
                        if response.status_code != 200:
                            raise SiteError(f"{target['url']} answered HTTP {response.status_code}")
                        pages[url] = response.text
                    contents.append(evaluators.select_text(pages[url], target["locator"]))
        finally:
            del self._visits[token]
            copy.close()
        return Evidence(answer=answer, page=page, contents=tuple(contents))

    async def close(self) -> None:
        if self._visits.pop(self.token, None):
            self._state.close()


class _Server(uvicorn.Server):
    """Leaves signals to the process that it is a part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
