"""Policies, which write the response at each step: a model behind an endpoint, or one of three scripts."""

import dataclasses
import hashlib
import random
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from msgspec import Meta

from mira_jax.config import Count, Fraction, Natural, NonNegative
from mira_jax.errors import ConfigError, UserError
from mira_jax.trajectories import records
from mira_jax.trajectories.prompts import PromptConfig, Round, prompt_hash, prompt_ids, refuse_subgoals, token_problem
from mira_jax.trajectories.records import Action, Task, TokenCounts, episode_key
from mira_jax.trajectories.tokenizer import Tokenizer
from rollouts.errors import EndpointError
from rollouts.llm.answers import Completion
from rollouts.llm.endpoint import Endpoint, EndpointConfig
from rollouts.suites import Suite
from rollouts.suites.base import ScriptedPolicy
from rollouts.web.actions import EXIT, GO_BACKWARD, format_action
from rollouts.web.observation import Observation


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    kind: Literal["auto", "endpoint", "expert", "random", "idle"] = "auto"
    """endpoint: a model. expert: the suite's scripted policy. random: any valid action. idle: exits at the first step.
    auto: endpoint if a tokenizer is set, else expert."""
    name: str = ""
    """Name of the policy in the records and the report. Empty: the model's name, or the kind."""
    checkpoint: str = ""
    """Identifies the weights in the records. Empty: the model's name."""
    temperature: NonNegative = 0.0
    """Sampling temperature. 0 takes the most likely token. For exploration use a higher value, such as 1.0."""
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Nucleus sampling: draws from the most likely tokens whose probabilities sum to this. 1: off."""
    top_k: Natural = 0
    """Draws from this number of most likely tokens. 0: off."""
    max_tokens: Count = 256
    """Maximum number of tokens in a response."""
    seed: int = 0
    """Sampling seed. A policy with another seed counts as another policy, and its episodes are collected separately."""
    tokenizer: str = ""
    """Path of a SentencePiece model, or of a run or checkpoint folder that contains one. Required for an endpoint policy."""
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    habits: dict[str, Fraction] = dataclasses.field(default_factory=dict)
    """expert: probability of each bad habit, drawn once per episode."""

    def __post_init__(self) -> None:
        if self.kind == "auto":
            object.__setattr__(self, "kind", "endpoint" if self.tokenizer else "expert")
        if self.kind == "endpoint" and not self.tokenizer:
            raise ConfigError("tokenizer", "prompts are sent as tokens; name the folder of the model that the endpoint serves")
        refuse_subgoals(self.prompt, "prompt")


@dataclasses.dataclass(frozen=True)
class Reply:
    text: str
    log_prob: float | None = None
    tokens: TokenCounts = dataclasses.field(default_factory=TokenCounts)
    cut: bool = False
    """Whether the response was cut at `max_tokens`."""
    prompt_hash: str = ""
    token_ids: tuple[int, ...] | None = None
    log_probs: tuple[float, ...] | None = None
    sampling_log_probs: tuple[float, ...] | None = None
    """This field and the next three are those of `mira_jax.trajectories.records.Step`."""


class Agent(Protocol):
    """A policy within one episode."""

    async def respond(self, past: Sequence[Round], observation: Observation) -> Reply:
        """Returns the response to the current page, given the rounds so far. Raises EndpointError."""
        ...


class AgentFactory(Protocol):
    """Opened once with `async with`; provides one agent per episode."""

    record: records.Policy

    async def __aenter__(self) -> "AgentFactory": ...

    async def __aexit__(self, *_: object) -> None: ...

    def agent(self, task: Task, attempt: int) -> Agent: ...


def make_policy(config: PolicyConfig, suite: Suite) -> AgentFactory:
    """Returns the policy that the config describes. Raises UserError."""
    if config.kind == "endpoint":
        return EndpointPolicy(config)
    return ScriptPolicy(config, suite)


def step_seed(key: str, step: int) -> int:
    """Returns the sampling seed of one step, in [0, 2^31). It depends on nothing but the episode's key and the step."""
    return int.from_bytes(hashlib.sha256(f"{key}|{step}".encode()).digest()[:4], "big") >> 1


