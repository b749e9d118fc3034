"""What every page made here has in common: templates that escape, one look, and a policy that lets nothing in from outside.

What comes from tasks, pages and policies is untrusted. The templates escape all of it, and the page's content
security policy allows no request, no script but its own, and no writing of markup by scripts.
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
    """A whole page from a template that extends `base.html`.

    Args:
        style: the file name of its own style sheet, added to the one that all pages share.
        script: the file name of the only script it may run.
    """
    sheet = _read("base.css") + (_read(style) if style else "")
    code = _read(script) if script else ""
    frame = {"policy": _security_policy(sheet, code), "style": Markup(sheet), "script": Markup(code)}
    return _environment().get_template(template).render(values, **frame)


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
    """A name that a line may end in, after each underscore."""
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
