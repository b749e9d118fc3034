"""The arena through both drivers: the same policy sees the same bytes, and leaves the same state, with and without a browser."""

import msgspec
import pytest
import pytest_asyncio

from mira_arena.sites.code.content import make_content as make_code
from mira_arena.sites.forum.content import make_content as make_forum
from mira_arena.tasks.registry import TEMPLATES, instance
from mira_jax.trajectories.records import Action
from rollouts.agents.base import PolicyConfig
from rollouts.agents.policy import make_policy
from rollouts.engine.episode import LimitConfig, run_episode
from rollouts.errors import UnsupportedError
from rollouts.suites.arena.suite import ArenaSuite
from rollouts.suites.base import to_address
from rollouts.web.browser import BrowserConfig
from rollouts.web.drivers import Asgi, Chromium
from rollouts.web.executor import _LOCATE
from rollouts.web.observation import ObservationConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")

OBSERVATIONS = (ObservationConfig(), ObservationConfig(handles="name", compact=True))
PATIENT = BrowserConfig(contexts=1, draw=False, launch_seconds=120, call_seconds=60, load_seconds=60)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both():
    suite = ArenaSuite()
    await suite.start()
    async with Chromium(PATIENT, suite.hosts) as chromium:
        yield suite, chromium, Asgi(BrowserConfig(driver="asgi"), suite.in_process_sites())
    await suite.stop()


async def compare(both, task, kind, observation, seed=0):
    """Runs an episode through both drivers. Returns the one in Chromium."""
    suite, chromium, asgi = both
    policy = make_policy(PolicyConfig(kind=kind, seed=seed), suite)
    wanted, got = [await run_episode(suite, task, 0, policy, driver, observation, LimitConfig()) for driver in (chromium, asgi)]
    for before, after in zip(wanted.steps, got.steps, strict=False):
        assert _told(after) == _told(before), (task.id, before.index)
    assert (got.status, got.evidence, len(got.steps)) == (wanted.status, wanted.evidence, len(wanted.steps))
    assert suite.judge(got) == suite.judge(wanted)
    assert suite.milestones(got) == suite.milestones(wanted)
    return wanted


def _told(step):
    """Everything of a step but the seconds that it took."""
    return {**msgspec.structs.asdict(step), "seconds": None}


@pytest.mark.parametrize("place", range(len(TEMPLATES)), ids=list(TEMPLATES))
async def test_the_expert_sees_the_same_bytes(both, place):
    """One instance of each template. The two forms of observations take turns. With integer handles the expert may not find an element."""
    suite, name = both[0], list(TEMPLATES)[place]
    (task,) = suite.tasks("test", [name], 1, seed=2)
    episode = await compare(both, task, "expert", OBSERVATIONS[place % 2])
    assert suite.judge(episode).success or OBSERVATIONS[place % 2].handles == "integer"


@pytest.mark.slow
@pytest.mark.parametrize("observation", OBSERVATIONS, ids=["integer", "name"])
@pytest.mark.parametrize("seed", [21, 22, 23])
async def test_the_expert_sees_the_same_bytes_on_many_instances(both, seed, observation):
    for task in both[0].tasks("test", None, len(TEMPLATES), seed):
        await compare(both, task, "expert", observation)


