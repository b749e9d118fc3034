"""Plays one episode of a suite with a scripted policy: in a real browser, or over HTTP alone. No pool, no limits but the horizon."""

import httpx

from mira_arena.sites.server import COOKIE
from mira_jax.trajectories import actions
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Page, Policy, Status, Step, Task, Trajectory
from mira_jax.trajectories.tasks import PAGES
from rollouts.suites.arena.suite import ArenaSession, ArenaSuite
from rollouts.suites.base import ScriptedPolicy, to_address, to_placeholder
from rollouts.web.browser import BrowserConfig, BrowserPool
from rollouts.web.executor import ActionError, Executor
from rollouts.web.observation import ObservationConfig
from rollouts.web.tabs import Tabs
from tests.suites.text_browser import TextBrowser


async def play(suite: ArenaSuite, task: Task, policy: ScriptedPolicy, browser: BrowserPool, handles: str = "name") -> Trajectory:
    """An episode in Chromium."""
    context = await browser.context()
    session = await suite.open(task, context)
    tabs = Tabs(context, BrowserConfig(), ObservationConfig(handles=handles, compact=handles == "name"))
    executor = Executor(tabs)

    async def observe():
        seen = await tabs.observe()
        return seen, Page(url=to_placeholder(tabs.page.url, session.addresses), observation=seen.text)

    async def perform(action, seen):
        try:
            await executor.perform(action, seen)
        except ActionError as problem:
            return str(problem)

    try:
        browser.allow(context, session.hosts)
        await tabs.open(_addresses(task, session), session.hosts)
        return await _episode(session, policy, observe, perform)
    finally:
        await session.close()
        await browser.close(context)


async def play_over_http(suite: ArenaSuite, task: Task, policy: ScriptedPolicy) -> Trajectory:
    """An episode without a browser, in the application itself."""
    session = suite.session(task)
    async with httpx.AsyncClient(transport=session.transport()) as client:
        browser = TextBrowser(client, (COOKIE, session.token))

        async def observe():
            return None, Page(url=to_placeholder(browser.url, session.addresses), observation=browser.page.observation())

        async def perform(action, _):
            await browser.perform(action)

        try:
            await browser.open_tabs(_addresses(task, session))
            return await _episode(session, policy, observe, perform)
        finally:
            await session.close()


async def idle(suite: ArenaSuite, task: Task) -> Trajectory:
    """An episode in which nothing is done but to say that all is done."""
    session = suite.session(task)
    page = Page(url=task.start_url, observation="")
    step = Step(
        index=0, page=page, response='exit(message="done")', action=actions.parse('exit(message="done")'), state=await session.state()
    )
    evidence = await session.evidence(page, "done")
    await session.close()
    return _trajectory(task, [step], Status.FINISHED, evidence)


def _addresses(task: Task, session: ArenaSession) -> list[str]:
    return [to_address(url, session.addresses) for url in task.start_url.split(PAGES)]


async def _episode(session: ArenaSession, policy, observe, perform) -> Trajectory:
    task, steps, answer, status = session.task, [], None, Status.HORIZON
    seen, page = await observe()
    while len(steps) < task.horizon and answer is None:
        response = policy.respond(task, [Round(step.response, step.error) for step in steps], page.observation)
        action, error, before = actions.parse(response), None, page
        if action.name == actions.EXIT:
            answer, status = action.argument, Status.FINISHED
        else:
            error = await perform(action, seen)
            seen, page = await observe()
        steps.append(Step(index=len(steps), page=before, response=response, action=action, error=error, state=await session.state()))
    return _trajectory(task, steps, status, await session.evidence(page, answer))


def _trajectory(task, steps, status, evidence) -> Trajectory:
    return Trajectory(id=task.id, task=task, policy=Policy(name="expert"), steps=tuple(steps), status=status, evidence=evidence)
