"""Interfaces between a suite and the rollout engine: tasks, one isolated session per episode, and evaluation."""

import contextlib
import difflib
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec
from playwright.async_api import BrowserContext
from playwright.async_api import Page as BrowserPage

from mira_jax.errors import UserError
from mira_jax.needs import Needs
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Evidence, Outcome, Page, PlanGrade, Subgoal, Task, Trajectory
from mira_jax.trajectories.tasks import SPLITS
from rollouts.llm.usage import Usage
from rollouts.web.asgi.sites import Sites

_INSTANCES_PER_SEED = 10_000
_MAX_SEED = 10**8


class ScriptedPolicy(Protocol):
    """A rule-based policy for one episode, which writes the same action grammar as models."""

    def respond(self, task: Task, rounds: Sequence[Round], observation: str) -> str:
        """Returns the response to the current page. `rounds` are the responses so far, each with its error, if any."""
        ...


class Session(Protocol):
    """The sites of one episode, isolated from all other episodes and discarded when it ends."""

    task: Task
    """The episode's task. If only the page states the instruction, the intent is filled in here."""
    addresses: Mapping[str, str]
    """Placeholder to address: `{"__SHOP__": "http://127.0.0.1:40123"}`."""
    hosts: frozenset[str]
    """`host:port` of every server that the browser may reach."""

    async def state(self) -> dict[str, Any]:
        """Returns a small JSON snapshot of the sites' state for `Step.state`, without changing the state."""
        ...

    async def evidence(self, page: Page | None, answer: str | None, front: BrowserPage | None = None) -> Evidence:
        """Collects the evidence for the outcome at the end of the episode.

        Args:
            page: the last page, as recorded.
            answer: message of exit().
            front: the last page in the browser, if it is still open.
        """
        ...

    async def close(self) -> None:
        """Discards the episode's state. May be called twice."""
        ...


class Suite(Protocol):
    """A set of tasks, and their sites.

    `judge`, `milestones`, `tasks` and `task` are pure functions that need no running site.
    """

    Options: ClassVar[type]
    """Dataclass of the suite's options: the keys of `suite.options`, which the constructor takes as keyword arguments."""
    name: str
    hosts: frozenset[str]
    """`host:port` of every server that any session may reach, available after `start`. Empty if each session has its own."""

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        """Returns `count` tasks, spread evenly over the templates (all if None). Deterministic in the arguments.

        Raises:
            UserError: an unknown split or template.
        """
        ...

    def task(self, task_id: str) -> Task:
        """Returns the task with that id. Raises UserError if it does not exist."""
        ...

    async def reset(self) -> None:
        """Resets sites that are shared by the processes of a run to their initial state. Called once per run, before the first episode."""
        ...

    async def start(self) -> None:
        """Prepares the sites. Called once per process."""
        ...

    async def stop(self) -> None: ...

    async def open(self, task: Task, context: BrowserContext) -> Session:
        """Resets the sites for one episode and connects `context` to them."""
        ...

    def judge(self, trajectory: Trajectory) -> Outcome | None:
        """Decides the outcome by the task's rules, from the trajectory's evidence. None if a judge model is needed and gave no verdict, and
        for tasks without rules (`PartlyJudged`)."""
        ...

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        """Returns the task's subgoals in order, and for each step whether each subgoal is reached by the end of that step."""
        ...

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> ScriptedPolicy:
        """Returns a policy that solves the task, except where a bad habit prevents it.

        `habits` maps each habit to its probability. Habits are drawn once per episode, from (task, seed, attempt).

        Raises:
            UserError: an unknown habit, or a probability outside [0, 1].
        """
        ...


NewContext = Callable[[contextlib.AsyncExitStack, Collection[str]], Awaitable[BrowserContext]]
"""Opens a browser context that can reach the given `host:port`, and is closed with the stack. Raises UserError."""


@runtime_checkable
class CheckedSuite(Protocol):
    """Optional for a suite that depends on ports, sites, accounts or a judge model: adds them to the checks of `mira preflight`."""

    def needs(self, found: Needs, new_context: NewContext | None) -> None:
        """Adds checks, and one question for each service. `new_context` is None if episodes are only labelled, without their sites."""


@runtime_checkable
class AsksModels(Protocol):
    """Optional for a suite whose `judge` asks chat models. `judge` may then be called by several threads at once."""

    @property
    def usage(self) -> Mapping[str, Usage]:
        """What was used so far, by the path of the model's config. Empty if none is configured."""
        ...


@runtime_checkable
class OneAtATime(Protocol):
    """Optional for a suite whose episodes can't run at the same time."""

    one_at_a_time: str
    """The option that demands it. Empty: episodes may run at the same time."""


@runtime_checkable
class PartlyJudged(Protocol):
    """Optional for a suite that has tasks whose outcome no rule decides. `judge` returns None for their episodes."""

    def has_rules(self, task: Task) -> bool: ...


