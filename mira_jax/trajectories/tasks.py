"""Conventions for the fields of `Task` and for answers, shared by all suites."""

import hashlib

SPLITS = ("train", "validation", "test")
FIRST_SEED = {"train": 0, "validation": 10**15, "test": 2 * 10**15}
"""First seed of each split's range, for suites that generate their sites from a seed."""
PAGES = " |AND| "
"""Separator between the addresses of a task that starts with several pages, as in WebArena."""
WRITTEN = "written"
"""The template of tasks that a model wrote."""

_SPLIT_OF_TENTH = ("test", "test", "validation", *["train"] * 7)


def split_by_hash(data: bytes) -> str:
    """The split that data belongs to, for suites that must not have the same names or values in two splits: 2 in 10 belong to test, 1 in 10
    to validation."""
    return _SPLIT_OF_TENTH[int.from_bytes(hashlib.sha256(data).digest()[:4], "big") % 10]


def clean(text: str) -> str:
    """Normalises an answer like WebArena: lower case, without surrounding white space, then without one pair of surrounding quotes."""
    text = text.strip()
    if text[:1] in ("'", '"') and text[-1:] == text[:1]:
        text = text[1:-1]
    return text.lower()
