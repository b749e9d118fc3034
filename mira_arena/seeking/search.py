"""Full-text search over the pages of a world: BM25 by SQLite's FTS5, with k1 = 1.2 and b = 0.75.

Source: SQLite, "FTS5 Extension", section 5.1.1. Words are compared without case and accents, and are not stemmed.
"""

import functools
import re
import sqlite3
from collections.abc import Iterable

from mira_arena.seeking.pages import Page, make_pages
from mira_arena.seeking.world import CACHED

RESULTS = 5
"""Maximum number of results of a search."""
HEAD_WEIGHT = 4.0
"""Weight of a word in the title or the summary of a page. A word in the rest has 1."""
MAX_WORDS = 32
"""Only this number of words of a query is used."""
COMMON = frozenset(
    {
        *("a", "all", "an", "and", "are", "by", "for", "from", "has", "have", "how", "in", "is", "it", "its", "many", "of", "on", "or"),
        *("that", "the", "to", "was", "what", "where", "which", "who", "whose"),
    }
)
"""Words that are not searched for if a query has others: most pages have them."""

_WORD = re.compile(r"\w+")


class Index:
    """The searchable pages of a world. Not thread-safe."""

    def __init__(self, pages: Iterable[Page]):
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute("CREATE VIRTUAL TABLE page USING fts5(head, text, slug UNINDEXED)")
        rows = ((f"{page.title} {page.summary}", " ".join(page.sentences), page.slug) for page in pages)
        self._database.executemany("INSERT INTO page VALUES (?, ?, ?)", rows)
        self._database.execute("INSERT INTO page(page, rank) VALUES ('rank', ?)", (f"bm25({HEAD_WEIGHT}, 1.0)",))
        self._database.execute("INSERT INTO page(page) VALUES ('optimize')")
        self._database.commit()

    def search(self, query: str, count: int = RESULTS) -> list[str]:
        """The slugs of the pages with any of the words, best first. Equal pages are in the order in which they were added."""
        found = dict.fromkeys(_WORD.findall(query.lower())[:MAX_WORDS])
        words = [word for word in found if word not in COMMON] or list(found)
        if not words:
            return []
        # In quotes a word is a string, never an operator of the query language.
        either = " OR ".join(f'"{word}"' for word in words)
        return [slug for (slug,) in self._database.execute("SELECT slug FROM page(?) ORDER BY rank, rowid LIMIT ?", (either, count))]


@functools.lru_cache(maxsize=CACHED)
def make_index(split: str, number: int) -> Index:
    return Index(make_pages(split, number).values())
