"""The arena as a suite: its servers, the sessions of its episodes, and its evaluation."""

import contextlib
import dataclasses
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from playwright.async_api import BrowserContext
from playwright.async_api import Page as BrowserPage
from starlette.applications import Starlette

from mira_arena.sites.registry import APPLICATIONS, application, placeholder
from mira_arena.sites.server import COOKIE, serve
from mira_arena.sites.world import Visits, World
from mira_arena.tasks import milestones
from mira_arena.tasks.habits import DRAWN_EACH_TIME, HABITS
from mira_arena.tasks.registry import TEMPLATES, instance, task_id, webarena_task
from mira_arena.tasks.templates import SUITE, Draft, Instance, example
from mira_jax.config import Port
from mira_jax.needs import Needs
from mira_jax.trajectories.records import Evidence, Outcome, Page, Subgoal, Task, Trajectory
from rollouts.errors import SiteError
from rollouts.suites import evaluators
from rollouts.suites.arena.expert import ArenaExpert
from rollouts.suites.arena.widgets import SCRIPTS
from rollouts.suites.base import NewContext, take_turns, to_address
from rollouts.suites.habits import draw_habits
from rollouts.suites.server import LocalServer
from rollouts.web.asgi.sites import Sites

_EXAMPLES = 100
"""Number of sites that are tried for an example of a template."""


@dataclasses.dataclass(frozen=True)
class ArenaOptions:
    port: Port = 0
    """Port of the first application on 127.0.0.1; the others use the ports after it. 0 selects free ports."""


class ArenaSuite:
    """The arena suite. Each application is served on its own port."""

    name = SUITE
    Options = ArenaOptions

    def __init__(self, port: int = 0):
        self._visits: Visits = {}
        self.apps = {name: serve(application(name), self._visits) for name in APPLICATIONS}
        self._port = port
        self._servers = {name: LocalServer(app, port and port + i) for i, (name, app) in enumerate(self.apps.items())}

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(server.host for server in self._servers.values() if server.host)

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        known = [template.name for template in TEMPLATES.values() if split == "test" or not template.held_out]
        return [self.task(task_id(name, split, number)) for name, number in take_turns(known, templates, split, count, seed)]

    def task(self, task_id: str) -> Task:
        return instance(task_id).task

    def webarena_task(self, task_id: str) -> dict[str, Any]:
        """Returns the task in WebArena's JSON form. Raises UserError if it does not exist."""
        return webarena_task(instance(task_id))

    def needs(self, found: Needs, new_context: NewContext | None) -> None:
        if new_context and self._port:
            for place in range(len(self.apps)):
                found.port("suite.options.port", "127.0.0.1", self._port + place)

    def in_process_sites(self) -> Sites:
        """See `rollouts.suites.base.InProcess`."""
        return Sites({server.host: self.apps[name] for name, server in self._servers.items()}, SCRIPTS)

    def expert_steps(self, template: str) -> int:
        """Number of steps in which the expert does an instance of the template."""
        return len(self._draft(template).moves)

    def related(self, template: str, split: str) -> list[str]:
        """The templates of the split on the same sites, the template itself among them."""
        sites = TEMPLATES[template].sites
        return [name for name, other in TEMPLATES.items() if other.sites == sites and (split == "test" or not other.held_out)]

    def _draft(self, template: str) -> Draft:
        made = (example(TEMPLATES[template], seed) for seed in range(_EXAMPLES))
        return next(filter(None, made))

    async def reset(self) -> None:
        return None

    async def start(self) -> None:
        """Starts the servers of the sites. Raises UserError if a port is in use."""
        for server in self._servers.values():
            await server.start()

    async def stop(self) -> None:
        for server in self._servers.values():
            await server.stop()
        for world in self._visits.values():
            world.close()
        self._visits.clear()

    async def open(self, task: Task, context: BrowserContext) -> "ArenaSession":
        """Creates a world for this episode and gives `context` the cookie that selects it."""
        session = self.session(task)
        # Cookies are shared by all ports of a host.
        cookie = {"name": COOKIE, "value": session.token, "url": "http://127.0.0.1", "httpOnly": True, "sameSite": "Strict"}
        try:
            await context.add_cookies([cookie])
        except BaseException:
            await session.close()
            raise
        return session

    def session(self, task: Task) -> "ArenaSession":
        """As `open`, but without a browser."""
        if not self.hosts:
            raise RuntimeError("start() comes before a session")
        made = instance(task.id)
        return ArenaSession(made, self._visits, {name: (self.apps[name], self._servers[name].host) for name in made.template.applications})

    def judge(self, trajectory: Trajectory) -> Outcome:
        return evaluators.evaluate(instance(trajectory.task.id).draft.evaluation, trajectory.evidence)

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        wanted = instance(trajectory.task.id).draft.milestones
        return tuple(milestone.subgoal for milestone in wanted), milestones.reached(wanted, trajectory)

    def references(self, task: Task) -> list[str]:
        """See `rollouts.suites.base.Referenced`."""
        return evaluators.references(instance(task.id).draft.evaluation)

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> ArenaExpert:
        """`habits`: see `mira_arena.tasks.habits`."""
        return ArenaExpert(instance(task.id), draw_habits(habits or {}, HABITS, task, seed, attempt, DRAWN_EACH_TIME))


