"""MiniWoB++ as a suite: a page is a template, a seed is an instance, and the page itself decides the outcome.

The instruction is known only after a page is rendered, so a task has no intent before its session.
"""

import dataclasses
import importlib.resources
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from playwright.async_api import BrowserContext
from playwright.async_api import Page as BrowserPage
from starlette.staticfiles import StaticFiles

from mira_jax.config import Port
from mira_jax.errors import UserError
from mira_jax.extras import install
from mira_jax.trajectories.records import Evidence, Outcome, Page, Subgoal, Task, Trajectory
from mira_jax.trajectories.tasks import FIRST_SEED
from rollouts.suites.base import take_turns, to_address
from rollouts.suites.miniwob.expert import MiniwobExpert
from rollouts.suites.server import OneSite

SUITE = "miniwob"
PLACEHOLDER = "__MINIWOB__"
HORIZON = 20
INSTRUCTION = "() => { const said = core.getUtterance(); return said.utterance ?? said; }"
"""Returns the instruction of a rendered page."""

_TASK_ID = re.compile(r"miniwob\.(?P<page>[a-z0-9-]+)\.(?P<split>[a-z]+)\.(?P<number>0|[1-9][0-9]{0,11})")
_START = importlib.resources.files("rollouts.suites.miniwob").joinpath("start.js").read_text(encoding="utf-8")
_OUTCOME = '() => JSON.parse(sessionStorage.outcome ?? \'{"ended": false, "reward": 0, "reason": ""}\')'


def find_pages() -> Path:
    """Returns the package's html folder. The package is not imported, since that would also import gymnasium and selenium.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec("miniwob")
    folder = Path(spec.origin).parent / "html" if spec and spec.origin else None
    if folder is None or not (folder / "miniwob").is_dir():
        raise UserError(f"suite.name: the pages of MiniWoB++ are not installed; {install('miniwob')}")
    return folder


@dataclasses.dataclass(frozen=True)
class MiniwobOptions:
    port: Port = 0
    """Port for the pages on 127.0.0.1. 0 selects a free port."""
    threshold: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Minimum score of a success. Below 1, partial answers count."""


class MiniwobSuite(OneSite):
    """The MiniWoB++ suite. An episode's score is the page's reward without its time decay."""

    name = SUITE
    Options = MiniwobOptions

    def __init__(self, port: int = 0, threshold: float = 1.0):
        folder = find_pages()
        self.pages = tuple(sorted(path.stem for path in (folder / "miniwob").glob("*.html")))
        self._threshold = threshold
        super().__init__(StaticFiles(directory=folder), port)

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        return [_task(page, split, number) for page, number in take_turns(self.pages, templates, split, count, seed)]

    def task(self, task_id: str) -> Task:
        match = _TASK_ID.fullmatch(task_id)
        if not match or match["page"] not in self.pages or match["split"] not in FIRST_SEED:
            raise UserError(f"task: no task {task_id!r} in MiniWoB++")
        return _task(match["page"], match["split"], int(match["number"]))

    async def open(self, task: Task, context: BrowserContext) -> "MiniwobSession":
        """Makes every page of `context` start with the task's instance, and renders it once to read the instruction."""
        addresses = {PLACEHOLDER: f"http://{self._server.host}"}
        await context.add_init_script(f"({_START})({task.seed})")
        page = await context.new_page()
        try:
            await page.goto(to_address(task.start_url, addresses))
            intent = await page.evaluate(INSTRUCTION)
        finally:
            await page.close()
        return MiniwobSession(msgspec.structs.replace(task, intent=intent), context, addresses, self.hosts)

    def judge(self, trajectory: Trajectory) -> Outcome:
        state = trajectory.steps[-1].state
        reward = float(state["reward"])
        detail = state["reason"] if state["ended"] else "the page has not ended the episode"
        return Outcome(success=self._solved(state), score=reward, source="rule", detail=detail)

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        """One subgoal, the end of the task: the pages report no intermediate progress."""
        solved = Subgoal(text="solve the task", check=f"the page's reward is at least {self._threshold:g}")
        return (solved,), [(self._solved(step.state),) for step in trajectory.steps]

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> MiniwobExpert:
        """Returns the page's script. `rollouts.suites.miniwob.expert.SCRIPTS` lists the pages that have one. Raises UserError for
        others."""
        if habits:
            raise UserError(f"policy.habits: the experts of MiniWoB++ have none, not {', '.join(habits)}")
        return MiniwobExpert(task.template)

    def _solved(self, state: Mapping[str, Any]) -> bool:
        return state["reward"] >= self._threshold


def _task(page: str, split: str, number: int) -> Task:
    return Task(
        id=f"{SUITE}.{page}.{split}.{number}",
        suite=SUITE,
        sites=(SUITE,),
        template=page,
        split=split,
        seed=FIRST_SEED[split] + number,
        intent="",
        start_url=f"{PLACEHOLDER}/miniwob/{page}.html",
        horizon=HORIZON,
    )


class MiniwobSession:
    """The page of one episode."""

    def __init__(self, task: Task, context: BrowserContext, addresses: Mapping[str, str], hosts: frozenset[str]):
        self.task, self.addresses, self.hosts = task, addresses, hosts
        self._context = context

    async def state(self) -> dict[str, Any]:
        """Whether the page has ended the episode, its reward, and the reason if it states one."""
        return await self._context.pages[0].evaluate(_OUTCOME)

    async def evidence(self, page: Page | None, answer: str | None, front: BrowserPage | None = None) -> Evidence:
        """Returns no further evidence, since the last step's state contains the outcome."""
        return Evidence(answer=answer, page=page)

    async def close(self) -> None:
        return None
