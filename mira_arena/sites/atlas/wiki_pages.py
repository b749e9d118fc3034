"""The encyclopedia's pages."""

import re

from starlette.responses import Response

from mira_arena.sites.atlas.articles import Article
from mira_arena.sites.atlas.map_pages import SIGN_IN, need_sign_in, typed
from mira_arena.sites.state import Row
from mira_arena.sites.visit import Visit

CATEGORIES = ("towns", "people", "museums", "rivers")

_LINK = re.compile(r"\[\[([^\[\]]+)\]\]")


def pieces(text: str, titles: dict[str, Article]) -> list[tuple[str, bool]]:
    """Splits the text at its links. Returns the pieces, each with whether it is the title of an article to link to."""
    cut = _LINK.split(text)
    return [(piece, place % 2 == 1 and piece in titles) for place, piece in enumerate(cut) if piece]


def home(visit: Visit) -> Response:
    articles = visit.state.articles
    chosen = articles[sorted(articles)[visit.state.content.seed % len(articles)]]
    return visit.show("wiki/home.html", categories=CATEGORIES, chosen=chosen, lead=pieces(chosen.lead, articles))


def search(visit: Visit) -> Response:
    query = typed(visit.query.get("q", ""))
    return _list(visit, f"results for {query}", visit.state.search_articles(query), "/wiki/search", query)


def category(visit: Visit) -> Response:
    name = visit.path("name")
    visit.found(name if name in CATEGORIES else None)
    found = sorted((article for article in visit.state.articles.values() if article.category == name), key=lambda article: article.title)
    return _list(visit, name, found, f"/wiki/category/{name}")


def _list(visit: Visit, title: str, articles: list[Article], path: str, query: str = "") -> Response:
    plain = [(article.title, _LINK.sub(r"\1", article.lead)) for article in articles]
    return visit.show("wiki/list.html", title=title, path=path, query=query, **visit.paginate(plain))


def _article(visit: Visit) -> Article:
    return visit.found(visit.state.articles.get(visit.path("slug").replace("-", " ")))


def article(visit: Visit) -> Response:
    shown, titles = _article(visit), visit.state.articles
    return visit.show(
        "wiki/article.html",
        article=shown,
        lead=pieces(shown.lead, titles),
        facts=[(name, pieces(value, titles)) for name, value in shown.facts],
        sections=[(row["heading"], pieces(row["text"], titles)) for row in visit.state.sections(shown.title)],
        watched=shown.title in visit.state.watched(),
    )


def history(visit: Visit) -> Response:
    shown = _article(visit)
    return visit.show("wiki/history.html", article=shown, **visit.paginate(visit.state.history(shown.title)))


def _section(visit: Visit) -> Row:
    shown = _article(visit)
    need_sign_in(visit)
    return visit.found(visit.state.section(shown.title, visit.path("heading").replace("-", " ")))


def edit_section(visit: Visit) -> Response:
    return visit.show("wiki/edit.html", section=_section(visit))


def save_section(visit: Visit) -> Response:
    row = _section(visit)
    visit.state.edit_section(row["article"], row["heading"], typed(visit.form.get("text", "")), typed(visit.form.get("summary", "")))
    return visit.go(_path(row["article"]), "edit saved")


def _path(title: str) -> str:
    return f"/wiki/article/{title.replace(' ', '-')}"


def watch(visit: Visit) -> Response:
    title = _article(visit).title
    need_sign_in(visit)
    visit.state.watch(title)
    return visit.go(_path(title), "on your watchlist")


def unwatch(visit: Visit) -> Response:
    title = _article(visit).title
    need_sign_in(visit)
    visit.state.unwatch(title)
    return visit.go(_path(title), "off your watchlist")


def watchlist(visit: Visit) -> Response:
    need_sign_in(visit)
    rows = [(title, visit.state.history(title)[0]) for title in visit.state.watched()]
    return visit.show("wiki/watchlist.html", **visit.paginate(rows))


ROUTES = (
    ("", "GET", home),
    ("/", "GET", home),
    ("/search", "GET", search),
    ("/category/{name}", "GET", category),
    ("/article/{slug}", "GET", article),
    ("/article/{slug}/history", "GET", history),
    ("/article/{slug}/edit/{heading}", "GET", edit_section),
    ("/article/{slug}/edit/{heading}", "POST", save_section),
    ("/article/{slug}/watch", "POST", watch),
    ("/article/{slug}/unwatch", "POST", unwatch),
    ("/watchlist", "GET", watchlist),
    *SIGN_IN,
)
"""(path below the encyclopedia's address, method, handler) of each route."""
