"""The arena's tasks: solvable, false when nothing is done, false when something is left out, apart between splits."""

import asyncio
import dataclasses

import pytest

from mira_arena.tasks import registry
from mira_arena.tasks.evaluations import evaluation, html_target
from mira_arena.tasks.habits import HABITS
from mira_jax.errors import UserError
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.tasks import SPLITS
from rollouts.errors import SiteError
from rollouts.suites import make_suite
from rollouts.suites.base import to_address, to_placeholder
from rollouts.web.browser import BrowserConfig, BrowserPool
from tests.suites.driving import idle, play, play_over_http

TEMPLATES = list(registry.TEMPLATES)


async def test_expert_solves_every_template_in_the_browser(arena):
    """With every milestone reached, and at least half of the templates taking 8 steps or more."""
    tasks = arena.tasks("test", None, len(TEMPLATES), seed=1)
    limit = asyncio.Semaphore(4)

    async with BrowserPool(BrowserConfig(draw=False)) as browser:

        async def solve(task):
            async with limit:
                return await play(arena, task, arena.expert(task), browser)

        episodes = await asyncio.gather(*map(solve, tasks))
    for episode in episodes:
        assert arena.judge(episode).success, (episode.task.id, arena.judge(episode).detail)
        assert all(arena.milestones(episode)[1][-1]), episode.task.id
        assert not any(step.error for step in episode.steps)
    assert len(TEMPLATES) >= 14
    assert sum(len(episode.steps) >= 8 for episode in episodes) * 2 >= len(TEMPLATES)


async def test_expert_reads_integer_handles(arena):
    tasks = arena.tasks("test", ["settle_cart", "change_address"], 2, seed=1)
    async with BrowserPool(BrowserConfig(draw=False)) as browser:
        for task in tasks:
            episode = await play(arena, task, arena.expert(task), browser, handles="integer")
            assert arena.judge(episode).success, task.id


@pytest.mark.parametrize("split", SPLITS)
async def test_expert_solves_many_instances(arena, split):
    for task in arena.tasks(split, None, (3 if split == "test" else 1) * len(TEMPLATES), seed=7):
        episode = await play_over_http(arena, task, arena.expert(task))
        assert episode.status is Status.FINISHED
        assert arena.judge(episode).success, (task.id, arena.judge(episode).detail)
        subgoals, table = arena.milestones(episode)
        # A tour has one milestone for each of its legs.
        most = 10 if task.sites == ("tours",) else 8 if len(episode.steps) >= 20 else 6
        assert 3 <= len(subgoals) <= most
        assert all(table[-1]), task.id
        assert not all(table[0]) or len(table) == 1


@pytest.mark.parametrize("split", SPLITS)
async def test_every_task_is_false_when_nothing_was_done(arena, split):
    for task in arena.tasks(split, None, 3 * len(TEMPLATES), seed=3):
        episode = await idle(arena, task)
        assert not arena.judge(episode).success, task.id
        assert not all(arena.milestones(episode)[1][-1]), task.id


async def test_no_move_of_the_expert_can_be_left_out(arena):
    """Each move that a habit can drop is one that the judge looks for."""
    for habit in HABITS:
        for task in arena.tasks("train", None, len(TEMPLATES), seed=5):
            drops = any(move.habit == habit for move in registry.instance(task.id).draft.moves)
            if not drops or habit.startswith("takes_first"):
                continue
            episode = await play_over_http(arena, task, arena.expert(task, {habit: 1.0}))
            assert not arena.judge(episode).success, (task.id, habit)
            assert not all(arena.milestones(episode)[1][-1]), (task.id, habit)


async def test_taking_the_first_result_buys_the_wrong_thing_unless_it_is_first(arena):
    succeeded = {}
    for task in arena.tasks("train", ["buy"], 30, seed=2):
        episode = await play_over_http(arena, task, arena.expert(task, {"takes_first_result": 1.0}))
        wanted = registry.instance(task.id).draft.values["product"]
        results = [line for line in episode.steps[1].page.observation.splitlines() if line.startswith("<a") and " " in line[7:]]
        first = next(line for line in results if "best rated" not in line) == f'<a id="{wanted}">'
        succeeded.setdefault(first, []).append(arena.judge(episode).success)
    assert all(succeeded[True])
    assert not any(succeeded[False])
    assert len(succeeded[False]) > len(succeeded[True])


