"""State of the forum in one episode: the queries and actions of a member."""

from collections.abc import Mapping
from typing import Any

from mira_arena.sites.forum import facts, vocabulary
from mira_arena.sites.forum.database import image
from mira_arena.sites.state import Refused, Row, State

SEARCH_RESULTS = 6
SORTS = {"hot": "score * 1.0 / (hours + 2) DESC, id DESC", "new": "hours, id DESC", "top": "score + vote DESC, id DESC"}

_LARGEST = 2**63 - 1
"""Largest SQLite integer."""
_THREADS = "SELECT *, score + vote AS points, (SELECT COUNT(*) FROM comment WHERE comment.thread = thread.id) AS comments FROM thread"


class ForumState(State):
    """The forum with the functions of its members. Those of moderators are in `ModeratedForum`."""

    def __init__(self, seed: int, setup: Mapping[str, Any] | None = None):
        """`setup` may contain `signed_in` (a boolean)."""
        super().__init__(image(seed))
        self._do("UPDATE visit SET signed_in = ?", int((setup or {}).get("signed_in", True)))

    # The visit

    @property
    def viewer(self) -> str:
        """Name of the signed-in member. Empty if nobody is signed in."""
        visit = self.visit
        return visit["member"] if visit["signed_in"] else ""

    def me(self) -> str:
        """Name of the signed-in member. Raises Refused if nobody is signed in."""
        if not self.viewer:
            raise Refused("please sign in first")
        return self.viewer

    def sign_in(self, member: str, password: str) -> None:
        visit = self.visit
        if (member, password) != (visit["member"], visit["password"]):
            raise Refused("name or password is wrong")
        self._do("UPDATE visit SET signed_in = 1")

    def sign_out(self) -> None:
        self._do("UPDATE visit SET signed_in = 0")

    # Communities and members

    def communities(self) -> list[Row]:
        return self._all("SELECT * FROM community ORDER BY name")

    def community(self, name: str) -> Row | None:
        return self._one("SELECT * FROM community WHERE name = ?", name)

    def rules(self, community: str) -> list[Row]:
        return self._all("SELECT text FROM rule WHERE community = ? ORDER BY id", community)

    def flairs(self, community: str) -> list[str]:
        return [name for (name,) in self._all("SELECT name FROM flair WHERE community = ? ORDER BY id", community)]

    def moderators(self, community: str) -> list[str]:
        return [name for (name,) in self._all("SELECT member FROM moderator WHERE community = ? ORDER BY id", community)]

    def subscribe(self, community: str, on: bool) -> None:
        self.me()
        self._do("UPDATE community SET subscribed = ? WHERE name = ?", on, community)

    def member(self, name: str) -> Row | None:
        return self._one("SELECT * FROM member WHERE name = ?", name)

    # Threads

    def front(self, sort: str) -> list[Row]:
        """Threads of the communities that the member subscribes to, or all threads if nobody is signed in."""
        subscribed = "community IN (SELECT name FROM community WHERE subscribed)"
        return self._threads(f"{subscribed} OR ? = ''", SORTS[sort], self.viewer)

    def threads_in(self, community: str, sort: str) -> list[Row]:
        """Threads of the community. Sorted by hot, sticky threads come first."""
        return self._threads("community = ?", ("sticky DESC, " if sort == "hot" else "") + SORTS[sort], community)

    def threads_by(self, author: str) -> list[Row]:
        return self._threads("author = ?", SORTS["new"], author)

    def saved(self) -> list[Row]:
        return self._threads("saved AND ? != ''", SORTS["new"], self.viewer)

    def search(self, query: str, sort: str) -> list[Row]:
        """Threads with the best matching titles, at most SEARCH_RESULTS, in the order of `sort`."""
        wanted, found = set(query.lower().split()), []
        for row in self._all("SELECT id, title, community, score FROM thread"):
            matches = len(wanted & {*row["title"].split(), row["community"]})
            if matches:
                found.append((-matches, -row["score"], row["id"]))
        best = [thread for _, _, thread in sorted(found)[:SEARCH_RESULTS]]
        return self._threads(f"id IN ({','.join('?' * len(best))})", SORTS[sort], *best)

    def _threads(self, condition: str, order: str, *values: Any) -> list[Row]:
        return self._all(f"{_THREADS} WHERE ({condition}) AND removed = '' ORDER BY {order}", *values)

    def thread(self, number: int) -> Row | None:
        return self._one(f"{_THREADS} WHERE id = ?", min(number, _LARGEST))

    def post(self, community: str, title: str, link: str, text: str) -> int:
        """Posts a thread and returns its id."""
        me = self.me()
        if not self.community(community):
            raise Refused("please choose a community")
        if not title:
            raise Refused("a thread needs a title")
        if self._one("SELECT 1 FROM thread WHERE title = ?", title):
            raise Refused("there is a thread of that title already")
        if link and not link.startswith(("https://", "http://")):
            raise Refused("a link begins with https://")
        self._do(
            "INSERT INTO thread SELECT MAX(id) + 1, ?, ?, ?, ?, ?, 1, 0, '', 0, 0, '', 0, 0 FROM thread", community, me, title, text, link
        )
        return self._row("SELECT MAX(id) AS id FROM thread")["id"]

    def edit_thread(self, thread: Row, text: str) -> None:
        self.check_own(thread)
        if not (text or thread["link"]):
            raise Refused("a thread needs some words")
        self._do("UPDATE thread SET text = ? WHERE id = ?", text, thread["id"])

    def delete_thread(self, thread: Row) -> None:
        """Deletes a thread with its comments."""
        self.check_own(thread)
        number = thread["id"]
        self._do("DELETE FROM report WHERE (kind, id) IN (SELECT kind, id FROM thing WHERE thread = ?)", number)
        self._do("DELETE FROM comment WHERE thread = ?", number)
        self._do("DELETE FROM thread WHERE id = ?", number)

    def save(self, thread: Row, on: bool) -> None:
        self.me()
        self._do("UPDATE thread SET saved = ? WHERE id = ?", on, thread["id"])

    # Comments

    def comments(self, thread: int) -> list[dict[str, Any]]:
        """Comments in page order: each after the one that it replies to, with its depth and the author replied to. Replies are ordered
        by decreasing score."""
        replies: dict[int | None, list[Row]] = {}
        for row in self._all("SELECT *, score + vote AS points FROM comment WHERE thread = ? ORDER BY score, id DESC", thread):
            replies.setdefault(row["parent"], []).append(row)
        found, waiting = [], [(row, 0, "") for row in replies.get(None, ())]
        while waiting:
            row, depth, to = waiting.pop()
            found.append(dict(row) | {"depth": depth, "to": to})
            waiting += [(reply, depth + 1, row["author"]) for reply in replies.get(row["id"], ())]
        return found

    def comment(self, number: int) -> Row | None:
        return self._one("SELECT *, score + vote AS points FROM comment WHERE id = ?", min(number, _LARGEST))

    def comments_by(self, author: str) -> list[Row]:
        """Comments by the author, newest first."""
        return self._all(
            "SELECT comment.*, comment.score + comment.vote AS points, title FROM comment JOIN thread ON thread.id = comment.thread "
            "WHERE comment.author = ? AND comment.removed = '' ORDER BY comment.id DESC", author
        )  # fmt: skip

    def add_comment(self, thread: Row, text: str, parent: int | None = None) -> None:
        me = self.me()
        if thread["locked"]:
            raise Refused("this thread is locked")
        if not text:
            raise Refused("a comment needs some words")
        self._do("INSERT INTO comment SELECT MAX(id) + 1, ?, ?, ?, ?, 1, '', 0 FROM comment", thread["id"], parent, me, text)

    def edit_comment(self, comment: Row, text: str) -> None:
        self.check_own(comment)
        if not text:
            raise Refused("a comment needs some words")
        self._do("UPDATE comment SET text = ? WHERE id = ?", text, comment["id"])

    def delete_comment(self, comment: Row) -> None:
        self.check_own(comment)
        if self._one("SELECT 1 FROM comment WHERE parent = ?", comment["id"]):
            raise Refused("a comment with replies can't be deleted")
        self._do("DELETE FROM report WHERE kind = 'comment' AND id = ?", comment["id"])
        self._do("DELETE FROM comment WHERE id = ?", comment["id"])

    # Threads and comments

    def thing(self, kind: str, number: int) -> Row | None:
        """The attributes that threads and comments share."""
        return self._one("SELECT * FROM thing WHERE kind = ? AND id = ?", kind, min(number, _LARGEST))

    def vote(self, thing: Row, value: int) -> None:
        """Votes 1 or -1. Repeating a vote removes it."""
        if thing["author"] == self.me():
            raise Refused("you can't vote on what you wrote")
        self._do(f"UPDATE {thing['kind']} SET vote = ? WHERE id = ?", 0 if thing["vote"] == value else value, thing["id"])

    def report(self, thing: Row, reason: str) -> None:
        me = self.me()
        if reason not in vocabulary.REASONS:
            raise Refused("please choose a reason")
        key = (thing["kind"], thing["id"])
        if self._one("SELECT 1 FROM report WHERE kind = ? AND id = ? AND reporter = ?", *key, me):
            raise Refused("you have reported this already")
        self._do("INSERT INTO report (kind, id, reporter, reason, status) VALUES (?, ?, ?, ?, 'open')", *key, me, reason)

    def check_own(self, row: Row) -> None:
        """Raises Refused unless the signed-in member is the author."""
        if row["author"] != self.me():
            raise Refused("only its author can do that")

    # Messages

    def conversations(self) -> list[Row]:
        """Last message of each conversation, newest first."""
        return self._all("SELECT * FROM message WHERE id IN (SELECT MAX(id) FROM message GROUP BY other) ORDER BY id DESC")

    def unread(self) -> int:
        """Number of conversations with unread messages. 0 if nobody is signed in."""
        return self._row("SELECT COUNT(DISTINCT other) AS count FROM message WHERE unread AND ? != ''", self.viewer)["count"]

    def messages(self, other: str) -> list[Row]:
        """Messages exchanged with a member. Marks them as read."""
        self._do("UPDATE message SET unread = 0 WHERE other = ?", other)
        return self._all("SELECT * FROM message WHERE other = ? ORDER BY id", other)

    def send(self, other: str, text: str) -> None:
        if other == self.me() or not self.member(other):
            raise Refused("there is no such member to write to")
        if not text:
            raise Refused("a message needs some words")
        self._do("INSERT INTO message (other, incoming, text, unread) VALUES (?, 0, ?, 0)", other, text)

    # For tasks

    def changes(self) -> list[str]:
        """Lists the differences from the initial state, one line each, in a fixed order."""
        return facts.differences(self._database)

    def snapshot(self) -> dict[str, Any]:
        return {"signed_in": bool(self.visit["signed_in"]), "changes": self.changes()}
