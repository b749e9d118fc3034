"""Planners: what plan the policy is shown at each step of an episode, and whether it may end (dynamic milestoning)."""

import dataclasses
import time
from collections.abc import Awaitable, Sequence

import msgspec

from mira_jax.errors import ConfigError
from mira_jax.trajectories.records import Plan, Step, Task, TokenCounts
from rollouts.agents.base import step_seed
from rollouts.agents.joint_planner import JointChecker
from rollouts.agents.model_planner import ModelChecker
from rollouts.agents.plans import Checker, PlannerConfig, Situation, mark, read_subgoals
from rollouts.agents.suite_planner import SuiteChecker
from rollouts.llm.role import NoAnswer, Role
from rollouts.llm.usage import Usage
from rollouts.stuck import move
from rollouts.suites import Suite

HELD = "exit was held back once, since this is not done: "


class Planner:
    """Makes the plans of all episodes of a process. Opened with `async with`."""

    def __init__(self, config: PlannerConfig, suite: Suite):
        """Raises ConfigError if the file of subgoals cannot be read."""
        self.config, self._suite = config, suite
        self.role = Role(config.model, "planner.model") if config.kind == "model" else None
        self._given = read_subgoals(config.subgoals) if config.subgoals else None
        self.mark = ""
        """Identifies planner and settings in the records, once open."""

    async def __aenter__(self) -> "Planner":
        """Raises UserError if the model cannot be reached."""
        if self.role is not None:
            await self.role.__aenter__()
        if self.config.kind != "none":
            model = self.role.endpoint.model if self.role else ""
            self.mark = mark(self.config, model, sorted((self._given or {}).items()))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.role is not None:
            await self.role.__aexit__()

    def check_tasks(self, tasks: Sequence[Task]) -> None:
        """Raises ConfigError if the file of subgoals lacks a task."""
        missing = [task.id for task in tasks if self._given is not None and task.id not in self._given]
        if missing:
            some = ", ".join(missing[:3])
            raise ConfigError("planner.subgoals", f"{self.config.subgoals} lacks {len(missing)} of {len(tasks)} tasks: {some}; add them")

    def planning(self, task: Task, key: str) -> "Planning":
        """The plan of one episode. `key`: that of the episode."""
        return Planning(self.config, self._checker(task), task, key)

    def _checker(self, task: Task) -> Checker | None:
        if self.role is not None:
            return ModelChecker(self.role, self.config, self._given[task.id] if self._given is not None else None)
        if self.config.kind == "joint":
            return JointChecker(self.config.max_replans)
        return SuiteChecker(self._suite) if self.config.kind == "checklist" else None


@dataclasses.dataclass(frozen=True)
class Spent:
    tokens: TokenCounts = dataclasses.field(default_factory=TokenCounts)
    seconds: float = 0.0


class Planning:
    """The plan of one episode. Without a checker there is none, and nothing is held back.

    A planner that gives no valid answer leaves the plan as it is, which the plan says. An unreachable one raises EndpointError.
    """

    def __init__(self, config: PlannerConfig, checker: Checker | None, task: Task, key: str):
        self._config, self._checker, self._task, self._key = config, checker, task, key
        self.plan: Plan | None = None if checker is None else Plan()
        """What the next prompt shows."""
        self._used, self._seconds = Usage(), 0.0
        self._held = False
        self._replans, self._questions = 0, 0
        self._since = 0
        """Number of steps when the plan was made."""
        self._progress, self._most_done = 0, 0
        """Number of steps when more subgoals were done than before, and how many were done then."""

    async def begin(self, situation: Situation) -> None:
        """Makes the first plan. Raises EndpointError, UserError."""
        if self._checker is not None:
            await self._timed(self._checker.write(self._posed(situation), self._used))

    async def after(self, situation: Situation) -> None:
        """Checks the plan after a step, and makes another one after a stall or a deviation. Raises EndpointError, UserError."""
        if self._checker is not None:
            await self._timed(self._next(self._checker, situation))

    async def refusal(self, situation: Situation) -> str:
        """Why the end that the last step claims is held back, "" if it is accepted. Raises EndpointError, UserError."""
        if self._held or not self._config.hold_exits:
            return ""
        await self.after(situation)
        if self.plan is None or self.plan.current is None:
            return ""
        self._held = True
        return HELD + self.plan.subgoals[self.plan.current]

    def take_spent(self) -> Spent:
        """What the planner used since the last call of this."""
        tokens = TokenCounts(prompt=self._used.prompt_tokens, response=self._used.response_tokens)
        spent = Spent(tokens, self._seconds)
        self._used, self._seconds = Usage(), 0.0
        return spent

    async def _timed(self, making: Awaitable[Plan]) -> None:
        began = time.perf_counter()
        try:
            self.plan = await making
        except NoAnswer:
            self.plan = msgspec.structs.replace(self.plan or Plan(), unanswered=True)
        finally:
            self._seconds += time.perf_counter() - began

    async def _next(self, checker: Checker, situation: Situation) -> Plan:
        """Raises NoAnswer."""
        progress = await checker.check(self._posed(situation), self._used)
        plan, count = progress.plan, len(situation.steps)
        if sum(plan.done) > self._most_done:
            self._most_done, self._progress = sum(plan.done), count
        wanted = progress.astray or self._stalled(situation.steps)
        if not wanted or plan.current is None or situation.ending or self._replans >= self._config.max_replans:
            return plan
        # Kept if there is no answer about another plan.
        self.plan = plan
        self._replans += 1
        self._since = self._progress = count
        return await checker.write(self._posed(situation), self._used)

    def _posed(self, situation: Situation) -> Situation:
        """Each question of an episode has its own seed."""
        self._questions += 1
        return dataclasses.replace(situation, plan=self.plan or Plan(), seed=step_seed(f"{self._key}|planner", self._questions))

    def _stalled(self, steps: Sequence[Step]) -> bool:
        if len(steps) - self._progress >= self._config.stall_after:
            return True
        recent = steps[self._since :][-2:]
        return len(recent) == 2 and move(recent[0]) == move(recent[1]) and recent[0].page.observation == recent[1].page.observation
