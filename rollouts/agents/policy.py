"""Policies, which write the response at each step: a model behind an endpoint, or one of three scripts."""

from rollouts.agents.base import AgentFactory, PolicyConfig
from rollouts.agents.chat import ChatPolicy
from rollouts.agents.completion import EndpointPolicy
from rollouts.agents.scripts import ScriptPolicy
from rollouts.suites import Suite


def make_policy(config: PolicyConfig, suite: Suite) -> AgentFactory:
    """Returns the policy that the config describes. Raises UserError."""
    if config.kind == "endpoint":
        return EndpointPolicy(config)
    if config.kind == "chat":
        return ChatPolicy(config)
    return ScriptPolicy(config, suite)
