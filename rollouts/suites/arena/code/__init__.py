"""The code host: projects in groups, with their files, issues and merge requests."""

from pathlib import Path

from rollouts.suites.arena.app import App
from rollouts.suites.arena.code import pages, planning, repository
from rollouts.suites.arena.code.content import make_content
from rollouts.suites.arena.code.state import CodeState

_HTML = Path(__file__).parent / "html"

CODE = App(
    name="code",
    sites={"code": ""},
    make_content=make_content,
    make_state=CodeState,
    routes=(*pages.ROUTES, *planning.ROUTES, *repository.ROUTES),
    html=_HTML,
    stylesheet=(_HTML / "style.css").read_text(encoding="utf-8"),
    script=(_HTML / "script.js").read_text(encoding="utf-8"),
    shown=lambda state: {"people": ",".join(f"{row['name']}|{row['full_name']}" for row in state.people())},
    lists={"takes_first_issue": lambda content, name: name in content.titles},
)
