"""The applications that there are, and the sites that they serve."""

from rollouts.suites.arena.app import App
from rollouts.suites.arena.atlas import ATLAS
from rollouts.suites.arena.code import CODE
from rollouts.suites.arena.forum import FORUM
from rollouts.suites.arena.shop import SHOP

APPS: dict[str, App] = {app.name: app for app in (SHOP, FORUM, CODE, ATLAS)}
"""By name."""
APP_OF = {site: app.name for app in APPS.values() for site in app.sites}
"""Site to the application that serves it."""


def placeholder(site: str) -> str:
    """What stands for the site's address in tasks and records."""
    return f"__{site.upper()}__"
