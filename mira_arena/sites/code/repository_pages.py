"""Pages of a project's repository: files, commits, branches, merge requests, pipelines, releases, settings."""

from starlette.responses import Response

from mira_arena.sites.code import vocabulary
from mira_arena.sites.code.content import MAIN
from mira_arena.sites.code.pages import PROJECT, asked, project_of, show, text
from mira_arena.sites.code.state import MAX_LINES
from mira_arena.sites.state import Row
from mira_arena.sites.visit import Visit

REQUEST_STATES = ("open", "merged", "closed", "all")
NEW_LINES = 4
"""Number of empty lines in the form of a new file."""


def project(visit: Visit) -> Response:
    return _tree(visit, MAIN)


def tree(visit: Visit) -> Response:
    return _tree(visit, visit.path("branch"))


def _tree(visit: Visit, branch: str) -> Response:
    row, state = project_of(visit), visit.state
    _check_branch(visit, row, branch)
    path = row["path"]
    return show(
        visit, "project.html", row, branch=branch, files=state.files(path, branch), last=state.commits(path, branch)[:1],
        may_write=state.may_write(path, branch),
    )  # fmt: skip


def _check_branch(visit: Visit, row: Row, branch: str) -> None:
    visit.found(branch if branch in visit.state.branches(row["path"]) else None)


def _file(visit: Visit) -> tuple[Row, str, str, list[str]]:
    """The project, the branch, and the file's path and lines."""
    row, branch, file = project_of(visit), visit.path("branch"), visit.path("file")
    _check_branch(visit, row, branch)
    return row, branch, file, visit.found(visit.state.files(row["path"], branch).get(file))


def file(visit: Visit) -> Response:
    row, branch, path, lines = _file(visit)
    return show(visit, "file.html", row, branch=branch, file=path, lines=lines, may_write=visit.state.may_write(row["path"], branch))


def edit_file(visit: Visit) -> Response:
    row, branch, path, lines = _file(visit)
    return show(visit, "edit_file.html", row, branch=branch, file=path, lines=[*lines, ""][:MAX_LINES])


def save_file(visit: Visit) -> Response:
    row, branch, path, _ = _file(visit)
    visit.state.save_file(row["path"], branch, path, _lines(visit), text(visit, "message"))
    return visit.go(f"/{row['path']}/-/blob/{branch}/{path}", "changes committed")


def _lines(visit: Visit) -> list[str]:
    """The lines entered in the form, without empty ones."""
    lines = [text(visit, f"line-{number}") for number in range(1, MAX_LINES + 1)]
    return [line for line in lines if line]


def new_file(visit: Visit) -> Response:
    row, branch = project_of(visit), visit.path("branch")
    _check_branch(visit, row, branch)
    return show(visit, "edit_file.html", row, branch=branch, file="", lines=[""] * NEW_LINES)


def add_file(visit: Visit) -> Response:
    row, branch, path = project_of(visit), visit.path("branch"), text(visit, "file")
    _check_branch(visit, row, branch)
    visit.state.save_file(row["path"], branch, path, _lines(visit), text(visit, "message"), new=True)
    return visit.go(f"/{row['path']}/-/blob/{branch}/{path}", "file created")


def commits(visit: Visit) -> Response:
    row, author = project_of(visit), asked(visit, "author")
    branch = asked(visit, "branch") or MAIN
    _check_branch(visit, row, branch)
    found = visit.state.commits(row["path"], branch, author)
    return show(visit, "commits.html", row, branch=branch, author=author, count=len(found), **visit.paginate(found))


def branches(visit: Visit) -> Response:
    row = project_of(visit)
    return show(visit, "branches.html", row, **visit.paginate(visit.state.branches(row["path"])))


def add_branch(visit: Visit) -> Response:
    path, name = project_of(visit)["path"], text(visit, "branch")
    visit.state.add_branch(path, name)
    return visit.go(f"/{path}/-/tree/{name}", "branch created")


def pipelines(visit: Visit) -> Response:
    row = project_of(visit)
    return show(visit, "pipelines.html", row, **visit.paginate(visit.state.pipelines(row["path"])))


def releases(visit: Visit) -> Response:
    row = project_of(visit)
    return show(visit, "releases.html", row, **visit.paginate(visit.state.releases(row["path"])))


def merge_requests(visit: Visit) -> Response:
    row, state = project_of(visit), asked(visit, "state")
    state = state if state in REQUEST_STATES else "open"
    found = visit.state.merge_requests(row["path"], state)
    return show(visit, "merge_requests.html", row, state=state, states=REQUEST_STATES, **visit.paginate(found))