@pytest.mark.parametrize("name", ["add_address", "hand_over_issues", "reply_to_comment", "arrange_saved_places"])
async def test_random_actions_have_the_same_effects(both, name):
    (task,) = both[0].tasks("test", [name], 1, seed=31)
    await compare(both, task, "random", OBSERVATIONS[1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [41, 42, 43])
async def test_random_actions_have_the_same_effects_everywhere(both, seed):
    """Episodes in which the driver asks for a layout are left out: they have no record, and at most one in ten ends so."""
    tasks = both[0].tasks("test", None, len(TEMPLATES), seed)
    left_out = 0
    for place, task in enumerate(tasks):
        try:
            await compare(both, task, "random", OBSERVATIONS[place % 2], seed)
        except UnsupportedError as error:
            assert "without a layout" in str(error)
            left_out += 1
    assert left_out <= len(tasks) / 10


async def look_below(both, site, path, *moves):
    """Opens a page, makes some moves, and returns the elements that the driver takes for free though Chromium finds them covered."""
    suite, chromium, asgi = both
    task = suite.tasks("test", ["hand_over_issues" if site == "code" else "clear_reports"], 1, seed=0)[0]
    opened = []
    for driver in (chromium, asgi):
        context = await driver.context()
        session = await suite.open(task, context)
        pages = driver.pages(context, session.hosts, OBSERVATIONS[1])
        await pages.open([to_address(f"__{site.upper()}__{path}", session.addresses)])
        seen = await pages.observe()
        for move in moves:
            await pages.perform(move, seen)
            seen = await pages.observe()
        opened.append((pages, seen, context, session))
    (real, seen, *_), (interpreted, also_seen, *_) = opened
    assert seen.text == also_seen.text
    wrong = []
    for element in seen.elements:
        is_covered = (await real._tabs.ask(_LOCATE, element.index)).get("problem") == "covered"
        if is_covered and interpreted._page.cover(interpreted._page.elements[element.index]) is None:
            wrong.append(element.handle)
    for driver, (_, _, context, session) in zip((chromium, asgi), opened, strict=True):
        await session.close()
        await driver.close(context)
    return wrong


CODE_PAGES = ["/", "/to-dos", "/projects/new", *(f"PROJECT{rest}" for rest in (
    "", "/-/issues", "/-/issues/1", "/-/issues/new", "/-/members", "/-/milestones/new", "/-/merge_requests", "/-/commits", "/-/branches",
    "/-/settings", "/-/edit/main/readme.md"))]  # fmt: skip


@pytest.mark.parametrize("path", CODE_PAGES)
async def test_what_lies_below_the_menu_of_the_code_host_is_known_to_be_in_doubt(both, path):
    content = make_code(instance(both[0].tasks("test", ["hand_over_issues"], 1, seed=0)[0].id).task.seed)
    project = next(project for project in content.projects if project.role == "owner")
    wrong = await look_below(both, "code", path.replace("PROJECT", f"/{project.path}"), Action(name="Click", element="new ..."))
    assert wrong == []


@pytest.mark.parametrize("path", ["/-/issues", "/-/issues/1", "/-/issues/new", "/-/members", "/-/commits"])
async def test_what_lies_below_suggestions_is_known_to_be_in_doubt(both, path):
    content = make_code(instance(both[0].tasks("test", ["hand_over_issues"], 1, seed=0)[0].id).task.seed)
    project = next(project for project in content.projects if project.role == "owner")
    field = {"/-/members": "person", "/-/commits": "author"}.get(path, "assignee")
    wrong = await look_below(both, "code", f"/{project.path}{path}", Action(name="Type", element=field, argument="a"))
    assert wrong == []


@pytest.mark.parametrize("kind", ["moderated", "own", "comment", "locked"])
async def test_what_lies_below_a_menu_of_the_forum_is_known_to_be_in_doubt(both, kind):
    content = make_forum(instance(both[0].tasks("test", ["clear_reports"], 1, seed=0)[0].id).task.seed)
    moves = [Action(name="Click", element="more actions")]
    moderated = [it for it in content.threads_in(content.moderated[0].name) if it.author != content.member and it.comments]
    thread = moderated[0]
    path = f"/thread/{thread.id}"
    if kind == "own":
        threads = [it for community in content.communities for it in content.threads_in(community.name)]
        path = f"/thread/{next(it.id for it in threads if it.author == content.member)}"
    elif kind == "comment":
        path = f"/comment/{thread.comments[0].id}"
    elif kind == "locked":
        moves += [Action(name="Click", element="lock"), *moves]
    wrong = await look_below(both, "forum", path, *moves)
    assert wrong == []
