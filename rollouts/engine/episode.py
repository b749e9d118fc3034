"""Runs one episode: a policy acts on a task's pages until it calls exit or reaches a limit."""

import asyncio
import dataclasses
import time
import uuid
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import msgspec
from playwright.async_api import Error

from mira_jax.config import Count, Positive
from mira_jax.errors import first_line
from mira_jax.files import now
from mira_jax.trajectories.actions import EXIT, ParseError, parse
from mira_jax.trajectories.prompts import rounds
from mira_jax.trajectories.records import Action, Page, Plan, Seconds, Status, Step, Task, Trajectory, encode, episode_key
from mira_jax.trajectories.tasks import PAGES
from rollouts.agents.base import AgentFactory, Reply
from rollouts.agents.planner import Planner, Planning, Spent
from rollouts.agents.plans import PlannerConfig, ReadState, Situation
from rollouts.errors import InfraError, SiteError
from rollouts.stuck import StuckRule, loop_start
from rollouts.suites import Session, Suite
from rollouts.suites.base import to_address, to_placeholder
from rollouts.web.drivers import Driver, Pages
from rollouts.web.observation import Observation, ObservationConfig, sanitize
from rollouts.web.refusals import ActionError

Result = TypeVar("Result")
SITE_SECONDS = 120.0
"""Maximum seconds to open the sites of an episode or to read evidence from them. Includes logins and the pages read for evidence."""
CLOSE_SECONDS = 10.0
"""Maximum seconds to close the sites of an episode. An episode that times out occupies its slot for this much longer."""


@dataclasses.dataclass(frozen=True)
class LimitConfig:
    """Limits at which an episode ends without exit()."""

    horizon: Count | None = None
    """Maximum number of steps. Default: the task's horizon."""
    stuck_after: Count = 5
    """Number of equal actions in a row after which an episode is stuck."""
    parse_failures: Count = 5
    """Number of responses in a row that can't be parsed after which an episode ends."""
    episode_seconds: Positive = 900.0
    """Maximum seconds of an episode, including all its tries. Exceeding it is an infrastructure error."""
    tries: Count = 3
    """Maximum number of tries of an episode. It is restarted after each infrastructure error until they are used up."""
    give_up_after: Count = 8
    """Number of episodes in a row lost to infrastructure errors after which the run ends."""


async def run_episode(
    suite: Suite,
    task: Task,
    attempt: int,
    policy: AgentFactory,
    driver: Driver,
    observation: ObservationConfig,
    limits: LimitConfig,
    planner: Planner | None = None,
) -> Trajectory:
    """Runs one episode in its own context and session, and closes both. Without a planner the policy is shown no plan.

    Raises:
        InfraError: browser, site or endpoint failed. The episode says nothing about the policy.
    """
    context = await driver.context()
    try:
        session = await _site(suite.open(task, context), "opening the sites")
        try:
            pages = driver.pages(context, session.hosts, observation)
            return await _Episode(session, attempt, policy, planner, pages, driver.config.screenshots, limits).run()
        finally:
            await _site(session.close(), "closing the sites", CLOSE_SECONDS)
    finally:
        await driver.close(context)


def failed_episode(task: Task, attempt: int, policy: AgentFactory, error: InfraError) -> Trajectory:
    """The record of an episode that was given up. It has no steps, no evidence and no outcome."""
    return Trajectory(
        id=uuid.uuid4().hex,
        task=task,
        attempt=attempt,
        policy=policy.record,
        status=Status.INFRA_ERROR,
        error=sanitize(str(error)),
        created=now(),
    )


