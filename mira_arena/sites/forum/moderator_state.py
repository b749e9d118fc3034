"""The part of the forum's state that only moderators change."""

from mira_arena.sites.forum import vocabulary
from mira_arena.sites.forum.state import ForumState
from mira_arena.sites.state import Refused, Row


class ModeratedForum(ForumState):
    """The forum with the functions of its members and moderators."""

    def moderates(self, community: str) -> bool:
        """Whether the signed-in member moderates the community."""
        return self.viewer in self.moderators(community)

    def check_moderator(self, community: str) -> None:
        self.me()
        if not self.moderates(community):
            raise Refused("only a moderator can do that")

    def remove(self, thing: Row, reason: str) -> None:
        """Removes a thread or comment and settles its reports, even approved ones."""
        self.check_moderator(thing["community"])
        if reason not in vocabulary.REASONS:
            raise Refused("please choose a reason")
        self._do(f"UPDATE {thing['kind']} SET removed = ? WHERE id = ?", reason, thing["id"])
        self._do("UPDATE report SET status = 'removed' WHERE kind = ? AND id = ?", thing["kind"], thing["id"])

    def restore(self, thing: Row) -> None:
        """Restores a thread or comment and reopens its reports."""
        self.check_moderator(thing["community"])
        self._do(f"UPDATE {thing['kind']} SET removed = '' WHERE id = ?", thing["id"])
        self._do("UPDATE report SET status = 'open' WHERE kind = ? AND id = ? AND status = 'removed'", thing["kind"], thing["id"])

    def lock(self, thread: Row, on: bool) -> None:
        self.check_moderator(thread["community"])
        self._do("UPDATE thread SET locked = ? WHERE id = ?", on, thread["id"])

    def stick(self, thread: Row, on: bool) -> None:
        self.check_moderator(thread["community"])
        self._do("UPDATE thread SET sticky = ? WHERE id = ?", on, thread["id"])

    def set_flair(self, thread: Row, flair: str) -> None:
        """Sets the flair of a thread. Authors may also do this. '' removes the flair."""
        if thread["author"] != self.me():
            self.check_moderator(thread["community"])
        if flair and flair not in self.flairs(thread["community"]):
            raise Refused("please choose from the flairs")
        self._do("UPDATE thread SET flair = ? WHERE id = ?", flair, thread["id"])

    def describe(self, community: str, text: str) -> None:
        self.check_moderator(community)
        if not text:
            raise Refused("a community needs a description")
        self._do("UPDATE community SET description = ? WHERE name = ?", text, community)

    def banned(self, community: str) -> list[str]:
        return [name for (name,) in self._all("SELECT member FROM banned WHERE community = ? ORDER BY member", community)]

    def ban(self, community: str, member: str) -> None:
        self.check_moderator(community)
        if not self.member(member):
            raise Refused("there is no such member")
        if member in self.moderators(community):
            raise Refused("a moderator can't be banned")
        if member in self.banned(community):
            raise Refused(f"{member} is banned already")
        self._do("INSERT INTO banned VALUES (?, ?)", community, member)

    def unban(self, community: str, member: str) -> None:
        self.check_moderator(community)
        self._do("DELETE FROM banned WHERE community = ? AND member = ?", community, member)

    def reports(self, community: str) -> list[Row]:
        """Reports that are not settled."""
        return self._all(
            "SELECT * FROM report JOIN thing USING (kind, id) WHERE community = ? AND status = 'open' ORDER BY number", community
        )

    def open_report(self, community: str, number: int) -> Row | None:
        return next((row for row in self.reports(community) if row["number"] == number), None)

    def approve(self, report: Row) -> None:
        """Settles a report without removing the content."""
        self.check_moderator(report["community"])
        self._do("UPDATE report SET status = 'approved' WHERE number = ?", report["number"])
