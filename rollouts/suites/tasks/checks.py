"""Decides milestones and state_match from what an episode recorded."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mira_jax.trajectories.records import Page, Step, Subgoal, Trajectory
from rollouts.suites.evaluators import url_match
from rollouts.suites.tasks.items import Check, Milestone


def milestones_done(trajectory: Trajectory, milestones: Sequence[Milestone]) -> list[tuple[bool, ...]]:
    """For each step, whether each milestone is done by the end of that step. What was done once stays done."""
    return done_after_steps(trajectory, [[one.done] for one in milestones])


def done_after_steps(trajectory: Trajectory, checks: Sequence[Sequence[Check]]) -> list[tuple[bool, ...]]:
    """As `milestones_done`, for milestones with several checks each, of which one is enough.

    Args:
        checks: of each milestone.
    """
    pages = [*(step.page for step in trajectory.steps[1:]), trajectory.evidence.page]
    done = [False] * len(checks)
    rows = []
    for step, page in zip(trajectory.steps, pages, strict=True):
        done = [was or any(holds(check, step, page) for check in any_of) for was, any_of in zip(done, checks, strict=True)]
        rows.append(tuple(done))
    return rows


def holds(check: Check, step: Step, page: Page | None) -> bool:
    """Whether every condition of `check` holds. `page`: after the step."""
    text = page.observation if page else ""
    elements = [line for line in text.splitlines() if line.lstrip().startswith("<")]
    return _acted(check, step) and all((
        check.url is None or (page is not None and not url_match(check.url, page.url)),
        check.path is None or (page is not None and _matches(check.path, page.url)),
        check.text is None or check.text.casefold() in text.casefold(),
        check.element is None or any(check.element.casefold() in line.casefold() for line in elements),
        check.state is None or not unmet(check.state, step.state),
    ))  # fmt: skip


def element_of(step: Step) -> str:
    """The element of a step's action as the page before the step shows it. "" without one."""
    handle = step.action.element if step.action else None
    if handle is None:
        return ""
    found = re.search(rf'<[\w-]+ id="{re.escape(handle)}"(?:(?!<[\w-]+ id=")[^\n])*', step.page.observation)
    return found.group() if found else ""


def _matches(path: str, url: str) -> bool:
    wanted, parts = path.rstrip("/").split("/"), re.split("[?#]", url, maxsplit=1)[0].rstrip("/").split("/")
    return len(wanted) == len(parts) and all(one in ("*", part) for one, part in zip(wanted, parts, strict=True))


def _acted(check: Check, step: Step) -> bool:
    if check.action is None and check.target is None and check.argument is None:
        return True
    if step.action is None or step.error is not None:
        return False
    return (
        (check.action is None or check.action.casefold() == step.action.name.casefold())
        and (check.target is None or check.target.casefold() in element_of(step).casefold())
        and (check.argument is None or check.argument.strip().casefold() == (step.action.argument or "").strip().casefold())
    )


def unmet(wanted: Mapping[str, Any], state: Mapping[str, Any] | None) -> list[str]:
    """Describes each value of the state that is not as wanted. A path is names, and numbers of list entries, joined by dots."""
    return [f"{path} is {found!r}, not {value!r}" for path, value in wanted.items() if (found := _at(state, path)) != value]


def subgoals(milestones: Sequence[Milestone]) -> tuple[Subgoal, ...]:
    """For the record of an episode."""
    return tuple(Subgoal(text=one.text, check=describe(one.done)) for one in milestones)


def describe(check: Check) -> str:
    """For the record of a subgoal."""
    return "; ".join(f"{name}: {value}" for name, value in msgspec.structs.asdict(check).items() if value is not None)


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
