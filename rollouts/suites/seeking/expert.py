"""The expert: writes its plan into the first response, then looks up one hop after the other on the pages that it sees."""

import dataclasses
import re
from collections.abc import Generator, Sequence
from random import Random

from mira_arena.seeking.answers import NOT_STATED
from mira_arena.seeking.forms import Base, Count, Difference, Earliest, Follow, Form, Named, OfTwo, Total
from mira_arena.seeking.pages import NOTICE, page_title
from mira_arena.seeking.plans import plan_text
from mira_arena.seeking.relations import RELATIONS, Relation
from mira_jax.trajectories.actions import EXIT, format_action
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Action, Task
from rollouts.suites.habits import Habits
from rollouts.suites.seeking.mistakes import misplanned

HABITS = {
    "skips_hop": "leaves a hop out of its plan",
    "mistakes_relation": "has another relation in its plan, such as founder for director",
    "takes_first_result": "visits the first result of each search, whichever it is",
    "ignores_dates": "never reads a notice, even if it is later than the page",
    "stops_early": "answers with what it found before the last hop",
}
"""Each is drawn once per episode. The first two make the plan wrong, the others its execution."""

_RESULT = re.compile(r'<a id="(?P<handle>[^"]*)">(?:(?P<text>[^<\n]*)</a>)? *(?P<dated>[0-9]+): (?P<summary>[^\n]*)')
_FIELD = re.compile(r'<input id="([^"]*)"')
_CALLED = ", also called "

Script = Generator[str, None, list[str]]
"""Yields responses, and returns what it found."""


@dataclasses.dataclass(frozen=True)
class _Result:
    """A result of a search."""

    handle: str
    title: str
    dated: int
    summary: str


class SeekingExpert:
    """Answers one question. It knows the form of the question, but no fact: these it reads on the pages.

    It supports integer and name handles.
    """

    def __init__(self, form: Form, habits: Habits | None = None):
        habits = habits or Habits()
        self.habits = habits.drawn
        self.form = misplanned(form, self.habits, Random(f"plan {habits.key}"))
        """The form that the expert plans and carries out."""
        self._comments = [f"# Plan: {plan_text(self.form)}"]
        self._page = ""
        self._script = self._run()

    def respond(self, task: Task, rounds: Sequence[Round], observation: str) -> str:
        self._page = observation
        return next(self._script)

    def _run(self) -> Generator[str, None, None]:
        form = self.form
        if "stops_early" in self.habits and isinstance(form, Follow):
            form = form.base
        found = yield from self._answer(form)
        while True:
            yield self._say(Action(name=EXIT, argument=found[0] if found else NOT_STATED))

    def _answer(self, form: Form) -> Script:
        if isinstance(form, OfTwo):
            first = yield from self._numbers(form.first, form.by)
            second = yield from self._numbers(form.second, form.by)
            return _compare(form, first, second)
        if isinstance(form, Count | Total | Earliest):
            items = yield from self._find(Follow(form.base, form.many))
            numbers: dict[str, int] = {}
            for item in items:
                numbers |= yield from self._numbers(Named(item), form.by)
            return _gather(form, numbers)
        return (yield from self._find(form))

    def _find(self, form: Base) -> Script:
        """Looks up the form. Returns names or literals, empty if no page states them."""
        if isinstance(form, Named):
            return [form.called or form.name]
        bases = yield from self._find(form.base)
        if not bases:
            return []
        if isinstance(form, Follow):
            return (yield from self._read(bases[0], RELATIONS[form.relation]))
        for item in (yield from self._read(bases[0], RELATIONS[form.many])):
            if form.value in (yield from self._read(item, RELATIONS[form.by])):
                return [item]
        return []

    def _numbers(self, form: Base, by: str) -> Generator[str, None, dict[str, int]]:
        """Looks up the entity and its number. Returns both, or nothing."""
        names = yield from self._find(form)
        values = (yield from self._read(names[0], RELATIONS[by])) if names else []
        return {names[0]: int(values[0])} if values else {}

    def _read(self, name: str, relation: Relation) -> Script:
        """Searches for the page of the entity that states the relation, visits it and reads it."""
        yield self._search(name)
        own = self._called(name)
        if own is not None and own != name:
            # Notices have the name in their title, not the alias.
            yield self._search(own)
        results = self._results()
        chosen = self._choose(results, own, relation)
        if chosen is None:
            return []
        yield self._say(Action(name="Click", element=chosen.handle))
        values = _values(self._page, relation)
        self._comments.append(f"# Note: {relation.name} of {name}: {', '.join(values) or 'not stated'}")
        return values

    def _choose(self, results: dict[str, _Result], own: str | None, relation: Relation) -> _Result | None:
        """The result to visit: the page of the entity called `own`, or a later notice on the same relation."""
        if "takes_first_result" in self.habits:
            return next(iter(results.values()), None)
        page = results.get(page_title(own, relation.page)) if own is not None else None
        if page is None or own is None:
            return None
        notice = results.get(page_title(own, NOTICE))
        is_later = notice is not None and notice.dated > page.dated and f" {relation.name} of {own}." in notice.summary
        return notice if is_later and "ignores_dates" not in self.habits else page

    def _search(self, query: str) -> str:
        field = _FIELD.search(self._page)
        return self._say(Action(name="Search", argument=query, element=field[1] if field else "search"))

    def _say(self, action: Action) -> str:
        lines, self._comments = [*self._comments, format_action(action)], []
        return "\n".join(lines)

    def _called(self, name: str) -> str | None:
        """The title of the result that is about the entity with that name or alias."""
        return next((it.title for it in self._results().values() if it.title == name or it.summary.endswith(f"{_CALLED}{name}.")), None)

    def _results(self) -> dict[str, _Result]:
        """The results on the page, by title."""
        found = [_Result(it["handle"], it["text"] or it["handle"], int(it["dated"]), it["summary"]) for it in _RESULT.finditer(self._page)]
        return {result.title: result for result in found}


def _values(page: str, relation: Relation) -> list[str]:
    """What the sentences of a page say that the relation leads to."""
    before, after = relation.sentence.split("{subject}")[1].split("{object}")
    pattern = re.compile(f".+?{re.escape(before)}(.+){re.escape(after)}")
    return [match[1] for match in map(pattern.fullmatch, page.splitlines()) if match]


def _compare(form: OfTwo, first: dict[str, int], second: dict[str, int]) -> list[str]:
    both = [*first.items(), *second.items()]
    if len(both) < 2:
        return []
    if isinstance(form, Difference):
        return [str(abs(both[0][1] - both[1][1]))]
    return [max(both, key=lambda pair: pair[1])[0]]


def _gather(form: Count | Total | Earliest, numbers: dict[str, int]) -> list[str]:
    if not numbers:
        return []
    if isinstance(form, Count):
        return [str(sum(year > form.after for year in numbers.values()))]
    if isinstance(form, Total):
        return [str(sum(numbers.values()))]
    return [min(numbers, key=lambda name: numbers[name])]