class _Episode:
    def __init__(
        self,
        session: Session,
        attempt: int,
        policy: AgentFactory,
        planner: Planner | None,
        pages: Pages,
        screenshots: bool,
        limits: LimitConfig,
    ):
        self.session, self.task, self.attempt, self.policy = session, session.task, attempt, policy
        self.pages, self.screenshots, self.limits = pages, screenshots, limits
        self.agent = policy.agent(self.task, attempt)
        key = episode_key(self.task, attempt, policy.record)
        self.planning = planner.planning(self.task, key) if planner else Planning(PlannerConfig(), None, self.task, key)
        self.steps: list[Step] = []

    async def run(self) -> Trajectory:
        started = time.perf_counter()
        await self.pages.open([to_address(url, self.session.addresses) for url in self.task.start_url.split(PAGES)])
        observation, page = await self._observe()
        browser_seconds = time.perf_counter() - started
        await self.planning.begin(self._situation((), page))
        status: Status | None = None
        while status is None:
            observation, page, status = await self._step(observation, page, browser_seconds)
            browser_seconds = 0.0
        last = self.steps[-1].action
        answer = last.argument if status is Status.FINISHED and last else None
        evidence = await _site(self.session.evidence(page, answer, self.pages.front), "gathering the evidence")
        trajectory = Trajectory(
            id=uuid.uuid4().hex,
            task=self.task,
            attempt=self.attempt,
            policy=self.policy.record,
            steps=tuple(self.steps),
            status=status,
            evidence=evidence,
            created=now(),
        )
        try:
            encode(trajectory)
        except (UnicodeEncodeError, OverflowError, TypeError) as error:
            # Checked here, where it costs one episode. Failing when the record is written would end the run.
            raise SiteError(f"the sites' state or evidence cannot be stored in a record: {error}") from error
        return trajectory

    async def _step(self, observation: Observation, page: Page, browser_seconds: float) -> tuple[Observation, Page, Status | None]:
        """One turn of the policy. Returns the page after it, and the status if the episode has ended.

        Args:
            browser_seconds: seconds of the browser that are counted with this step.
        """
        shown, plan = page, self.planning.plan
        asked = time.perf_counter()
        reply = await self.agent.respond(rounds(self.steps), observation, plan)
        answered = time.perf_counter()
        action, error = _read(reply.text)
        claims_end = action is not None and action.name == EXIT
        if action is not None and not claims_end:
            try:
                await self.pages.perform(action, observation)
            except ActionError as refusal:
                error = str(refusal)
            observation, page = await self._observe()
        step = Step(
            index=len(self.steps),
            page=shown,
            response=reply.text,
            reasoning=reply.reasoning,
            cut=reply.cut,
            action=action,
            error=error,
            plan=plan,
            prompt_hash=reply.prompt_hash,
            token_ids=reply.token_ids,
            log_probs=reply.log_probs,
            sampling_log_probs=reply.sampling_log_probs,
            log_prob=reply.log_prob,
            tokens=reply.tokens,
        )
        browser_seconds += time.perf_counter() - answered
        timed = asyncio.ensure_future(_timed(_site(self.session.state(), "reading the sites' state")))
        try:
            step, status, spent = await self._planned(step, page, reply, timed)
            state, seconds = await timed
        finally:
            timed.cancel()
            await asyncio.gather(timed, return_exceptions=True)
        times = Seconds(browser=round(browser_seconds + seconds, 4), policy=round(answered - asked, 4), planner=round(spent.seconds, 4))
        self.steps.append(msgspec.structs.replace(step, state=state, planner_tokens=spent.tokens, seconds=times))
        return observation, page, status

    async def _planned(
        self, step: Step, page: Page, reply: Reply, timed: asyncio.Future[tuple[dict[str, Any], float]]
    ) -> tuple[Step, Status | None, Spent]:
        """Asks the planner about a step, while the sites' state is read.

        Returns:
            The step, with an error if its exit was held back; the status if the episode has ended; and what the planner spent on the plan
            that the step shows, and on its exit.
        """

        async def state() -> dict[str, Any]:
            return (await timed)[0]

        situation = self._situation((*self.steps, step), page, state, reply)
        status = self._ended(situation.steps)
        if step.action is not None and step.action.name == EXIT:
            # An exit at a limit counts: the policy could not call it again.
            refused = "" if status else await self.planning.refusal(situation)
            step, status = (msgspec.structs.replace(step, error=refused), None) if refused else (step, Status.FINISHED)
            return step, status, self.planning.take_spent()
        spent = self.planning.take_spent()
        if status is None:
            await self.planning.after(situation)
        return step, status, spent

    def _situation(self, steps: tuple[Step, ...], page: Page, state: ReadState | None = None, reply: Reply | None = None) -> Situation:
        return Situation(task=self.task, plan=Plan(), steps=steps, page=page, state=state, answer=reply.checklist if reply else "")

    async def _observe(self) -> tuple[Observation, Page]:
        """The page as the policy sees it, and its record."""
        observation = await self.pages.observe()
        if self.screenshots:
            observation = dataclasses.replace(observation, screenshot=await self.pages.screenshot())
        url = to_placeholder(observation.url, self.session.addresses)
        return observation, Page(url=url, observation=observation.text, screenshot=observation.screenshot)

    def _ended(self, steps: Sequence[Step]) -> Status | None:
        failures = self.limits.parse_failures
        if len(steps) >= failures and all(step.action is None for step in steps[-failures:]):
            return Status.PARSE_FAILURES
        rule = StuckRule(identical=self.limits.stuck_after, longest_cycle=1)
        if steps[-1].action is not None and loop_start(steps[-rule.identical :], rule) is not None:
            return Status.STUCK
        if len(steps) >= (self.limits.horizon or self.task.horizon):
            return Status.HORIZON
        return None


async def _timed(awaitable: Awaitable[Result]) -> tuple[Result, float]:
    """The result, and how many seconds it took."""
    began = time.perf_counter()
    return await awaitable, time.perf_counter() - began


def _read(response: str) -> tuple[Action | None, str | None]:
    try:
        return parse(response), None
    except ParseError as error:
        return None, str(error)


async def _site(awaitable: Awaitable[Result], what: str, seconds: float = SITE_SECONDS) -> Result:
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except TimeoutError:
        raise SiteError(f"{what} took more than {seconds:g} s") from None
    except (Error, OSError) as error:
        raise SiteError(f"{what}: {first_line(error)}") from error
