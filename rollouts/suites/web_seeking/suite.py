"""The suite: questions from files, a site that searches and reads the web, and two graders of answers."""

import dataclasses
import functools
import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from msgspec import Meta
from playwright.async_api import BrowserContext
from playwright.async_api import Page as BrowserPage

from mira_arena.seeking.answers import is_right
from mira_jax import config
from mira_jax.config import Count, Port
from mira_jax.errors import ConfigError, UserError
from mira_jax.needs import Needs
from mira_jax.trajectories.records import Evidence, Outcome, Page, Subgoal, Task, Trajectory
from mira_jax.trajectories.tasks import SPLITS
from rollouts.errors import SiteError
from rollouts.llm.cache import AnswerCache
from rollouts.llm.role import NoAnswer, RoleConfig
from rollouts.llm.usage import Usage
from rollouts.suites.base import NewContext, choose, refuse_changed
from rollouts.suites.judge import KEY as JUDGE
from rollouts.suites.judge import ModelJudge, judge_needs
from rollouts.suites.server import OneSite
from rollouts.suites.web_seeking.apis import SearchConfig
from rollouts.suites.web_seeking.fetch import KEY as FETCH
from rollouts.suites.web_seeking.fetch import FetchConfig, Fetched, Fetcher, describe_allowed
from rollouts.suites.web_seeking.questions import KEY, OWN, Benchmark, Question, describe, read_questions
from rollouts.suites.web_seeking.search import KEY as SEARCH
from rollouts.suites.web_seeking.search import QueryRefused, Results, Search
from rollouts.suites.web_seeking.site import serve
from rollouts.web.asgi.sites import Sites

SUITE = "web_seeking"
PLACEHOLDER = "__WEB__"
CACHE = "suite.options.cache"
PROBE = "capital of france"
"""The query of `mira preflight`."""
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class WebSeekingOptions:
    benchmark: Benchmark = OWN
    """The format of `file`: your own questions, or those of a published benchmark."""
    file: str = ""
    """File of the questions (docs/seeking-real.md). Required."""
    training: bool = False
    """Splits the questions of a published benchmark by a hash of their ids, so that they can be trained on. By default all are in the
    split test, and other splits are refused."""
    grader: Literal["exact", "model"] = "exact"
    """exact: equality with a reference after normalisation. model: the chat model `judge` decides."""
    judge: RoleConfig | None = None
    """Chat model of `grader=model`."""
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    fetch: FetchConfig = dataclasses.field(default_factory=FetchConfig)
    cache: str = ""
    """File that keeps search results and pages, with their dates. A query or page in it is not requested again, so that an evaluation can
    be repeated. Several commands may share it. Empty: they are kept only while the command runs."""
    part_characters: Annotated[int, Meta(ge=500, le=30_000)] = 4_000
    """Maximum characters of one part of a page's text."""
    horizon: Count = 60
    """Maximum number of steps of an episode."""
    port: Port = 0
    """Port of the site on 127.0.0.1. 0 selects a free port."""

    def __post_init__(self) -> None:
        if self.grader == "model" and self.judge is None:
            raise ConfigError("judge", "not set; $.grader=model needs a chat model, for example {endpoint: {base_url: ..., model: ...}}")
        if self.training and self.benchmark == OWN:
            raise ConfigError("training", "your own questions are split already; leave it out")


