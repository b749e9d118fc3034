"""The suite seeking: the expert solves it by what it reads, nothing else does, and both drivers see the same pages."""

import collections

import msgspec
import pytest
import pytest_asyncio

from mira_arena.seeking.questions import TEMPLATES, make_question, task_id
from mira_arena.seeking.site import MAX_QUERY
from mira_jax.config import load
from mira_jax.errors import UserError
from mira_jax.trajectories.actions import parse
from mira_jax.trajectories.records import Action, Evidence, Page, Policy, Status, Step, Trajectory
from rollouts.agents.base import PolicyConfig
from rollouts.agents.policy import make_policy
from rollouts.collect import CollectConfig
from rollouts.engine.episode import LimitConfig, run_episode
from rollouts.evaluate import EvaluateConfig
from rollouts.suites import make_suite
from rollouts.suites.seeking.expert import HABITS, SeekingExpert
from rollouts.suites.seeking.suite import SeekingSuite
from rollouts.web.asgi.page import Request
from rollouts.web.asgi.sites import Context
from rollouts.web.browser import BrowserConfig
from rollouts.web.drivers import Asgi, Chromium
from rollouts.web.observation import ObservationConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = ObservationConfig(handles="name", compact=True)
PATIENT = BrowserConfig(contexts=1, draw=False, launch_seconds=120, call_seconds=60, load_seconds=60)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite():
    suite = SeekingSuite()
    await suite.start()
    yield suite
    await suite.stop()


async def play(suite, task, kind="expert", observation=NAMES, driver=None, **habits):
    policy = make_policy(PolicyConfig(kind=kind, habits=habits), suite)
    driver = driver or Asgi(BrowserConfig(driver="asgi"), suite.in_process_sites())
    return await run_episode(suite, task, 0, policy, driver, observation, LimitConfig())


def answered(task, answer, *slugs):
    """An episode that visits some pages and answers."""
    pages = [Page(url=task.start_url, observation=""), *(Page(url=f"__SEEKING__/page/{slug}", observation="") for slug in slugs)]
    steps = [Step(index=i, page=page, response="", action=Action(name="Click", element="1"), state={}) for i, page in enumerate(pages)]
    steps[-1] = msgspec.structs.replace(steps[-1], action=Action(name="exit", argument=answer))
    evidence = Evidence(answer=answer, page=pages[-1])
    return Trajectory(id="a", task=task, policy=Policy(name="p"), steps=tuple(steps), status=Status.FINISHED, evidence=evidence)


@pytest.mark.parametrize("observation", [NAMES, ObservationConfig(handles="name"), ObservationConfig()], ids=["compact", "name", "integer"])
async def test_the_expert_solves_every_template_with_every_milestone(suite, observation):
    for task in suite.tasks("test", None, len(TEMPLATES), seed=5):
        episode = await play(suite, task, observation=observation)
        assert suite.judge(episode).success, (task.id, suite.judge(episode).detail)
        subgoals, table = suite.milestones(episode)
        assert len(subgoals) == TEMPLATES[task.template].hops + 1 and all(table[-1])
        assert not any(table[0]) and not table[-2][-1]
        assert not any(step.error for step in episode.steps)


@pytest.mark.parametrize("split", ["train", "validation"])
async def test_the_expert_solves_the_other_splits(suite, split):
    for task in suite.tasks(split, None, 14, seed=1):
        assert suite.judge(await play(suite, task)).success, task.id


async def test_both_drivers_see_the_same_bytes(suite):
    fast = Asgi(BrowserConfig(driver="asgi"), suite.in_process_sites())
    async with Chromium(PATIENT, suite.hosts) as chromium:
        for place, task in enumerate(suite.tasks("test", ["chain_3", "missing_2", "greater_4", "count_2"], 4, seed=2)):
            observation = (NAMES, ObservationConfig())[place % 2]
            for kind in ("expert", "random") if place == 0 else ("expert",):
                wanted, got = [await play(suite, task, kind, observation, driver) for driver in (chromium, fast)]
                assert [{**msgspec.structs.asdict(step), "seconds": 0} for step in got.steps] == [
                    {**msgspec.structs.asdict(step), "seconds": 0} for step in wanted.steps
                ]
                assert (got.status, got.evidence) == (wanted.status, wanted.evidence)
                assert suite.milestones(got) == suite.milestones(wanted)


