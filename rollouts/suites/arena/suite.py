"""The arena as a suite: its server, the sessions of its episodes, its judge."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from playwright.async_api import BrowserContext
from playwright.async_api import Page as BrowserPage

from mira_jax.trajectories.records import Evidence, Outcome, Page, Subgoal, Task, Trajectory
from rollouts.errors import SiteError
from rollouts.suites import evaluators
from rollouts.suites.arena import milestones
from rollouts.suites.arena.expert import Expert, draw_habits
from rollouts.suites.arena.site import COOKIE, Visits, make_app
from rollouts.suites.arena.state import ShopState
from rollouts.suites.arena.tasks import PLACEHOLDERS, SUITE, Instance, instance, instances
from rollouts.suites.base import to_address
from rollouts.suites.server import LocalServer

OPTIONS = ("port",)
_ADMIN_PATH = "/admin"


class ArenaSuite:
    """The arena. It is served on a free port of 127.0.0.1, unless `port` is given."""

    name = SUITE

    def __init__(self, port: int = 0):
        self._visits: Visits = {}
        self.app = make_app(self._visits)
        self._server = LocalServer(self.app, port)
        self._addresses: dict[str, str] = {}

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset({self._server.host} if self._server.host else ())

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        return [made.task for made in instances(split, templates, count, seed)]

    def task(self, task_id: str) -> Task:
        return instance(task_id).task

    def webarena_task(self, task_id: str) -> dict[str, Any]:
        """The task in WebArena's JSON form. Raises UserError if there is none."""
        return instance(task_id).webarena()

    async def start(self) -> None:
        """Serves the sites. Raises UserError if the port is in use."""
        await self._server.start()
        address = f"http://{self._server.host}"
        self._addresses = {PLACEHOLDERS["shop"]: address, PLACEHOLDERS["shop_admin"]: address + _ADMIN_PATH}

    async def stop(self) -> None:
        await self._server.stop()
        for state in self._visits.values():
            state.close()
        self._visits.clear()

    async def open(self, task: Task, context: BrowserContext) -> "ArenaSession":
        """Makes a shop for this episode alone and gives `context` the cookie that leads to it."""
        session = self.session(task)
        cookie = {"name": COOKIE, "value": session.token, "url": f"http://{self._server.host}", "httpOnly": True, "sameSite": "Strict"}
        try:
            await context.add_cookies([cookie])
        except BaseException:
            await session.close()
            raise
        return session

    def session(self, task: Task) -> "ArenaSession":
        """`open` without a browser."""
        if not self._server.host:
            raise RuntimeError("start() comes before a session")
        return ArenaSession(instance(task.id), self._visits, self._addresses, self._server.host, self.app)

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

    async def evidence(self, page: Page | None, answer: str | None, front: BrowserPage | None = None) -> Evidence:
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
