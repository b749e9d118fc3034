"""Milestones of the forum's tasks, and the addresses of its pages."""

from collections.abc import Mapping

from mira_arena.sites.forum import facts
from mira_arena.sites.forum.content import Thread
from mira_arena.sites.paths import slug
from mira_arena.tasks import milestones
from mira_arena.tasks.milestones import Milestone
from mira_jax.trajectories.records import Subgoal


def did(text: str, changes: Mapping[str, str]) -> Milestone:
    """These facts have these values. Others may differ from the initial state."""
    wanted = facts.lines(changes)
    return Milestone(Subgoal(text=text, check=f"changes hold {wanted}"), lambda after: not {*wanted} - {*after.state["forum"]["changes"]})


def did_all(text: str, changes: Mapping[str, str]) -> Milestone:
    """These facts have these values, and no others have changed."""
    return milestones.exactly(text, "forum", "changes", facts.lines(changes))


def opened(thread: Thread) -> Milestone:
    return milestones.on_page(f'open "{thread.title}"', thread_page(thread))


def thread_page(thread: Thread) -> str:
    return f"__FORUM__/thread/{thread.id}"


def member_page(name: str) -> str:
    return f"__FORUM__/user/{slug(name)}"
