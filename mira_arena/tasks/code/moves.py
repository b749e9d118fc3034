"""What the expert does on the code host."""

from mira_arena.sites.code.content import Issue, Project
from mira_arena.tasks.moves import Move


def open_project(project: Project) -> Move:
    """From the list that the site begins with."""
    return Move("open", project.name)


def open_issue(issue: Issue) -> tuple[Move, ...]:
    """From any page of its project."""
    return (Move("click", "issues"), Move("open", issue.title, hasty="takes_first_issue"))


def add_label(label: str) -> tuple[Move, ...]:
    return (Move("choose", "label", label, "forgets_option"), Move("click", "add label", habit="forgets_option"))


def comment(text: str) -> tuple[Move, ...]:
    return (Move("type", "your comment", text), Move("click", "comment"))


def invite(name: str, role: str) -> tuple[Move, ...]:
    """By name or full name. What completes the full name is there in a browser alone."""
    return (
        Move("type", "person", name), Move("click", name), Move("choose", "role", role, "forgets_option"), Move("click", "invite"),
    )  # fmt: skip