class ArenaSession:
    """The world of one episode, and access to those of its applications that the task uses."""

    def __init__(self, made: Instance, visits: Visits, apps: Mapping[str, tuple[Starlette, str]]):
        """`apps`: name to application and its `host:port`."""
        self.task = made.task
        self.hosts = frozenset(host for _, host in apps.values())
        self.addresses = {
            placeholder(site): f"http://{host}{path}" for name, (_, host) in apps.items() for site, path in application(name).sites.items()
        }
        self.token = secrets.token_urlsafe(16)
        self._draft = made.draft
        self._visits, self._apps = visits, apps
        self._world = visits[self.token] = World(made.task.seed, made.draft.setup)

    async def state(self) -> dict[str, Any]:
        with _site_errors():
            return self._world.snapshot(self._apps)

    async def evidence(self, page: Page | None, answer: str | None, front: BrowserPage | None = None) -> Evidence:
        """Reads the pages that `program_html` names, in a copy of the world, so that reading does not change the original."""
        token = secrets.token_urlsafe(16)
        with _site_errors():
            copy = self._visits[token] = self._world.copy()
        pages: dict[str, str] = {}
        contents = []
        try:
            async with httpx.AsyncClient(transport=self.transport(), cookies={COOKIE: token}) as client:
                for target in self._draft.evaluation["program_html"]:
                    url = to_address(target["url"], self.addresses)
                    if url not in pages:
                        with _site_errors():
                            response = await client.get(url)
                        if response.status_code != 200:
                            raise SiteError(f"{target['url']} answered HTTP {response.status_code}")
                        pages[url] = response.text
                    contents.append(evaluators.select_text(pages[url], target["locator"]))
        finally:
            del self._visits[token]
            copy.close()
        return Evidence(answer=answer, page=page, contents=tuple(contents))

    def transport(self) -> httpx.AsyncBaseTransport:
        """A transport that calls the applications in process, without a network."""
        return _Transport({host: httpx.ASGITransport(app=app) for app, host in self._apps.values()})

    async def close(self) -> None:
        if self._visits.pop(self.token, None):
            with _site_errors():
                self._world.close()


@contextlib.contextmanager
def _site_errors() -> Iterator[None]:
    """Converts errors of the sites' databases into the engine's SiteError."""
    try:
        yield
    except sqlite3.Error as error:
        raise SiteError(f"the arena's database: {error}") from error


class _Transport(httpx.AsyncBaseTransport):
    """Routes requests to applications by `host:port`. A client with only this transport skips loading certificates, which takes 20 ms."""

    def __init__(self, apps: Mapping[str, httpx.ASGITransport]):
        self._apps = apps

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._apps[request.url.netloc.decode()].handle_async_request(request)
