"""The common frame of all HTML pages: autoescaping templates, a shared style, and a strict content security policy.

Text from tasks, pages and policies is untrusted. The templates escape all of it. The content security policy of a page blocks
requests, all scripts except the page's own, and the insertion of markup by scripts.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, values: Mapping[str, Any], style: str = "", script: str = "") -> str:
    """Renders a page from a template that extends `base.html`.

    Args:
        style: file name of the page's own style sheet, added to the shared one.
        script: file name of the only script that the page may run.
    """
    sheet = _read("base.css") + (_read(style) if style else "")
    code = _read(script) if script else ""
    frame = {"policy": _security_policy(sheet, code), "style": Markup(sheet), "script": Markup(code)}
    return _environment().get_template(template).render(values, **frame)


def svg_file(chart: Markup) -> str:
    """A chart as an SVG file of its own, with the style of the pages."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    style = Markup("<style>{}</style>").format(Markup(_read("base.css") + _read("report.css")))
    start, _, rest = str(chart).removeprefix("<svg ").partition(">")
    return f"{head}{start}>{style}{rest}"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"words": lambda name: name.replace("_", " ").capitalize(), "breakable": _breakable}
    return environment


def _breakable(name: str) -> Markup:
    """Allows a line break after each underscore of a name."""
    return Markup("_<wbr>").join(name.split("_"))


@functools.cache
def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _security_policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = digest(script) if script else "'none'"
    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {scripts}; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
