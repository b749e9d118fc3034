"""What a suite of tasks offers to the rollout engine: tasks, one isolated session per episode, and judgement."""

import difflib
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from playwright.async_api import BrowserContext
from playwright.async_api import Page as BrowserPage

from mira_jax.errors import UserError
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Evidence, Outcome, Page, Subgoal, Task, Trajectory
from mira_jax.trajectories.tasks import SPLITS

_INSTANCES_PER_SEED = 10_000
_MAX_SEED = 10**8


class ScriptedPolicy(Protocol):
    """Acts by rule for one episode, in the grammar that models use."""

    def respond(self, task: Task, rounds: Sequence[Round], observation: str) -> str:
        """The response to the current page. `rounds` are the responses so far, with what was wrong with each."""
        ...


class Session(Protocol):
    """The sites as one episode sees them: apart from every other episode's, and gone when it ends."""

    task: Task
    """The task of the episode. Where only the page itself says what is asked, its intent is filled in here."""
    addresses: Mapping[str, str]
    """Placeholder to address: `{"__SHOP__": "http://127.0.0.1:40123"}`."""
    hosts: frozenset[str]
    """`host:port` of everything the browser may reach."""

    async def state(self) -> dict[str, Any]:
        """A small JSON snapshot of the sites' state, for `Step.state`. Changes nothing."""
        ...

    async def evidence(self, page: Page | None, answer: str | None, front: BrowserPage | None = None) -> Evidence:
        """Gathers what the outcome is judged on, at the end of the episode.

        Args:
            page: the last page, as recorded.
            answer: exit()'s message.
            front: the last page itself, while it stands.
        """
        ...

    async def close(self) -> None:
        """Forgets the episode's state. Safe to call twice."""
        ...


class Suite(Protocol):
    """A set of tasks and the sites they are about.

    `judge`, `milestones`, `tasks` and `task` are pure: they need no running site.
    """

    Options: ClassVar[type]
    """The dataclass of its options: the keys of `suite.options`, which the constructor takes by name."""
    name: str
    hosts: frozenset[str]
    """`host:port` of everything that any session may reach, once started; empty if each session has its own."""

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        """`count` tasks, the same for the same arguments, spread evenly over the templates (all of them if None).

        Raises:
            UserError: no such split or template.
        """
        ...

    def task(self, task_id: str) -> Task:
        """The task of that id. Raises UserError if there is none."""
        ...

    async def reset(self) -> None:
        """Puts sites that the processes of a run share into their first state, once per run, before its first episode."""
        ...

    async def start(self) -> None:
        """Makes the sites ready, once per process."""
        ...

    async def stop(self) -> None: ...

    async def open(self, task: Task, context: BrowserContext) -> Session:
        """Resets the sites for one episode and makes `context` part of it."""
        ...

    def judge(self, trajectory: Trajectory) -> Outcome | None:
        """The outcome by the task's own rules, from the trajectory's evidence. None if a model has to judge, and gave no verdict."""
        ...

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        """The task's subgoals in order, and for each step whether each has been reached by the end of that step."""
        ...

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> ScriptedPolicy:
        """A policy that solves the task, unless a bad habit is in its way.

        `habits` maps a habit's name to its probability; each is drawn once per episode, from (task, seed, attempt).

        Raises:
            UserError: no such habit, or a probability outside [0, 1].
        """
        ...


def take_turns(known: Sequence[str], names: Sequence[str] | None, split: str, count: int, seed: int) -> list[tuple[str, int]]:
    """`count` pairs of a template and the number of an instance of it, the templates taking turns.

    Args:
        known: every template of the suite.
        names: the wanted ones, all if None.
        seed: another one gives other numbers.

    Raises:
        UserError: no such split or template, or more instances than a seed has.
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


def spread(pool: Sequence[Task], count: int, seed: int) -> list[Task]:
    """So many of the tasks, as evenly over their templates as there are tasks."""
    draw = random.Random(seed)
    groups: dict[str, list[Task]] = {}
    for task in pool:
        groups.setdefault(task.template, []).append(task)
    for group in groups.values():
        draw.shuffle(group)
    longest = max(map(len, groups.values()))
    return [group[i] for i in range(longest) for group in groups.values() if i < len(group)][:count]


def to_address(url: str, addresses: Mapping[str, str]) -> str:
    """A URL to open: the placeholder at its head replaced by the site's address."""
    for placeholder, address in addresses.items():
        if url == placeholder or url.startswith(placeholder + "/") or url.startswith(placeholder + "?"):
            return address + url[len(placeholder) :]
    return url


def to_placeholder(url: str, addresses: Mapping[str, str]) -> str:
    """A URL to record: the site's address replaced by its placeholder. The longest matching address wins."""
    for placeholder, address in sorted(addresses.items(), key=lambda pair: -len(pair[1])):
        rest = url[len(address) :]
        if url.startswith(address) and (not rest or rest[0] in "/?#"):
            return placeholder + rest
    return url
