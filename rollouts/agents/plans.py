"""The config of planners, and the protocol of what a planner asks: which subgoals there are, and which of them are done."""

import dataclasses
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta

from mira_jax.config import Count, Natural, to_tree
from mira_jax.errors import ConfigError
from mira_jax.files import parse_json
from mira_jax.trajectories.records import Page, Plan, Step, Task
from rollouts.llm.role import RoleConfig
from rollouts.llm.usage import Usage
from rollouts.text import sanitize

MOST, LONGEST = 12, 200
"""Maximum number of subgoals of a plan, and of characters of one."""
Text = Annotated[str, Meta(min_length=1, max_length=LONGEST)]
Texts = Annotated[list[Text], Meta(min_length=1, max_length=MOST)]

ReadState = Callable[[], Awaitable[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class PlannerConfig:
    """What makes the plan that the policy is shown at each step (dynamic milestoning)."""

    kind: Literal["none", "checklist", "model", "joint"] = "none"
    """checklist: the suite's own milestones, checked by its own rules. It knows what no policy can know: an upper bound. model: a chat
    model of its own (`model`) writes subgoals and checks them after each step. joint: the policy, of kind chat, writes the checklist into
    each answer, before its action."""
    model: RoleConfig = dataclasses.field(default_factory=RoleConfig)
    """model: the chat model."""
    subgoals: str = ""
    """model: JSON file of subgoals, an object that maps the id of each task to a list of texts. Empty: the model writes them."""
    count: Annotated[int, Meta(ge=1, le=MOST)] = 4
    """model, joint: number of subgoals that are asked for, as in the paper."""
    stall_after: Count = 5
    """model, joint: number of steps without a newly done subgoal after which the plan is made again. The same action on the same page
    twice in a row counts as a stall too."""
    max_replans: Natural = 2
    """model, joint: maximum number of times that an episode's plan is made again, after a stall or a deviation."""
    hold_exits: bool = True
    """Holds the first exit of an episode back if the current subgoal is not done. The policy is shown why, and its next exit counts."""
    max_characters: Count = 20_000
    """model: maximum characters of the page, and of the actions so far, in a question."""

    def __post_init__(self) -> None:
        if self.subgoals and self.kind != "model":
            raise ConfigError("subgoals", f"kind {self.kind} reads no file of subgoals; leave it out, or set $.kind=model")


def identity(config: PlannerConfig) -> dict[str, Any]:
    """The settings that determine the plans. Addresses, keys, limits and caches are left out. Empty for kind none."""
    tree = to_tree(config)
    used = {"none": (), "checklist": ("kind", "hold_exits"), "joint": ("kind", "count", "stall_after", "max_replans", "hold_exits")}
    kept = {name: tree[name] for name in used.get(config.kind, tree)}
    if "model" in kept:
        endpoint = {name: tree["model"]["endpoint"][name] for name in ("model", "body")}
        kept["model"] = {name: tree["model"][name] for name in ("temperature", "max_tokens", "answer_format")} | {"endpoint": endpoint}
    return kept


def mark(config: PlannerConfig, model: str = "", subgoals: Sequence[object] = ()) -> str:
    """Identifies a planner in records: its kind, its model, and a hash of its settings.

    Args:
        subgoals: the subgoals of a file.
    """
    tree = identity(config) | {"subgoals": list(subgoals)}
    digest = hashlib.sha256(json.dumps([tree, model], sort_keys=True).encode()).hexdigest()[:8]
    return " ".join(filter(None, (config.kind, model, digest)))


@dataclasses.dataclass(frozen=True)
class Situation:
    """What a planner may look at."""

    task: Task
    plan: Plan
    steps: Sequence[Step]
    """Steps so far. The last one has no state yet."""
    page: Page
    """The page that is open now."""
    state: ReadState | None = None
    """Waits for the sites' state after the last step. For checks by the suite only."""
    answer: Plan | str = ""
    """joint: the checklist in the last answer, or why there is none."""
    seed: int = 0

    @property
    def ending(self) -> bool:
        """Whether the last action claims the end."""
        last = self.steps[-1].action if self.steps else None
        return last is not None and last.name == "exit"


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a check found."""

    plan: Plan
    astray: bool = False
    """Whether the policy has left the plan, so that another is needed."""


class Checker(Protocol):
    """Writes and checks the subgoals of one episode. In both methods, `used` is increased by what an answer takes."""

    async def write(self, situation: Situation, used: Usage) -> Plan:
        """The first plan; or, if there is one, that with other subgoals in place of the open ones. Raises NoAnswer, EndpointError."""
        ...

    async def check(self, situation: Situation, used: Usage) -> Progress:
        """Whether each subgoal is done after the last step, and which is next. Without subgoals, the first plan. Raises NoAnswer,
        EndpointError."""
        ...


def first_open(done: Sequence[bool]) -> int | None:
    return next((place for place, one in enumerate(done) if not one), None)


def new_plan(subgoals: Sequence[str], done: Sequence[bool] = ()) -> Plan:
    """A plan whose first subgoals are `done`, and whose current one is the first that is not."""
    flags = (*done, *[False] * (len(subgoals) - len(done)))
    return Plan(subgoals=tuple(subgoals), done=flags, current=first_open(flags))


def one_line_each(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts of subgoals, each as one line that can be stored. Raises ValueError if one is empty, or two are equal."""
    lines = tuple(" ".join(sanitize(text).split()) for text in texts)
    if not all(lines):
        raise ValueError("a subgoal is empty")
    if len(set(lines)) < len(lines):
        raise ValueError("two subgoals are equal")
    return lines


def read_subgoals(path: str) -> dict[str, tuple[str, ...]]:
    """Reads a file of subgoals. Raises ConfigError."""
    try:
        found = msgspec.convert(parse_json(Path(path).read_bytes()), dict[str, Texts])
        return {task: one_line_each(texts) for task, texts in found.items()}
    except (OSError, ValueError) as error:
        raise ConfigError("planner.subgoals", f"{path}: {error}; it maps the id of each task to a list of texts") from None
