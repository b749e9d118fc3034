"""Evaluation of the code host's tasks: the expected list of changes."""

from collections.abc import Mapping
from typing import Any

from mira_arena.sites.code.content import File, Issue, Project
from mira_arena.sites.facts import change
from mira_arena.tasks.evaluations import html_target

Changes = Mapping[str, str]
"""Differences from the initial state by name (see `CodeState.facts`). '' means deleted."""


def code_targets(changes: Changes | None = None) -> list[dict[str, Any]]:
    """Requires exactly these lines in the list of changes."""
    return [html_target("__CODE__/changes", "#changes", " ".join(_lines(changes or {})) or "none yet")]


def _lines(changes: Changes) -> list[str]:
    return [change(key, changes[key]) for key in sorted(changes)]


def of_issue(project: Project, number: int, **attributes: str) -> dict[str, str]:
    return {f"{project.path} issue {number} {key}": value for key, value in attributes.items()}


def with_label(issue: Issue, label: str) -> str:
    """The issue's labels with one added."""
    return ", ".join(sorted((*issue.labels, label)))


def next_comment(issue: Issue) -> str:
    """Attribute name of the next comment on the issue."""
    return f"comment {len(issue.comments) + 1} text"


def written(project: Project, file: File, message: str) -> dict[str, str]:
    """Facts of a commit after which the file has these contents."""
    return {
        f"{project.path} file {file.branch} {file.path} text": " / ".join(file.lines),
        f"{project.path} commit {len(project.commits) + 1} message": message,
    }
