"""How the code host's tasks are judged: what the list of changes must read."""

from collections.abc import Mapping
from typing import Any

from mira_arena.sites.code.content import File, Issue, Project
from mira_arena.sites.facts import change
from mira_arena.tasks.evaluations import html_target

Changes = Mapping[str, str]
"""What differs from the initial state, by name (see `CodeState.facts`); '' is what is gone."""


def code_targets(changes: Changes | None = None) -> list[dict[str, Any]]:
    """The list of changes must read exactly these."""
    return [html_target("__CODE__/changes", "#changes", " ".join(_lines(changes or {})) or "none yet")]


def _lines(changes: Changes) -> list[str]:
    return [change(key, changes[key]) for key in sorted(changes)]


def of_issue(project: Project, number: int, **attributes: str) -> dict[str, str]:
    return {f"{project.path} issue {number} {key}": value for key, value in attributes.items()}


def with_label(issue: Issue, label: str) -> str:
    """The labels of the issue with another one."""
    return ", ".join(sorted((*issue.labels, label)))


def next_comment(issue: Issue) -> str:
    """The attribute that a new comment on the issue is."""
    return f"comment {len(issue.comments) + 1} text"


def written(project: Project, file: File, message: str) -> dict[str, str]:
    """A commit that leaves the file so."""
    return {
        f"{project.path} file {file.branch} {file.path} text": " / ".join(file.lines),
        f"{project.path} commit {len(project.commits) + 1} message": message,
    }
