"""The shop at /, its admin panel at /admin."""

from pathlib import Path

from rollouts.suites.arena.app import App
from rollouts.suites.arena.shop import admin, office_pages, pages
from rollouts.suites.arena.shop.back_office import BackOffice
from rollouts.suites.arena.shop.content import make_content
from rollouts.suites.arena.shop.moves import is_order
from rollouts.suites.arena.shop.pictures import stylesheet

_HTML = Path(__file__).parent / "html"

SHOP = App(
    name="shop",
    sites={"shop": "", "shop_admin": "/admin"},
    make_content=make_content,
    make_state=BackOffice,
    routes=(*pages.ROUTES, *(("/admin" + path, method, handler) for path, method, handler in (*admin.ROUTES, *office_pages.ROUTES))),
    html=_HTML,
    stylesheet=stylesheet((_HTML / "style.css").read_text(encoding="utf-8")),
    shown=lambda state: {"in_cart": sum(line["quantity"] for line in state.cart())},
    lists={
        "takes_first_result": lambda content, name: name in content.by_name,
        "takes_first_order": lambda content, name: is_order(name),
    },
)