async def test_the_first_response_holds_the_plan_and_later_ones_what_was_found(suite):
    (task,) = suite.tasks("test", ["chain_2"], 1, seed=0)
    episode = await play(suite, task)
    hops = make_question(task.id).plan
    assert episode.steps[0].response.startswith(f"# Plan: 1 {hops[0].text}, 2 {hops[1].text}\ndo(action=")
    assert f"# Note: {hops[0].text}: " in episode.steps[2].response
    assert parse(episode.steps[0].response).name == "Search"


async def test_random_actions_solve_nothing(suite):
    for task in suite.tasks("test", ["chain_2", "select_3", "count_2", "missing_2"], 8, seed=3):
        episode = await play(suite, task, "random")
        assert not suite.judge(episode).success
        assert not suite.milestones(episode)[1][-1][-1]


async def test_answers_without_a_search_are_near_0(suite):
    """For each template the most common answer to its training questions, and N/A and 2 for all."""
    common = {}
    for name in TEMPLATES:
        split = "test" if TEMPLATES[name].held_out else "train"
        drawn = collections.Counter(make_question(task_id(name, split, 1, number)).answers[0] for number in range(100))
        common[name] = drawn.most_common(1)[0][0]
    tasks = suite.tasks("test", None, 40 * len(TEMPLATES), seed=9)
    for guess in (common, dict.fromkeys(TEMPLATES, "N/A"), dict.fromkeys(TEMPLATES, "2")):
        right = sum(suite.judge(answered(task, guess[task.template])).success for task in tasks)
        assert right <= 0.01 * len(tasks)


async def test_memorised_answers_of_a_world_are_worth_nothing_in_another():
    memory = {}
    for world in (0, 1):
        suite = make_suite("seeking", world=world)
        tasks = suite.tasks("test", None, 20 * len(TEMPLATES), seed=0)
        right = [suite.judge(answered(task, memory.get(task.intent, "N/A"))).success for task in tasks]
        assert not any(right)
        memory |= {task.intent: suite.references(task)[0] for task in tasks}
    assert len(memory) > 600


@pytest.mark.parametrize("template", ["missing_2", "count_3"])
async def test_an_answer_that_can_be_guessed_needs_its_pages(suite, template):
    (task,) = suite.tasks("test", [template], 1, seed=4)
    question = make_question(task.id)
    slugs = [group[0] for hop in question.plan for group in hop.pages(question.world)]
    assert suite.judge(answered(task, question.answers[0], *slugs)).success
    guessed = suite.judge(answered(task, question.answers[0], *(slug for slug in slugs if slug != slugs[-1])))
    assert not guessed.success and "not all pages" in guessed.detail
    assert not suite.judge(answered(task, "99", *slugs)).success


async def test_milestones_stay_reached_and_follow_the_pages(suite):
    (task,) = suite.tasks("test", ["chain_3"], 1, seed=6)
    question = make_question(task.id)
    first, second, third = (hop.pages(question.world)[0][-1] for hop in question.plan)
    _, table = suite.milestones(answered(task, "nothing", first, "no-such-page", third))
    assert table == [(True, False, False, False), (True, False, False, False), (True, False, True, False), (True, False, True, False)]
    _, table = suite.milestones(answered(task, question.answers[0]))
    assert table == [(False, False, False, True)]
    held_back = answered(task, question.answers[0], first)
    held_back = msgspec.structs.replace(held_back, steps=(*held_back.steps[:-1], msgspec.structs.replace(held_back.steps[-1], error="no")))
    assert suite.milestones(held_back)[1][-1] == (True, False, False, False)
    assert second


