"""Pages outside of projects (home, search, to-dos, people, groups), and helpers for all project pages."""

import functools
from typing import Any

from starlette.responses import Response

from mira_arena.sites.application import changes_page
from mira_arena.sites.code import vocabulary
from mira_arena.sites.code.content import MAIN
from mira_arena.sites.paths import slug
from mira_arena.sites.state import Row
from mira_arena.sites.visit import Visit

PROJECT = "/{group}/{project}"


def text(visit: Visit, field: str) -> str:
    """Value of a form field."""
    return visit.form.get(field, "").lower()


def asked(visit: Visit, field: str) -> str:
    """Value of a search or filter field in the query string."""
    return " ".join(visit.query.get(field, "").lower().split())[:60]


def chosen(visit: Visit, field: str) -> str:
    """Selected option of the form. '' for an option such as `no milestone`."""
    option = text(visit, field)
    return "" if option == f"no {field}" else option


def project_of(visit: Visit) -> Row:
    return visit.found(visit.state.project(f"{visit.path('group')}/{visit.path('project')}"))


def show(visit: Visit, template: str, project: Row, **values: Any) -> Response:
    """Renders a page of a project. Its template gets `may`, which tells whether the user's role in the project is sufficient."""
    return visit.show(template, project=project, may=functools.partial(visit.state.may, project["path"]), **values)


def home(visit: Visit) -> Response:
    state = visit.state
    return visit.show("home.html", **visit.paginate(state.memberships(state.visit["person"])))


def search(visit: Visit) -> Response:
    query = asked(visit, "q")
    return visit.show("search.html", query=query, **visit.paginate(visit.state.search(query)))


def todos(visit: Visit) -> Response:
    return visit.show("todos.html", todos=visit.state.todos())


def finish_todo(visit: Visit) -> Response:
    visit.state.finish_todo(visit.whole_number("number"))
    return visit.go("/to-dos", "to-do marked as done")


def person(visit: Visit) -> Response:
    row = visit.found(visit.state.person(visit.path("name")))
    return visit.show("person.html", person=row, projects=visit.state.memberships(row["name"]))


def profile(visit: Visit) -> Response:
    return visit.show("profile.html", statuses=vocabulary.STATUSES)


def save_profile(visit: Visit) -> Response:
    visit.state.save_profile(text(visit, "status"), text(visit, "bio"))
    return visit.go(f"/people/{visit.state.visit['person']}", "profile saved")


def new_group(visit: Visit) -> Response:
    return visit.show("new_group.html")


def add_group(visit: Visit) -> Response:
    name = text(visit, "name")
    visit.state.add_group(name)
    return visit.go(f"/{slug(name)}", "group created")


def group(visit: Visit) -> Response:
    row = visit.found(visit.state.group(visit.path("group")))
    return visit.show("group.html", group=row, **visit.paginate(visit.state.projects(row["name"])))


def new_project(visit: Visit) -> Response:
    return visit.show("new_project.html", groups=[row["name"] for row in visit.state.groups()], visibilities=vocabulary.VISIBILITIES)


def add_project(visit: Visit) -> Response:
    state, name = visit.state, text(visit, "name")
    path = state.add_project(name, text(visit, "group"), text(visit, "description"), text(visit, "visibility"))
    if text(visit, "readme") == "yes":
        state.save_file(path, MAIN, "readme.md", [name], "initial commit", new=True)
    return visit.go(f"/{path}", "project created")


ROUTES = (
    ("/", "GET", home),
    ("/search", "GET", search),
    ("/to-dos", "GET", todos),
    ("/to-dos", "POST", finish_todo),
    ("/people/{name}", "GET", person),
    ("/profile", "GET", profile),
    ("/profile", "POST", save_profile),
    ("/groups/new", "GET", new_group),
    ("/groups/new", "POST", add_group),
    ("/projects/new", "GET", new_project),
    ("/projects/new", "POST", add_project),
    ("/changes", "GET", changes_page("base.html")),
    ("/{group}", "GET", group),
)
"""(path, method, handler) of each route."""
