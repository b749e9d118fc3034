"""Task templates and their instances: what is asked, how it is judged, what leads to it."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Task
from rollouts.suites.arena.apps import APP_OF, APPS, placeholder
from rollouts.suites.arena.milestones import Milestone
from rollouts.suites.arena.moves import Move
from rollouts.suites.base import FIRST_SEED, PAGES, SPLITS, take_turns

SUITE = "arena"
MAX_HORIZON = 60

_SEEDS_PER_INSTANCE = 64
_DRAWS_PER_SEED = 32
_TASK_ID = re.compile(r"(?P<app>[a-z]+)\.(?P<template>[a-z_]+)\.(?P<split>[a-z]+)\.(?P<number>0|[1-9][0-9]{0,11})")
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
    def apps(self) -> tuple[str, ...]:
        """The applications of its sites, each once, in the order of the sites."""
        return tuple(dict.fromkeys(APP_OF[site] for site in self.sites))


@dataclasses.dataclass(frozen=True)
class Instance:
    task: Task
    draft: Draft
    number: int
    template: Template

    def lists(self) -> dict[str, Callable[[str], bool]]:
        """The bad habit of opening the first of a list, to what tells a name of that list."""
        found: dict[str, list[Callable[[str], bool]]] = {}
        for app in map(APPS.__getitem__, self.template.apps):
            content = app.make_content(self.task.seed)
            for habit, names in app.lists.items():
                found.setdefault(habit, []).append(functools.partial(names, content))
        return {habit: lambda name, tests=tuple(tests): any(test(name) for test in tests) for habit, tests in found.items()}

    def webarena(self) -> dict[str, Any]:
        """The task in WebArena's JSON form."""
        return {
            "sites": list(self.task.sites),
            "task_id": self.task.id,
            "require_login": all(setup.get("signed_in", True) for setup in self.draft.setup.values()),
            "storage_state": None,
            "start_url": self.task.start_url,
            "geolocation": None,
            "intent_template": self.template.intent,
            "instantiation_dict": self.draft.values,
            "intent": self.task.intent,
            "require_reset": True,
            "eval": self.draft.evaluation,
            "intent_template_id": list(templates()).index(self.template.name),
        }


@functools.cache
def templates() -> dict[str, Template]:
    """Every template, by name."""
    from rollouts.suites.arena.atlas import crossing, reading, saving, travelling
    from rollouts.suites.arena.code import changing, finding, organising
    from rollouts.suites.arena.forum import browsing, moderating, writing
    from rollouts.suites.arena.several import carrying, posting
    from rollouts.suites.arena.shop import account, administration, buying, catalogue, reporting, service

    modules = (
        buying, account, administration, catalogue, service, reporting, browsing, writing, moderating, changing, finding, organising,
        saving, travelling, reading, crossing, posting, carrying,
    )  # fmt: skip
    made = [template for module in modules for template in module.TEMPLATES]
    return {template.name: template for template in made}


def task_id(template: str, split: str, number: int) -> str:
    return f"{templates()[template].apps[0]}.{template}.{split}.{number}"


def instances(split: str, names: Sequence[str] | None, count: int, seed: int) -> list[Instance]:
    """`count` instances, the templates taking turns. Raises UserError for an unknown split or template."""
    known = [template.name for template in templates().values() if split == "test" or not template.held_out]
    return [instance(task_id(name, split, number)) for name, number in take_turns(known, names, split, count, seed)]


@functools.lru_cache(maxsize=4096)
def instance(identity: str) -> Instance:
    """The instance of a task id, always the same. Raises UserError if there is none.

    Its seed is in a range of its split's own. Draws whose (template, values) hash to another split are passed over,
    so no two splits share an instance, even of the fewest values.
    """
    match = _TASK_ID.fullmatch(identity)
    template = templates().get(match["template"]) if match else None
    if not match or not template or match["app"] != template.apps[0] or match["split"] not in SPLITS:
        raise UserError(f"task: no task {identity!r} in the arena")
    if template.held_out and match["split"] != "test":
        raise UserError(f"task: {template.name} has instances in the test split alone")
    split, number = match["split"], int(match["number"])
    random = Random(f"{template.name} {split} {number}")
    for shift in range(_SEEDS_PER_INSTANCE):
        seed = FIRST_SEED[split] + number * _SEEDS_PER_INSTANCE + shift
        contents = [APPS[app].make_content(seed) for app in template.apps]
        for _ in range(_DRAWS_PER_SEED):
            draft = template.draw(random, *contents)
            if draft and (template.held_out or split_of(template.name, draft.values) == split):
                return _instance(identity, template, split, number, seed, draft)
    raise RuntimeError(f"{identity}: no draw of the template belongs to the split")


def example(template: Template, seed: int) -> Draft | None:
    """A draw of the template on the sites of exactly that seed, always the same, in no split; None if they have none to offer."""
    random, contents = Random(f"{template.name} example {seed}"), [APPS[app].make_content(seed) for app in template.apps]
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


# Evaluations. A task is judged on the whole of what it could have changed, so that whatever was done beside it counts as a failure.


def html_target(url: str, locator: str, text: str) -> dict[str, Any]:
    """A `program_html` target: that part of that page must read exactly `text`."""
    return {"url": url, "locator": locator, "required_contents": {"exact_match": text}}


def evaluation(targets: Sequence[dict[str, Any]], answers: dict[str, Any] | None = None, url: str | None = None) -> dict[str, Any]:
    """WebArena's `eval` object: the targets, and an answer or a last page if they are given."""
    kinds = ["string_match"] * (answers is not None) + ["url_match"] * (url is not None) + ["program_html"]
    return {
        "eval_types": kinds,
        "reference_answers": answers,
        "reference_url": url or "",
        "program_html": list(targets),
        "string_note": "",
        "url_note": "EXACT" if url else "",
    }
