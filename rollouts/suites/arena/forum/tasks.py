"""How the forum's tasks are judged, and the moves that several of them share."""

from collections.abc import Mapping
from typing import Any

from mira_jax.trajectories.records import Subgoal
from rollouts.suites.arena import milestones
from rollouts.suites.arena.app import slug
from rollouts.suites.arena.forum import facts
from rollouts.suites.arena.forum.content import Thread
from rollouts.suites.arena.milestones import Milestone
from rollouts.suites.arena.moves import Move
from rollouts.suites.arena.tasks import html_target

MORE = Move("click", "more actions")
LOAD = Move("click", "load more comments")


def forum_targets(changes: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """What the list of changes must read: these facts (see `facts`) have these values now, and all others are as in the morning."""
    return [html_target("__FORUM__/changes", "#changes", " ".join(facts.lines(changes or {})) or "none yet")]


def did(text: str, changes: Mapping[str, str]) -> Milestone:
    """These facts have these values now; others may differ, too."""
    wanted = facts.lines(changes)
    return Milestone(Subgoal(text=text, check=f"changes hold {wanted}"), lambda after: not {*wanted} - {*after.state["forum"]["changes"]})


def did_all(text: str, changes: Mapping[str, str]) -> Milestone:
    """Nothing else has changed."""
    return milestones.exactly(text, "forum", "changes", facts.lines(changes))


def opened(thread: Thread) -> Milestone:
    return milestones.on_page(f'open "{thread.title}"', thread_page(thread))


def thread_page(thread: Thread) -> str:
    return f"__FORUM__/thread/{thread.id}"


def member_page(name: str) -> str:
    return f"__FORUM__/user/{slug(name)}"


def open_thread(title: str) -> Move:
    """From a list."""
    return Move("open", title, hasty="takes_first_result")


def find(title: str) -> tuple[Move, ...]:
    return (Move("search", "search", title), open_thread(title))


def go_to(community: str) -> tuple[Move, ...]:
    return (Move("click", "communities"), Move("click", community))


def fill_in(community: str, title: str, text: str) -> tuple[Move, ...]:
    """A new thread, but for the button that posts it."""
    return (
        Move("click", "new thread"), Move("choose", "community", community, "forgets_option"), Move("type", "title", title),
        Move("type", "text", text),
    )  # fmt: skip


def write_to(name: str, text: str) -> tuple[Move, ...]:
    """From a page that names the member."""
    send = Move("click", "send", habit="stops_early")
    return (Move("click", name), Move("click", "send message"), Move("type", "your message", text), send)