@pytest.mark.parametrize("habit", HABITS)
async def test_bad_habits_make_failures(suite, habit):
    tasks = suite.tasks("train", ["chain_3", "chain_4", "select_4"], 9 if habit != "ignores_dates" else 60, seed=2)
    if habit == "ignores_dates":
        tasks = [task for task in tasks if any("-notice" in check.check for check in suite.milestones(answered(task, ""))[0])]
    right = [suite.judge(await play(suite, task, **{habit: 1.0})).success for task in tasks]
    assert sum(right) <= 0.2 * len(right)


async def test_a_wrong_plan_is_written_as_it_is_carried_out(suite):
    (task,) = suite.tasks("train", ["chain_4"], 1, seed=0)
    plans = {(await play(suite, task, **habits)).steps[0].response.split("\n")[0] for habits in ({}, {"skips_hop": 1.0})}
    assert sorted(plan.count(",") for plan in plans) == [2, 3]


async def test_the_configs_demonstrate_and_evaluate(suite):
    demonstrate = load(CollectConfig, ["configs/seeking/demonstrate.yaml"], ["out=unused"])
    evaluate = load(EvaluateConfig, ["configs/seeking/evaluate.yaml"], ["out=unused"])
    assert demonstrate.policy.habits.keys() == HABITS.keys() and demonstrate.split == "train"
    assert (evaluate.split, evaluate.episodes, evaluate.policy.kind) == ("test", 20 * len(TEMPLATES), "expert")
    assert demonstrate.observation == evaluate.observation == NAMES
    assert demonstrate.browser.driver == evaluate.browser.driver == "asgi"


async def test_unknown_habits_are_refused(suite):
    (task,) = suite.tasks("train", ["chain_2"], 1, seed=0)
    with pytest.raises(UserError, match=r"policy.habits: 'forgets_coupon' is none of skips_hop, mistakes_relation"):
        suite.expert(task, {"forgets_coupon": 0.5})


async def test_the_expert_gives_up_on_pages_without_results(suite):
    form = make_question("seeking.total_3.test.0.0").form
    expert = SeekingExpert(form)
    for page in ("", "no page has any of these words", '<a id="x"> 19: ', "[the site answered HTTP 404 Not Found]"):
        response = expert.respond(None, [], page)
        assert parse(response).name in ("Search", "exit")
    assert parse(response) == Action(name="exit", argument="N/A")


async def test_tasks_are_spread_over_the_worlds():
    suite = make_suite("seeking", world=3, worlds=2)
    tasks = suite.tasks("test", ["chain_2"], 4, seed=0)
    assert [task.id.split(".")[3] for task in tasks] == ["3", "4", "3", "4"]
    assert [suite.task(task.id) for task in tasks] == tasks
    assert {task.seed - 2 * 10**15 for task in tasks} == {3, 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"world": -1}, "suite.options.world"), ({"worlds": 9}, "suite.options.worlds"), ({"size": 3}, "suite.options.size")],
)
async def test_options_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        make_suite("seeking", **options)


async def test_a_template_of_the_test_split_has_no_training_tasks(suite):
    with pytest.raises(UserError, match="'chain_6' is none of"):
        suite.tasks("train", ["chain_6"], 1, 0)


async def test_the_site_answers_hostile_addresses(suite):
    (task,) = suite.tasks("test", ["chain_2"], 1, seed=0)
    context = Context(suite.in_process_sites(), 1280)
    session = await suite.open(task, context)
    (address,) = session.addresses.values()

    async def get(path):
        response = await context._follow(Request(path))
        return response.status, response.text

    assert (await get(address))[0] == 200
    server = address.rsplit("/", 1)[0]
    for path in ("/test-7", "/train-7", "/test-0/page/..%2f..", "/test-0/page/", "/test-0/page/nobody", "/nothing/search?q=a", "/"):
        assert (await get(server + path))[0] == 404, path
    status, text = await get(f"{address}/search?q=%3Cscript%3E{'a' * 500}&q=b")
    assert status == 200 and "<script>" not in text and "no page has any of these words" in text
    status, text = await get(f"{address}/search?q={'x' * 500}")
    assert f'value="{"x" * MAX_QUERY}"' in text
    assert (await get(f"{address}/search?q=%ff%00%22"))[0] == 200
    assert (await get(f"{address}/search"))[0] == 200
