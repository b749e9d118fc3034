"""The suite: serves the worlds, judges answers, and finds the milestones among the visited pages."""

import dataclasses
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any

from msgspec import Meta
from playwright.async_api import BrowserContext
from playwright.async_api import Page as BrowserPage

from mira_arena.seeking.answers import is_right
from mira_arena.seeking.questions import TEMPLATES, Question, make_question, task_id
from mira_arena.seeking.site import serve
from mira_arena.seeking.world import CACHED, World
from mira_jax.config import Natural, Port
from mira_jax.trajectories.actions import EXIT
from mira_jax.trajectories.records import Evidence, Outcome, Page, PlanGrade, Subgoal, Task, Trajectory
from mira_jax.trajectories.tasks import FIRST_SEED
from rollouts.suites.base import take_turns
from rollouts.suites.habits import draw_habits
from rollouts.suites.seeking.expert import HABITS, SeekingExpert
from rollouts.suites.seeking.mistakes import wrong_form
from rollouts.suites.seeking.plan_rubric import RULES, grade_plan
from rollouts.suites.server import OneSite
from rollouts.web.asgi.sites import Sites

SUITE = "seeking"
PLACEHOLDER = "__SEEKING__"
HORIZON = 40


@dataclasses.dataclass(frozen=True)
class SeekingOptions:
    world: Annotated[int, Meta(ge=0, lt=10**6 - CACHED)] = 0
    """Number of the world that tasks are drawn from. Each number, in each split, has other entities and other facts."""
    worlds: Annotated[int, Meta(ge=1, le=CACHED)] = 1
    """Number of worlds, from `world` on, that tasks are spread over."""
    port: Port = 0
    """Port of the site on 127.0.0.1. 0 selects a free port."""


class SeekingSuite(OneSite):
    """The suite seeking. All episodes share one site, which has no state."""

    name = SUITE
    Options = SeekingOptions
    plan_rules = RULES

    def __init__(self, world: Natural = 0, worlds: int = 1, port: int = 0):
        self._first, self._count = world, worlds
        self._worlds: dict[str, World] = {}
        """The worlds of the episodes so far, by key. A page of another world does not exist."""
        self._app = serve(self._worlds)
        super().__init__(self._app, port)

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        known = [template.name for template in TEMPLATES.values() if split == "test" or not template.held_out]
        drawn = take_turns(known, templates, split, count, seed)
        return [self.task(task_id(name, split, self._first + number % self._count, number)) for name, number in drawn]

    def task(self, task_id: str) -> Task:
        question = make_question(task_id)
        return Task(
            id=task_id,
            suite=SUITE,
            sites=(SUITE,),
            template=question.template.name,
            split=question.world.split,
            seed=FIRST_SEED[question.world.split] + question.world.number,
            intent=question.text,
            start_url=PLACEHOLDER,
            horizon=HORIZON,
        )

    def in_process_sites(self) -> Sites:
        """See `rollouts.suites.base.InProcess`."""
        return Sites({self._server.host: self._app})

    async def open(self, task: Task, context: BrowserContext) -> "SeekingSession":
        world = make_question(task.id).world
        self._worlds[world.key] = world
        return SeekingSession(task, f"http://{self._server.host}/{world.key}", self.hosts)

    def judge(self, trajectory: Trajectory) -> Outcome:
        """By the answer, and for an answer that could be guessed (N/A, a count) also by the visited pages."""
        question = make_question(trajectory.task.id)
        success, detail = is_right(trajectory.evidence.answer, question.answers), ""
        if not success:
            detail = f"the answer is {trajectory.evidence.answer!r}, not {question.answers[0]!r}"
        elif question.guessable and not all(_done(question, _visited(trajectory))):
            success, detail = False, "the answer is right, but not all pages were visited that it follows from"
        return Outcome(success=success, score=float(success), source="rule", detail=detail)

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        """One for each hop, that its pages were visited, and one for the answer."""
        question = make_question(trajectory.task.id)
        subgoals = [
            Subgoal(text=f"find {hop.looked_for}", check=" and ".join(_pages(group) for group in hop.pages(question.world)))
            for hop in question.plan
        ]
        table, visited, answered = [], set[str](), False
        for step, after in zip(trajectory.steps, _pages_after(trajectory), strict=False):
            visited |= after
            if step.action and step.action.name == EXIT and step.error is None:
                answered = is_right(step.action.argument, question.answers)
            table.append((*_done(question, visited), answered))
        return (*subgoals, Subgoal(text="answer the question", check=f"exit with {question.answers[0]!r}")), table

    def grade_plan(self, trajectory: Trajectory) -> PlanGrade:
        """See `rollouts.suites.seeking.plan_rubric`. The comments of a chat model are in its reasoning."""
        question, first = make_question(trajectory.task.id), trajectory.steps[0]
        comments = [line for line in first.reasoning.split("\n") if line.lstrip().startswith("#")]
        return grade_plan(question.form, question.world, "\n".join([*comments, first.response]), first.action)

    def forced_response(self, task: Task, observation: str, right: bool, attempt: int = 0) -> str:
        """The expert's first response: its plan, and a search for the first name. A wrong plan lacks a hop or has another relation."""
        form = make_question(task.id).form
        planned = form if right else wrong_form(form, Random(f"wrong plan {task.id} {attempt}"))
        return SeekingExpert(planned).respond(task, (), observation)

    def references(self, task: Task) -> list[str]:
        """See `rollouts.suites.base.Referenced`."""
        return list(make_question(task.id).answers)

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> SeekingExpert:
        """`habits`: see `rollouts.suites.seeking.expert`."""
        return SeekingExpert(make_question(task.id).form, draw_habits(habits or {}, HABITS, task, seed, attempt))


class SeekingSession:
    """The world of one episode."""

    def __init__(self, task: Task, address: str, hosts: frozenset[str]):
        self.task, self.addresses, self.hosts = task, {PLACEHOLDER: address}, hosts

    async def state(self) -> dict[str, Any]:
        return {}

    async def evidence(self, page: Page | None, answer: str | None, front: BrowserPage | None = None) -> Evidence:
        return Evidence(answer=answer, page=page)

    async def close(self) -> None:
        return None


def _pages(slugs: Sequence[str]) -> str:
    return "page is " + " or ".join(f"{PLACEHOLDER}/page/{slug}" for slug in slugs)


def _pages_after(trajectory: Trajectory) -> list[set[str]]:
    """For each step, the slug of the page that it led to, if it is one."""
    pages = [step.page for step in trajectory.steps[1:]] + [trajectory.evidence.page]
    start = f"{PLACEHOLDER}/page/"
    return [{page.url.removeprefix(start).split("#")[0]} if page and page.url.startswith(start) else set() for page in pages]


def _visited(trajectory: Trajectory) -> set[str]:
    return set().union(*_pages_after(trajectory))


def _done(question: Question, visited: set[str]) -> list[bool]:
    """For each hop, whether one page of each of its groups was visited."""
    return [all(visited & set(group) for group in hop.pages(question.world)) for hop in question.plan]
