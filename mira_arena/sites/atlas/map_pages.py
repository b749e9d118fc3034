"""The map's pages."""

from starlette.responses import Response

from mira_arena.sites.application import changes_page
from mira_arena.sites.atlas import vocabulary
from mira_arena.sites.atlas.map_picture import draw
from mira_arena.sites.atlas.roads import SPEEDS, kilometres
from mira_arena.sites.paths import page_url
from mira_arena.sites.state import Refused, Row
from mira_arena.sites.visit import Visit

ALL = "all"
"""Option that selects all kinds of places."""
WAYS = tuple(SPEEDS)


def home(visit: Visit) -> Response:
    return visit.show("map/home.html", towns=visit.state.towns())


def search(visit: Visit) -> Response:
    query = typed(visit.query.get("q", ""))
    return visit.show("map/search.html", query=query, **visit.paginate(visit.state.search(query)))


def typed(text: str) -> str:
    """Normalises input as the sites store it: lower case, single spaces."""
    return " ".join(text.lower().split())[:200]


def _place(visit: Visit) -> Row:
    return visit.found(visit.state.place(visit.path("slug").replace("-", " ")))


def place(visit: Visit) -> Response:
    row = _place(visit)
    x, y = visit.state.content.by_name[row["name"]].point
    where = f"{kilometres(x * 10)} east, {kilometres(y * 10)} south"
    return visit.show("map/place.html", place=row, where=where, notes=visit.state.notes(row["name"]), kinds=(ALL, *vocabulary.KINDS))


def near(visit: Visit) -> Response:
    row, kind = _place(visit), visit.query.get("kind", "")
    kind = kind if kind in vocabulary.KINDS else ""
    found = [(place.name, kilometres(metres)) for place, metres in visit.state.content.near(row["name"], kind)]
    return visit.show("map/near.html", place=row, kind=kind or ALL, **visit.paginate(found))


def save_form(visit: Visit) -> Response:
    row = _place(visit)
    need_sign_in(visit)
    return visit.show("map/save.html", place=row, label="", note="", action=visit.request.url.path, title=f"save {row['name']}")


def save(visit: Visit) -> Response:
    row = _place(visit)
    need_sign_in(visit)
    visit.state.save_place(row["name"], typed(visit.form.get("label", "")), typed(visit.form.get("note", "")))
    return visit.go("/saved", "place saved")


def saved(visit: Visit) -> Response:
    need_sign_in(visit)
    return visit.show("map/saved.html", saved=visit.state.saved())


def _saved(visit: Visit) -> Row:
    need_sign_in(visit)
    return visit.found(visit.state.saved_place(visit.path("number")))


def edit_saved(visit: Visit) -> Response:
    row = _saved(visit)
    place = visit.state.place(row["place"])
    return visit.show(
        "map/save.html", place=place, label=row["label"], note=row["note"], action=visit.request.url.path, title=f"edit {row['label']}"
    )


def change_saved(visit: Visit) -> Response:
    number = _saved(visit)["id"]
    visit.state.change_saved(number, typed(visit.form.get("label", "")), typed(visit.form.get("note", "")))
    return visit.go("/saved", "place saved")


def remove_saved(visit: Visit) -> Response:
    need_sign_in(visit)
    visit.state.remove_saved(visit.whole_number("saved"))
    return visit.go("/saved", "removed")


def move_saved_up(visit: Visit) -> Response:
    need_sign_in(visit)
    visit.state.move_saved_up(visit.whole_number("saved"))
    return visit.go("/saved")


def note_form(visit: Visit) -> Response:
    return visit.show("map/note.html", place=_place(visit))


def add_note(visit: Visit) -> Response:
    name = _place(visit)["name"]
    visit.state.add_note(name, typed(visit.form.get("text", "")))
    return visit.go(_path(name), "note added")


def _path(name: str) -> str:
    return f"/place/{name.replace(' ', '-')}"


def _with_hours(visit: Visit) -> Row:
    row = _place(visit)
    need_sign_in(visit)
    return visit.found(row if row["hours"] else None)


def edit_hours(visit: Visit) -> Response:
    return visit.show("map/edit.html", place=_with_hours(visit))


