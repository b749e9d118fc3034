"""Policies, which write the response at each step: a model behind an endpoint, or one of three scripts."""

import contextlib
from collections.abc import AsyncIterator

import msgspec

from rollouts.agents.base import AgentFactory, PolicyConfig
from rollouts.agents.chat import ChatPolicy
from rollouts.agents.completion import EndpointPolicy
from rollouts.agents.forced import ForcedPlanPolicy
from rollouts.agents.planner import Planner
from rollouts.agents.plans import PlannerConfig
from rollouts.agents.scripts import ScriptPolicy
from rollouts.suites import Suite


def make_policy(config: PolicyConfig, suite: Suite, planner: PlannerConfig | None = None) -> AgentFactory:
    """Returns the policy that the config describes. With a planner of kind joint it writes checklists. Raises UserError."""
    policy = _own_policy(config, suite, planner)
    return policy if config.forced_plan == "none" else ForcedPlanPolicy(policy, suite, config.forced_plan)


def _own_policy(config: PolicyConfig, suite: Suite, planner: PlannerConfig | None) -> AgentFactory:
    if config.kind == "endpoint":
        return EndpointPolicy(config)
    if config.kind == "chat":
        return ChatPolicy(config, planner.count if planner and planner.kind == "joint" else 0)
    return ScriptPolicy(config, suite)


@contextlib.asynccontextmanager
async def opened(policy: AgentFactory, planner: Planner) -> AsyncIterator[None]:
    """Opens both. The policy's record then names the planner. Raises UserError."""
    async with policy, planner:
        policy.record = msgspec.structs.replace(policy.record, planner=planner.mark)
        yield
