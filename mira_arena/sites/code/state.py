"""State of the code host in one episode: an SQLite database in memory, with its queries and changes."""

import datetime
import functools
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from mira_arena.sites import facts
from mira_arena.sites.code import vocabulary
from mira_arena.sites.code.content import MAIN
from mira_arena.sites.code.database import image
from mira_arena.sites.code.people_state import PeopleState, check
from mira_arena.sites.state import Refused, Row

MAX_LINES = 12
"""Maximum number of lines in a file."""

_LARGEST = 2**63 - 1
"""Largest SQLite integer."""
_BRANCH = re.compile(r"(?=.{1,40}$)[a-z0-9]+(-[a-z0-9]+)*")
_FILE = re.compile(r"(?=.{1,40}$)([a-z0-9_-]+/)?[a-z0-9_-]+(\.[a-z0-9]+)?")
_FACTS = (
    ("'profile'", "visit", ("status", "bio")),
    ("'to-do ' || number", "todo", ("done",)),
    ("'group ' || name", "namespace", ("own",)),
    ("path", "project", ("description", "topics", "visibility", "starred")),
    ("project || ' member ' || person", "member", ("role",)),
    ("project || ' branch ' || name", "branch", ("name",)),
    ("project || ' file ' || branch || ' ' || path", "file", ("text",)),
    ("project || ' commit ' || row_number() OVER (PARTITION BY project ORDER BY id)", "commits", ("message",)),
    ("project || ' milestone ' || number", "milestone", ("title", "start", "due", "state")),
    ("project || ' issue ' || number", "issue", ("title", "description", "state", "labels", "assignee", "milestone", "due")),
    ("project || ' merge request ' || number", "merge_request", ("title", "source", "state", "approved")),
    (
        "project || ' ' || kind || ' ' || number || ' comment ' || row_number() OVER (PARTITION BY project, kind, number ORDER BY id)",
        "comment", ("text",),
    ),
)  # fmt: skip
"""Sources of facts: an SQL expression that names a row, its table, its attributes."""


@functools.lru_cache(maxsize=128)
def _initial_facts(seed: int) -> dict[str, str]:
    return facts.initial(CodeState, CodeState.facts, seed)


