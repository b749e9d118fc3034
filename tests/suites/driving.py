"""Plays one episode of a suite with a scripted policy, in a real browser, without the pool."""

from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Page, Policy, Status, Step, Task, Trajectory
from rollouts.suites.base import ScriptedPolicy, Suite, to_address, to_placeholder
from rollouts.web import actions
from rollouts.web.browser import BrowserConfig, BrowserPool
from rollouts.web.executor import ActionError, Executor
from rollouts.web.observation import ObservationConfig
from rollouts.web.tabs import Tabs


async def play(suite: Suite, task: Task, policy: ScriptedPolicy | None, browser: BrowserPool, handles: str = "name") -> Trajectory:
    """The episode as a trajectory with evidence. Without a policy nothing is done."""
    context = await browser.context()
    session = await suite.open(task, context)
    tabs = Tabs(context, BrowserConfig(), ObservationConfig(handles=handles, compact=handles == "name"))
    executor = Executor(tabs)
    steps, answer, status = [], None, Status.HORIZON
    try:
        await tabs.open(to_address(task.start_url, session.addresses), session.hosts)
        observation = await tabs.observe()
        page = Page(url=to_placeholder(tabs.page.url, session.addresses), observation=observation.text)
        while policy is not None and len(steps) < task.horizon and answer is None:
            response = policy.respond(task, [Round(step.response, step.error) for step in steps], observation.text)
            action, error, before = actions.parse(response), None, page
            if action.name == actions.EXIT:
                answer, status = action.argument, Status.FINISHED
            else:
                try:
                    await executor.perform(action, observation)
                except ActionError as problem:
                    error = str(problem)
                observation = await tabs.observe()
                page = Page(url=to_placeholder(tabs.page.url, session.addresses), observation=observation.text)
            steps.append(Step(index=len(steps), page=before, response=response, action=action, error=error, state=await session.state()))
        evidence = await session.evidence(page, answer)
    finally:
        await session.close()
        await browser.close(context)
    return Trajectory(id=task.id, task=task, policy=Policy(name="expert"), steps=tuple(steps), status=status, evidence=evidence)