@runtime_checkable
class InProcess(Protocol):
    """What a suite has in addition if its applications run in the process of the engine: `browser.driver=asgi` can serve it.

    Its `open` calls nothing of `context` but `add_cookies`.
    """

    def in_process_sites(self) -> Sites:
        """Returns the applications, and the counterparts of their scripts. Available after `start`."""
        ...


@runtime_checkable
class Referenced(Protocol):
    """Optional for a suite whose tasks have reference answers, which nothing that is written about a task may reveal."""

    def references(self, task: Task) -> list[str]:
        """The texts of the task's reference answer. Empty without one."""
        ...


@runtime_checkable
class Planned(Protocol):
    """Optional for a suite that knows the right plan of each task. The plan of an episode is its first response."""

    plan_rules: str
    """Name and version of the rules of `grade_plan`, which are recorded with its grades."""

    def grade_plan(self, trajectory: Trajectory) -> PlanGrade:
        """Grades the plan by rules, only from the task and the text and action of the first step. The episode has a step."""
        ...

    def forced_response(self, task: Task, observation: str, right: bool, attempt: int = 0) -> str:
        """Returns a first response with the right plan of the task, or with a plausible wrong one. Deterministic in the arguments."""
        ...


def take_turns(known: Sequence[str], names: Sequence[str] | None, split: str, count: int, seed: int) -> list[tuple[str, int]]:
    """Draws `count` pairs of a template and an instance number, cycling through the templates.

    Args:
        known: all templates of the suite.
        names: the templates to use. None: all.
        seed: each seed draws other numbers.

    Raises:
        UserError: an unknown split or template, or more instances than a seed provides.
    """
    if split not in SPLITS:
        raise UserError(f"split: {split!r} is none of {', '.join(SPLITS)}")
    names = list(names) if names else list(known)
    for name in names:
        if name not in known:
            near = ", ".join(difflib.get_close_matches(str(name), known, n=20, cutoff=0.0))
            raise UserError(f"templates: {name!r} is none of the {len(known)} there are; the nearest are {near}")
    if not 0 <= seed < _MAX_SEED:
        raise UserError(f"seed: {seed} is not from 0 to {_MAX_SEED - 1}")
    if count > len(names) * _INSTANCES_PER_SEED:
        raise UserError(f"episodes: {count} is more than {_INSTANCES_PER_SEED} of each template; ask with another seed for more")
    return [(names[i % len(names)], seed * _INSTANCES_PER_SEED + i // len(names)) for i in range(count)]


def choose(pool: Sequence[Task], known: Collection[str], templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
    """Returns `count` of a fixed list of tasks, in its order if these are all of the templates, else by `spread`.

    Args:
        known: all templates.
        templates: the templates to use. None or empty: all.

    Raises:
        UserError: an unknown template, or too many tasks.
    """
    for template in templates or ():
        if template not in known:
            raise UserError(f"templates: {template!r} is none of {', '.join(known)}")
    found = [task for task in pool if not templates or task.template in templates]
    if count > len(found):
        raise UserError(f"episodes: {count} tasks are wanted, and there are {len(found)}; lower it, or raise attempts")
    return found if count == len(found) else spread(found, count, seed)


def spread(pool: Sequence[Task], count: int, seed: int) -> list[Task]:
    """Selects `count` of the tasks, as evenly over their templates as possible."""
    draw = random.Random(seed)
    groups: dict[str, list[Task]] = {}
    for task in pool:
        groups.setdefault(task.template, []).append(task)
    for group in groups.values():
        draw.shuffle(group)
    longest = max(map(len, groups.values()))
    return [group[i] for i in range(longest) for group in groups.values() if i < len(group)][:count]


def refuse_changed(now: Task, then: Task) -> None:
    """Raises UserError if a task is another than when its episode was collected. Its rules may have changed too."""
    if now != then:
        before, after = msgspec.structs.asdict(then), msgspec.structs.asdict(now)
        changed = ", ".join(key for key in after if after[key] != before[key])
        raise UserError(f"{now.id}: the task has changed since this episode was collected ({changed}); give the new one another id")


def to_address(url: str, addresses: Mapping[str, str]) -> str:
    """Returns the URL to open: its leading placeholder is replaced by the site's address."""
    for placeholder, address in addresses.items():
        if url == placeholder or url.startswith(placeholder + "/") or url.startswith(placeholder + "?"):
            return address + url[len(placeholder) :]
    return url


def to_placeholder(url: str, addresses: Mapping[str, str]) -> str:
    """Returns the URL to record: the site's address is replaced by its placeholder. The longest matching address is used."""
    for placeholder, address in sorted(addresses.items(), key=lambda pair: -len(pair[1])):
        rest = url[len(address) :]
        if url.startswith(address) and (not rest or rest[0] in "/?#"):
            return placeholder + rest
    return url
