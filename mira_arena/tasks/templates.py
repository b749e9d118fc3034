"""Task templates and their instances: what is asked, how it is judged, and how the expert does it."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from mira_arena.sites.registry import SITES, application, placeholder
from mira_arena.tasks.habits import LISTS
from mira_arena.tasks.milestones import Milestone
from mira_arena.tasks.moves import Move
from mira_jax.trajectories.records import Task
from mira_jax.trajectories.tasks import FIRST_SEED, PAGES

SUITE = "arena"
MAX_HORIZON = 60

_SEEDS_PER_INSTANCE = 64
_DRAWS_PER_SEED = 32
_SPLIT_OF_TENTH = ("test", "test", "validation", *["train"] * 7)


@dataclasses.dataclass(frozen=True)
class Draft:
    """What a template draws for one instance."""

    values: dict[str, Any]
    """Fills the intent."""
    evaluation: dict[str, Any]
    """WebArena's `eval` object."""
    milestones: tuple[Milestone, ...]
    """3 to 6 (up to 8 of a long task), in the order in which the expert reaches them."""
    moves: tuple[Move, ...]
    """What the expert does."""
    setup: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Application to what sets its state apart when the episode begins."""
    intent: str = ""
    """In place of the template's, if an instance needs another wording."""


@dataclasses.dataclass(frozen=True)
class Template:
    name: str
    sites: tuple[str, ...]
    """Each opens in a tab of its own, the first in front."""
    intent: str
    """With `{{value}}` where an instance has a value."""
    draw: Callable[..., Draft | None]
    """An instance, from a source of chance and the content of each application; None if this draw came to nothing."""
    held_out: bool = False
    """Has instances in the test split alone."""

    @property
    def applications(self) -> tuple[str, ...]:
        """The applications of its sites, each once, in the order of the sites."""
        return tuple(dict.fromkeys(SITES[site] for site in self.sites))

    def task_id(self, split: str, number: int) -> str:
        return f"{self.applications[0]}.{self.name}.{split}.{number}"

    def contents(self, seed: int) -> list[Any]:
        """The content of each application on that seed."""
        return [application(name).make_content(seed) for name in self.applications]


@dataclasses.dataclass(frozen=True)
class Instance:
    task: Task
    draft: Draft
    number: int
    template: Template

    def lists(self) -> dict[str, Callable[[str], bool]]:
        """Each habit of opening the first item of a list: whether a link's name is that of an item."""
        found: dict[str, list[Callable[[str], bool]]] = {}
        for name, content in zip(self.template.applications, self.template.contents(self.task.seed), strict=True):
            for habit, is_item in LISTS[name].items():
                found.setdefault(habit, []).append(functools.partial(is_item, content))
        return {habit: lambda name, tests=tuple(tests): any(test(name) for test in tests) for habit, tests in found.items()}


def make_instance(template: Template, split: str, number: int) -> Instance:
    """The instance of that number in a split, always the same.

    Its seed is in the split's own range. Draws whose (template, values) hash to another split are passed over,
    so no two splits share an instance, even of a template with few values.
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
    """A draw of the template on the sites of exactly that seed, always the same, in no split; None if they have none to offer."""
    random, contents = Random(f"{template.name} example {seed}"), template.contents(seed)
    drawn = (template.draw(random, *contents) for _ in range(_SEEDS_PER_INSTANCE * _DRAWS_PER_SEED))
    return next(filter(None, drawn), None)


def intent(template: Template, draft: Draft) -> str:
    """What is asked, with the values of the draft in it."""
    text = draft.intent or template.intent
    for key, value in draft.values.items():
        text = text.replace("{{" + key + "}}", str(value))
    return text


def split_of(template: str, values: dict[str, Any]) -> str:
    """The split that an instance with these values belongs to: 2 in 10 to test, 1 in 10 to validation."""
    digest = hashlib.sha256(json.dumps([template, values], sort_keys=True).encode()).digest()
    return _SPLIT_OF_TENTH[int.from_bytes(digest[:4], "big") % 10]


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
