"""The forum: communities, threads, comments, messages and moderation."""

from pathlib import Path

from mira_arena.sites.application import Application
from mira_arena.sites.forum import moderator_pages, pages, thread_pages
from mira_arena.sites.forum.content import make_content
from mira_arena.sites.forum.moderator_state import ModeratedForum

_HTML = Path(__file__).parent / "html"

APPLICATION = Application(
    name="forum",
    sites={"forum": ""},
    make_content=make_content,
    make_state=ModeratedForum,
    routes=(*pages.ROUTES, *thread_pages.ROUTES, *moderator_pages.ROUTES),
    html=_HTML,
    stylesheet=(_HTML / "style.css").read_text(encoding="utf-8"),
    script=(_HTML / "script.js").read_text(encoding="utf-8"),
    shown=lambda state: {"unread": state.unread()},
)
