"""Small sites on loopback, a suite made of them, and a way to look at one page."""

import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.trajectories.actions import EXIT, format_action
from mira_jax.trajectories.records import Action, Evidence, Outcome, Subgoal, Task
from rollouts.engine.pool import RolloutConfig
from rollouts.web.browser import BrowserConfig, BrowserPool
from rollouts.web.executor import ActionError, Executor
from rollouts.web.observation import ObservationConfig
from rollouts.web.tabs import Tabs

NAMES = ObservationConfig(handles="name", compact=True)


class Site:
    """Serves `pages` (path to HTML). `hang` paths never answer, `calls` lists the paths asked for, `cookies` what came with them."""

    def __init__(self, pages: Mapping[str, str | bytes]):
        self.pages, self.calls, self.cookies, self.released = dict(pages), [], set(), threading.Event()
        self.delay: dict[str, float] = {}
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = urlsplit(self.path).path
                site.calls.append(self.path)
                site.cookies |= {self.headers["Cookie"]} - {None}
                time.sleep(site.delay.get(path, 0))
                if path == "/hang":
                    site.released.wait(20)
                if path == "/nothing":
                    return self.answer(204, b"")
                if path == "/circle":
                    return self.answer(302, b"", ("Location", "/circle"))
                if path == "/file":
                    return self.answer(200, b"data", ("Content-Disposition", "attachment; filename=a.bin"))
                if path.startswith("/to"):
                    return self.move(path)
                if path.startswith("/status/"):
                    return self.answer(int(path.rsplit("/", 1)[1]), f"status {path.rsplit('/', 1)[1]}".encode())
                page = site.pages.get(path)
                page = page(parse_qs(urlsplit(self.path).query)) if callable(page) else page
                if page is None and path != "/favicon.ico":
                    page = f"<title>{path}</title><p>page {self.path}</p><a href='/'>home</a>"
                body = page or b""
                if isinstance(body, bytes):
                    return self.answer(200, body, kind="text/html")
                self.answer(200, body.encode("utf-8", "surrogatepass"))

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                site.calls.append(f"POST {self.path} {body}")
                if self.path.startswith("/to"):
                    return self.move(self.path)
                self.answer(303, b"", ("Location", "/done?" + body))

            def move(self, path):
                """`/to/HOST/x` is moved to `http://HOST/x`, `/to307/HOST/x` with the status 307."""
                status, target = path.removeprefix("/to").split("/", 1)
                self.answer(int(status or 302), b"", ("Location", "http://" + target))

            def answer(self, status, body, *headers, kind="text/html; charset=utf-8"):
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in (
                        ("Content-Type", kind),
                        ("Content-Length", str(len(body))),
                        ("Connection", "close"),
                        *headers,
                    ):
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


class Look:
    """One page in a context of its own, driven as an episode drives it."""

    def __init__(self, pool: BrowserPool, site: Site, observation: ObservationConfig = NAMES, path: str = "/"):
        self.pool, self.site, self.observation, self.path = pool, site, observation, path

    async def __aenter__(self):
        self.context = await self.pool.context()
        try:
            self.pool.allow(self.context, [self.site.host])
            self.tabs = Tabs(self.context, self.pool.config, self.observation)
            await self.tabs.open([f"http://{self.site.host}{self.path}"], [self.site.host])
            self.executor = Executor(self.tabs)
            self.seen = await self.tabs.observe()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        await self.pool.close(self.context)

    async def do(self, name: str, element: str | None = None, argument: str | None = None) -> str | None:
        """Does an action, reads the page again, and returns the error that the policy would be told."""
        try:
            await self.executor.perform(Action(name=name, element=element, argument=argument), self.seen)
            error = None
        except ActionError as refusal:
            error = str(refusal)
        self.seen = await self.tabs.observe()
        return error

    @property
    def lines(self) -> list[str]:
        return self.seen.text.split("\n")


def descendants(process: int) -> list[tuple[int, str]]:
    """Every process below `process`, with its name."""
    found = []
    with contextlib.suppress(OSError), open(f"/proc/{process}/task/{process}/children") as file:
        for child in map(int, file.read().split()):
            with contextlib.suppress(OSError), open(f"/proc/{child}/comm") as name:
                found += [(child, name.read().strip()), *descendants(child)]
    return found


