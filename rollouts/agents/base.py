"""The config of policies, and the protocol that they implement."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from msgspec import Meta

from mira_jax.config import Count, Fraction, Natural, NonNegative
from mira_jax.errors import ConfigError
from mira_jax.trajectories import records
from mira_jax.trajectories.prompts import PromptConfig, Round, refuse_subgoals
from mira_jax.trajectories.records import Plan, Task, TokenCounts
from rollouts.llm.endpoint import EndpointConfig
from rollouts.web.observation import Observation


@dataclasses.dataclass(frozen=True)
class ChatConfig:
    max_characters: Count = 100_000
    """Maximum characters of a prompt. The oldest rounds are left out first, then the page is cut."""
    images: bool = False
    """Also send the screenshot of the page. Needs a model that reads images, and `browser.screenshots`."""


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    kind: Literal["auto", "endpoint", "chat", "expert", "random", "idle"] = "auto"
    """endpoint: a model that is prompted with tokens, as in training. chat: any model behind a chat API, with instructions. expert: the
    suite's scripted policy. random: any valid action. idle: exits at the first step. auto: endpoint if a tokenizer is set, else
    expert."""
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
    chat: ChatConfig = dataclasses.field(default_factory=ChatConfig)
    """Prompts of kind chat, which has no `tokenizer` and no `prompt`."""
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    habits: dict[str, Fraction] = dataclasses.field(default_factory=dict)
    """expert: probability of each bad habit, drawn once per episode."""
    forced_plan: Literal["none", "right", "wrong"] = "none"
    """endpoint, chat: right and wrong let the suite write the first response, with a plan of that kind, to measure what plans cause
    (docs/plans.md). none: the policy writes all responses."""

    def __post_init__(self) -> None:
        if self.kind == "auto":
            object.__setattr__(self, "kind", "endpoint" if self.tokenizer else "expert")
        if self.kind == "endpoint" and not self.tokenizer:
            raise ConfigError("tokenizer", "prompts are sent as tokens; name the folder of the model that the endpoint serves")
        if self.kind == "chat" and self.tokenizer:
            raise ConfigError("tokenizer", "a chat policy sends text; leave it out, or set $.kind=endpoint")
        if self.kind == "chat" and self.top_k:
            raise ConfigError("top_k", "chat APIs have no top_k; set it in $.endpoint.body if this one does")
        if self.kind in ("endpoint", "chat") and "temperature" in self.endpoint.body and self.temperature != 1:
            raise ConfigError("temperature", "requests leave it out ($.endpoint.body), so the API's own is recorded: set it to 1")
        if self.forced_plan != "none" and self.kind not in ("endpoint", "chat"):
            raise ConfigError("forced_plan", f"a policy of kind {self.kind} reads no plan; set $.kind to endpoint or chat, or this to none")
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
    """This field and the three before it are those of `mira_jax.trajectories.records.Step`."""
    reasoning: str = ""
    """What the model thought before its response, kept apart from it."""
    checklist: Plan | str = ""
    """The checklist that a policy which plans for itself wrote before its response, or why there is none."""


class Agent(Protocol):
    """A policy within one episode."""

    async def respond(self, past: Sequence[Round], observation: Observation, plan: Plan | None = None) -> Reply:
        """Returns the response to the current page, given the rounds so far and the plan to show. Raises EndpointError."""
        ...


class AgentFactory(Protocol):
    """Opened once with `async with`; provides one agent per episode."""

    record: records.Policy

    async def __aenter__(self) -> "AgentFactory": ...

    async def __aexit__(self, *_: object) -> None: ...

    def agent(self, task: Task, attempt: int) -> Agent: ...


def step_seed(key: str, step: int) -> int:
    """Returns the sampling seed of one step, in [0, 2^31). It depends on nothing but the episode's key and the step."""
    return int.from_bytes(hashlib.sha256(f"{key}|{step}".encode()).digest()[:4], "big") >> 1
