"""Registry of all templates by name, and of all tasks by id."""

import functools
import re
from typing import Any

from mira_arena.tasks import atlas, code, forum, several, shop, shop_admin, tours
from mira_arena.tasks.templates import Instance, Template, make_instance
from mira_jax.errors import UserError
from mira_jax.trajectories.tasks import SPLITS

TEMPLATES: dict[str, Template] = {
    template.name: template for package in (shop, shop_admin, forum, code, atlas, tours, several) for template in package.TEMPLATES
}
"""Templates by name. The position of a template is its `intent_template_id`."""

_TASK_ID = re.compile(r"(?P<application>[a-z]+)\.(?P<template>[a-z][a-z0-9_]*)\.(?P<split>[a-z]+)\.(?P<number>0|[1-9][0-9]{0,11})")


def task_id(template: str, split: str, number: int) -> str:
    return TEMPLATES[template].task_id(split, number)


@functools.lru_cache(maxsize=4096)
def instance(identity: str) -> Instance:
    """Returns the instance of a task id. Deterministic. Raises UserError if it does not exist."""
    match = _TASK_ID.fullmatch(identity)
    template = TEMPLATES.get(match["template"]) if match else None
    if not match or not template or match["application"] != template.applications[0] or match["split"] not in SPLITS:
        raise UserError(f"task: no task {identity!r} in the arena")
    if template.held_out and match["split"] != "test":
        raise UserError(f"task: {template.name} has instances only in the test split")
    return make_instance(template, match["split"], int(match["number"]))


def webarena_task(made: Instance) -> dict[str, Any]:
    """Returns the task in WebArena's JSON form."""
    return {
        "sites": list(made.task.sites),
        "task_id": made.task.id,
        "require_login": all(setup.get("signed_in", True) for setup in made.draft.setup.values()),
        "storage_state": None,
        "start_url": made.task.start_url,
        "geolocation": None,
        "intent_template": made.template.intent,
        "instantiation_dict": made.draft.values,
        "intent": made.task.intent,
        "require_reset": True,
        "eval": made.draft.evaluation,
        "intent_template_id": list(TEMPLATES).index(made.template.name),
    }
