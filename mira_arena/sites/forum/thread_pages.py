"""Pages of threads and comments: reading, writing, voting, reporting."""

from typing import Any

from starlette.responses import Response

from mira_arena.sites.forum import vocabulary
from mira_arena.sites.forum.pages import need_sign_in
from mira_arena.sites.paths import slug
from mira_arena.sites.state import Row
from mira_arena.sites.visit import Visit

COMMENTS_AT_ONCE = 4
"""Number of comments that a thread shows at first, and that "load more comments" adds."""
_MOST_COMMENTS = 1000


def new_thread(visit: Visit) -> Response:
    need_sign_in(visit)
    names = [row["name"] for row in visit.state.communities()]
    return visit.show("new_thread.html", communities=names, chosen=visit.query.get("community", ""))


def post_thread(visit: Visit) -> Response:
    visit.back = "/new"
    form = visit.form
    texts = [form.get(field, "").lower() for field in ("title", "link", "text")]
    return visit.go(f"/thread/{visit.state.post(form.get('community', ''), *texts)}", "your thread is posted")


def known_thread(visit: Visit) -> Row:
    return visit.found(visit.state.thread(visit.path("id")))


def known_comment(visit: Visit) -> Row:
    return visit.found(visit.state.comment(visit.path("id")))


def known_thing(visit: Visit) -> Row:
    """The thread or comment of the path."""
    return visit.found(visit.state.thing(visit.path("kind"), visit.path("id")))


def page_of(thing: Row) -> str:
    return f"/{thing['kind']}/{thing['id']}"


def thread(visit: Visit) -> Response:
    row = known_thread(visit)
    comments = visit.state.comments(row["id"])
    text = visit.query.get("show", "")
    shown = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else COMMENTS_AT_ONCE
    more = min(shown, _MOST_COMMENTS) + COMMENTS_AT_ONCE if len(comments) > shown else 0
    return visit.show("thread.html", **_rights(visit, row), thread=row, comments=comments[:shown], more=more, reasons=vocabulary.REASONS)


def comment(visit: Visit) -> Response:
    row = known_comment(visit)
    above = visit.state.thread(row["thread"])
    return visit.show("comment.html", **_rights(visit, above, row), thread=above, comment=row, reasons=vocabulary.REASONS)


def _rights(visit: Visit, thread: Row, comment: Row | None = None) -> dict[str, Any]:
    """Permissions of the visitor."""
    author = (comment or thread)["author"]
    return {"own": author == visit.state.viewer, "moderates": visit.state.moderates(thread["community"])}


def add_comment(visit: Visit) -> Response:
    row = known_thread(visit)
    visit.state.add_comment(row, visit.form.get("text", "").lower())
    return visit.go(visit.back, "your comment is posted")


def reply(visit: Visit) -> Response:
    row = known_comment(visit)
    visit.back = f"/comment/{row['id']}"
    visit.state.add_comment(visit.state.thread(row["thread"]), visit.form.get("text", "").lower(), row["id"])
    return visit.go(f"/thread/{row['thread']}", "your reply is posted")


def vote(visit: Visit) -> Response:
    visit.state.vote(known_thing(visit), -1 if visit.form.get("value") == "down" else 1)
    return visit.go(visit.back)


def save(visit: Visit) -> Response:
    row, on = known_thread(visit), visit.form.get("on") == "1"
    visit.state.save(row, on)
    return visit.go(visit.back, "thread saved" if on else "thread no longer saved")


def _own_thing(visit: Visit) -> Row:
    row = known_thing(visit)
    visit.back = page_of(row)
    visit.state.check_own(row)
    return row


def edit(visit: Visit) -> Response:
    row = _own_thing(visit)
    return visit.show("edit.html", thing=row, page=page_of(row))


def save_edit(visit: Visit) -> Response:
    row, text = _own_thing(visit), visit.form.get("text", "").lower()
    change = visit.state.edit_thread if row["kind"] == "thread" else visit.state.edit_comment
    change(row, text)
    return visit.go(visit.back, f"{row['kind']} saved")


def ask_to_delete(visit: Visit) -> Response:
    row = _own_thing(visit)
    return visit.show("delete.html", thing=row, page=page_of(row))


def delete(visit: Visit) -> Response:
    row = _own_thing(visit)
    if row["kind"] == "thread":
        visit.state.delete_thread(row)
        return visit.go(f"/user/{slug(visit.state.viewer)}", "thread deleted")
    visit.state.delete_comment(row)
    return visit.go(f"/thread/{row['thread']}", "comment deleted")


def report_page(visit: Visit) -> Response:
    need_sign_in(visit)
    row = known_thing(visit)
    return visit.show("send_report.html", thing=row, page=page_of(row), reasons=vocabulary.REASONS)


def report(visit: Visit) -> Response:
    row = known_thing(visit)
    visit.back = page_of(row)
    visit.state.report(row, visit.form.get("reason", ""))
    return visit.go(visit.back, "the moderators will have a look")


ROUTES = (
    ("/new", "GET", new_thread),
    ("/new", "POST", post_thread),
    ("/thread/{id:int}", "GET", thread),
    ("/thread/{id:int}/comment", "POST", add_comment),
    ("/thread/{id:int}/save", "POST", save),
    ("/comment/{id:int}", "GET", comment),
    ("/comment/{id:int}/reply", "POST", reply),
    ("/{kind}/{id:int}/vote", "POST", vote),
    ("/{kind}/{id:int}/edit", "GET", edit),
    ("/{kind}/{id:int}/edit", "POST", save_edit),
    ("/{kind}/{id:int}/delete", "GET", ask_to_delete),
    ("/{kind}/{id:int}/delete", "POST", delete),
    ("/{kind}/{id:int}/report", "GET", report_page),
    ("/{kind}/{id:int}/report", "POST", report),
)
"""(path, method, handler) of each route."""
