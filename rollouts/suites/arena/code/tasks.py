"""How the code host's tasks are judged, and the draws that several of its templates make."""

import datetime
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from mira_jax.trajectories.records import Subgoal
from rollouts.suites.arena import milestones
from rollouts.suites.arena.code import words
from rollouts.suites.arena.code.content import MAIN, TITLES, Content, File, Issue, Project
from rollouts.suites.arena.facts import change
from rollouts.suites.arena.milestones import Milestone
from rollouts.suites.arena.tasks import html_target

Changes = Mapping[str, str]
"""What differs from the morning, by name (see `CodeState.facts`); '' is what is gone."""


def code_targets(changes: Changes | None = None) -> list[dict[str, Any]]:
    """The list of changes must read exactly these."""
    return [html_target("__CODE__/changes", "#changes", " ".join(_lines(changes or {})) or "none yet")]


def _lines(changes: Changes) -> list[str]:
    return [change(key, changes[key]) for key in sorted(changes)]


def changed(text: str, changes: Changes) -> Milestone:
    """All of these, whatever else has changed."""
    lines = _lines(changes)
    return Milestone(Subgoal(text=text, check=f"changes hold {lines}"), lambda after: set(lines) <= {*after.state["code"]["changes"]})


def finished(text: str, changes: Changes) -> Milestone:
    """These and no others."""
    return milestones.exactly(text, "code", "changes", _lines(changes))


def page(project: Project, rest: str = "") -> str:
    """The address of a page of the project."""
    return f"__CODE__/{project.path}" + (f"/-/{rest}" if rest else "")


def on_project(project: Project) -> Milestone:
    return milestones.on_page(f'open "{project.name}"', page(project))


def on_issue(project: Project, issue: Issue) -> Milestone:
    return milestones.on_page(f'open "{issue.title}"', page(project, f"issues/{issue.number}"))


# What changes.


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


# Draws that several templates make.


def draw_title(random: Random, content: Content) -> str:
    """Of an issue or merge request that is not there yet."""
    return random.choice([title for title in TITLES if title not in content.titles])


def draw_day(random: Random, content: Content, first: int = 3, last: int = 80) -> str:
    """A day between `first` and `last` days from now."""
    return (datetime.date.fromisoformat(content.day) + datetime.timedelta(days=random.randrange(first, last))).isoformat()


def draw_setting(random: Random, project: Project, branch: str = MAIN) -> tuple[File, int, str]:
    """A config file with another value in one line, the place of that line from 1 on, and its name."""
    file = next(file for file in project.files if file.path in words.CONFIG_FILES and file.branch == MAIN)
    place = random.randrange(len(file.lines))
    key, value = file.lines[place].split(" = ")
    new = random.choice([other for other in words.SETTINGS[key] if other != value])
    return File(branch, file.path, (*file.lines[:place], f"{key} = {new}", *file.lines[place + 1 :])), place + 1, key


def people_below(project: Project) -> list[str]:
    """The teammates whose role the person who is signed in may change."""
    return [name for name, role in project.teammates if role != "owner" or project.role == "owner"]


def pick_other(random: Random, options: Iterable[str], *known: str) -> str:
    return random.choice([option for option in options if option not in known])
