"""Sanitises untrusted text, such as a page's or a server's, for records and messages."""

import re
import unicodedata
from collections.abc import Iterable

HIDDEN = "[hidden]"
_USER_INFO = re.compile(r"(?<=://)[^/?#\s@]*@")
_QUERY_KEY = re.compile(r"([?&][\w.-]*(?:key|token|secret|password|signature|sig|auth)[\w.-]*=)[^&\s\"'<>#]+", re.IGNORECASE)


def sanitize(text: str) -> str:
    """Keeps only printable characters and single spaces."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else _replacement(character) for character in text)
    return " ".join(text.split(" ")) if "  " not in text else re.sub(" +", " ", text)


def _replacement(character: str) -> str:
    # Format characters (zero-width joiners, direction overrides) and unpaired surrogates are dropped without a replacement.
    return "" if unicodedata.category(character) in ("Cf", "Cs", "Co", "Cn") else " "


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Removes `secrets`, user names and passwords in URLs, and keys in their query strings.

    The result is printable. Scrub before truncating: half a key would not be recognised.
    """
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = sanitize(text)
    # Repeated, since removed characters may have split a secret.
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _QUERY_KEY.sub(rf"\1{HIDDEN}", _USER_INFO.sub(f"{HIDDEN}@", text))
