"""The code host as an application: the same from the same seed, apart between visitors, strict about roles, unmoved by odd input."""

import datetime
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mira_arena.sites.code.application import APPLICATION
from mira_arena.sites.code.content import MAIN, Project, make_content
from mira_arena.sites.server import COOKIE, serve
from mira_arena.sites.world import World
from mira_arena.tasks.registry import instance
from rollouts.suites.evaluators import select_text
from rollouts.web.browser import BrowserConfig, BrowserPool
from tests.suites.driving import play


def visitors(*seeds: int) -> list[TestClient]:
    """A client per seed, all of one application."""
    visits = {f"visitor{number}": World(seed) for number, seed in enumerate(seeds)}
    app = serve(APPLICATION, visits)
    return [TestClient(app, cookies={COOKIE: cookie}, follow_redirects=False) for cookie in visits]


def project_with(role: str, seed: int = 1) -> Project:
    return next(project for project in make_content(seed).projects if project.role == role)


def paths(seed: int) -> list[str]:
    content, project = make_content(seed), project_with("owner", seed)
    file, branch = project.files[0].path, project.branches[1]
    pages = [
        "", "/-/issues", "/-/issues?state=all&page=2", "/-/issues/new", "/-/issues/3", "/-/milestones", "/-/milestones/new",
        "/-/milestones/1", "/-/members", f"/-/tree/{branch}", f"/-/blob/{MAIN}/{file}", f"/-/edit/{MAIN}/{file}", f"/-/new/{branch}",
        "/-/commits", f"/-/commits?branch={branch}", "/-/branches", "/-/pipelines", "/-/releases", "/-/merge_requests?state=all",
        "/-/merge_requests/new", "/-/merge_requests/1", "/-/merge_requests/2", "/-/settings",
    ]  # fmt: skip
    return [
        "/", f"/search?q={project.name}", "/search?q=fix", "/to-dos", f"/people/{content.me}", f"/people/{content.people[3].name}",
        "/profile", "/groups/new", "/projects/new", "/changes", f"/{project.group}", "/style.css", "/script.js",
        *(f"/{project.path}{page}" for page in pages),
    ]  # fmt: skip


def changes(client: TestClient) -> str:
    return select_text(client.get("/changes").text, "#changes")


def test_one_seed_gives_the_same_bytes_and_another_seed_others():
    first, again, other = visitors(1, 1, 2)
    for path in paths(1):
        page = first.get(path)
        assert page.status_code == 200, path
        assert page.content == again.get(path).content, path
    assert first.get("/").content != other.get("/").content
    assert first.get("/to-dos").content != other.get("/to-dos").content


def test_what_one_visitor_does_no_other_sees():
    one, other = visitors(1, 1)
    before, project = {path: other.get(path).content for path in paths(1)}, project_with("owner")
    one.post(f"/{project.path}/-/issues/3/comment", data={"comment": "good idea"})
    one.post(f"/{project.path}/-/milestones/1/close")
    one.post("/profile", data={"status": "away", "bio": "likes maps"})
    assert "good idea" in one.get(f"/{project.path}/-/issues/3").text
    assert {path: other.get(path).content for path in paths(1)} == before


@pytest.mark.parametrize("seed", range(8))
def test_every_seed_has_each_role_and_names_of_its_own(seed):
    content = make_content(seed)
    assert sorted(project.role for project in content.projects) == ["", "developer", "guest", "maintainer", "owner", "owner", "reporter"]
    assert len(content.titles) == sum(len(project.issues) + len(project.merge_requests) for project in content.projects)
    assert len({project.name for project in content.projects}) == len(content.projects)
    assert content.titles != make_content(seed + 1).titles


@pytest.mark.parametrize(
    ("role", "page", "control"),
    [
        ("guest", "/-/issues/3", "save changes"),
        ("guest", "/-/issues/new", "due date"),
        ("reporter", "/-/milestones", "new milestone"),
        ("reporter", "/-/branches", "create branch"),
        ("developer", "/-/members", "invite"),
        ("developer", "", "new file"),
        ("developer", "", "settings"),
        ("developer", "/-/merge_requests/2", ">merge<"),
    ],
)
def test_a_control_is_there_for_those_whose_role_is_enough(role, page, control):
    (client,) = visitors(1)
    assert control not in client.get(f"/{project_with(role).path}{page}").text
    assert control in client.get(f"/{project_with('owner').path}{page}").text


