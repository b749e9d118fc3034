"""MiniWoB++ in a real browser: solved by its experts, not by idling, the same page for the same seed."""

import importlib.util
from pathlib import Path

import pytest

from mira_jax.config import load
from mira_jax.errors import UserError
from mira_jax.trajectories.actions import format_action
from mira_jax.trajectories.records import Action, Policy, Status, Step, Trajectory
from mira_jax.trajectories.records import Page as SeenPage
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.tasks import FIRST_SEED, SPLITS
from rollouts import evaluate
from rollouts.suites import make_suite
from rollouts.suites.base import to_address
from rollouts.suites.miniwob.expert import SCRIPTS
from rollouts.suites.miniwob.suite import INSTRUCTION
from rollouts.web.browser import BrowserConfig, BrowserPool
from tests.suites.driving import play

installed = pytest.mark.skipif(importlib.util.find_spec("miniwob") is None, reason="the package miniwob is not installed")
CONFIG = Path(__file__).parents[2] / "configs" / "miniwob" / "expert.yaml"


@pytest.fixture
async def miniwob():
    suite = make_suite("miniwob")
    await suite.start()
    yield suite
    await suite.stop()


class Scripted:
    """Gives its responses one by one."""

    def __init__(self, *responses):
        self.responses = responses

    def respond(self, task, rounds, observation):
        return self.responses[len(rounds)]


def evaluated(out, *overrides):
    """The labelled episodes of an evaluation, by task id."""
    assert evaluate.main(load(evaluate.EvaluateConfig, CONFIG, [f"out={out}", "browser.draw=false", *overrides])) == 0
    return {episode.task.id: episode for episode in ShardReader(out / "labelled")}


def ended(reward, reason="", steps=1):
    """An episode that the page ended with its last step."""
    task = make_suite("miniwob").task("miniwob.click-test.test.0")
    before = {"ended": False, "reward": 0, "reason": ""}
    states = [before] * (steps - 1) + [{"ended": True, "reward": reward, "reason": reason} if reward else before]
    page = SeenPage(url=task.start_url, observation="")
    made = tuple(Step(index=index, page=page, response="", state=state) for index, state in enumerate(states))
    return Trajectory(id="a", task=task, policy=Policy(name="a"), steps=made, status=Status.HORIZON)


@installed
def test_experts_are_rewarded_and_idling_is_not(tmp_path):
    """What is asked comes from the page: the same whenever an instance is drawn, another for another instance."""
    solved = evaluated(tmp_path / "expert", f"episodes={len(SCRIPTS)}")
    assert {episode.task.template for episode in solved.values()} == set(SCRIPTS)
    for episode in solved.values():
        assert episode.success and episode.outcome.score == 1.0 and episode.status is Status.FINISHED, episode.task.id
        assert [step.milestones for step in episode.steps][-2:] == [(True,)] * 2 and not any(step.error for step in episode.steps)
        assert episode.steps[0].page.url == f"__MINIWOB__/miniwob/{episode.task.template}.html"
        assert "START" not in episode.steps[0].page.observation and "Time left" not in episode.steps[0].page.observation
        assert episode.steps[-1].page.observation == "The episode has ended."

    idle = evaluated(tmp_path / "idle", "templates=[enter-password, click-option, click-link]", "episodes=6", "policy.kind=idle")
    for name, episode in idle.items():
        assert not episode.success and episode.outcome.score == 0.0 and episode.steps[-1].milestones == (False,), name
    for name in idle.keys() & solved.keys():
        assert idle[name].task == solved[name].task and idle[name].steps[0].page == solved[name].steps[0].page
    first, second = (idle[f"miniwob.enter-password.test.{number}"].task.intent for number in range(2))
    assert first.startswith('Enter the password "') and first != second