async def test_a_demonstrator_answers_what_its_page_says_even_if_it_is_the_wrong_page(arena):
    right = []
    for task in arena.tasks("train", ["tell_total"], 12, seed=3):
        episode = await play_over_http(arena, task, arena.expert(task, {"takes_first_order": 1.0}))
        opened = episode.evidence.page.url.rsplit("/", 1)[1]
        assert f"total $\n{episode.evidence.answer}" in episode.evidence.page.observation
        assert arena.judge(episode).success == (f'"order {opened}"' in task.intent)
        right.append(arena.judge(episode).success)
    assert not all(right)


async def test_buying_more_than_was_asked_is_a_failure(arena):
    """The expert's whole episode, then once more in the same shop."""

    class Twice:
        def __init__(self, task):
            self.first, self.second = arena.expert(task), arena.expert(task)

        def respond(self, task, rounds, observation):
            response = self.first.respond(task, rounds, observation)
            return self.second.respond(task, rounds, observation) if response.startswith("exit") else response

    for task in arena.tasks("train", ["buy", "buy_option"], 4, seed=1):
        episode = await play_over_http(arena, task, Twice(task))
        assert len(episode.steps[-1].state["shop"]["orders"]) == 2
        assert not arena.judge(episode).success


async def test_an_impossible_task_wants_to_be_refused(arena):
    tasks = arena.tasks("train", ["buy_if_sold"], 30, seed=1)
    impossible = [task for task in tasks if arena.webarena_task(task.id)["eval"]["reference_answers"]]
    assert 8 <= len(impossible) <= 22
    task = impossible[0]
    assert arena.webarena_task(task.id)["eval"]["reference_answers"] == {"fuzzy_match": "N/A"}
    refused = await play_over_http(arena, task, arena.expert(task))
    assert (refused.evidence.answer, arena.judge(refused).success) == ("N/A", True)
    misled = await play_over_http(arena, task, arena.expert(task, {"takes_first_result": 1.0}))
    assert misled.steps[-1].state["shop"]["orders"]
    assert not arena.judge(misled).success


async def test_a_page_that_cannot_be_judged_is_a_failure_of_the_site(arena):
    session = arena.session(arena.tasks("test", ["buy"], 1, 0)[0])
    targets = [html_target("__SHOP__/nowhere", "#orders", "x")]
    session._draft = dataclasses.replace(session._draft, evaluation=evaluation(targets))
    with pytest.raises(SiteError, match="__SHOP__/nowhere answered HTTP 404"):
        await session.evidence(None, "done")
    await session.close()


async def test_a_shop_that_no_browser_came_to_is_forgotten(arena):
    class Gone:
        async def add_cookies(self, _):
            raise OSError("the browser is gone")

    before = len(arena._visits)
    with pytest.raises(OSError):
        await arena.open(arena.tasks("test", ["buy"], 1, 0)[0], Gone())
    assert len(arena._visits) == before


def test_splits_share_no_instance_and_no_seed():
    suite = make_suite("arena")
    seen, seeds = {}, {}
    for split in SPLITS:
        tasks = suite.tasks(split, None, 10 * len(TEMPLATES), seed=1)
        seen[split] = {(task.template, str(registry.instance(task.id).draft.values)) for task in tasks}
        seeds[split] = {task.seed for task in tasks}
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not seen[one] & seen[other]
        assert not seeds[one] & seeds[other]


def test_tasks_are_the_same_for_the_same_seed_and_others_for_another():
    first, again, other = (make_suite("arena").tasks("test", ["buy", "buy_two"], 10, seed) for seed in (1, 1, 2))
    assert first == again
    assert not {task.id for task in first} & {task.id for task in other}
    assert [task.template for task in first[:4]] == ["buy", "buy_two", "buy", "buy_two"]
    assert make_suite("arena").task(first[3].id) == first[3]


