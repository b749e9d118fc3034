"""Decides milestones and state_match from what an episode recorded."""

from collections.abc import Mapping, Sequence
from typing import Any

from mira_jax.trajectories.records import Page, Subgoal, Trajectory
from rollouts.suites.evaluators import url_match
from rollouts.suites.tasks.items import Check, Milestone


def milestones_done(trajectory: Trajectory, milestones: Sequence[Milestone]) -> list[tuple[bool, ...]]:
    """For each step, whether each milestone is done by the end of that step. What was done once stays done."""
    pages = [*(step.page for step in trajectory.steps[1:]), trajectory.evidence.page]
    done = [False] * len(milestones)
    rows = []
    for step, page in zip(trajectory.steps, pages, strict=True):
        done = [was or holds(one.done, page, step.state) for was, one in zip(done, milestones, strict=True)]
        rows.append(tuple(done))
    return rows


def holds(check: Check, page: Page | None, state: Mapping[str, Any] | None) -> bool:
    """Whether every condition of `check` holds."""
    text = page.observation if page else ""
    elements = [line for line in text.splitlines() if line.lstrip().startswith("<")]
    return all((
        check.url is None or (page is not None and not url_match(check.url, page.url)),
        check.text is None or check.text.casefold() in text.casefold(),
        check.element is None or any(check.element.casefold() in line.casefold() for line in elements),
        check.state is None or not unmet(check.state, state),
    ))  # fmt: skip


def unmet(wanted: Mapping[str, Any], state: Mapping[str, Any] | None) -> list[str]:
    """Describes each value of the state that is not as wanted. A path is names, and numbers of list entries, joined by dots."""
    return [f"{path} is {found!r}, not {value!r}" for path, value in wanted.items() if (found := _at(state, path)) != value]


def subgoals(milestones: Sequence[Milestone]) -> tuple[Subgoal, ...]:
    """For the record of an episode."""
    return tuple(Subgoal(text=one.text, check=_describe(one.done)) for one in milestones)


def _describe(check: Check) -> str:
    given = {"url": check.url, "text": check.text, "element": check.element, "state": check.state}
    return "; ".join(f"{name}: {value}" for name, value in given.items() if value is not None)


def _at(tree: Any, path: str) -> Any:
    """None if there is nothing at that path."""
    for name in path.split("."):
        if isinstance(tree, Mapping):
            tree = tree.get(name)
        elif isinstance(tree, list) and name.isdecimal() and len(name) < 10 and int(name) < len(tree):
            tree = tree[int(name)]
        else:
            return None
    return tree
