"""A policy whose first response is given: the suite writes it with a right or a wrong plan, and the policy writes the rest."""

from collections.abc import Sequence

import msgspec

from mira_jax.errors import ConfigError
from mira_jax.trajectories import records
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Plan, Task
from rollouts.agents.base import Agent, AgentFactory, Reply
from rollouts.suites import Suite
from rollouts.suites.base import Planned
from rollouts.web.observation import Observation


class ForcedPlanPolicy:
    """Wraps a policy. The record names the kind of plan, so its episodes are others than the policy's own. The first step has no token ids
    and no log-probabilities, since the policy did not sample it. Later steps have the sampling seeds of the policy itself."""

    def __init__(self, policy: AgentFactory, suite: Suite, kind: str):
        """`kind`: right or wrong. Raises ConfigError if the suite knows no plans."""
        if not isinstance(suite, Planned):
            raise ConfigError("policy.forced_plan", f"the suite {suite.name} knows no plans; set it to none")
        self._policy, self._suite, self._kind = policy, suite, kind
        self.record = self._marked()

    def _marked(self) -> records.Policy:
        return msgspec.structs.replace(self._policy.record, forced_plan=self._kind)

    async def __aenter__(self) -> "ForcedPlanPolicy":
        await self._policy.__aenter__()
        self.record = self._marked()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._policy.__aexit__(*error)

    def agent(self, task: Task, attempt: int) -> Agent:
        # The record has got the mark of the planner since.
        self._policy.record = msgspec.structs.replace(self.record, forced_plan="")
        return _ForcedAgent(self._policy.agent(task, attempt), self._suite, task, self._kind == "right", attempt)


class _ForcedAgent:
    def __init__(self, agent: Agent, suite: Planned, task: Task, right: bool, attempt: int):
        self._agent, self._suite, self._task, self._right, self._attempt = agent, suite, task, right, attempt

    async def respond(self, past: Sequence[Round], observation: Observation, plan: Plan | None = None) -> Reply:
        if past:
            return await self._agent.respond(past, observation, plan)
        return Reply(self._suite.forced_response(self._task, observation.text, self._right, self._attempt))
