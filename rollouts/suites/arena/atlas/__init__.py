"""The map at /, the encyclopedia at /wiki: two sites about one made-up country."""

from pathlib import Path

from rollouts.suites.arena.app import App
from rollouts.suites.arena.atlas import pages, wiki, words
from rollouts.suites.arena.atlas.content import make_content
from rollouts.suites.arena.atlas.state import AtlasState

_HTML = Path(__file__).parent / "html"

ATLAS = App(
    name="atlas",
    sites={"map": "", "wiki": "/wiki"},
    make_content=make_content,
    make_state=AtlasState,
    routes=(*pages.ROUTES, *(("/wiki" + path, method, handler) for path, method, handler in wiki.ROUTES)),
    html=_HTML,
    stylesheet=(_HTML / "style.css").read_text(encoding="utf-8"),
    script=(_HTML / "script.js").read_text(encoding="utf-8"),
    shown=lambda state: {
        "layers": words.LAYERS,
        "places": "|".join(sorted(state.content.by_name)),
        "titles": "|".join(sorted(state.articles)),
    },
    lists={"takes_first_result": lambda content, name: name in content.names},
)
