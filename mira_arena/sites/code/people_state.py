"""The part of the code host's state with people, groups, projects, members and roles."""

import re

from mira_arena.sites.code import vocabulary
from mira_arena.sites.code.content import MAIN
from mira_arena.sites.state import Refused, Row, State

RESERVED = ("search", "to-dos", "projects", "groups", "people", "profile", "changes")
"""Names that groups can't have, since they are paths of pages."""

_NAME = re.compile(r"(?=.{1,40}$)[a-z0-9]+( [a-z0-9]+)*")


class PeopleState(State):
    """The part of the state with people, groups and members."""

    # Permissions

    def role(self, path: str) -> str:
        """Role of the signed-in user in the project. '' if they are not a member."""
        row = self._one("SELECT role FROM member JOIN visit ON visit.person = member.person WHERE project = ?", path)
        return row["role"] if row else ""

    def may(self, path: str, least: str) -> bool:
        """Whether the signed-in user has at least that role."""
        return self.role(path) in vocabulary.ROLES[vocabulary.ROLES.index(least) :]

    def need(self, path: str, least: str) -> None:
        """Raises Refused unless the signed-in user has at least that role."""
        if not self.may(path, least):
            raise Refused(f"that needs the role {least} in this project")

    # People

    def people(self) -> list[Row]:
        return self._all("SELECT * FROM person ORDER BY name")

    def person(self, name: str) -> Row | None:
        """Finds a person by user name or full name."""
        return self._one("SELECT * FROM person WHERE ? IN (name, full_name)", name)

    def memberships(self, person: str) -> list[Row]:
        """Projects of a person, each with their role there."""
        return self._all(
            "SELECT project.*, role FROM project JOIN member ON project = path WHERE person = ? ORDER BY project.rowid DESC", person
        )

    def save_profile(self, status: str, bio: str) -> None:
        self._do("UPDATE visit SET status = ?, bio = ?", status, bio)

    def todos(self) -> list[Row]:
        """Open to-dos, each with the title of its issue."""
        return self._all(
            "SELECT todo.*, issue.title FROM todo JOIN issue ON issue.project = todo.project AND issue.number = todo.issue "
            "WHERE NOT done ORDER BY todo.number"
        )

    def finish_todo(self, number: int) -> None:
        self._do("UPDATE todo SET done = 1 WHERE number = ?", number)

    # Groups and projects

    def groups(self) -> list[Row]:
        """Groups that the signed-in user owns."""
        return self._all("SELECT * FROM namespace WHERE own ORDER BY name")

    def group(self, slug: str) -> Row | None:
        return self._one("SELECT * FROM namespace WHERE replace(name, ' ', '-') = ?", slug)

    def add_group(self, name: str) -> None:
        check(_NAME, name, "a name is made of letters and digits")
        if name in RESERVED or self._one("SELECT 1 FROM namespace WHERE name = ?", name):
            raise Refused(f"the name {name} is taken")
        self._do("INSERT INTO namespace VALUES (?, 1)", name)

    def projects(self, group: str) -> list[Row]:
        return self._all("SELECT * FROM project WHERE namespace = ? ORDER BY name", group)

    def project(self, path: str) -> Row | None:
        return self._one("SELECT * FROM project WHERE path = ?", path)

    def add_project(self, name: str, group: str, description: str, visibility: str) -> str:
        """Creates an empty project and returns its path."""
        check(_NAME, name, "a name is made of letters and digits")
        if visibility not in vocabulary.VISIBILITIES or group not in [row["name"] for row in self.groups()]:
            raise Refused("please choose from the options")
        path = f"{group}/{name}".replace(" ", "-")
        if self.project(path):
            raise Refused(f"the name {name} is taken")
        self._do("INSERT INTO project VALUES (?, ?, ?, ?, '', ?, 0, 0, 0)", path, name, group, description, visibility)
        self._do("INSERT INTO member VALUES (?, ?, 'owner')", path, self.visit["person"])
        self._do("INSERT INTO branch VALUES (?, ?)", path, MAIN)
        return path

    def save_settings(self, path: str, description: str, topics: str, visibility: str) -> None:
        self.need(path, "maintainer")
        if visibility not in vocabulary.VISIBILITIES:
            raise Refused("please choose from the options")
        self._do("UPDATE project SET description = ?, topics = ?, visibility = ? WHERE path = ?", description, topics, visibility, path)

    def star(self, path: str) -> None:
        """Stars the project, or removes the star."""
        self._do("UPDATE project SET stars = stars + 1 - 2 * starred, starred = 1 - starred WHERE path = ?", path)

    def search(self, query: str) -> list[tuple[str, Row]]:
        """(kind, row) of every project, issue and person whose name contains all words of the query."""
        wanted = query.split()
        tables = (
            ("project", "SELECT *, name AS found FROM project ORDER BY name"),
            ("issue", "SELECT issue.*, title AS found, name FROM issue JOIN project ON path = project ORDER BY title, number"),
            ("person", "SELECT *, full_name AS found FROM person ORDER BY name"),
        )
        found = [(kind, row) for kind, select in tables for row in self._all(select)]
        return [(kind, row) for kind, row in found if wanted and all(word in row["found"] for word in wanted)]

    # Members

    def members(self, path: str) -> list[Row]:
        return self._all("SELECT * FROM member WHERE project = ? ORDER BY person", path)

    def member(self, path: str, name: str) -> str:
        """User name of the member with that user name or full name. '' if there is none."""
        person = self.person(name) if name else None
        if name and not (person and any(row["person"] == person["name"] for row in self.members(path))):
            raise Refused(f"{name} is no member of this project")
        return person["name"] if person else ""

    def invite(self, path: str, name: str, role: str) -> None:
        self.need(path, "maintainer")
        self._check_role(path, role)
        person = self.person(name)
        if person is None:
            raise Refused(f"there is nobody named {name}")
        if self._one("SELECT 1 FROM member WHERE project = ? AND person = ?", path, person["name"]):
            raise Refused(f"{person['name']} is a member already")
        self._do("INSERT INTO member VALUES (?, ?, ?)", path, person["name"], role)

    def set_role(self, path: str, name: str, role: str) -> None:
        """Changes the role of a member. '' removes the member."""
        self.need(path, "maintainer")
        now = self._one("SELECT role FROM member WHERE project = ? AND person = ?", path, name)
        if now is None:
            raise Refused(f"{name} is no member of this project")
        if name == self.visit["person"]:
            raise Refused("you can not change your own role")
        self._check_role(path, now["role"])
        if role:
            self._check_role(path, role)
            self._do("UPDATE member SET role = ? WHERE project = ? AND person = ?", role, path, name)
        else:
            self._do("DELETE FROM member WHERE project = ? AND person = ?", path, name)

    def _check_role(self, path: str, role: str) -> None:
        if role not in vocabulary.ROLES:
            raise Refused("please choose from the options")
        if role == "owner":
            self.need(path, "owner")


def check(pattern: re.Pattern[str], text: str, problem: str) -> None:
    """Raises Refused if the text does not match the pattern."""
    if not pattern.fullmatch(text):
        raise Refused(problem)
