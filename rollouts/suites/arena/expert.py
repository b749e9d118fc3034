"""The arena's expert: converts the moves of a task into actions on the observed page."""

import re
from collections.abc import Callable, Sequence

from mira_arena.tasks.moves import Move
from mira_arena.tasks.templates import Instance
from mira_jax.trajectories.actions import EXIT, format_action
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Action, Task
from rollouts.suites.habits import Habits

_ELEMENT = re.compile(r'<(?P<tag>[a-z]+) id="(?P<handle>[^"]*)"(?P<attributes>[^>]*)>')
_UNKNOWN = "N/A"


class ArenaExpert:
    """Performs the moves of one instance on the observed pages. It acts only on elements that the observation shows.

    It supports integer and name handles. A move whose element is missing is skipped.
    """

    def __init__(self, instance: Instance, habits: Habits | None = None):
        self._drawn = habits or Habits()
        self.habits = self._drawn.drawn
        self._moves = [move for move in instance.draft.moves if not move.habit or move.habit not in self.habits]
        self._lists = instance.lists()
        self._next = 0

    def respond(self, task: Task, rounds: Sequence[Round], observation: str) -> str:
        page = _Reader(observation)
        while self._next < len(self._moves):
            move = self._moves[self._next]
            action = self._act(move, page)
            if action is not None:
                if move.kind != "open" or action.element != page.handle("next page"):
                    self._next += 1
                found = page.text(move.note) if move.note else None
                return (f"# Note: {' '.join(found.split())}\n" if found else "") + format_action(action)
            self._next += 1
        return format_action(Action(name=EXIT, argument="done"))

    def _act(self, move: Move, page: "_Reader") -> Action | None:
        if move.kind == "exit":
            return Action(name=EXIT, argument=move.argument)
        if move.kind == "tell":
            return Action(name=EXIT, argument=page.text(move.argument) or _UNKNOWN)
        if move.kind == "switch":
            return Action(name="Switch Tab", argument=move.argument)
        if move.kind == "open":
            return self._open(move, page)
        handle = page.handle(move.element)
        if move.mistake and self._drawn.mistaken(move.mistake, self._next):
            is_item = self._lists[move.mistake]
            handle = page.first(lambda name: is_item(name) and name != move.element) or handle
        if handle is None:
            return None
        if move.kind == "search":
            return Action(name="Search", argument=move.argument, element=handle)
        if move.kind == "type":
            return Action(name="Type", argument=move.argument, element=handle)
        if move.kind == "choose":
            if not page.offers(handle, move.argument):
                return None
            return Action(name="Select Dropdown Option", argument=move.argument, element=handle)
        return Action(name="Click", element=handle)

    def _open(self, move: Move, page: "_Reader") -> Action | None:
        """Opens a link in a list, turning to later pages of the list if necessary."""
        if move.hasty in self.habits:
            handle = page.first(self._lists[move.hasty])
        else:
            handle = page.handle(move.element) or page.handle("next page")
        if handle is not None:
            return Action(name="Click", element=handle)
        return Action(name=EXIT, argument=move.missing) if move.missing else None


class _Reader:
    """Finds elements in the text of an observation by their accessible names."""

    def __init__(self, observation: str):
        self._text = observation
        self._found = list(_ELEMENT.finditer(observation))

    def handle(self, name: str) -> str | None:
        for match in self._found:
            if match["handle"] == name:
                return name
        return next((match["handle"] for match in self._found if self._is_called(match, name)), None)

    def text(self, pattern: str) -> str | None:
        """Returns the group of the pattern's first match."""
        match = re.search(pattern, self._text)
        return match[1] if match else None

    def first(self, wanted: Callable[[str], bool]) -> str | None:
        """Returns the first link or button whose name is wanted."""
        links = [match for match in self._found if match["tag"] in ("a", "button")]
        return next((match["handle"] for match in links if wanted(match["handle"]) or wanted(self._content(match))), None)

    def offers(self, handle: str, option: str) -> bool:
        match = next(match for match in self._found if match["handle"] == handle)
        options = re.search(r'options="([^"]*)"', match["attributes"])
        return options is not None and option in options[1].split(" | ")

    def _content(self, match: re.Match[str]) -> str:
        """Returns the text between an element's tags."""
        rest = self._text[match.end() :].split("\n", 1)[0]
        return rest.split("</", 1)[0].strip() if "</" in rest else ""

    def _is_called(self, match: re.Match[str], name: str) -> bool:
        """Whether the element has that name. With integer handles the name is its text, its label, or the words before it."""
        if not match["handle"].isdigit():
            return False
        if self._content(match) == name or re.search(rf'(?:label|placeholder)="{re.escape(name)}"', match["attributes"]):
            return True
        before = self._text[: match.start()].split()
        return match["tag"] in ("input", "select", "textarea") and before[-len(name.split()) :] == name.split()
