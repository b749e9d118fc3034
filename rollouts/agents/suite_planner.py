"""The suite's own milestones as the plan: what a perfect checker would say."""

import msgspec

from mira_jax.errors import ConfigError
from mira_jax.trajectories.records import Evidence, Page, Plan, Policy, Status, Step, Task, Trajectory
from rollouts.agents.plans import Progress, Situation, first_open, new_plan
from rollouts.llm.usage import Usage
from rollouts.suites import Suite


class SuiteChecker:
    """Applies the checks of the labels to the steps so far."""

    def __init__(self, suite: Suite):
        self._suite = suite

    async def write(self, situation: Situation, used: Usage) -> Plan:
        """The milestones are what they are: a plan that exists is kept. Raises ConfigError if the task has none."""
        if situation.plan.subgoals:
            return situation.plan
        return new_plan(milestone_texts(self._suite, situation.task))

    async def check(self, situation: Situation, used: Usage) -> Progress:
        *before, last = situation.steps
        state = await situation.state() if situation.state else None
        subgoals, rows = self._suite.milestones(
            _so_far(situation.task, (*before, msgspec.structs.replace(last, state=state)), situation.page)
        )
        return Progress(Plan(subgoals=tuple(subgoal.text for subgoal in subgoals), done=rows[-1], current=first_open(rows[-1])))


def milestone_texts(suite: Suite, task: Task) -> list[str]:
    """The texts of a task's milestones. Raises ConfigError if it has none."""
    subgoals, _ = suite.milestones(_so_far(task, ()))
    if not subgoals:
        raise ConfigError("planner.kind", f"the task {task.id} has no milestones for a checklist; choose model or none")
    return [subgoal.text for subgoal in subgoals]


def _so_far(task: Task, steps: tuple[Step, ...], page: Page | None = None) -> Trajectory:
    return Trajectory(id="", task=task, policy=Policy(name=""), steps=steps, status=Status.HORIZON, evidence=Evidence(page=page))
