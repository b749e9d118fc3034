"""Project pages for planning: issues, milestones, members."""

from starlette.responses import Response

from mira_arena.sites.code import vocabulary
from mira_arena.sites.code.pages import PROJECT, asked, chosen, project_of, show, text
from mira_arena.sites.state import Row
from mira_arena.sites.visit import Visit

ISSUE_STATES = ("open", "closed", "all")


def _milestone_titles(visit: Visit, path: str) -> list[str]:
    return [row["title"] for row in visit.state.milestones(path)]


def issues(visit: Visit) -> Response:
    project = project_of(visit)
    milestones = _milestone_titles(visit, project["path"])
    query = {key: asked(visit, key) for key in ("state", "label", "assignee", "milestone", "search")}
    query["state"] = query["state"] if query["state"] in ISSUE_STATES else "open"
    query["label"] = query["label"] if query["label"] in vocabulary.LABELS else ""
    query["milestone"] = query["milestone"] if query["milestone"] in milestones else ""
    found = visit.state.issues(project["path"], **query)
    return show(
        visit, "issues.html", project, filters=query, states=ISSUE_STATES, labels=vocabulary.LABELS, milestones=milestones,
        count=len(found), **visit.paginate(found),
    )  # fmt: skip


def new_issue(visit: Visit) -> Response:
    project = project_of(visit)
    return show(visit, "new_issue.html", project, labels=vocabulary.LABELS, milestones=_milestone_titles(visit, project["path"]))


def add_issue(visit: Visit) -> Response:
    path = project_of(visit)["path"]
    number = visit.state.add_issue(path, text(visit, "title"), text(visit, "description"), chosen(visit, "label"), *_plan(visit))
    return visit.go(f"/{path}/-/issues/{number}", "issue created")


def _plan(visit: Visit) -> tuple[str, str, str]:
    return text(visit, "assignee"), chosen(visit, "milestone"), text(visit, "due")


def _issue(visit: Visit) -> tuple[Row, Row]:
    """The project and the issue of the path."""
    project = project_of(visit)
    return project, visit.found(visit.state.issue(project["path"], visit.path("number")))


def issue(visit: Visit) -> Response:
    project, row = _issue(visit)
    labels = [label for label in row["labels"].split(", ") if label]
    comments = visit.state.comments(project["path"], "issue", row["number"])
    return show(
        visit, "issue.html", project, issue=row, labels=labels, more_labels=[label for label in vocabulary.LABELS if label not in labels],
        comments=comments, milestones=_milestone_titles(visit, project["path"]),
    )  # fmt: skip


def plan_issue(visit: Visit) -> Response:
    project, row = _issue(visit)
    visit.state.plan_issue(project["path"], row["number"], *_plan(visit))
    return _to_issue(visit, "changes saved")


def add_label(visit: Visit) -> Response:
    project, row = _issue(visit)
    visit.state.set_label(project["path"], row["number"], text(visit, "label"), there=True)
    return _to_issue(visit, "label added")


def remove_label(visit: Visit) -> Response:
    project, row = _issue(visit)
    visit.state.set_label(project["path"], row["number"], text(visit, "label"), there=False)
    return _to_issue(visit, "label removed")


def close_issue(visit: Visit) -> Response:
    project, row = _issue(visit)
    visit.state.set_issue_state(project["path"], row["number"], "closed")
    return _to_issue(visit, "issue closed")


def reopen_issue(visit: Visit) -> Response:
    project, row = _issue(visit)
    visit.state.set_issue_state(project["path"], row["number"], "open")
    return _to_issue(visit, "issue reopened")


def comment_on_issue(visit: Visit) -> Response:
    project, row = _issue(visit)
    visit.state.add_comment(project["path"], "issue", row["number"], text(visit, "comment"))
    return _to_issue(visit, "comment added")


