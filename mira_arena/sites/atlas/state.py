"""State of the map and encyclopedia in one episode: an SQLite database in memory, with its queries and changes."""

import functools
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from mira_arena.sites.atlas import vocabulary
from mira_arena.sites.atlas.articles import Article, make_articles
from mira_arena.sites.atlas.content import AtlasContent, make_content
from mira_arena.sites.state import Refused, Row, State, make_image

SEARCH_RESULTS = 8
MAX_LABEL = 40

_SCHEMA = """
CREATE TABLE place (name TEXT PRIMARY KEY, kind TEXT, town TEXT, street TEXT, hours TEXT, phone TEXT, importance INTEGER);
CREATE TABLE correction (id INTEGER PRIMARY KEY, place TEXT, hours TEXT, comment TEXT);
CREATE TABLE saved (id INTEGER PRIMARY KEY, position INTEGER, label TEXT, place TEXT, note TEXT);
CREATE TABLE map_note (id INTEGER PRIMARY KEY, place TEXT, text TEXT);
CREATE TABLE section (article TEXT, number INTEGER, heading TEXT, text TEXT);
CREATE TABLE revision (id INTEGER PRIMARY KEY, article TEXT, author TEXT, day TEXT, heading TEXT, summary TEXT, own INTEGER);
CREATE TABLE watch (article TEXT PRIMARY KEY);
CREATE TABLE visit (seed INTEGER, user TEXT, day TEXT, signed_in INTEGER, layer TEXT, notice TEXT);
"""

_LARGEST = 2**63 - 1
"""Largest SQLite integer."""
_HOURS = re.compile(r"(\d{1,2}):([0-5]\d)-(\d{1,2}):([0-5]\d)", re.ASCII)


@functools.lru_cache(maxsize=32)
def image(seed: int) -> bytes:
    """Serialised database of the map and encyclopedia with the content of `seed`."""
    return make_image(_SCHEMA, lambda database: _fill(database, make_content(seed)))


def _fill(database: sqlite3.Connection, content: AtlasContent) -> None:
    places = [(row.name, row.kind, row.town, row.street, row.hours, row.phone, row.importance) for row in content.places]
    database.executemany("INSERT INTO place VALUES (?, ?, ?, ?, ?, ?, ?)", places)
    saved = [(number, row.label, row.place, row.note) for number, row in enumerate(content.saved, 1)]
    database.executemany("INSERT INTO saved (position, label, place, note) VALUES (?, ?, ?, ?)", saved)
    database.executemany("INSERT INTO watch VALUES (?)", [(title,) for title in content.watched])
    for article in make_articles(content.seed).values():
        sections = [(article.title, number, section.heading, section.text) for number, section in enumerate(article.sections)]
        database.executemany("INSERT INTO section VALUES (?, ?, ?, ?)", sections)
        for made in article.revisions:
            row = (article.title, made.author, f"{made.day} {content.month}", made.heading, made.summary)
            database.execute("INSERT INTO revision (article, author, day, heading, summary, own) VALUES (?, ?, ?, ?, ?, 0)", row)
    visit = (content.seed, content.user, f"28 {content.month}", vocabulary.LAYERS[0])
    database.execute("INSERT INTO visit VALUES (?, ?, ?, 1, ?, '')", visit)


