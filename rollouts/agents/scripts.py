"""Scripted policies. They read no plan."""

import random
from collections.abc import Sequence

from mira_jax.trajectories import records
from mira_jax.trajectories.actions import EXIT, GO_BACKWARD, format_action
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Action, Plan, Task, episode_key
from rollouts.agents.base import Agent, PolicyConfig, Reply, step_seed
from rollouts.suites import Suite
from rollouts.suites.base import ScriptedPolicy
from rollouts.web.observation import Observation


class ScriptPolicy:
    """A scripted policy: the suite's expert, random actions, or an immediate exit."""

    def __init__(self, config: PolicyConfig, suite: Suite):
        self.config, self.suite = config, suite
        self.record = records.Policy(name=config.name or config.kind, checkpoint=config.checkpoint, seed=config.seed)

    async def __aenter__(self) -> "ScriptPolicy":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def agent(self, task: Task, attempt: int) -> Agent:
        if self.config.kind == "expert":
            return _Scripted(task, self.suite.expert(task, self.config.habits, seed=self.config.seed, attempt=attempt))
        if self.config.kind == "random":
            return _Random(task, episode_key(task, attempt, self.record))
        return _Idle()


class _Scripted:
    def __init__(self, task: Task, script: ScriptedPolicy):
        self.task, self.script = task, script

    async def respond(self, past: Sequence[Round], observation: Observation, plan: Plan | None = None) -> Reply:
        return Reply(self.script.respond(self.task, past, observation.text))


class _Idle:
    async def respond(self, past: Sequence[Round], observation: Observation, plan: Plan | None = None) -> Reply:
        return Reply(format_action(Action(name=EXIT, argument="")))


class _Random:
    """Chooses a random valid action on the current page: a lower bound for any useful policy."""

    def __init__(self, task: Task, key: str):
        self.words = task.intent.replace('"', " ").split() or ["a"]
        self.key = key

    async def respond(self, past: Sequence[Round], observation: Observation, plan: Plan | None = None) -> Reply:
        draw = random.Random(step_seed(self.key, len(past)))
        usable = [element for element in observation.elements if not element.disabled]
        if not usable or draw.random() < 0.05:
            return Reply(format_action(Action(name=GO_BACKWARD)))
        element = draw.choice(usable)
        if element.options:
            action = Action(name="Select Dropdown Option", argument=draw.choice(element.options), element=element.handle)
        elif element.editable:
            action = Action(name=draw.choice(("Type", "Search")), argument=draw.choice(self.words), element=element.handle)
        else:
            action = Action(name="Click", element=element.handle)
        return Reply(format_action(action))