class WebSeekingSuite(OneSite):
    """Questions that are answered on the web. All episodes share one site."""

    name = SUITE
    Options = WebSeekingOptions

    def __init__(self, /, **options: Any):
        """`options`: the fields of `WebSeekingOptions`. Raises UserError."""
        self.options = config.build(WebSeekingOptions, options, prefix="suite.options.")
        self._judge = ModelJudge(self.options.judge) if self.options.judge and self.options.grader == "model" else None
        self._open: AsyncExitStack | None = None
        self._search: Search | None = None
        self._fetcher: Fetcher | None = None
        self._failures: dict[str, str] = {}
        """The running episodes, with the failure of the search API or the network that each met."""
        self._app = serve(self, self.options.part_characters, self._failures)
        super().__init__(self._app, self.options.port)

    @functools.cached_property
    def _questions(self) -> dict[str, Question]:
        """Raises UserError."""
        return read_questions(self.options.benchmark, self.options.file, self.options.training)

    @property
    def usage(self) -> dict[str, Usage]:
        """See `rollouts.suites.base.AsksModels`."""
        return {JUDGE: self._judge.usage} if self._judge else {}

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        """Returns questions in the order of the file. The templates are the topics or levels of the benchmark."""
        if split not in SPLITS:
            raise UserError(f"split: {split!r} is none of {', '.join(SPLITS)}")
        if split != "test" and self.options.benchmark != OWN and not self.options.training:
            raise ConfigError(
                "suite.options.training",
                f"{self.options.benchmark} is a benchmark, whose questions are all in the split test; set it to true to train on them",
            )
        pool = [self.task(name) for name, one in self._questions.items() if one.split == split]
        if not pool:
            raise ConfigError(KEY, f"{self.options.file}: no question in the split {split}")
        return choose(pool, list(dict.fromkeys(one.template for one in self._questions.values())), templates, count, seed)

    def task(self, task_id: str) -> Task:
        one = self._question(task_id)
        return Task(
            id=task_id, suite=SUITE, sites=("web",), template=one.template, split=one.split, seed=0, intent=one.text,
            start_url=PLACEHOLDER, horizon=self.options.horizon,
        )  # fmt: skip

    def in_process_sites(self) -> Sites:
        """See `rollouts.suites.base.InProcess`."""
        return Sites({self._server.host: self._app})

    async def start(self) -> None:
        """Raises UserError: no search API, no key, a cache that cannot be used, or a port in use."""
        for option, text in describe_allowed(self.options.fetch).items():
            log.warning("%s: %s", option, text)
        async with AsyncExitStack() as stack:
            path = Path(self.options.cache) if self.options.cache else None
            results, pages = AnswerCache(path, Results), AnswerCache(path, Fetched)
            stack.callback(results.close)
            stack.callback(pages.close)
            self._search = await stack.enter_async_context(Search(self.options.search, results))
            self._fetcher = await stack.enter_async_context(Fetcher(self.options.fetch, pages))
            await super().start()
            self._open = stack.pop_all()

    async def stop(self) -> None:
        await super().stop()
        if self._open is not None:
            await self._open.aclose()
            self._open = None

    async def search(self, query: str) -> Results:
        """See `rollouts.suites.web_seeking.site.Web`."""
        assert self._search is not None
        return await self._search.search(query)

    async def fetch(self, url: str) -> Fetched:
        """See `rollouts.suites.web_seeking.site.Web`."""
        assert self._fetcher is not None
        return await self._fetcher.fetch(url)

    async def open(self, task: Task, context: BrowserContext) -> "WebSeekingSession":
        return WebSeekingSession(task, self._question(task.id), self._server.host, self.hosts, self._failures)

    def judge(self, trajectory: Trajectory) -> Outcome | None:
        """By the grader. None if the model gave no verdict."""
        task, answer = trajectory.task, trajectory.evidence.answer
        one = self._question(task.id)
        refuse_changed(self.task(task.id), task)
        self._refuse_other_references(one, trajectory)
        source = "judge" if self._judge else "rule"
        if answer is None or not answer.strip():
            return Outcome(success=False, score=0.0, source=source, detail="no answer")
        try:
            success = self._judge.final(one.text, one.answers, answer) if self._judge else is_right(answer, one.answers)
        except NoAnswer as failure:
            log.warning("episode %s, attempt %d: no outcome: %s", task.id, trajectory.attempt, failure)
            return None
        # The reference is not shown: a record of a wrong answer does not give away the right one.
        detail = "" if success else "the answer is not the reference"
        return Outcome(success=success, score=float(success), source=source, detail=detail)

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        """None: the plan of a question is not known."""
        return (), [() for _ in trajectory.steps]

    def references(self, task: Task) -> list[str]:
        """See `rollouts.suites.base.Referenced`."""
        return list(self._question(task.id).answers)

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> NoReturn:
        raise UserError(f"policy.kind: {SUITE} has no expert; choose endpoint, chat, random or idle")

    def needs(self, found: Needs, new_context: NewContext | None) -> None:
        """See `rollouts.suites.base.CheckedSuite`."""
        with found.attempt(KEY):
            found.ok(KEY, f"{self.options.file}: {describe(self._questions)}")
        if self._judge:
            judge_needs(found, self.options.judge)
        super().needs(found, new_context)
        if not new_context:
            return
        found.output(CACHE, self.options.cache)
        for option, text in describe_allowed(self.options.fetch).items():
            found.ok(option, text)
        if self.options.fetch.browser:
            found.ask(f"{FETCH}.browser", self._ask_browser, self.options.fetch.browser)
        if self.options.search.api == "none":
            found.required(f"{SEARCH}.api", "name the search API that episodes use")
        else:
            found.variable(f"{SEARCH}.api_key_env", self.options.search.api_key_env)
            found.ask(SEARCH, self._ask_search, self.options.search)

    async def _ask_search(self, stack: AsyncExitStack) -> str:
        """Asks one query, without retries and without the cache. Raises UserError."""
        quick = dataclasses.replace(self.options.search, retries=0)
        cache = AnswerCache(None, Results)
        stack.callback(cache.close)
        client = await stack.enter_async_context(Search(quick, cache))
        try:
            found = (await client.search(PROBE)).results
        except (SiteError, QueryRefused) as error:
            raise ConfigError(SEARCH, str(error)) from None
        if not found:
            raise ConfigError(f"{SEARCH}.request", f"no results for {PROBE!r}; check results and link, the keys of the answer")
        return f"{quick.form.url}: {len(found)} results"

    async def _ask_browser(self, stack: AsyncExitStack) -> str:
        """Raises UserError."""
        cache = AnswerCache(None, Fetched)
        stack.callback(cache.close)
        await stack.enter_async_context(Fetcher(self.options.fetch, cache))
        return "Chromium starts"

    def _question(self, task_id: str) -> Question:
        if task_id not in self._questions:
            raise UserError(f"{task_id}: no such question in {self.options.file}; check suite.options.file")
        return self._questions[task_id]

    def _refuse_other_references(self, one: Question, trajectory: Trajectory) -> None:
        """Raises UserError if the file had other references when the episode was collected."""
        recorded = [step.state["question"] for step in trajectory.steps if step.state and "question" in step.state]
        if recorded and recorded[-1] != one.fingerprint:
            raise UserError(f"{one.id}: {self.options.file} has other answers than when this episode was collected; use that file")


class WebSeekingSession:
    """One episode on the shared site."""

    def __init__(self, task: Task, question: Question, host: str, hosts: frozenset[str], failures: dict[str, str]):
        self._name = secrets.token_hex(8)
        self.task, self.addresses, self.hosts = task, {PLACEHOLDER: f"http://{host}/{self._name}"}, hosts
        self._question, self._failures = question, failures
        failures[self._name] = ""

    async def state(self) -> dict[str, Any]:
        """The question's fingerprint, by which a changed file is noticed, and the benchmark's canary, which marks the records.

        Raises:
            SiteError: the search API or the network failed since the episode began.
        """
        if failure := self._failures.get(self._name):
            raise SiteError(failure)
        canary = {"canary": self._question.canary} if self._question.canary else {}
        return {"question": self._question.fingerprint, **canary}

    async def evidence(self, page: Page | None, answer: str | None, front: BrowserPage | None = None) -> Evidence:
        return Evidence(answer=answer, page=page)

    async def close(self) -> None:
        self._failures.pop(self._name, None)
