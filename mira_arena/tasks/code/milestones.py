"""Milestones of the code host's tasks, and the addresses of its pages."""

from mira_arena.sites.code.content import Issue, Project
from mira_arena.tasks import milestones
from mira_arena.tasks.code.targets import Changes, _lines
from mira_arena.tasks.milestones import Milestone
from mira_jax.trajectories.records import Subgoal


def changed(text: str, changes: Changes) -> Milestone:
    """All of these changes were made. Others are allowed."""
    lines = _lines(changes)
    return Milestone(Subgoal(text=text, check=f"changes hold {lines}"), lambda after: set(lines) <= {*after.state["code"]["changes"]})


def finished(text: str, changes: Changes) -> Milestone:
    """Exactly these changes were made."""
    return milestones.exactly(text, "code", "changes", _lines(changes))


def page(project: Project, rest: str = "") -> str:
    """Address of a page of the project."""
    return f"__CODE__/{project.path}" + (f"/-/{rest}" if rest else "")


def on_project(project: Project) -> Milestone:
    return milestones.on_page(f'open "{project.name}"', page(project))


def on_issue(project: Project, issue: Issue) -> Milestone:
    return milestones.on_page(f'open "{issue.title}"', page(project, f"issues/{issue.number}"))
