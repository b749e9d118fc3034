"""The applications and the sites that each serves. An application is imported when it is first asked for."""

import importlib

from mira_arena.sites.application import Application

SITES = {"shop": "shop", "shop_admin": "shop", "forum": "forum", "code": "code", "map": "atlas", "wiki": "atlas"}
"""Site to the application that serves it, which is the `APPLICATION` of `mira_arena.sites.NAME.application`."""
APPLICATIONS = tuple(dict.fromkeys(SITES.values()))
"""Names of the applications."""


def application(name: str) -> Application:
    return importlib.import_module(f"mira_arena.sites.{name}.application").APPLICATION


def placeholder(site: str) -> str:
    """Stands for the site's address in tasks and records."""
    return f"__{site.upper()}__"
