"""Registry of the applications and their sites. An application is imported on first use."""

import importlib

from mira_arena.sites.application import Application

SITES = {"shop": "shop", "shop_admin": "shop", "forum": "forum", "code": "code", "map": "atlas", "wiki": "atlas", "tours": "tours"}
"""Site to the application that serves it. `APPLICATION` of `mira_arena.sites.NAME.application` describes it."""
APPLICATIONS = tuple(dict.fromkeys(SITES.values()))
"""Names of the applications."""


def application(name: str) -> Application:
    return importlib.import_module(f"mira_arena.sites.{name}.application").APPLICATION


def placeholder(site: str) -> str:
    """Placeholder for the site's address in tasks and records."""
    return f"__{site.upper()}__"