BROWSER = {"contexts": 2, "launch_seconds": 90, "call_seconds": 10, "load_seconds": 10, "settle_seconds": 1, "draw": False}


def config(**changes) -> RolloutConfig:
    """A run of four episodes by the suite's own script."""
    tree = {"episodes": 4, "policy": {"kind": "expert"}, "observation": {"handles": "name", "compact": True}, "browser": BROWSER}
    return build(RolloutConfig, tree | changes)


QUICK = BrowserConfig(contexts=2, call_seconds=5, load_seconds=5, settle_seconds=1)


class CountingSuite:
    """Tasks to press a link so many times. `trouble` is run at every look at the state."""

    name = "counting"

    def __init__(self, trouble=None):
        self.trouble, self.opened, self.closed, self.fronts = trouble, 0, 0, []
        self.page = "<h1>count</h1><a href='/press?n=1'>press</a> <a href='/other'>other</a>"

    @property
    def hosts(self):
        return frozenset({self.site.host})

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        if templates and set(templates) - {"press"}:
            raise UserError(f"templates: {templates}")
        return [self.task(f"press.{split}.{seed}.{index}") for index in range(count)]

    def task(self, task_id: str) -> Task:
        times = 1 + int(task_id.rsplit(".", 1)[1]) % 3
        return Task(id=task_id, suite=self.name, sites=("count",), template="press", split=task_id.split(".")[1], seed=0,
                    intent=f"press {times}", start_url="__COUNT__/", horizon=6)  # fmt: skip

    async def reset(self):
        pass

    async def start(self):
        def press(query):
            return f"<h1>pressed</h1><a href='/press?n={int(query['n'][0]) + 1}'>press</a>"

        self.site = Site({"/": self.page, "/press": press}).__enter__()

    async def stop(self):
        self.site.__exit__()

    async def open(self, task, context):
        self.opened += 1
        return CountingSession(self, task, context)

    def judge(self, trajectory):
        success = trajectory.evidence.answer == "done" and trajectory.steps[-1].state["presses"] == int(trajectory.task.intent.split()[1])
        return Outcome(success=success, score=float(success), source="rule")

    def milestones(self, trajectory):
        return (Subgoal(text="pressed once", check="presses >= 1"),), [(step.state["presses"] >= 1,) for step in trajectory.steps]

    def expert(self, task, habits=None, seed=0, attempt=0):
        return CountingExpert(lazy=bool(habits))


class CountingExpert:
    def __init__(self, lazy: bool):
        self.lazy = lazy

    def respond(self, task, rounds, observation):
        if self.lazy or len(rounds) == int(task.intent.split()[1]):
            return format_action(Action(name=EXIT, argument="done"))
        return format_action(Action(name="Click", element="press"))


class CountingSession:
    def __init__(self, suite, task, context):
        self.suite, self.task, self.context, self.presses = suite, task, context, 0
        self.addresses, self.hosts = {"__COUNT__": f"http://{suite.site.host}"}, suite.hosts

    async def state(self):
        query = parse_qs(urlsplit(self.context.pages[-1].url).query)
        self.presses = int(query.get("n", ["0"])[0])
        if self.suite.trouble:
            await self.suite.trouble(self)
        return {"presses": self.presses}

    async def evidence(self, page, answer, front=None):
        self.suite.fronts.append(front and front.url)
        return Evidence(answer=answer, page=page)

    async def close(self):
        self.suite.closed += 1


WORKER = """
import sys, rollouts.engine.pool
from rollouts import collect
from tests.rollouts.sites import CountingSuite
suite = CountingSuite()
suite.page = sys.argv.pop(1) or suite.page
rollouts.engine.pool.make_suite = lambda *_, **__: suite
sys.exit(collect.COMMAND.run())
"""


def start_worker(out, episodes: int, page: str = "", **environment: str) -> subprocess.Popen:
    """`mira collect` on the counting suite, in a process of its own; `page` is its first page."""
    settings = [f"episodes={episodes}", f"browser={json.dumps(BROWSER | {'contexts': 3})}", "observation={handles: name}"]
    arguments = ["--out", str(out), *(part for setting in settings for part in ("--set", setting))]
    command = [sys.executable, "-c", WORKER, page, *arguments]
    return subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
