"""Tasks over several applications: what is found on one site is known on the other, and both are judged."""

import re

import pytest

from mira_arena.tasks import registry
from mira_arena.tasks.several import carrying, posting
from tests.suites.driving import play_over_http

TEMPLATES = [template.name for template in (*posting.TEMPLATES, *carrying.TEMPLATES)]
NOTE = "# Note: "
MISCHIEF = {
    "shop": lambda shop: shop.add_review(shop.products()[0]["name"], "1", "boo"),
    "forum": lambda forum: forum.subscribe(forum.communities()[0]["name"], not forum.communities()[0]["subscribed"]),
    "code": lambda code: code.save_profile("", "boo"),
    "atlas": lambda atlas: atlas.set_layer("cycling"),
}
"""Application to something that no task of these asks for."""


def test_some_are_long_and_all_cross_applications():
    steps = {name: len(registry.instance(registry.task_id(name, "test", 1)).draft.moves) for name in TEMPLATES}
    assert len(steps) >= 6
    assert sum(count >= 10 for count in steps.values()) >= 3
    assert max(steps.values()) >= 20
    assert all(len(registry.TEMPLATES[name].applications) == 2 for name in TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
async def test_what_is_typed_on_the_other_site_is_in_the_intent_or_noted_down(arena, name):
    checked = 0
    for task in arena.tasks("test", [name], 3, seed=11):
        episode = await play_over_http(arena, task, arena.expert(task))
        known, switched, noted = set(_words(task.intent)), False, []
        for step in episode.steps:
            noted += [line.removeprefix(NOTE) for line in step.response.splitlines() if line.startswith(NOTE)]
            known |= {word for note in noted for word in _words(note)}
            switched = switched or step.action.name == "Switch Tab"
            if switched and step.action.name in ("Type", "Search"):
                assert set(_words(step.action.argument)) <= known, (task.intent, noted, step.action.argument)
        assert (switched and noted) or episode.evidence.answer == "N/A"
        checked += switched
    assert checked


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s\",:;]+", text.replace(". ", " "))


@pytest.mark.parametrize("name", TEMPLATES)
async def test_anything_else_done_on_either_site_is_a_failure(arena, name):
    (task,) = arena.tasks("test", [name], 1, seed=12)
    for app in registry.TEMPLATES[name].applications:

        class Meddler:
            expert = arena.expert(task)

            def respond(self, task, rounds, observation, app=app):
                response = self.expert.respond(task, rounds, observation)
                if response.startswith("exit"):
                    (world,) = arena._visits.values()
                    MISCHIEF[app](world[app])
                return response

        assert not arena.judge(await play_over_http(arena, task, Meddler())).success, app


async def test_a_hurried_demonstrator_takes_what_is_listed_first_on_whichever_site(arena):
    """The shop's products, after the map; the forum's threads, after the encyclopedia."""
    for name, place, wanted in (("ship_to_nearest", "/product/", "product"), ("comment_birth_year", "/thread/", "title")):
        right = []
        for task in arena.tasks("train", [name], 5, seed=2):
            episode = await play_over_http(arena, task, arena.expert(task, {"takes_first_result": 1.0}))
            assert any(place in step.page.url for step in episode.steps), registry.instance(task.id).draft.values[wanted]
            right.append(arena.judge(episode).success)
        assert not all(right)