@pytest.mark.parametrize(
    ("role", "page", "form", "notice"),
    [
        ("guest", "/-/issues/3", {"assignee": "", "milestone": "no milestone", "due": ""}, "needs the role reporter"),
        ("guest", "/-/issues", {"title": "help", "label": "bug"}, "needs the role reporter"),
        ("guest", "/-/issues/3/label", {"label": "bug"}, "needs the role reporter"),
        ("reporter", "/-/milestones", {"title": "third release"}, "needs the role developer"),
        ("reporter", "/-/branches", {"branch": "fix-all"}, "needs the role developer"),
        ("reporter", "/-/merge_requests/2/approve", {}, "needs the role developer"),
        ("developer", "/-/edit/main/readme.md", {"line-1": "x", "message": "clean up"}, "needs the role maintainer"),
        ("developer", "/-/merge_requests/2/merge", {}, "needs the role maintainer"),
        ("developer", "/-/members", {"person": "PERSON", "role": "guest"}, "needs the role maintainer"),
        ("maintainer", "/-/members", {"person": "PERSON", "role": "owner"}, "needs the role owner"),
        ("", "/-/settings", {"description": "mine", "visibility": "public"}, "needs the role maintainer"),
        ("owner", "/-/members/ME", {"role": ""}, "your own role"),
        ("owner", "/-/members", {"person": "nobody", "role": "guest"}, "nobody named nobody"),
        ("owner", "/-/issues", {"title": ""}, "an issue needs a title"),
        ("owner", "/-/issues", {"title": "help", "assignee": "PERSON"}, "is no member"),
        ("owner", "/-/issues/3", {"due": "14 march"}, "due date must be written like"),
        ("owner", "/-/issues/3/comment", {"comment": " "}, "needs some words"),
        ("owner", "/-/milestones", {"title": "x", "start": "2026-05-02", "due": "2026-05-01"}, "before the start date"),
        ("owner", "/-/branches", {"branch": "main"}, "is there already"),
        ("owner", "/-/branches", {"branch": "../main"}, "a branch is named like"),
        ("owner", "/-/new/main", {"file": "readme.md", "line-1": "x", "message": "y"}, "is there already"),
        ("owner", "/-/edit/main/readme.md", {"line-1": "x", "message": ""}, "a commit needs a message"),
        ("owner", "/-/merge_requests", {"source": "main", "title": "x"}, "please choose from the options"),
        ("owner", "/-/merge_requests/1/merge", {}, "is not open"),
    ],
)
def test_a_refusal_is_said_on_the_next_page_and_changes_nothing(role, page, form, notice):
    (client,) = visitors(1)
    content, project = make_content(1), project_with(role)
    stranger = next(p.name for p in content.people if p.name not in (content.me, *dict(project.teammates)))
    form = {key: value.replace("PERSON", stranger) for key, value in form.items()}
    assert client.post(f"/{project.path}{page.replace('ME', content.me)}", data=form).status_code == 303
    assert notice in client.get("/").text
    assert notice not in client.get("/").text
    assert changes(client) == "none yet"


def test_a_merge_brings_the_files_of_the_branch_to_main():
    (client,) = visitors(1)
    project = project_with("owner")
    path, request = project.path, project.merge_requests[1]
    file = next(file for file in project.files if file.branch == request.source)
    before = client.get(f"/{path}/-/commits").text
    assert file.lines[-1] not in client.get(f"/{path}/-/blob/{MAIN}/{file.path}").text
    client.post(f"/{path}/-/merge_requests/{request.number}/merge")
    assert file.lines[-1] in client.get(f"/{path}/-/blob/{MAIN}/{file.path}").text
    assert f"merge {request.source} into main" not in before
    assert f"merge {request.source} into main" in client.get(f"/{path}/-/commits").text
    assert ">merge<" not in client.get(f"/{path}/-/merge_requests/{request.number}").text


def test_a_milestone_counts_the_issues_that_are_closed():
    (client,) = visitors(1)
    path = project_with("owner").path
    client.post(f"/{path}/-/milestones", data={"title": "last review", "start": "", "due": "2026-05-01"})
    assert "0 of 0 closed" in client.get(f"/{path}/-/milestones/3").text
    for title in ("one", "two"):
        client.post(f"/{path}/-/issues", data={"title": title, "label": "no label", "milestone": "last review"})
    client.post(f"/{path}/-/issues/11/close")
    assert "1 of 2 closed" in client.get(f"/{path}/-/milestones/3").text


def test_filters_of_issues_find_what_they_say():
    (client,) = visitors(1)
    project = project_with("owner")
    for state, label in itertools.product(("open", "closed", "all"), ("bug", "docs", "any label")):
        wanted = [
            issue for issue in project.issues if state in ("all", issue.state) and (label == "any label" or label in issue.labels)
        ]  # fmt: skip
        page = client.get(f"/{project.path}/-/issues", params={"state": state, "label": label}).text
        assert f"{len(wanted)} found" in page
        for issue in wanted[-6:]:
            assert f">{issue.title}</a>" in page


