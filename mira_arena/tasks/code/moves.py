"""Moves of the expert on the code host."""

from mira_arena.sites.code.content import Issue, Project
from mira_arena.tasks.moves import Move


def open_project(project: Project) -> Move:
    """Starts from the list on the home page."""
    return Move("open", project.name)


def open_issue(issue: Issue) -> tuple[Move, ...]:
    """Starts from any page of the issue's project."""
    return (Move("click", "issues"), Move("open", issue.title, hasty="takes_first_issue"))


def add_label(label: str) -> tuple[Move, ...]:
    return (Move("choose", "label", label, "forgets_option"), Move("click", "add label", habit="forgets_option"))


def comment(text: str) -> tuple[Move, ...]:
    return (Move("type", "your comment", text), Move("click", "comment"))


def invite(name: str, role: str) -> tuple[Move, ...]:
    """Invites by user name or full name. Completion of a full name works only in a browser."""
    return (
        Move("type", "person", name), Move("click", name), Move("choose", "role", role, "forgets_option"), Move("click", "invite"),
    )  # fmt: skip
