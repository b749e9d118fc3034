"""Encodes names and queries in the paths of all sites."""

from typing import Any
from urllib.parse import urlencode


def slug(name: str) -> str:
    """A name in the form used in paths: `round lamp` becomes `round-lamp`."""
    return name.replace(" ", "-")


def page_url(path: str, **query: Any) -> str:
    """A path with those query parameters that are not empty."""
    text = urlencode({key: value for key, value in query.items() if value})
    return f"{path}?{text}" if text else path
