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

_HERE = Path(__file__).parent


def render(folder: Path, template: str, values: Mapping[str, Any], style: str = "", script: str = "") -> str:
    """A whole page from a template of the folder that extends `base.html`.

    Args:
        style: the name of its own style sheet in that folder, beside the one that all pages share.
        script: the name of the only script it may run.
    """
    sheet = _read(_HERE / "base.css") + (_read(folder / style) if style else "")
    code = _read(folder / script) if script else ""
    frame = {"policy": _security_policy(sheet, code), "style": Markup(sheet), "script": Markup(code)}
    return _environment(folder).get_template(template).render(values, **frame)


@functools.cache
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _HERE]),
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
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _security_policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = digest(script) if script else "'none'"
    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {scripts}; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
