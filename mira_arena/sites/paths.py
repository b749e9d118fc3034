"""How names and queries are written in the paths of all sites."""

from typing import Any
from urllib.parse import urlencode


def slug(name: str) -> str:
    """A name as it stands in a path: `round lamp` becomes `round-lamp`."""
    return name.replace(" ", "-")


def page_url(path: str, **query: Any) -> str:
    """A path with the query parameters that are not empty."""
    text = urlencode({key: value for key, value in query.items() if value})
    return f"{path}?{text}" if text else path