def test_going_back_leaves_no_change():
    """What is undone is not among the changes; what was said stays."""
    (client,) = visitors(1)
    path, number = project_with("owner").path, project_with("owner").open_issues()[0].number
    client.post(f"/{path}/-/issues/{number}/close")
    assert changes(client) == f"{path} issue {number} state: closed"
    client.post(f"/{path}/-/issues/{number}/reopen")
    client.post(f"/{path}/-/star")
    client.post(f"/{path}/-/star")
    assert changes(client) == "none yet"


TEXT = st.text(max_size=12) | st.sampled_from(
    ["1", "-1", "99999999999999999999", "'; DROP TABLE issue; --", "<b>x</b>", "owner", "\x00", "main"]
)
FIELDS = ("title", "description", "label", "assignee", "milestone", "due", "start", "comment", "person", "role", "branch", "file", "line-1",
          "message", "source", "name", "group", "visibility", "readme", "topics", "status", "bio", "number", "back")  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(forms=st.lists(st.dictionaries(st.sampled_from(FIELDS), TEXT), min_size=1, max_size=3), number=st.integers(0, 10**20))
def test_no_form_breaks_the_code_host(forms, number):
    (client,) = visitors(1)
    project = project_with("owner")
    group, name = project.path.split("/")
    known = {
        "{group}": group, "{project}": name, "{branch}": project.branches[1], "{file:path}": project.files[0].path,
        "{name}": project.teammates[0][0], "{number:int}": str(number if number % 2 else 2),
    }  # fmt: skip
    for (path, method, _), form in itertools.product(APPLICATION.routes, forms):
        if method == "POST":
            for key, value in known.items():
                path = path.replace(key, value)
            answer = client.post(path, data=form)
            assert answer.status_code in (303, 404), path
            assert answer.status_code == 404 or answer.headers["location"].startswith("/")
    for path in (
        "",
        "/-/issues?state=all",
        "/-/issues/2",
        "/-/milestones",
        "/-/members",
        "/-/branches",
        "/-/merge_requests/2",
        "/-/settings",
    ):
        answer = client.get(f"/{project.path}{path}")
        assert answer.status_code == 200, path
        assert "<b>x</b>" not in answer.text
    assert "<b>x</b>" not in client.get("/").text + client.get("/changes").text + client.get("/profile").text


class Says:
    """A policy of fixed responses."""

    def __init__(self, *responses: str):
        self.responses = responses

    def respond(self, task, rounds, observation):
        return self.responses[len(rounds)]


def click(name: str) -> str:
    return f'do(action="Click", element="{name}")'


def typed(name: str, text: str) -> str:
    return f'do(action="Type", argument="{text}", element="{name}")'


async def test_menu_completion_and_calendar_show_and_do_what_they_say(arena):
    task = arena.tasks("test", ["open_an_issue"], 1, seed=1)[0]
    values, content = instance(task.id).draft.values, make_content(task.seed)
    project = next(project for project in content.projects if project.name == values["project"])
    person = next(person for person in content.people if person.name == project.teammates[0][0])
    after = datetime.date.fromisoformat(content.day).replace(day=28) + datetime.timedelta(days=4)
    chosen, month = after.replace(day=5).isoformat(), after.strftime("%B").lower()
    policy = Says(
        click("new ..."), click(project.name), click("new ..."), click("new issue"), typed("title", "help"),
        typed("assignee", person.full_name[:-1]), click(person.full_name), click("pick due date"), click("next month"),
        click(f"{month} 5"), click("create issue"), 'exit(message="done")',
    )  # fmt: skip
    async with BrowserPool(BrowserConfig(draw=False)) as browser:
        episode = await play(arena, task, policy, browser)
    assert [step.error for step in episode.steps] == [None] * 12
    pages = [step.page.observation for step in episode.steps]
    assert ["new group" in page for page in pages[:3]] == [False, True, False]
    assert f'<option id="{person.full_name}">' in pages[6]
    assert f'<input id="assignee" value="{person.name}">' in pages[7] and "<option" not in pages[7]
    assert 'id="next month"' in pages[8] and f'id="{month} 5"' in pages[9]
    assert f'value="{chosen}"' in pages[10] and "next month" not in pages[10]
    made = f"{project.path} issue {len(project.issues) + 1}"
    assert episode.steps[-1].state["code"]["changes"] == [
        f"{made} assignee: {person.name}", f"{made} due: {chosen}", f"{made} state: open", f"{made} title: help",
    ]  # fmt: skip
