"""The map at / and the encyclopedia at /wiki: two sites about a fictional country."""

from pathlib import Path

from mira_arena.sites.application import Application
from mira_arena.sites.atlas import map_pages, vocabulary, wiki_pages
from mira_arena.sites.atlas.content import make_content
from mira_arena.sites.atlas.state import AtlasState

_HTML = Path(__file__).parent / "html"

APPLICATION = Application(
    name="atlas",
    sites={"map": "", "wiki": "/wiki"},
    make_content=make_content,
    make_state=AtlasState,
    routes=(*map_pages.ROUTES, *(("/wiki" + path, method, handler) for path, method, handler in wiki_pages.ROUTES)),
    html=_HTML,
    stylesheet=(_HTML / "style.css").read_text(encoding="utf-8"),
    script=(_HTML / "script.js").read_text(encoding="utf-8"),
    shown=lambda state: {
        "layers": vocabulary.LAYERS,
        "places": "|".join(sorted(state.content.by_name)),
        "titles": "|".join(sorted(state.articles)),
    },
)
