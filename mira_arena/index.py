"""The index page: all sites, and all task templates with an example on the sites of one seed."""

import base64
import dataclasses
import functools
import hashlib
import secrets
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from mira_arena.sites.server import COOKIE
from mira_arena.sites.world import Visits, World
from mira_arena.tasks.registry import TEMPLATES, instance, task_id
from mira_arena.tasks.templates import Template, example, intent

SITES = {
    "shop": ("Shop", "products with options and reviews, a cart with coupons, orders and an address book"),
    "shop_admin": ("Shop administration", "the shopkeeper's side: orders, shipments, products, reviews, coupons, customers and reports"),
    "forum": ("Forum", "communities, threads, comments, votes, messages and moderation"),
    "code": ("Code host", "projects with files, branches, issues, milestones, merge requests and members"),
    "map": ("Map", "a made-up country: search, directions by three ways, saved places, notes"),
    "wiki": ("Encyclopedia", "articles on the towns, people, museums and rivers of that country"),
    "tours": ("Tour agency", "tours booked leg by leg; a booking is final"),
}
"""Site to its title and description."""
KINDS = {"string_match": "answer", "url_match": "page", "program_html": "change"}
"""First evaluator of a task to the kind of result that it checks."""
_FOLDER = Path(__file__).parent / "html"


@dataclasses.dataclass(frozen=True)
class TemplateExample:
    """A template as listed on the page, with an instance on the sites of one seed."""

    template: str
    sites: tuple[str, ...]
    held_out: bool
    intent: str
    """The template's intent with its placeholders, if there is no instance."""
    kind: str
    steps: int
    """Number of steps of the expert. 0 if there is no instance."""


def serve(visits: Visits, seed: int, addresses: Mapping[str, str]) -> Starlette:
    """The page, and a link that starts each example in a fresh world: `/try/TEMPLATE`.

    Args:
        addresses: addresses of the sites. May be filled in until the first request.
    """

    async def index(request: Request) -> Response:
        return HTMLResponse(render(seed, addresses))

    async def begin(request: Request) -> Response:
        template = TEMPLATES.get(request.path_params["template"])
        draft = template and example(template, seed)
        if not (template and draft):
            return HTMLResponse("there is no such example", status_code=404)
        visits[token := secrets.token_urlsafe(16)] = World(seed, draft.setup)
        response = RedirectResponse(addresses[template.sites[0]], status_code=303)
        response.set_cookie(COOKIE, token, httponly=True)
        return response

    return Starlette(routes=[Route("/", index), Route("/try/{template}", begin)])


def render(seed: int, addresses: Mapping[str, str]) -> str:
    """Renders the page for the sites of that seed."""
    examples = _examples(seed)
    groups = {site: [example for example in examples if example.sites == (site,)] for site in SITES}
    groups["several"] = [example for example in examples if len(example.sites) > 1]
    steps = [example.steps for example in examples if example.steps]
    values: dict[str, Any] = {
        "title": "The arena",
        "seed": seed,
        "names": {site: name for site, (name, _) in SITES.items()} | {"several": "Several sites"},
        "sections": [("sites", "Sites"), *((site, SITES[site][0] if site in SITES else "Several sites") for site in groups)],
        "sites": [
            (site, name, about, addresses[site], sum(site in example.sites for example in examples))
            for site, (name, about) in SITES.items()
        ],
        "groups": groups,
        "templates": len(examples),
        "steps": (min(steps), round(statistics.median(steps)), max(steps)),
    }
    loader = jinja2.FileSystemLoader(_FOLDER)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = _breakable
    style = (_FOLDER / "index.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("index.html").render(values, style=Markup(style), style_source=Markup(f"'sha256-{digest}'"))


def _breakable(name: str) -> Markup:
    """Allows a line break after each underscore of a name."""
    return Markup("_<wbr>").join(name.split("_"))


@functools.lru_cache(maxsize=8)
def _examples(seed: int) -> list[TemplateExample]:
    return [_example(template, seed) for template in TEMPLATES.values()]


def counts() -> str:
    """Tables of the number of templates: by domain, by the expert's steps (median over eight instances), and by the kind of result."""
    domains: dict[str, list[Template]] = {}
    for template in TEMPLATES.values():
        domains.setdefault(_domain(template.sites), []).append(template)
    rows = [(name, *_row(templates)) for name, templates in domains.items()]
    rows.append(("all", *_row([template for templates in domains.values() for template in templates])))
    heads = ("domain", "templates", "10 steps or more", "20 or more", "most", "answer", "page", "change", "test split only")
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _domain(sites: tuple[str, ...]) -> str:
    if set(sites) <= {"map", "wiki"}:
        return "map, wiki"
    return sites[0] if len(sites) == 1 else "several"


def _row(templates: Sequence[Template]) -> tuple[int, ...]:
    steps, kinds = [], []
    for template in templates:
        drafts = [instance(task_id(template.name, "test", number)).draft for number in range(8)]
        steps.append(statistics.median(len(draft.moves) for draft in drafts))
        kinds.append(KINDS[drafts[0].evaluation["eval_types"][0]])
    long, longest = (sum(count >= least for count in steps) for least in (10, 20))
    return (len(templates), long, longest, round(max(steps)), *map(kinds.count, KINDS.values()), sum(t.held_out for t in templates))


def _example(template: Template, seed: int) -> TemplateExample:
    draft = example(template, seed)
    common = (template.name, template.sites, template.held_out)
    if not draft:
        return TemplateExample(*common, template.intent, "", 0)
    return TemplateExample(*common, intent(template, draft), KINDS[draft.evaluation["eval_types"][0]], len(draft.moves))
