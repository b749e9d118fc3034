"""Subgoals from the policy's own successes, as in ADMIRE (arXiv 2602.11524): what all successes at like tasks do in the same order.

Tasks are alike if they have the same template and their instructions differ only in values: texts in quotes and numbers. Each step of
a success is one event: the page that it opens, or else its action. In events, values of the instruction are replaced by variables,
so that they apply to other tasks. Neither finding nor checking the events needs a model.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from mira_jax.trajectories.actions import EXIT
from mira_jax.trajectories.records import Status, Step, Task, Trajectory
from rollouts.labels.subgoals.files import LONGEST, Goal
from rollouts.labels.subgoals.template import VALUE, evenly, slug, values
from rollouts.suites.tasks.checks import element_of
from rollouts.suites.tasks.items import Check

_PLACE = re.compile(r"\{(\d+)\}")
_MOST_EVENTS = 200
"""Maximum number of different events of a success. Longer ones are aimless."""


@dataclasses.dataclass(frozen=True)
class Event:
    """What a step did. Values of the instruction are written {0}, {1}, ... in the order of the instruction."""

    url: str = ""
    """The address of the page that it opened, with * for parts that have a digit. Empty: the page was open already."""
    action: str = ""
    target: str = ""
    """Name of the action's element."""
    shown: str = ""
    """How a page shows that name: "{}" in its text or in an attribute."""
    argument: str = ""

    def goal(self, instruction: str) -> Goal:
        """The subgoal for a task with this instruction."""
        known = values(instruction)
        if self.url:
            url = _PLACE.sub(lambda match: slug(known[int(match.group(1))]), self.url)
            return Goal(f"the page {url} is open"[:LONGEST], (Check(path=url),))
        target, argument = (_PLACE.sub(lambda match: known[int(match.group(1))], text) for text in (self.target, self.argument))
        text = f"{self.action} {argument!r}" if argument else self.action
        shown = self.shown.replace("{}", target) if target else None
        check = Check(action=self.action, target=shown, argument=argument or None)
        return Goal((text + (f" in {target!r}" if argument and target else f" {target!r}" if target else ""))[:LONGEST], (check,))


class Milestones:
    """The events that the successes at like tasks share."""

    def __init__(self, episodes: Iterable[Trajectory], least: int):
        """`episodes`: with outcomes; failures are ignored. `least`: minimum number of successes at like tasks."""
        groups: dict[tuple[str, str], list[list[Event]]] = {}
        for episode in episodes:
            if episode.success and episode.status is not Status.INFRA_ERROR:
                groups.setdefault(kind(episode.task), []).append(events(episode))
        self._shared = {key: in_order(group) for key, group in groups.items() if len(group) >= least}

    def goals(self, task: Task, count: int) -> tuple[Goal, ...]:
        """At most `count` subgoals, evenly spaced. Empty if there are too few successes, or if they have nothing in common."""
        made: Mapping[tuple[Check, ...], Goal] = {
            goal.done: goal for goal in (event.goal(task.intent) for event in self._shared.get(kind(task), ()))
        }
        return tuple(evenly(list(made.values()), count))


def kind(task: Task) -> tuple[str, str]:
    """Equal for tasks that are alike: the template, and the instruction without its values."""
    return task.template, VALUE.sub('""', task.intent)


def events(episode: Trajectory) -> list[Event]:
    """The events of an episode, each once, in the order of their first occurrence. Failed actions and exit() are none."""
    known = values(episode.task.intent)
    pages = [*(step.page for step in episode.steps[1:]), episode.evidence.page]
    found: dict[Event, None] = {}
    for step, page in zip(episode.steps, pages, strict=True):
        if step.action is None or step.error is not None or step.action.name == EXIT:
            continue
        before, after = _address(step.page.url, known), _address(page.url if page else "", known)
        found[Event(url=after) if after and after != before else _act(step, known)] = None
    return list(found)[:_MOST_EVENTS]


def in_order(successes: Sequence[Sequence[Event]]) -> list[Event]:
    """The longest list of events that occur in all successes in this order."""
    places = [{event: place for place, event in enumerate(success)} for success in successes]
    shared = [event for event in places[0] if all(event in place for place in places)]
    # A longest path in the partial order "before in all successes". `shared` is sorted by the first success, so it is a linear extension.
    best: list[list[Event]] = []
    for event in shared:
        before = [path for path in best if all(place[path[-1]] < place[event] for place in places)]
        best.append([*max(before, key=len, default=[]), event])
    return max(best, key=len, default=[])


def _act(step: Step, known: Sequence[str]) -> Event:
    action = step.action
    assert action is not None
    shown, name = _shown_name(step)
    return Event(action=action.name, target=_with_places(name, known), shown=shown, argument=_with_places(action.argument or "", known))


def _shown_name(step: Step) -> tuple[str, str]:
    """How the page shows the name of the action's element, and the name: its handle if that is a name, else its text or the first text of
    its attributes."""
    handle = step.action.element if step.action else None
    if handle is None:
        return "", ""
    if not handle.isdecimal():
        return 'id="{}"', handle
    tag, _, text = element_of(step).partition(">")
    text = text.partition("<")[0]
    if name := text.strip():
        return ">{}<" if name == text else "{}", name
    attributes = re.findall(r'([\w-]+)="([^"]+)"', tag)
    return next((('="{}"', value) for name, value in attributes if name not in ("id", "type", "value")), ("", ""))


def _with_places(text: str, known: Sequence[str]) -> str:
    """A text that is a value becomes its place. Other texts keep their words; braces, which would be read as places, are left out."""
    for place, value in enumerate(known):
        if text.strip().casefold() == value.casefold():
            return f"{{{place}}}"
    return text.replace("{", "").replace("}", "")


def _address(url: str, known: Sequence[str]) -> str:
    """The address without query. Parts that are values become their places, and other parts with a digit become *."""
    slugs = {slug(value): place for place, value in reversed(list(enumerate(known))) if slug(value)}
    parts = []
    for part in re.split("[?#]", url, maxsplit=1)[0].split("/"):
        if slug(part) in slugs and part:
            parts.append(f"{{{slugs[slug(part)]}}}")
        else:
            parts.append("*" if any(character.isdigit() for character in part) else re.sub("[{}*]", "", part))
    return "/".join(parts)