def save_hours(visit: Visit) -> Response:
    name = _with_hours(visit)["name"]
    visit.state.correct_hours(name, typed(visit.form.get("hours", "")), typed(visit.form.get("comment", "")))
    return visit.go(_path(name), "map edited")


def directions(visit: Visit) -> Response:
    """The directions form, and the route once it is filled in. Input is replaced by the names of the places that it resolves to."""
    by, visit.back = _way(visit), "/directions"
    asked = [visit.query.get(end, "") for end in ("from", "to")]
    names = [visit.state.resolve(typed(text)) if text.strip() else "" for text in asked]
    if names != asked:
        return visit.go(page_url("/directions", **dict(zip(("from", "to"), names, strict=True)), by=by))
    if not all(names):
        return visit.show("map/directions.html", start=names[0], end=names[1], by=by, ways=WAYS, route=None)
    if names[0] == names[1]:
        raise Refused("please give two places")
    content = visit.state.content
    route = content.roads.route(*(content.by_name[name].node for name in names), by)
    legs = [(leg.road, kilometres(leg.metres)) for leg in route.legs]
    return visit.show("map/directions.html", start=names[0], end=names[1], by=by, ways=WAYS, route=route, legs=legs)


def _way(visit: Visit) -> str:
    by = visit.query.get("by", "")
    return by if by in WAYS else WAYS[0]


def picture(visit: Visit) -> Response:
    """The map for the query, as an SVG picture: `of` one place, with the places of a `kind` near it, or `from` one `to` another."""
    content = visit.state.content
    asked = [content.by_name.get(visit.query.get(key, "")) for key in ("of", "from", "to")]
    here, start, end = asked
    found = content.near(here.name, visit.query.get("kind"))[:6] if here and visit.query.get("kind") in vocabulary.KINDS else []
    route = content.roads.route(start.node, end.node, _way(visit)) if start and end and start is not end else None
    drawn = draw(content, visit.state.visit["layer"], here.name if here else "", route, [place.name for place, _ in found])
    return Response(drawn, media_type="image/svg+xml", headers={"Cache-Control": "no-store"})


def set_layer(visit: Visit) -> Response:
    layer = visit.form.get("layer", "")
    visit.state.set_layer(layer)
    return visit.go(visit.back, f"{layer} layer")


def root(visit: Visit) -> str:
    """Path prefix of the visited site: empty or '/wiki'."""
    return "/wiki" if visit.request.url.path.startswith("/wiki/") else ""


def sign_in_form(visit: Visit) -> Response:
    return visit.show("sign_in.html", root=root(visit), base="wiki/base.html" if root(visit) else "map/base.html")


def sign_in(visit: Visit) -> Response:
    visit.state.sign_in(typed(visit.form.get("name", "")), typed(visit.form.get("password", "")))
    return visit.go(root(visit) + "/", "welcome back")


def sign_out(visit: Visit) -> Response:
    visit.state.sign_out()
    return visit.go(root(visit) + "/", "you are signed out")


def need_sign_in(visit: Visit) -> None:
    if not visit.state.visit["signed_in"]:
        visit.back = root(visit) + "/sign-in"
        raise Refused("please sign in first")


SIGN_IN = (("/sign-in", "GET", sign_in_form), ("/sign-in", "POST", sign_in), ("/sign-out", "POST", sign_out))
"""Routes of both sites."""
ROUTES = (
    ("/", "GET", home),
    ("/search", "GET", search),
    ("/place/{slug}", "GET", place),
    ("/place/{slug}/near", "GET", near),
    ("/place/{slug}/save", "GET", save_form),
    ("/place/{slug}/save", "POST", save),
    ("/place/{slug}/note", "GET", note_form),
    ("/place/{slug}/note", "POST", add_note),
    ("/place/{slug}/edit", "GET", edit_hours),
    ("/place/{slug}/edit", "POST", save_hours),
    ("/saved", "GET", saved),
    ("/saved/{number:int}", "GET", edit_saved),
    ("/saved/{number:int}", "POST", change_saved),
    ("/saved/remove", "POST", remove_saved),
    ("/saved/up", "POST", move_saved_up),
    ("/directions", "GET", directions),
    ("/layer", "POST", set_layer),
    ("/map.svg", "GET", picture),
    *SIGN_IN,
    ("/changes", "GET", changes_page("map/base.html")),
)
"""(path, method, handler) of each route."""
