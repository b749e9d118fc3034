"""Addresses, resolved and written as the URL standard writes them."""

import re
from urllib.parse import urljoin, urlsplit

from rollouts.errors import UnsupportedError

_PLAIN = re.compile(
    r"http://[a-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~!$&()*+,;=:@%/'-]*)?(\?[A-Za-z0-9._~!$&()*+,;=:@%/?-]*)?(#[A-Za-z0-9._~!$&()*+,;=:@%/?'-]*)?"
)


def join(base: str, address: str) -> str:
    """Resolves an address against that of a page.

    Raises:
        UnsupportedError: an address that is not http, or has characters that would need an escape.
    """
    joined = urljoin(base, address.strip("\t\n\x0c\r "))
    if joined.startswith("http:") and not urlsplit(joined).path:
        joined = re.sub(r"^(http://[^/?#]+)", r"\1/", joined)
    if not _PLAIN.fullmatch(joined):
        raise UnsupportedError(f"the address {joined[:100]!r}")
    return joined


def host(url: str) -> str:
    """`host:port` of an address."""
    return urlsplit(url).netloc


def same_page(url: str, other: str) -> bool:
    """Whether two addresses differ in nothing but their fragments."""
    return url.partition("#")[0] == other.partition("#")[0]
