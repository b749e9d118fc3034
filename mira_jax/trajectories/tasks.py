"""Conventions for the fields of `Task` and for answers, shared by all suites."""

SPLITS = ("train", "validation", "test")
FIRST_SEED = {"train": 0, "validation": 10**15, "test": 2 * 10**15}
"""First seed of each split's range, for suites that generate their sites from a seed."""
PAGES = " |AND| "
"""Separator between the addresses of a task that starts with several pages, as in WebArena."""
WRITTEN = "written"
"""The template of tasks that a model wrote."""


def clean(text: str) -> str:
    """Normalises an answer like WebArena: lower case, without surrounding white space, then without one pair of surrounding quotes."""
    text = text.strip()
    if text[:1] in ("'", '"') and text[-1:] == text[:1]:
        text = text[1:-1]
    return text.lower()
