"""Conventions for the fields of a `Task` and for answers, shared by all suites."""

SPLITS = ("train", "validation", "test")
FIRST_SEED = {"train": 0, "validation": 10**15, "test": 2 * 10**15}
"""First seed of each split's own range, for suites that draw their sites from a seed."""
PAGES = " |AND| "
"""Separates the addresses of a task that starts with several pages, as in WebArena."""


def clean(text: str) -> str:
    """An answer as WebArena compares it: lower case, without surrounding white space, then without one pair of surrounding quotes."""
    text = text.strip()
    if text[:1] in ("'", '"') and text[-1:] == text[:1]:
        text = text[1:-1]
    return text.lower()