class EndpointPolicy:
    """A model behind an endpoint, prompted in the format that it is trained on."""

    def __init__(self, config: PolicyConfig):
        self.config = config
        self.tokenizer = Tokenizer(config.tokenizer)
        self.endpoint = Endpoint(config.endpoint, "policy.endpoint")
        self.record = self._record()

    async def __aenter__(self) -> "EndpointPolicy":
        """Raises UserError if the endpoint can't be reached, or its model's context is too short for the prompts."""
        await self.endpoint.__aenter__()
        try:
            self._check_length()
        except BaseException:
            await self.endpoint.__aexit__()
            raise
        self.record = self._record()
        return self

    def _check_length(self) -> None:
        config, longest = self.config, self.endpoint.card.max_length
        needed = config.prompt.max_tokens + config.max_tokens
        if longest is not None and longest < needed:
            raise UserError(
                f"{config.endpoint.base_url}: {self.endpoint.model} takes {longest} tokens, but prompts of {config.prompt.max_tokens} "
                f"(policy.prompt.max_tokens) and responses of {config.max_tokens} (policy.max_tokens) take up to {needed}; serve it with "
                f"room for {needed} (mira_jax.serve: --set max_length={needed}; vLLM: --max-model-len {needed}), or lower one of the two"
            )

    async def __aexit__(self, *_: object) -> None:
        await self.endpoint.__aexit__()

    def agent(self, task: Task, attempt: int) -> Agent:
        return _EndpointAgent(self, task, episode_key(task, attempt, self.record))

    def _record(self) -> records.Policy:
        model = self.endpoint.model
        return records.Policy(
            name=self.config.name or model or "endpoint",
            checkpoint=self.config.checkpoint or model,
            fingerprint=self.endpoint.card.fingerprint,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            top_k=self.config.top_k,
            prompt_version=self.config.prompt.version,
            prompt_max_tokens=self.config.prompt.max_tokens,
            tokenizer=self.tokenizer.sha256,
            seed=self.config.seed,
        )


class _EndpointAgent:
    def __init__(self, policy: EndpointPolicy, task: Task, key: str):
        self.policy, self.task, self.key = policy, task, key

    async def respond(self, past: Sequence[Round], observation: Observation) -> Reply:
        config = self.policy.config
        prompt = prompt_ids(self.task.intent, past, observation.text, config.prompt, self.policy.tokenizer)
        completion = await self.policy.endpoint.complete(
            prompt,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            seed=step_seed(self.key, len(past)),
        )
        counts = TokenCounts(prompt=len(prompt), response=completion.tokens)
        reply = Reply(completion.text, completion.log_prob, counts, completion.cut, prompt_hash(prompt))
        if not self._drawn(completion, prompt):
            return reply
        drawn = {name: getattr(completion, name) for name in ("token_ids", "log_probs", "sampling_log_probs")}
        return dataclasses.replace(reply, **drawn)

    def _drawn(self, completion: Completion, prompt: Sequence[int]) -> bool:
        """Whether the answer contains the sampled tokens, including the end token.

        Raises:
            UserError: the model read a different prompt from the one sent.
            EndpointError: the tokens do not match the text.
        """
        tokenizer, address = self.policy.tokenizer, self.policy.config.endpoint.base_url
        if completion.prompt_token_ids not in (None, tuple(prompt)):
            read = len(completion.prompt_token_ids)
            raise UserError(f"{address}: the model read another prompt than was sent, of {read} tokens in place of {len(prompt)}")
        ids = completion.token_ids
        if ids is None or not (completion.cut or ids[-1] in (tokenizer.end_of_turn_id, tokenizer.eos_id)):
            return False
        if problem := token_problem(ids, completion.text, tokenizer):
            raise EndpointError(f"{address}: the tokens of a response {problem}; policy.tokenizer must name the served model's tokenizer")
        return True


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

    async def respond(self, past: Sequence[Round], observation: Observation) -> Reply:
        return Reply(self.script.respond(self.task, past, observation.text))


class _Idle:
    async def respond(self, past: Sequence[Round], observation: Observation) -> Reply:
        return Reply(format_action(Action(name=EXIT, argument="")))


class _Random:
    """Chooses a random valid action on the current page: a lower bound for any useful policy."""

    def __init__(self, task: Task, key: str):
        self.words = task.intent.replace('"', " ").split() or ["a"]
        self.key = key

    async def respond(self, past: Sequence[Round], observation: Observation) -> Reply:
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
