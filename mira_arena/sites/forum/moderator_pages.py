"""Pages for moderators: reports, removals, bans, settings."""

from starlette.responses import Response

from mira_arena.sites.forum import vocabulary
from mira_arena.sites.forum.pages import known_community
from mira_arena.sites.forum.thread_pages import known_thing, known_thread, page_of
from mira_arena.sites.state import Row
from mira_arena.sites.visit import Visit


def ask_to_remove(visit: Visit) -> Response:
    row = known_thing(visit)
    visit.state.check_moderator(row["community"])
    page = page_of(row)
    return visit.show("remove.html", thing=row, page=page, back=visit.query.get("back", page), reasons=vocabulary.REASONS)


def remove(visit: Visit) -> Response:
    row = known_thing(visit)
    visit.state.remove(row, visit.form.get("reason", ""))
    return visit.go(visit.back, f"{row['kind']} removed")


def restore(visit: Visit) -> Response:
    row = known_thing(visit)
    visit.state.restore(row)
    return visit.go(visit.back, f"{row['kind']} restored")


def lock(visit: Visit) -> Response:
    row, on = known_thread(visit), visit.form.get("on") == "1"
    visit.state.lock(row, on)
    return visit.go(visit.back, "thread locked" if on else "thread unlocked")


def stick(visit: Visit) -> Response:
    row, on = known_thread(visit), visit.form.get("on") == "1"
    visit.state.stick(row, on)
    return visit.go(visit.back, "thread made sticky" if on else "thread no longer sticky")


def flair(visit: Visit) -> Response:
    row = known_thread(visit)
    return visit.show("flair.html", thread=row, flairs=visit.state.flairs(row["community"]))


def save_flair(visit: Visit) -> Response:
    row, chosen = known_thread(visit), visit.form.get("flair", "")
    visit.back = f"/thread/{row['id']}"
    visit.state.set_flair(row, "" if chosen == "none" else chosen)
    return visit.go(visit.back, "flair saved")


def _moderated(visit: Visit) -> Row:
    row = known_community(visit)
    visit.back = f"/c/{row['name']}"
    visit.state.check_moderator(row["name"])
    return row


def reports(visit: Visit) -> Response:
    row = _moderated(visit)
    return visit.show("reports.html", community=row, **visit.paginate(visit.state.reports(row["name"])))


def _known_report(visit: Visit) -> Row:
    return visit.found(visit.state.open_report(_moderated(visit)["name"], visit.path("number")))


def one_report(visit: Visit) -> Response:
    return visit.show("report.html", report=_known_report(visit), community=known_community(visit), reasons=vocabulary.REASONS)


def approve(visit: Visit) -> Response:
    row = _known_report(visit)
    visit.state.approve(row)
    return visit.go(f"/c/{row['community']}/reports", f"report {row['number']} approved")


def banned(visit: Visit) -> Response:
    row = _moderated(visit)
    return visit.show("banned.html", community=row, banned=visit.state.banned(row["name"]))


def ban(visit: Visit) -> Response:
    name, member = _moderated(visit)["name"], visit.form.get("member", "").lower()
    visit.back = f"/c/{name}/banned"
    visit.state.ban(name, member)
    return visit.go(visit.back, f"{member} is banned")


def unban(visit: Visit) -> Response:
    name, member = _moderated(visit)["name"], visit.form.get("member", "")
    visit.state.unban(name, member)
    return visit.go(f"/c/{name}/banned", "the ban is lifted")


def settings(visit: Visit) -> Response:
    return visit.show("settings.html", community=_moderated(visit))


def save_settings(visit: Visit) -> Response:
    name = _moderated(visit)["name"]
    visit.back = f"/c/{name}/settings"
    visit.state.describe(name, visit.form.get("description", "").lower())
    return visit.go(f"/c/{name}", "description saved")


ROUTES = (
    ("/thread/{id:int}/lock", "POST", lock),
    ("/thread/{id:int}/sticky", "POST", stick),
    ("/thread/{id:int}/flair", "GET", flair),
    ("/thread/{id:int}/flair", "POST", save_flair),
    ("/{kind}/{id:int}/remove", "GET", ask_to_remove),
    ("/{kind}/{id:int}/remove", "POST", remove),
    ("/{kind}/{id:int}/restore", "POST", restore),
    ("/c/{community}/reports", "GET", reports),
    ("/c/{community}/reports/{number:int}", "GET", one_report),
    ("/c/{community}/reports/{number:int}/approve", "POST", approve),
    ("/c/{community}/banned", "GET", banned),
    ("/c/{community}/banned", "POST", ban),
    ("/c/{community}/unban", "POST", unban),
    ("/c/{community}/settings", "GET", settings),
    ("/c/{community}/settings", "POST", save_settings),
)
"""(path, method, handler) of each route."""
