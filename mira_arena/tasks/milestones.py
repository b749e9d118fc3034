"""Milestones: checks of the sites' snapshots and of the page after each step."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from mira_jax.trajectories.records import Page, Subgoal, Trajectory
from mira_jax.trajectories.tasks import clean


@dataclasses.dataclass(frozen=True)
class After:
    """The data available after a step."""

    state: Mapping[str, Mapping[str, Any]]
    """Site to its snapshot (see `State.snapshot`)."""
    path: str
    """Address of the page with placeholder, without query."""
    query: dict[str, str]
    answer: str | None
    """Message of exit(), if the step called it."""


Test = Callable[[After], bool]


@dataclasses.dataclass(frozen=True)
class Milestone:
    subgoal: Subgoal
    test: Test


def reached(milestones: Sequence[Milestone], trajectory: Trajectory) -> list[tuple[bool, ...]]:
    """For each step, whether each milestone is reached by the end of that step. A milestone once reached stays reached.

    The page after a step is the page of the next step, or the last page.
    """
    pages: list[Page | None] = [step.page for step in trajectory.steps[1:]] + [trajectory.evidence.page]
    done, table = [False] * len(milestones), []
    for step, page in zip(trajectory.steps, pages, strict=False):
        if step.state is not None:
            # An exit with an error was held back: it ended nothing.
            answer = (step.action.argument or "") if step.action and step.action.name == "exit" and step.error is None else None
            after = After(step.state, *_split(page.url if page else ""), answer)
            done = [before or milestone.test(after) for before, milestone in zip(done, milestones, strict=True)]
        table.append(tuple(done))
    return table


def _split(url: str) -> tuple[str, dict[str, str]]:
    path, _, query = url.split("#")[0].partition("?")
    return path.rstrip("/"), dict(parse_qsl(query))


def on_page(text: str, *urls: str) -> Milestone:
    """One of the pages is open. `urls` have placeholders and no query."""
    places = {url.rstrip("/") for url in urls}
    return Milestone(Subgoal(text=text, check="page is " + " or ".join(urls)), lambda after: after.path in places)


def on_query(text: str, url: str, **query: str) -> Milestone:
    """The page is open, and its query has these values."""
    return Milestone(
        Subgoal(text=text, check=f"page is {url} with {query}"),
        lambda after: after.path == url and all(after.query.get(key) == value for key, value in query.items()),
    )


def answered(text: str, answer: str) -> Milestone:
    return Milestone(
        Subgoal(text=text, check=f"exit with {answer!r}"), lambda after: after.answer is not None and clean(after.answer) == clean(answer)
    )


def in_snapshot(text: str, site: str, key: str, value: Any) -> Milestone:
    """`value` is in the list `key` of the site's snapshot."""
    return Milestone(Subgoal(text=text, check=f"{key} holds {value}"), lambda after: value in after.state[site][key])


def exactly(text: str, site: str, key: str, value: Any) -> Milestone:
    """The `key` of the site's snapshot equals `value`."""
    return Milestone(Subgoal(text=text, check=f"{key} is {value}"), lambda after: after.state[site][key] == value)