@installed
async def test_a_wrong_answer_ends_the_episode_for_good(miniwob):
    """The page gives no second try: not by a new start, nor after a reload."""
    task = miniwob.task("miniwob.click-test-2.train.0")
    wrong, right = (format_action(Action(name="Click", element=name)) for name in ("two", "one"))
    async with BrowserPool(BrowserConfig(draw=False), miniwob.hosts) as browser:
        episode = await play(miniwob, task, Scripted(wrong, right, 'exit(message="")'), browser)
        outcome = miniwob.judge(episode)
        assert (outcome.success, outcome.score, outcome.source) == (False, -1.0, "rule")
        assert [step.state["ended"] for step in episode.steps] == [True] * 3
        assert episode.steps[1].error == 'no element "one" on this page'

        context = await browser.context()
        session = await miniwob.open(task, context)
        assert session.task.intent == "Click button ONE." and session.hosts == miniwob.hosts
        page = await context.new_page()
        await page.goto(f"{session.addresses['__MINIWOB__']}/miniwob/click-test-2.html")
        assert await page.evaluate("core.EPISODE_MAX_TIME") == 2**31 - 1
        assert (await session.state())["ended"] is False
        await page.dispatch_event("#subbtn2", "click")
        await page.reload()
        assert await page.inner_text("body") == "The episode has ended."
        assert await session.state() == {"ended": True, "reward": -1, "reason": ""}
        await browser.close(context)


@installed
def test_pages_are_templates_and_splits_are_apart():
    suite = make_suite("miniwob")
    assert len(suite.pages) == 130 and set(SCRIPTS) <= set(suite.pages)
    tasks = {split: suite.tasks(split, None, 260, seed=3) for split in SPLITS}
    for split, made in tasks.items():
        assert [task.template for task in made] == [*suite.pages, *suite.pages]
        assert made == suite.tasks(split, None, 260, seed=3) and all(suite.task(task.id) == task for task in made)
        assert {task.seed for task in made} == {FIRST_SEED[split] + 30_000, FIRST_SEED[split] + 30_001}
    assert not set.intersection(*({task.seed for task in made} for made in tasks.values()))


@installed
def test_a_partial_reward_is_the_score_and_no_success_unless_the_threshold_says_so():
    strict, lenient = make_suite("miniwob"), make_suite("miniwob", threshold=0.5)
    partial = ended(0.5, "half of it", steps=2)
    assert (strict.judge(partial).success, strict.judge(partial).score, strict.judge(partial).detail) == (False, 0.5, "half of it")
    assert lenient.judge(partial).success and not lenient.judge(ended(0.25)).success
    assert strict.milestones(partial)[1] == [(False,), (False,)] and lenient.milestones(partial)[1] == [(False,), (True,)]
    assert strict.judge(ended(0)).detail == "the page has not ended the episode"


@installed
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda suite: suite.tasks("test", ["click-tests"], 1, 0), "templates: 'click-tests' is none of the 130.*click-test"),
        (lambda suite: suite.tasks("dev", None, 1, 0), "split: 'dev' is none of train, validation, test"),
        (lambda suite: suite.task("miniwob.click-tests.test.1"), "no task 'miniwob.click-tests.test.1'"),
        (lambda suite: suite.expert(suite.task("miniwob.drag-box.test.1")), "no script for 'drag-box'; it has for choose-list"),
        (lambda suite: suite.expert(suite.task("miniwob.click-test.test.1"), {"stops_early": 1.0}), "habits: .* none, not stops_early"),
        (lambda suite: make_suite("miniwob", threshold=0), "suite.options.threshold: 0.0; it must be above 0 and at most 1"),
        (lambda suite: make_suite("miniwob", pages="all"), "unknown key suite.options.pages; did you mean suite.options"),
    ],
)
def test_what_is_unknown_is_named(call, message):
    with pytest.raises(UserError, match=message):
        call(make_suite("miniwob"))


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed; pip install 'mira-jax\[miniwob\]'$"):
        make_suite("miniwob")


@installed
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_every_page_begins_and_is_drawn_by_its_seed(miniwob):
    running = "core.EP_TIMER !== null && core.cover_div.style.display === 'none' && !WOB_DONE_GLOBAL"
    async with BrowserPool(BrowserConfig(), miniwob.hosts) as browser:
        for task in miniwob.tasks("train", None, len(miniwob.pages), seed=0):
            context = await browser.context()
            session = await miniwob.open(task, context)
            page = await context.new_page()
            await page.goto(to_address(task.start_url, session.addresses))
            assert await page.evaluate(running), task.id
            assert session.task.intent and await page.evaluate(INSTRUCTION) == session.task.intent, task.id
            assert await session.state() == {"ended": False, "reward": 0, "reason": ""}, task.id
            await browser.close(context)