class AtlasState(State):
    """The map and the encyclopedia."""

    def __init__(self, seed: int, setup: Mapping[str, Any] | None = None):
        """`setup` may contain `signed_in` (a boolean)."""
        super().__init__(image(seed))
        if not (setup or {}).get("signed_in", True):
            self.sign_out()

    @property
    def content(self) -> AtlasContent:
        return make_content(self.visit["seed"])

    @property
    def articles(self) -> dict[str, Article]:
        """The initial articles. `sections` returns their current sections."""
        return make_articles(self.visit["seed"])

    # The visit

    def sign_in(self, user: str, password: str) -> None:
        content = self.content
        if (user, password) != (content.user, content.password):
            raise Refused("name or password is wrong")
        self._do("UPDATE visit SET signed_in = 1")

    def sign_out(self) -> None:
        self._do("UPDATE visit SET signed_in = 0")

    def set_layer(self, layer: str) -> None:
        if layer not in vocabulary.LAYERS:
            raise Refused("please choose from the layers")
        self._do("UPDATE visit SET layer = ?", layer)

    # Places

    def towns(self) -> list[Row]:
        return self._all("SELECT * FROM place WHERE kind = 'town' ORDER BY name")

    def place(self, name: str) -> Row | None:
        return self._one("SELECT * FROM place WHERE name = ?", name)

    def search(self, query: str) -> list[Row]:
        """Returns the best matching places, at most SEARCH_RESULTS, most important first."""
        wanted = set(query.lower().split())
        found = []
        for row in self._all("SELECT * FROM place"):
            matches = 2 * len(wanted & set(row["name"].split())) + len(wanted & {row["kind"], *row["town"].split()})
            if matches:
                found.append((-matches, -row["importance"], row))
        best = sorted(found, key=lambda entry: entry[:2])[:SEARCH_RESULTS]
        return sorted((row for _, _, row in best), key=lambda row: -row["importance"])

    def resolve(self, text: str) -> str:
        """Resolves `text` to a place: an exact name, else the first suggestion, else the first search result."""
        text = text.lower()
        if self.place(text):
            return text
        found = suggest(text, sorted(self.content.by_name)) or [row["name"] for row in self.search(text)]
        if not found:
            raise Refused(f"no place named {text}"[:60])
        return found[0]

    def correct_hours(self, place: str, hours: str, comment: str) -> None:
        match = _HOURS.fullmatch(hours)
        if not match or int(match[1]) > 24 or int(match[3]) > 24:
            raise Refused("opening hours look like 8:30-17:00")
        if not comment:
            raise Refused("please say in the comment how you know")
        self._do("UPDATE place SET hours = ? WHERE name = ?", hours, place)
        self._do("INSERT INTO correction (place, hours, comment) VALUES (?, ?, ?)", place, hours, comment)

    def notes(self, place: str) -> list[Row]:
        """Notes on the map at that place."""
        return self._all("SELECT * FROM map_note WHERE place = ? ORDER BY id", place)

    def add_note(self, place: str, text: str) -> None:
        if not text:
            raise Refused("a note needs some words")
        self._do("INSERT INTO map_note (place, text) VALUES (?, ?)", place, text)

    # Saved places

    def saved(self) -> list[Row]:
        """Saved places in the user's order."""
        return self._all("SELECT * FROM saved ORDER BY position")

    def saved_place(self, number: int) -> Row | None:
        return self._one("SELECT * FROM saved WHERE id = ?", min(number, _LARGEST))

    def save_place(self, place: str, label: str, note: str) -> None:
        self._check_label(label)
        self._do(
            "INSERT INTO saved (position, label, place, note) SELECT COALESCE(MAX(position), 0) + 1, ?, ?, ? FROM saved", label, place, note
        )

    def change_saved(self, number: int, label: str, note: str) -> None:
        if self._needed_saved(number)["label"] != label:
            self._check_label(label)
        self._do("UPDATE saved SET label = ?, note = ? WHERE id = ?", label, note, number)

    def remove_saved(self, number: int) -> None:
        self._needed_saved(number)
        self._do("DELETE FROM saved WHERE id = ?", number)

    def move_saved_up(self, number: int) -> None:
        """Swaps a saved place with the previous one."""
        row = self._needed_saved(number)
        before = self._one("SELECT * FROM saved WHERE position < ? ORDER BY position DESC", row["position"])
        if before is None:
            raise Refused(f"{row['label']} is the first already")
        self._do("UPDATE saved SET position = ? WHERE id = ?", before["position"], row["id"])
        self._do("UPDATE saved SET position = ? WHERE id = ?", row["position"], before["id"])

    def _needed_saved(self, number: int) -> Row:
        row = self.saved_place(number)
        if row is None:
            raise Refused("that place is not saved")
        return row

    def _check_label(self, label: str) -> None:
        if not label:
            raise Refused("a saved place needs a name")
        if len(label) > MAX_LABEL:
            raise Refused(f"a name has at most {MAX_LABEL} letters")
        if self._one("SELECT 1 FROM saved WHERE label = ?", label):
            raise Refused(f"there is a saved place named {label} already")

    # Articles

    def search_articles(self, query: str) -> list[Article]:
        """Returns the best matching articles, at most SEARCH_RESULTS, ordered by title."""
        wanted = set(query.lower().split())
        found = []
        for article in self.articles.values():
            said = set(re.findall(r"\w+", article.lead))
            matches = 2 * len(wanted & set(article.title.split())) + len(wanted & said)
            if matches:
                found.append((-matches, article.title))
        return [self.articles[title] for title in sorted(title for _, title in sorted(found)[:SEARCH_RESULTS])]

    def sections(self, article: str) -> list[Row]:
        return self._all("SELECT * FROM section WHERE article = ? ORDER BY number", article)

    def section(self, article: str, heading: str) -> Row | None:
        return self._one("SELECT * FROM section WHERE article = ? AND heading = ?", article, heading)

    def edit_section(self, article: str, heading: str, text: str, summary: str) -> None:
        if not text:
            raise Refused("a section needs some words")
        if not summary:
            raise Refused("please sum up your edit")
        visit = self.visit
        row = (article, visit["user"], visit["day"], heading, summary)
        self._do("UPDATE section SET text = ? WHERE article = ? AND heading = ?", text, article, heading)
        self._do("INSERT INTO revision (article, author, day, heading, summary, own) VALUES (?, ?, ?, ?, ?, 1)", *row)

    def history(self, article: str) -> list[Row]:
        """Revisions of an article, newest first."""
        return self._all("SELECT * FROM revision WHERE article = ? ORDER BY id DESC", article)

    def watched(self) -> list[str]:
        return [row["article"] for row in self._all("SELECT * FROM watch ORDER BY article")]

    def watch(self, article: str) -> None:
        self._do("INSERT OR IGNORE INTO watch VALUES (?)", article)

    def unwatch(self, article: str) -> None:
        self._do("DELETE FROM watch WHERE article = ?", article)

    # For evaluation and milestones

    def changes(self) -> list[str]:
        """Lists the differences from the initial state, one line each, in a fixed order."""
        snapshot, content = self.snapshot(), self.content
        said = []
        if snapshot["saved"] != [[row.label, row.place, row.note] for row in content.saved]:
            said += [f"saved {label} is {place}" + f", {note}" * bool(note) for label, place, note in snapshot["saved"]]
            said += [] if snapshot["saved"] else ["saved nothing"]
        said += [f"note at {place}: {text}" for place, text in snapshot["notes"]]
        said += [f"hours of {place} {hours}: {comment}" for place, hours, comment in snapshot["corrections"]]
        if snapshot["layer"] != vocabulary.LAYERS[0]:
            said.append(f"layer {snapshot['layer']}")
        said += [f"{heading} of {article}: {text}: {summary}" for article, heading, text, summary in snapshot["edits"]]
        if snapshot["watched"] != list(content.watched):
            said.append("watching " + (", ".join(snapshot["watched"]) or "nothing"))
        return said

    def snapshot(self) -> dict[str, Any]:
        visit = self.visit
        edits = self._all(
            "SELECT revision.article, revision.heading, text, summary FROM revision JOIN section USING (article, heading) "
            "WHERE own ORDER BY revision.id"
        )
        return {
            "signed_in": bool(visit["signed_in"]),
            "layer": visit["layer"],
            "saved": [[row["label"], row["place"], row["note"]] for row in self.saved()],
            "notes": [[row["place"], row["text"]] for row in self._all("SELECT * FROM map_note ORDER BY place, id")],
            "corrections": [
                [row["place"], row["hours"], row["comment"]] for row in self._all("SELECT * FROM correction ORDER BY place, id")
            ],
            "edits": [list(row) for row in edits],
            "watched": self.watched(),
        }


def suggest(text: str, names: Sequence[str]) -> list[str]:
    """Names that match a partial input: each word of `text` is a prefix of some word of the name. The page's script has the same rule."""
    typed = text.lower().split()
    return [name for name in names if typed and all(any(word.startswith(part) for word in name.split()) for part in typed)]
