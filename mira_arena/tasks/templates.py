"""Task templates and their instances: intent, evaluation, and the expert's moves."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from mira_arena.sites.registry import SITES, application, placeholder
from mira_arena.tasks.habits import LISTS
from mira_arena.tasks.milestones import Milestone
from mira_arena.tasks.moves import Move
from mira_jax.trajectories.records import Task
from mira_jax.trajectories.tasks import FIRST_SEED, PAGES, split_by_hash

SUITE = "arena"
MAX_HORIZON = 60

_SEEDS_PER_INSTANCE = 64
_DRAWS_PER_SEED = 32


@dataclasses.dataclass(frozen=True)
class Draft:
    """The values that a template draws for one instance."""

    values: dict[str, Any]
    """Values for the placeholders of the intent."""
    evaluation: dict[str, Any]
    """WebArena's `eval` object."""
    milestones: tuple[Milestone, ...]
    """3 to 6 milestones (up to 10 for a long task), in the order in which the expert reaches them."""
    moves: tuple[Move, ...]
    """Moves of the expert."""
    setup: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Application to the setup of its state at the start of the episode."""
    intent: str = ""
    """Replaces the template's intent, if an instance needs another wording."""


@dataclasses.dataclass(frozen=True)
class Template:
    name: str
    sites: tuple[str, ...]
    """Each site opens in its own tab, the first in front."""
    intent: str
    """Text with `{{value}}` as placeholders for the values of an instance."""
    draw: Callable[..., Draft | None]
    """Draws an instance from a random generator and the content of each application. None if the draw is not usable."""
    held_out: bool = False
    """Whether the template has instances only in the test split."""

    @property
    def applications(self) -> tuple[str, ...]:
        """Distinct applications of its sites, in the order of the sites."""
        return tuple(dict.fromkeys(SITES[site] for site in self.sites))

    def task_id(self, split: str, number: int) -> str:
        return f"{self.applications[0]}.{self.name}.{split}.{number}"

    def contents(self, seed: int) -> list[Any]:
        """Content of each application for that seed."""
        return [application(name).make_content(seed) for name in self.applications]


@dataclasses.dataclass(frozen=True)
class Instance:
    task: Task
    draft: Draft
    number: int
    template: Template

    def lists(self) -> dict[str, Callable[[str], bool]]:
        """Habits of taking the first item of a list, each with a test whether an element's name is an item."""
        found: dict[str, list[Callable[[str], bool]]] = {}
        for name, content in zip(self.template.applications, self.template.contents(self.task.seed), strict=True):
            for habit, is_item in LISTS[name].items():
                found.setdefault(habit, []).append(functools.partial(is_item, content))
        return {habit: lambda name, tests=tuple(tests): any(test(name) for test in tests) for habit, tests in found.items()}


def make_instance(template: Template, split: str, number: int) -> Instance:
    """Returns the instance with that number in a split. Deterministic.

    Its seed is in the split's own range. Draws whose (template, values) hash to another split are skipped,
    so no two splits share an instance, even for a template with few values.
    """
    identity = template.task_id(split, number)
    random = Random(f"{template.name} {split} {number}")
    for shift in range(_SEEDS_PER_INSTANCE):
        seed = FIRST_SEED[split] + number * _SEEDS_PER_INSTANCE + shift
        contents = template.contents(seed)
        for _ in range(_DRAWS_PER_SEED):
            draft = template.draw(random, *contents)
            if draft and (template.held_out or split_of(template.name, draft.values) == split):
                return _instance(identity, template, split, number, seed, draft)
    raise RuntimeError(f"{identity}: no draw of the template belongs to the split")


def example(template: Template, seed: int) -> Draft | None:
    """A draw of the template on the sites of exactly that seed. Deterministic, and in no split. None if the sites allow none."""
    random, contents = Random(f"{template.name} example {seed}"), template.contents(seed)
    drawn = (template.draw(random, *contents) for _ in range(_SEEDS_PER_INSTANCE * _DRAWS_PER_SEED))
    return next(filter(None, drawn), None)


def intent(template: Template, draft: Draft) -> str:
    """The intent with the values of the draft inserted."""
    text = draft.intent or template.intent
    for key, value in draft.values.items():
        text = text.replace("{{" + key + "}}", str(value))
    return text


def split_of(template: str, values: dict[str, Any]) -> str:
    """The split of instances with these values: 2 in 10 belong to test, 1 in 10 to validation."""
    return split_by_hash(json.dumps([template, values], sort_keys=True).encode())


def _instance(identity: str, template: Template, split: str, number: int, seed: int, draft: Draft) -> Instance:
    task = Task(
        id=identity,
        suite=SUITE,
        sites=template.sites,
        template=template.name,
        split=split,
        seed=seed,
        intent=intent(template, draft),
        start_url=PAGES.join(f"{placeholder(site)}/" for site in template.sites),
        horizon=min(MAX_HORIZON, len(draft.moves) * 3 // 2 + 4),
    )
    return Instance(task, draft, number, template)
