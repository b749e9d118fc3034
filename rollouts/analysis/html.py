"""What every page is made with: templates that escape, one style sheet, and a policy that lets nothing in from outside.

What comes from tasks, pages and policies is untrusted. The templates escape all of it, and the page's content
security policy allows no request, no script but its own, and no writing of markup by scripts.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

_SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def render(template: str, values: Mapping[str, Any], script: str = "") -> str:
    """A whole page from a template that extends `base.html`. `script`: the name of the only script it may run."""
    style, code = _asset("report.css"), _asset(script) if script else ""
    frame = {"policy": _security_policy(style, code), "style": Markup(style), "script": Markup(code)}
    return _environment().get_template(template).render(values, **frame)


def p_value(p: float) -> str:
    """Two significant digits; small ones as a power of ten."""
    if p >= 0.001:
        return f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    mantissa, exponent = f"{p:.1e}".split("e")
    return f"{mantissa}\u00a0\u00d7\u00a010{str(int(exponent)).translate(_SUPERSCRIPTS)}"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rollouts.analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"p_value": p_value, "words": lambda name: name.replace("_", " ").capitalize(), "breakable": _breakable}
    return environment


def _breakable(name: str) -> Markup:
    """A name that a line may end in, after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _asset(name: str) -> str:
    return resources.files("rollouts.analysis").joinpath("templates", name).read_text(encoding="utf-8")


def _security_policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = digest(script) if script else "'none'"
    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {scripts}; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