class CodeState(PeopleState):
    """Projects in groups, and the actions on them."""

    def __init__(self, seed: int, setup: Mapping[str, Any] | None = None):
        """`setup` is not used: no task of the code host has one."""
        super().__init__(image(seed))

    # Files, commits and branches

    def branches(self, path: str) -> list[str]:
        """Branches, the main branch first."""
        rows = self._all("SELECT name FROM branch WHERE project = ? ORDER BY name != ?, name", path, MAIN)
        return [row["name"] for row in rows]

    def add_branch(self, path: str, name: str) -> None:
        self.need(path, "developer")
        check(_BRANCH, name, "a branch is named like fix-menu")
        if name in self.branches(path):
            raise Refused(f"the branch {name} is there already")
        self._do("INSERT INTO branch VALUES (?, ?)", path, name)

    def files(self, path: str, branch: str) -> dict[str, list[str]]:
        """Maps path to lines, for each file on the branch."""
        rows = self._all(
            "SELECT path, text FROM file WHERE project = ? AND branch IN (?, ?) ORDER BY branch = ?", path, MAIN, branch, branch
        )
        found = {row["path"]: row["text"].split("\n") for row in rows}
        return dict(sorted(found.items()))

    def changed_files(self, path: str, branch: str) -> list[str]:
        """Files that the branch has added or changed relative to the main branch."""
        rows = self._all("SELECT path FROM file WHERE project = ? AND branch = ? AND branch != ? ORDER BY path", path, branch, MAIN)
        return [row["path"] for row in rows]

    def may_write(self, path: str, branch: str) -> bool:
        return self.may(path, _writer(branch))

    def save_file(self, path: str, branch: str, file: str, lines: Sequence[str], message: str, new: bool = False) -> None:
        """Writes a file on the branch, in one commit."""
        self.need(path, _writer(branch))
        check(_FILE, file, "a file is named like notes.md")
        before = self.files(path, branch).get(file)
        if new and before is not None:
            raise Refused(f"the file {file} is there already")
        if not message:
            raise Refused("a commit needs a message")
        if not lines or len(lines) > MAX_LINES or list(lines) == before:
            raise Refused("there is nothing to commit")
        self._do("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)", path, branch, file, "\n".join(lines))
        self._commit(path, branch, message)

    def _commit(self, path: str, branch: str, message: str) -> None:
        visit, number = self.visit, self._row("SELECT MAX(id) AS last FROM commits")["last"]
        sha = f"{zlib.crc32(f'{path} {number}'.encode()):08x}"[:6]
        row = (path, branch, sha, visit["person"], message, visit["day"])
        self._do("INSERT INTO commits (project, branch, sha, author, message, day) VALUES (?, ?, ?, ?, ?, ?)", *row)

    def commits(self, path: str, branch: str, author: str = "") -> list[Row]:
        """Commits on the branch, newest first, optionally of one author."""
        rows = self._all("SELECT * FROM commits WHERE project = ? AND branch IN (?, ?) ORDER BY id DESC", path, MAIN, branch)
        return [row for row in rows if author in ("", row["author"])]

    def pipelines(self, path: str) -> list[Row]:
        return self._all("SELECT * FROM pipeline WHERE project = ? ORDER BY number DESC", path)

    def releases(self, path: str) -> list[Row]:
        return self._all("SELECT * FROM release WHERE project = ? ORDER BY rowid DESC", path)

    # Merge requests

    def merge_requests(self, path: str, state: str) -> list[Row]:
        """Merge requests, newest first. `state` is open, merged, closed or all."""
        return self._all("SELECT * FROM merge_request WHERE project = ? AND ? IN ('all', state) ORDER BY number DESC", path, state)

    def merge_request(self, path: str, number: int) -> Row | None:
        return self._one("SELECT * FROM merge_request WHERE project = ? AND number = ?", path, min(number, _LARGEST))

    def add_merge_request(self, path: str, source: str, title: str) -> int:
        """Opens a request to merge a branch into the main branch, and returns its number."""
        self.need(path, "developer")
        if source not in self.branches(path)[1:]:
            raise Refused("please choose from the options")
        if not title:
            raise Refused("a merge request needs a title")
        visit, number = self.visit, self._next_number("merge_request", path)
        row = (path, number, title, visit["person"], visit["day"], source)
        self._do("INSERT INTO merge_request VALUES (?, ?, ?, ?, ?, ?, 'open', 0)", *row)
        return number

    def approve(self, path: str, number: int) -> None:
        self.need(path, "developer")
        row = self._open_request(path, number)
        if row["author"] == self.visit["person"]:
            raise Refused("you can not approve your own merge request")
        self._do("UPDATE merge_request SET approved = 1 WHERE project = ? AND number = ?", path, number)

    def merge(self, path: str, number: int) -> None:
        """Applies the changes of the source branch to the main branch."""
        self.need(path, "maintainer")
        source = self._open_request(path, number)["source"]
        self._do("UPDATE OR REPLACE file SET branch = ? WHERE project = ? AND branch = ?", MAIN, path, source)
        self._do("UPDATE commits SET branch = ? WHERE project = ? AND branch = ?", MAIN, path, source)
        self._commit(path, MAIN, f"merge {source} into {MAIN}")
        self._do("UPDATE merge_request SET state = 'merged' WHERE project = ? AND number = ?", path, number)

    def close_request(self, path: str, number: int) -> None:
        if self._open_request(path, number)["author"] != self.visit["person"]:
            self.need(path, "developer")
        self._do("UPDATE merge_request SET state = 'closed' WHERE project = ? AND number = ?", path, number)

    def _open_request(self, path: str, number: int) -> Row:
        row = self.merge_request(path, number)
        if row is None or row["state"] != "open":
            raise Refused("this merge request is not open")
        return row

    # Issues

    def issues(
        self, path: str, state: str = "all", label: str = "", assignee: str = "", milestone: str = "", search: str = ""
    ) -> list[Row]:
        """Issues, newest first. `state` is open, closed or all."""
        rows = self._all("SELECT * FROM issue WHERE project = ? ORDER BY number DESC", path)
        return [
            row
            for row in rows
            if state in ("all", row["state"])
            and (not label or label in row["labels"].split(", "))
            and assignee in ("", row["assignee"])
            and milestone in ("", row["milestone"])
            and all(word in row["title"] for word in search.split())
        ]

    def issue(self, path: str, number: int) -> Row | None:
        return self._one("SELECT * FROM issue WHERE project = ? AND number = ?", path, min(number, _LARGEST))

    def add_issue(self, path: str, title: str, description: str, label: str, assignee: str, milestone: str, due: str) -> int:
        """Opens an issue and returns its number. A user below the role reporter can only set title and description."""
        if not title:
            raise Refused("an issue needs a title")
        if label or assignee or milestone or due:
            self.need(path, "reporter")
        if label and label not in vocabulary.LABELS:
            raise Refused("please choose a label")
        visit, number = self.visit, self._next_number("issue", path)
        row = (path, number, title, description, visit["person"], visit["day"], label, *self._plan(path, assignee, milestone, due))
        self._do("INSERT INTO issue VALUES (?, ?, ?, ?, ?, ?, 'open', ?, ?, ?, ?)", *row)
        return number

    def plan_issue(self, path: str, number: int, assignee: str, milestone: str, due: str) -> None:
        """Sets the assignee, the milestone and the due date. '' clears the field."""
        self.need(path, "reporter")
        plan = self._plan(path, assignee, milestone, due)
        self._do("UPDATE issue SET assignee = ?, milestone = ?, due = ? WHERE project = ? AND number = ?", *plan, path, number)

    def _plan(self, path: str, assignee: str, milestone: str, due: str) -> tuple[str, str, str]:
        if milestone and milestone not in [row["title"] for row in self.milestones(path)]:
            raise Refused("please choose from the options")
        return self.member(path, assignee), milestone, _check_day(due, "due date")

    def set_label(self, path: str, number: int, label: str, there: bool) -> None:
        """Adds a label to an issue, or removes it."""
        self.need(path, "reporter")
        if label not in vocabulary.LABELS:
            raise Refused("please choose a label")
        labels = {*filter(None, self._issue(path, number)["labels"].split(", "))} - {label} | ({label} if there else set())
        self._do("UPDATE issue SET labels = ? WHERE project = ? AND number = ?", ", ".join(sorted(labels)), path, number)

    def set_issue_state(self, path: str, number: int, state: str) -> None:
        if self._issue(path, number)["author"] != self.visit["person"]:
            self.need(path, "reporter")
        self._do("UPDATE issue SET state = ? WHERE project = ? AND number = ?", state, path, number)

    def _issue(self, path: str, number: int) -> Row:
        return self._row("SELECT * FROM issue WHERE project = ? AND number = ?", path, number)

    def comments(self, path: str, kind: str, number: int) -> list[Row]:
        """Comments on an issue or a merge request. `kind` is issue or merge request."""
        return self._all("SELECT * FROM comment WHERE project = ? AND kind = ? AND number = ? ORDER BY id", path, kind, number)

    def add_comment(self, path: str, kind: str, number: int, text: str) -> None:
        if not text:
            raise Refused("a comment needs some words")
        row = (path, kind, number, self.visit["person"], text)
        self._do("INSERT INTO comment (project, kind, number, author, text) VALUES (?, ?, ?, ?, ?)", *row)

    # Milestones

    def milestones(self, path: str) -> list[Row]:
        """Milestones, each with its number of issues and of closed issues."""
        return self._all(
            "SELECT milestone.*, COUNT(issue.number) AS issues, COALESCE(SUM(issue.state = 'closed'), 0) AS closed FROM milestone "
            "LEFT JOIN issue ON issue.project = milestone.project AND issue.milestone = milestone.title "
            "WHERE milestone.project = ? GROUP BY milestone.number ORDER BY milestone.number DESC",
            path,
        )

    def milestone(self, path: str, number: int) -> Row | None:
        return next((row for row in self.milestones(path) if row["number"] == number), None)

    def add_milestone(self, path: str, title: str, start: str, due: str) -> int:
        """Creates a milestone and returns its number."""
        self.need(path, "developer")
        if not title:
            raise Refused("a milestone needs a title")
        if any(row["title"] == title for row in self.milestones(path)):
            raise Refused(f"the title {title} is taken")
        start, due = _check_day(start, "start date"), _check_day(due, "due date")
        if start and due and start > due:
            raise Refused("the due date is before the start date")
        number = self._next_number("milestone", path)
        self._do("INSERT INTO milestone VALUES (?, ?, ?, ?, ?, 'open')", path, number, title, start, due)
        return number

    def set_milestone_state(self, path: str, number: int, state: str) -> None:
        self.need(path, "developer")
        self._do("UPDATE milestone SET state = ? WHERE project = ? AND number = ?", state, path, number)

    def _next_number(self, table: str, path: str) -> int:
        return self._row(f"SELECT COALESCE(MAX(number), 0) + 1 AS next FROM {table} WHERE project = ?", path)["next"]

    # For evaluation and milestones of tasks

    def facts(self) -> dict[str, str]:
        """All changeable attributes that are not empty, by name: `orchard/tide-clock issue 3 state` to `open`."""
        return facts.read(self._database, _FACTS, nothing=("", 0, None))

    def changes(self) -> list[str]:
        """Lists the differences from the initial state, one line each, ordered by name."""
        return facts.changes(_initial_facts(self.visit["seed"]), self.facts())

    def snapshot(self) -> dict[str, Any]:
        return {"changes": self.changes()}


def _check_day(text: str, what: str) -> str:
    """Returns `text` if it is a date or empty. Raises Refused otherwise."""
    try:
        if text and datetime.date.fromisoformat(text).isoformat() != text:
            raise ValueError(text)
    except ValueError:
        raise Refused(f"{what} must be written like 2026-03-28") from None
    return text


def _writer(branch: str) -> str:
    """The lowest role that may commit to the branch. The main branch is protected."""
    return "maintainer" if branch == MAIN else "developer"