def test_webarena_json_has_the_keys_of_webarena():
    task = make_suite("arena").webarena_task("shop.buy_with_coupon.test.17")
    keys = (
        "sites task_id require_login storage_state start_url geolocation intent_template instantiation_dict intent require_reset eval "
        "intent_template_id"
    )
    assert list(task) == keys.split()
    filled = task["intent_template"]
    for key, value in task["instantiation_dict"].items():
        filled = filled.replace("{{" + key + "}}", str(value))
    assert filled == task["intent"]
    assert set(task["eval"]["eval_types"]) <= {"string_match", "url_match", "program_html"}


def test_a_demonstrator_draws_its_habits_once_from_seed_and_attempt():
    suite = make_suite("arena")
    tasks = suite.tasks("train", ["buy"], 300, seed=1)
    drawn = [suite.expert(task, {"stops_early": 0.3}, seed=4, attempt=2).habits for task in tasks]
    assert drawn == [suite.expert(task, {"stops_early": 0.3}, seed=4, attempt=2).habits for task in tasks]
    assert drawn != [suite.expert(task, {"stops_early": 0.3}, seed=4, attempt=3).habits for task in tasks]
    assert 60 <= sum(map(len, drawn)) <= 120


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda suite: suite.tasks("training", None, 1, 0), "split: 'training' is none of train, validation, test"),
        (lambda suite: suite.tasks("train", ["sell"], 1, 0), "templates: 'sell' is none of"),
        (lambda suite: suite.task("shop.buy.train.x"), "no task 'shop.buy.train.x'"),
        (lambda suite: suite.task("shop.buy.train.01"), "no task"),
        (lambda suite: suite.expert(suite.task("shop.buy.train.1"), {"forgets_all": 1}), "habits: 'forgets_all' is none of"),
        (lambda suite: suite.expert(suite.task("shop.buy.train.1"), {"stops_early": 1.5}), "no probability"),
        (lambda suite: make_suite("arena", seed=3), "unknown key suite.options.seed; did you mean suite.options.port"),
        (lambda suite: make_suite("bazaar"), "suite.name: 'bazaar' is none of arena"),
    ],
)
def test_what_is_unknown_is_named(call, message):
    with pytest.raises(UserError, match=message):
        call(make_suite("arena"))


async def test_a_port_in_use_is_named(arena):
    port = int(next(iter(arena.session(arena.tasks("test", ["buy"], 1, 0)[0]).hosts)).split(":")[1])
    with pytest.raises(UserError, match=f"port {port}: .*choose another"):
        await make_suite("arena", port=port).start()


def test_placeholders_and_addresses_turn_into_each_other():
    addresses = {"__SHOP__": "http://127.0.0.1:80", "__SHOP_ADMIN__": "http://127.0.0.1:80/admin"}
    for placeholder, address in (
        ("__SHOP__/", "http://127.0.0.1:80/"),
        ("__SHOP__/search?q=a", "http://127.0.0.1:80/search?q=a"),
        ("__SHOP_ADMIN__/orders", "http://127.0.0.1:80/admin/orders"),
        ("__SHOP_ADMIN__", "http://127.0.0.1:80/admin"),
        ("__SHOP__/administrator", "http://127.0.0.1:80/administrator"),
    ):
        assert to_address(placeholder, addresses) == address
        assert to_placeholder(address, addresses) == placeholder
    assert to_placeholder("http://127.0.0.1:8080/", addresses) == "http://127.0.0.1:8080/"


async def test_an_error_of_the_sites_database_is_a_site_error(arena):
    session = arena.session(arena.tasks("test", ["settle_cart"], 1, seed=1)[0])
    await session.state()
    session._world["shop"].close()
    with pytest.raises(SiteError, match="site: the arena's database: Cannot operate on a closed database"):
        await session.state()
    with pytest.raises(SiteError, match="the arena's database"):
        await session.evidence(None, None)
