"""The code host: projects in groups, with files, issues and merge requests."""

from pathlib import Path

from mira_arena.sites.application import Application
from mira_arena.sites.code import pages, planning_pages, repository_pages
from mira_arena.sites.code.content import make_content
from mira_arena.sites.code.state import CodeState

_HTML = Path(__file__).parent / "html"

APPLICATION = Application(
    name="code",
    sites={"code": ""},
    make_content=make_content,
    make_state=CodeState,
    routes=(*pages.ROUTES, *planning_pages.ROUTES, *repository_pages.ROUTES),
    html=_HTML,
    stylesheet=(_HTML / "style.css").read_text(encoding="utf-8"),
    script=(_HTML / "script.js").read_text(encoding="utf-8"),
    shown=lambda state: {"people": ",".join(f"{row['name']}|{row['full_name']}" for row in state.people())},
)
