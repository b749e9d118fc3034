"""The forum as an application: the same from the same seed, apart between visitors, unmoved by odd input, its widgets in Chromium."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mira_arena.sites.forum import vocabulary
from mira_arena.sites.forum.application import APPLICATION
from mira_arena.sites.forum.content import REPORTS, make_content
from mira_arena.sites.forum.moderator_state import ModeratedForum
from mira_arena.sites.paths import slug
from mira_arena.sites.server import COOKIE, serve
from mira_arena.sites.state import Refused
from mira_arena.sites.world import World
from mira_jax.trajectories.records import Action
from rollouts.suites.base import to_address
from rollouts.web.browser import BrowserConfig, BrowserPool
from rollouts.web.executor import Executor
from rollouts.web.observation import ObservationConfig
from rollouts.web.tabs import Tabs


def visitors(*seeds: int) -> list[TestClient]:
    """A client per seed, all of one application."""
    visits = {f"visitor{number}": World(seed) for number, seed in enumerate(seeds)}
    app = serve(APPLICATION, visits)
    return [TestClient(app, cookies={COOKIE: cookie}, follow_redirects=False) for cookie in visits]


@pytest.fixture
def forum():
    state = ModeratedForum(1)
    yield state
    state.close()


def paths(seed: int) -> list[str]:
    content = make_content(seed)
    thread, own, report = content.threads[3], content.own_threads[0], content.reports[0]
    place = f"/c/{content.moderated[0].name}"
    return [
        "/", "/?sort=new&page=2", "/communities", f"/c/{thread.community}", f"/c/{thread.community}?sort=top&page=2",
        f"/c/{thread.community}/about", f"/search?q={thread.title}", f"/thread/{thread.id}", f"/thread/{thread.id}?show=8",
        f"/thread/{thread.id}/report", f"/comment/{thread.comments[0].id}", f"/thread/{own.id}/edit", f"/thread/{own.id}/delete",
        f"/thread/{own.id}/flair", f"/user/{slug(thread.author)}", f"/user/{slug(thread.author)}/comments",
        f"/user/{slug(content.member)}", "/messages", "/messages?page=2",
        f"/messages/{slug(content.correspondents[0])}", "/saved", "/new", "/sign-in", f"{place}/reports",
        f"{place}/reports/{report.number}", f"{place}/banned", f"{place}/settings", "/changes", "/style.css", "/script.js",
    ]  # fmt: skip


def test_one_seed_gives_the_same_bytes_and_another_seed_others():
    first, again, other = visitors(1, 1, 2)
    for path in paths(1):
        page = first.get(path)
        assert page.status_code == 200, path
        assert page.content == again.get(path).content, path
    for path in ("/", "/communities", "/messages", "/saved"):
        assert first.get(path).content != other.get(path).content


def test_what_one_visitor_does_no_other_sees():
    one, other = visitors(1, 1)
    other.get(f"/messages/{slug(make_content(1).correspondents[0])}")  # is new until it is read
    before = {path: other.get(path).content for path in paths(1)}
    content = make_content(1)
    thread, report, place = content.threads[3], content.reports[0], f"/c/{content.moderated[0].name}"
    kind, thing = ("comment", report.comment) if report.comment else ("thread", report.thread)
    for path, form in {
        f"/thread/{thread.id}/vote": {"value": "up"},
        f"/thread/{thread.id}/comment": {"text": "Hello there"},
        f"/messages/{slug(thread.author)}": {"message": "hello"},
        f"/{kind}/{thing.id}/remove": {"reason": "spam"},
        f"{place}/settings": {"description": "another place"},
        "/new": {"community": thread.community, "title": "a thread of mine", "text": "some words"},
    }.items():
        assert one.post(path, data=form).status_code == 303
    changed = one.get("/changes").text
    for text in ("= up", ": hello there = yes", ": hello = yes", "= spam", "= another place", "= some words"):
        assert text in changed
    assert {path: other.get(path).content for path in paths(1)} == before


@pytest.mark.parametrize(
    ("path", "form", "notice"),
    [
        ("/new", {"community": "nowhere", "title": "x"}, "please choose a community"),
        ("/new", {"community": "COMMUNITY", "title": "TITLE"}, "there is a thread of that title already"),
        ("/new", {"community": "COMMUNITY", "title": "x", "link": "javascript:alert(1)"}, "a link begins with https://"),
        ("/thread/THREAD/comment", {"text": " "}, "a comment needs some words"),
        ("/thread/THREAD/edit", {"text": "mine"}, "only its author can do that"),
        ("/thread/THREAD/delete", {}, "only its author can do that"),
        ("/thread/THREAD/remove", {"reason": "spam"}, "only a moderator can do that"),
        ("/thread/THREAD/lock", {"on": "1"}, "only a moderator can do that"),
        ("/thread/THREAD/report", {"reason": "boring"}, "please choose a reason"),
        ("/thread/OWN/vote", {"value": "up"}, "you can&#39;t vote on what you wrote"),
        ("/messages/ME", {"message": "hello"}, "there is no such member to write to"),
        ("/c/COMMUNITY/banned", {"member": "quiet fox"}, "only a moderator can do that"),
        ("/c/MODERATED/banned", {"member": "nobody at all"}, "there is no such member"),
        ("/c/MODERATED/settings", {"description": ""}, "a community needs a description"),
        ("/sign-in", {"name": "nobody", "password": "guess"}, "name or password is wrong"),
    ],
)
def test_a_refusal_is_said_on_the_next_page_and_only_there(path, form, notice):
    (client,) = visitors(1)
    content = make_content(1)
    community = content.communities[-1].name
    thread = next(thread for thread in content.threads_in(community) if thread.author != content.member)
    names = {"THREAD": thread.id, "OWN": content.own_threads[0].id, "TITLE": thread.title, "COMMUNITY": community,
             "MODERATED": content.moderated[0].name, "ME": slug(content.member)}  # fmt: skip
    for name, value in names.items():
        path, form = path.replace(name, str(value)), {key: text.replace(name, str(value)) for key, text in form.items()}
    assert client.post(path, data=form).status_code == 303
    assert notice in client.get("/changes").text
    page = client.get("/changes").text
    assert notice not in page
    assert "none yet" in page


def test_who_is_not_signed_in_can_read_but_not_write():
    (client,) = visitors(1)
    content = make_content(1)
    thread = content.threads[3]
    client.post("/sign-out")
    assert client.get("/").status_code == client.get(f"/thread/{thread.id}").status_code == 200
    for path in ("/messages", "/saved", "/new", f"/c/{content.moderated[0].name}/reports"):
        assert client.get(path).status_code == 303, path
    client.post(f"/thread/{thread.id}/vote", data={"value": "up"})
    client.post(f"/messages/{slug(thread.author)}", data={"message": "hello"})
    assert "please sign in first" in client.get("/").text
    client.post("/sign-in", data={"name": content.member.upper(), "password": content.password})
    assert "none yet" in client.get("/changes").text


def test_lists_are_sorted_as_they_say_and_hold_every_thread_once(forum):
    content = make_content(1)
    name = content.communities[2].name
    threads = content.threads_in(name)
    assert [row["title"] for row in forum.threads_in(name, "top")] == [thread.title for thread in content.top(name)]
    assert [row["title"] for row in forum.threads_in(name, "new")] == [thread.title for thread in sorted(threads, key=lambda it: it.hours)]
    hot = sorted(threads, key=lambda it: (not it.sticky, -it.score / (it.hours + 2)))
    assert [row["title"] for row in forum.threads_in(name, "hot")] == [thread.title for thread in hot]
    (client,) = visitors(1)
    pages = [client.get(f"/c/{name}?sort=top&page={page}").text for page in (1, 2)]
    assert [sum(f">{thread.title}</a>" in page for thread in threads) for page in pages] == [6, 1]


def test_the_front_page_is_of_the_communities_one_subscribes_to(forum):
    content = make_content(1)
    assert {row["community"] for row in forum.front("new")} == {community.name for community in content.subscribed}
    forum.subscribe(content.communities[-1].name, True)
    forum.subscribe(content.communities[0].name, False)
    assert {row["community"] for row in forum.front("new")} == {
        community.name for community in content.communities[1:4] + content.communities[-1:]
    }


def test_search_finds_the_wanted_thread_among_its_neighbours():
    """Whatever the seed, and not always in the first place."""
    firsts = []
    for seed in range(8):
        state = ModeratedForum(seed)
        for thread in make_content(seed).threads[::6]:
            found = [row["title"] for row in state.search(thread.title, "hot")]
            assert thread.title in found
            firsts.append(found[0] == thread.title)
        state.close()
    assert 0.05 < sum(firsts) / len(firsts) < 0.6


def test_comments_stand_below_what_they_reply_to(forum):
    for thread in make_content(1).threads:
        shown = forum.comments(thread.id)
        assert [comment["id"] for comment in shown] == [comment.id for comment in thread.in_order()]
        above = {}
        for comment in shown:
            assert comment["depth"] == (above[comment["parent"]]["depth"] + 1 if comment["parent"] else 0)
            assert comment["to"] == (above[comment["parent"]]["author"] if comment["parent"] else "")
            above[comment["id"]] = comment


def test_what_is_done_and_undone_leaves_no_change(forum):
    content = make_content(1)
    name, thread = (
        content.moderated[0].name,
        next(it for it in content.threads if it.author != content.member and it.title not in content.saved),
    )
    for value in (1, -1, -1):
        forum.vote(forum.thing("thread", thread.id), value)
    assert forum.thread(thread.id)["points"] == thread.score
    mine = forum.post(name, "a thread of mine", "", "some words")
    forum.add_comment(forum.thread(mine), "and a comment")
    for change in (forum.save, forum.lock, forum.stick):
        change(forum.thread(mine), True)
    forum.delete_thread(forum.thread(mine))
    forum.save(forum.thread(thread.id), True)
    forum.save(forum.thread(thread.id), False)
    forum.ban(name, next(it.name for it in content.members if it.name not in content.moderated[0].moderators))
    forum.unban(name, forum.banned(name)[0])
    forum.messages(content.correspondents[0])
    assert forum.changes() == []


def test_doing_it_twice_is_a_change_of_its_own(forum):
    other = make_content(1).correspondents[0]
    forum.send(other, "hello")
    assert forum.changes() == [f"message to {other}: hello = yes"]
    forum.send(other, "hello")
    assert forum.changes() == [f"message to {other}: hello = 2 times"]


def test_moderators_settle_reports():
    (client,) = visitors(1)
    content = make_content(1)
    community = content.moderated[0]
    place = f"/c/{community.name}"
    reports = [report for report in content.reports if report.thread.community == community.name]
    assert len(reports) == REPORTS
    removed = next(report for report in reports if not report.comment)
    approved = next(report for report in reports if report.comment)
    assert client.post(f"{place}/reports/{approved.number}/approve").headers["location"] == f"{place}/reports"
    client.post(f"/thread/{removed.thread.id}/remove", data={"reason": "rude", "back": f"{place}/reports"})
    queue = client.get(f"{place}/reports").text
    assert [f">report {report.number}</a>" in queue for report in reports] == [report not in (removed, approved) for report in reports]
    assert client.get(f"{place}/reports/{removed.number}").status_code == 404
    assert f">{removed.thread.title}</a>" not in "".join(client.get(f"{place}?page={page}").text for page in (1, 2))
    client.post("/sign-out")
    page = client.get(f"/thread/{removed.thread.id}").text
    assert "[removed]" in page
    assert f"<p>{removed.thread.text}</p>" not in page


def test_nobody_comments_on_a_locked_thread(forum):
    content = make_content(1)
    thread = forum.thread(content.threads_in(content.moderated[0].name)[0].id)
    forum.lock(thread, True)
    with pytest.raises(Refused, match="locked"):
        forum.add_comment(forum.thread(thread["id"]), "one more word")


TEXT = st.text(max_size=12) | st.sampled_from(
    ["1", "0", "-1", "99999999999999999999", "'; DROP TABLE thread; --", "<b>x</b>", "spam", "up", "\x00", "quiet fox", "//example.com"]
)
FIELDS = (
    "community",
    "title",
    "link",
    "text",
    "value",
    "on",
    "reason",
    "flair",
    "message",
    "member",
    "description",
    "name",
    "password",
    "back",
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(forms=st.lists(st.dictionaries(st.sampled_from(FIELDS), TEXT), min_size=1, max_size=2), number=st.integers(0, 10**20), odd=TEXT)
def test_no_form_breaks_the_forum(forms, number, odd):
    (client,) = visitors(1)
    content = make_content(1)
    report = content.reports[0]
    names = {"{kind}": "thread", "{community}": content.moderated[0].name, "{member}": slug(content.threads[0].author),
             "{id:int}": str(number if number % 3 == 0 else report.thread.id),
             "{number:int}": str(number if number % 3 == 1 else report.number)}  # fmt: skip
    for path, method, _ in APPLICATION.routes:
        for name, value in names.items():
            path = path.replace(name, value)
        if method == "GET":
            answers = [client.get(path, params={"q": odd, "page": odd, "show": odd, "back": odd})]
        else:
            answers = [client.post(path, data=form) for form in forms if path != "/sign-out"]
        for answer in answers:
            assert answer.status_code in (200, 303, 404), path
            assert not answer.headers.get("location", "/").startswith("//")
            assert "<b>x</b>" not in answer.text


def test_every_name_is_made_of_the_closed_vocabulary():
    known = {word for name in vars(vocabulary).values() if isinstance(name, tuple | dict) for word in " ".join(map(str, name)).split()}
    known |= {noun for nouns in vocabulary.TOPICS.values() for noun in nouns}
    for seed in range(20):
        content = make_content(seed)
        texts = [(thread.title, thread.author, thread.flair, *(comment.text for comment in thread.comments)) for thread in content.threads]
        assert {word for said in texts for text in said for word in text.split()} <= known
        assert len({thread.title for thread in content.threads}) == len(content.threads)
        assert len({report.author for report in content.reports[:REPORTS]}) == REPORTS


class Visitor:
    """Somebody at a browser, who reads the page after each action."""

    def __init__(self, tabs: Tabs):
        self.tabs, self._executor = tabs, Executor(tabs)

    async def read(self) -> set[str]:
        """The handles on the page."""
        self._seen = await self.tabs.observe()
        return {element.handle for element in self._seen.elements}

    async def click(self, name: str) -> set[str]:
        await self._executor.perform(Action(name="Click", element=name), self._seen)
        return await self.read()

    async def choose(self, name: str, option: str) -> set[str]:
        await self._executor.perform(Action(name="Select Dropdown Option", element=name, argument=option), self._seen)
        return await self.read()

    async def script(self, text: str):
        return await self.tabs.page.evaluate(text)


@pytest.fixture
async def visitor(arena):
    """At the front page, and the content that is there."""
    task = arena.tasks("test", ["clear_reports"], 1, seed=0)[0]
    async with BrowserPool(BrowserConfig(draw=False)) as browser:
        context = await browser.context()
        session = await arena.open(task, context)
        tabs = Tabs(context, BrowserConfig(), ObservationConfig(handles="name", compact=True))
        browser.allow(context, session.hosts)
        await tabs.open([to_address(task.start_url, session.addresses)], session.hosts)
        somebody = Visitor(tabs)
        await somebody.read()
        somebody.address = session.addresses["__FORUM__"]
        somebody.state = session.state
        yield somebody, make_content(task.seed)
        await session.close()
        await browser.close(context)


async def go(visitor: Visitor, path: str) -> set[str]:
    await visitor.tabs.page.goto(visitor.address + path)
    return await visitor.read()


async def test_menus_dialogs_and_longer_lists_in_chromium(visitor):
    visitor, content = visitor
    community = content.moderated[0].name
    thread = next(it for it in content.threads_in(community) if it.author != content.member and len(it.comments) > 4)

    # A menu shows its items when it is open, and closes on a click elsewhere and on Escape.
    items = {"report", "remove", "lock", "set flair"}
    assert not items & await go(visitor, f"/thread/{thread.id}")
    assert items <= await visitor.click("more actions")
    assert not items & await visitor.click("search")
    await visitor.click("more actions")
    await visitor.tabs.page.keyboard.press("Escape")
    assert not items & await visitor.read()

    # A dialog is all there is while it is open, and does nothing when it is cancelled.
    await visitor.click("more actions")
    assert await visitor.click("remove") == {"reason", "confirm removal", "cancel"}
    assert {"more actions", "your comment"} <= await visitor.click("cancel")
    await visitor.click("more actions")
    await visitor.click("remove")
    await visitor.choose("reason", "rude")
    assert "more actions" in await visitor.click("confirm removal")
    assert f'removed thread "{thread.title}" = rude' in (await visitor.state())["forum"]["changes"]

    # More comments come without another page, under an address that shows them again.
    await go(visitor, f"/thread/{thread.id}")
    late = {f"reply to {comment.author}" for comment in thread.in_order()[4:]}
    assert not late & await visitor.read()
    await visitor.script("window.stays = true")
    assert late <= await visitor.click("load more comments")
    assert await visitor.script("window.stays && location.search") == "?show=8"
    assert late <= await go(visitor, f"/thread/{thread.id}?show=8")


async def test_pages_fit_a_wide_window_and_a_narrow_one(visitor):
    visitor, content = visitor
    thread = max(content.threads, key=lambda it: len(it.comments))
    place = f"/c/{content.moderated[0].name}"
    for width in (1280, 400):
        await visitor.tabs.page.set_viewport_size({"width": width, "height": 800})
        for path in ("/", f"/thread/{thread.id}?show=8", place, f"{place}/reports", f"/comment/{thread.comments[0].id}", "/new"):
            names = await go(visitor, path)
            if "more actions" in names:
                await visitor.click("more actions")
            assert await visitor.script("document.documentElement.scrollWidth") <= width, (path, width)
            assert (
                await visitor.script("Math.min(...[...document.querySelectorAll('.menu ul')].map((it) => it.getBoundingClientRect().left))")
                >= 0
            )
