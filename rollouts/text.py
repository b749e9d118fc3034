"""Text from outside, made fit to be kept and shown: a page's, a server's."""

import re
import unicodedata
from collections.abc import Iterable

HIDDEN = "[hidden]"
_USER_INFO = re.compile(r"(?<=://)[^/?#\s@]*@")
_QUERY_KEY = re.compile(r"([?&][\w.-]*(?:key|token|secret|password|signature|sig|auth)[\w.-]*=)[^&\s\"'<>#]+", re.IGNORECASE)


def sanitize(text: str) -> str:
    """Printable characters and single spaces only."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else _replacement(character) for character in text)
    return " ".join(text.split(" ")) if "  " not in text else re.sub(" +", " ", text)


def _replacement(character: str) -> str:
    # Marks that only format (zero-width joiners, direction overrides) and broken halves leave no trace.
    return "" if unicodedata.category(character) in ("Cf", "Cs", "Co", "Cn") else " "


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without `secrets`, without user names and passwords in addresses, and without keys in their query strings.

    What is left is printable. Scrub first and shorten afterwards: half a key is no longer found.
    """
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = sanitize(text)
    # Again: characters that were taken out may have stood inside a secret.
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _QUERY_KEY.sub(rf"\1{HIDDEN}", _USER_INFO.sub(f"{HIDDEN}@", text))