def _to_issue(visit: Visit, notice: str) -> Response:
    project, row = _issue(visit)
    return visit.go(f"/{project['path']}/-/issues/{row['number']}", notice)


def milestones(visit: Visit) -> Response:
    project = project_of(visit)
    return show(visit, "milestones.html", project, **visit.paginate(visit.state.milestones(project["path"])))


def new_milestone(visit: Visit) -> Response:
    return show(visit, "new_milestone.html", project_of(visit))


def add_milestone(visit: Visit) -> Response:
    path = project_of(visit)["path"]
    number = visit.state.add_milestone(path, text(visit, "title"), text(visit, "start"), text(visit, "due"))
    return visit.go(f"/{path}/-/milestones/{number}", "milestone created")


def _milestone(visit: Visit) -> tuple[Row, Row]:
    """The project and the milestone of the path."""
    project = project_of(visit)
    return project, visit.found(visit.state.milestone(project["path"], visit.path("number")))


def milestone(visit: Visit) -> Response:
    project, row = _milestone(visit)
    found = visit.state.issues(project["path"], milestone=row["title"])
    return show(visit, "milestone.html", project, milestone=row, **visit.paginate(found))


def close_milestone(visit: Visit) -> Response:
    return _set_milestone_state(visit, "closed", "milestone closed")


def reopen_milestone(visit: Visit) -> Response:
    return _set_milestone_state(visit, "open", "milestone reopened")


def _set_milestone_state(visit: Visit, state: str, notice: str) -> Response:
    project, row = _milestone(visit)
    visit.state.set_milestone_state(project["path"], row["number"], state)
    return visit.go(f"/{project['path']}/-/milestones/{row['number']}", notice)


def members(visit: Visit) -> Response:
    project = project_of(visit)
    role = visit.state.role(project["path"])
    may_give = vocabulary.ROLES if role == "owner" else vocabulary.ROLES[:-1]
    return show(visit, "members.html", project, roles=may_give, **visit.paginate(visit.state.members(project["path"])))


def invite(visit: Visit) -> Response:
    path = project_of(visit)["path"]
    visit.state.invite(path, text(visit, "person"), text(visit, "role"))
    return visit.go(f"/{path}/-/members", "member invited")


def set_role(visit: Visit) -> Response:
    path, role = project_of(visit)["path"], text(visit, "role")
    visit.state.set_role(path, visit.path("name"), role)
    return visit.go(f"/{path}/-/members", "role saved" if role else "member removed")


ROUTES = (
    (PROJECT + "/-/issues", "GET", issues),
    (PROJECT + "/-/issues", "POST", add_issue),
    (PROJECT + "/-/issues/new", "GET", new_issue),
    (PROJECT + "/-/issues/{number:int}", "GET", issue),
    (PROJECT + "/-/issues/{number:int}", "POST", plan_issue),
    (PROJECT + "/-/issues/{number:int}/label", "POST", add_label),
    (PROJECT + "/-/issues/{number:int}/unlabel", "POST", remove_label),
    (PROJECT + "/-/issues/{number:int}/close", "POST", close_issue),
    (PROJECT + "/-/issues/{number:int}/reopen", "POST", reopen_issue),
    (PROJECT + "/-/issues/{number:int}/comment", "POST", comment_on_issue),
    (PROJECT + "/-/milestones", "GET", milestones),
    (PROJECT + "/-/milestones", "POST", add_milestone),
    (PROJECT + "/-/milestones/new", "GET", new_milestone),
    (PROJECT + "/-/milestones/{number:int}", "GET", milestone),
    (PROJECT + "/-/milestones/{number:int}/close", "POST", close_milestone),
    (PROJECT + "/-/milestones/{number:int}/reopen", "POST", reopen_milestone),
    (PROJECT + "/-/members", "GET", members),
    (PROJECT + "/-/members", "POST", invite),
    (PROJECT + "/-/members/{name}", "POST", set_role),
)
"""(path, method, handler) of each route."""
