"""Pages of the forum: lists of threads, communities, members, messages."""

from starlette.responses import Response

from mira_arena.sites.application import changes_page
from mira_arena.sites.forum.state import SORTS
from mira_arena.sites.state import Row
from mira_arena.sites.visit import Visit


def front(visit: Visit) -> Response:
    sort = _sort(visit)
    return visit.show("front.html", path="/", sort=sort, sorts=SORTS, **visit.paginate(visit.state.front(sort)))


def search(visit: Visit) -> Response:
    query, sort = " ".join(visit.query.get("q", "").lower().split())[:60], _sort(visit)
    found = visit.paginate(visit.state.search(query, sort))
    return visit.show("search.html", query=query, path="/search", sort=sort, sorts=SORTS, **found)


def _sort(visit: Visit) -> str:
    sort = visit.query.get("sort", "")
    return sort if sort in SORTS else next(iter(SORTS))


def communities(visit: Visit) -> Response:
    rows = visit.state.communities()
    return visit.show("communities.html", rows=rows, moderated=[row["name"] for row in rows if visit.state.moderates(row["name"])])


def known_community(visit: Visit) -> Row:
    return visit.found(visit.state.community(visit.path("community")))


def community(visit: Visit) -> Response:
    row, sort = known_community(visit), _sort(visit)
    name = row["name"]
    found = visit.paginate(visit.state.threads_in(name, sort))
    moderates = visit.state.moderates(name)
    return visit.show("community.html", community=row, moderates=moderates, path=f"/c/{name}", sort=sort, sorts=SORTS, **found)


def about(visit: Visit) -> Response:
    row = known_community(visit)
    name, state = row["name"], visit.state
    return visit.show("about.html", community=row, rules=state.rules(name), flairs=state.flairs(name), moderators=state.moderators(name))


def subscribe(visit: Visit) -> Response:
    name, on = known_community(visit)["name"], visit.form.get("on") == "1"
    visit.state.subscribe(name, on)
    return visit.go(visit.back, f"you {'subscribe to' if on else 'have left'} {name}")


def known_member(visit: Visit) -> Row:
    return visit.found(visit.state.member(visit.path("member").replace("-", " ")))


def member(visit: Visit) -> Response:
    row = known_member(visit)
    return visit.show("member.html", member=row, **visit.paginate(visit.state.threads_by(row["name"])))


def member_comments(visit: Visit) -> Response:
    row = known_member(visit)
    return visit.show("member_comments.html", member=row, **visit.paginate(visit.state.comments_by(row["name"])))


def saved(visit: Visit) -> Response:
    need_sign_in(visit)
    return visit.show("saved.html", path="/saved", **visit.paginate(visit.state.saved()))


def inbox(visit: Visit) -> Response:
    need_sign_in(visit)
    return visit.show("inbox.html", **visit.paginate(visit.state.conversations()))


def conversation(visit: Visit) -> Response:
    need_sign_in(visit)
    other = known_member(visit)["name"]
    return visit.show("conversation.html", other=other, messages=visit.state.messages(other))


def send_message(visit: Visit) -> Response:
    visit.back = visit.request.url.path
    visit.state.send(known_member(visit)["name"], visit.form.get("message", "").lower())
    return visit.go(visit.back, "message sent")


def sign_in_page(visit: Visit) -> Response:
    return visit.show("sign_in.html")


def sign_in(visit: Visit) -> Response:
    visit.state.sign_in(visit.form.get("name", "").lower(), visit.form.get("password", "").lower())
    return visit.go("/", "welcome back")


def sign_out(visit: Visit) -> Response:
    visit.state.sign_out()
    return visit.go("/", "you are signed out")


def need_sign_in(visit: Visit) -> None:
    visit.back = "/sign-in"
    visit.state.me()


ROUTES = (
    ("/", "GET", front),
    ("/search", "GET", search),
    ("/communities", "GET", communities),
    ("/c/{community}", "GET", community),
    ("/c/{community}/about", "GET", about),
    ("/c/{community}/subscribe", "POST", subscribe),
    ("/user/{member}", "GET", member),
    ("/user/{member}/comments", "GET", member_comments),
    ("/saved", "GET", saved),
    ("/messages", "GET", inbox),
    ("/messages/{member}", "GET", conversation),
    ("/messages/{member}", "POST", send_message),
    ("/sign-in", "GET", sign_in_page),
    ("/sign-in", "POST", sign_in),
    ("/sign-out", "POST", sign_out),
    ("/changes", "GET", changes_page("base.html")),
)
"""(path, method, handler) of each route."""