def new_merge_request(visit: Visit) -> Response:
    row = project_of(visit)
    return show(visit, "new_merge_request.html", row, branches=visit.state.branches(row["path"])[1:])


def add_merge_request(visit: Visit) -> Response:
    path = project_of(visit)["path"]
    number = visit.state.add_merge_request(path, text(visit, "source"), text(visit, "title"))
    return visit.go(f"/{path}/-/merge_requests/{number}", "merge request created")


def _merge_request(visit: Visit) -> tuple[Row, Row]:
    """The project and the merge request of the path."""
    row = project_of(visit)
    return row, visit.found(visit.state.merge_request(row["path"], visit.path("number")))


def merge_request(visit: Visit) -> Response:
    row, request = _merge_request(visit)
    state, path, source = visit.state, row["path"], request["source"]
    made = [commit for commit in state.commits(path, source) if commit["branch"] == source]
    comments = state.comments(path, "merge request", request["number"])
    return show(visit, "merge_request.html", row, request=request, commits=made, files=state.changed_files(path, source), comments=comments)


def comment_on_request(visit: Visit) -> Response:
    row, request = _merge_request(visit)
    visit.state.add_comment(row["path"], "merge request", request["number"], text(visit, "comment"))
    return _to_request(visit, "comment added")


def approve(visit: Visit) -> Response:
    row, request = _merge_request(visit)
    visit.state.approve(row["path"], request["number"])
    return _to_request(visit, "merge request approved")


def merge(visit: Visit) -> Response:
    row, request = _merge_request(visit)
    visit.state.merge(row["path"], request["number"])
    return _to_request(visit, "merge request merged")


def close_request(visit: Visit) -> Response:
    row, request = _merge_request(visit)
    visit.state.close_request(row["path"], request["number"])
    return _to_request(visit, "merge request closed")


def _to_request(visit: Visit, notice: str) -> Response:
    row, request = _merge_request(visit)
    return visit.go(f"/{row['path']}/-/merge_requests/{request['number']}", notice)


def star(visit: Visit) -> Response:
    path = project_of(visit)["path"]
    visit.state.star(path)
    return visit.go(f"/{path}")


def settings(visit: Visit) -> Response:
    row = project_of(visit)
    visit.back = f"/{row['path']}"
    visit.state.need(row["path"], "maintainer")
    return show(visit, "settings.html", row, visibilities=vocabulary.VISIBILITIES)


def save_settings(visit: Visit) -> Response:
    path = project_of(visit)["path"]
    visit.state.save_settings(path, *(text(visit, field) for field in ("description", "topics", "visibility")))
    return visit.go(f"/{path}", "settings saved")


ROUTES = (
    (PROJECT, "GET", project),
    (PROJECT + "/-/tree/{branch}", "GET", tree),
    (PROJECT + "/-/blob/{branch}/{file:path}", "GET", file),
    (PROJECT + "/-/edit/{branch}/{file:path}", "GET", edit_file),
    (PROJECT + "/-/edit/{branch}/{file:path}", "POST", save_file),
    (PROJECT + "/-/new/{branch}", "GET", new_file),
    (PROJECT + "/-/new/{branch}", "POST", add_file),
    (PROJECT + "/-/commits", "GET", commits),
    (PROJECT + "/-/branches", "GET", branches),
    (PROJECT + "/-/branches", "POST", add_branch),
    (PROJECT + "/-/pipelines", "GET", pipelines),
    (PROJECT + "/-/releases", "GET", releases),
    (PROJECT + "/-/merge_requests", "GET", merge_requests),
    (PROJECT + "/-/merge_requests", "POST", add_merge_request),
    (PROJECT + "/-/merge_requests/new", "GET", new_merge_request),
    (PROJECT + "/-/merge_requests/{number:int}", "GET", merge_request),
    (PROJECT + "/-/merge_requests/{number:int}/comment", "POST", comment_on_request),
    (PROJECT + "/-/merge_requests/{number:int}/approve", "POST", approve),
    (PROJECT + "/-/merge_requests/{number:int}/merge", "POST", merge),
    (PROJECT + "/-/merge_requests/{number:int}/close", "POST", close_request),
    (PROJECT + "/-/star", "POST", star),
    (PROJECT + "/-/settings", "GET", settings),
    (PROJECT + "/-/settings", "POST", save_settings),
)
"""(path, method, handler) of each route."""
