"""The forum: communities, threads, comments, messages, and what moderators do."""

from pathlib import Path

from rollouts.suites.arena.app import App
from rollouts.suites.arena.forum import moderator_pages, pages, thread_pages
from rollouts.suites.arena.forum.content import make_content
from rollouts.suites.arena.forum.moderation import ModeratedForum

_HTML = Path(__file__).parent / "html"

FORUM = App(
    name="forum",
    sites={"forum": ""},
    make_content=make_content,
    make_state=ModeratedForum,
    routes=(*pages.ROUTES, *thread_pages.ROUTES, *moderator_pages.ROUTES),
    html=_HTML,
    stylesheet=(_HTML / "style.css").read_text(encoding="utf-8"),
    script=(_HTML / "script.js").read_text(encoding="utf-8"),
    shown=lambda state: {"unread": state.unread()},
    lists={"takes_first_result": lambda content, name: name in content.by_title},
)
