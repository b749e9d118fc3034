"""The shop at / and its admin panel at /admin."""

from pathlib import Path

from mira_arena.sites.application import Application
from mira_arena.sites.shop import admin_pages, pages
from mira_arena.sites.shop.admin_state import AdminState
from mira_arena.sites.shop.content import make_content
from mira_arena.sites.shop.pictures import stylesheet

_HTML = Path(__file__).parent / "html"

APPLICATION = Application(
    name="shop",
    sites={"shop": "", "shop_admin": "/admin"},
    make_content=make_content,
    make_state=AdminState,
    routes=(*pages.ROUTES, *(("/admin" + path, method, handler) for path, method, handler in admin_pages.ROUTES)),
    html=_HTML,
    stylesheet=stylesheet((_HTML / "style.css").read_text(encoding="utf-8")),
    shown=lambda state: {"in_cart": sum(line["quantity"] for line in state.cart())},
)
