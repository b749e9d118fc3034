"""Scripts that solve some of the pages from their instruction and observation, in the action grammar of models."""

import dataclasses
import re
from collections.abc import Callable, Sequence

from mira_jax.errors import UserError
from mira_jax.trajectories.actions import EXIT, format_action
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Action, Task
from rollouts.web.observation import escape

_ELEMENT = re.compile(r'<(?P<tag>[a-z0-9-]+) id="(?P<handle>[^"]*)"[^>]*>(?P<text>[^<\n]*)')


@dataclasses.dataclass(frozen=True)
class ScriptedMove:
    """An action on the first matching element."""

    action: str
    tag: str = ""
    """Tag of the element. Empty: any."""
    text: str | None = None
    """Text of the element or of the label after it. None: any."""
    argument: str | None = None
    place: int = 0
    """Number of matching elements to skip."""


def _click(tag: str = "", text: str | None = None, place: int = 0) -> ScriptedMove:
    return ScriptedMove("Click", tag, text, place=place)


def _type(argument: str, place: int = 0) -> ScriptedMove:
    return ScriptedMove("Type", "input", argument=argument, place=place)


def _choose(*options: str) -> list[ScriptedMove]:
    return [ScriptedMove("Select Dropdown Option", "select", argument=option) for option in options]


def _check(tag: str, names: str) -> list[ScriptedMove]:
    return [_click(tag, name) for name in names.split(", ") if name != "nothing"]


_SUBMIT = _click("button", "Submit")
_TAGS = {"text": "input"}
"""Tags that differ between a page's instruction and the observation."""

SCRIPTS: dict[str, tuple[str, Callable[..., list[ScriptedMove]]]] = {
    "choose-list": (r"Select (.+) from the list and click Submit\.", lambda name: [*_choose(name), _SUBMIT]),
    "click-button": (r'Click on the "(.+)" button\.', lambda text: [_click("button", text)]),
    "click-checkboxes": (r"Select (.+) and click Submit\.", lambda names: [*_check("checkbox", names), _SUBMIT]),
    "click-checkboxes-large": (r"Select (.+) and click Submit\.", lambda names: [*_check("checkbox", names), _SUBMIT]),
    "click-dialog": (r'Close the dialog box by clicking the "x"\.', lambda: [_click("button", "Close")]),
    "click-dialog-2": (
        r'Click the button in the dialog box labeled "(.+)"\.',
        lambda text: [_click("button", "Close" if text == "x" else text)],
    ),
    "click-link": (r'Click on the link "(.+)"\.', lambda text: [_click("span", text)]),
    "click-option": (r"Select (.+) and click Submit\.", lambda name: [_click("radio", name), _SUBMIT]),
    "click-scroll-list": (r"Select (.+) from the scroll list and click Submit\.", lambda names: [*_choose(*names.split(", ")), _SUBMIT]),
    "click-tab": (r"Click on (Tab #\d)\.", lambda text: [_click("a", text)]),
    "click-test": (r"Click the button\.", lambda: [_click("button")]),
    "click-test-2": (r"Click button ONE\.", lambda: [_click("button", "ONE")]),
    "click-widget": (r'Click on a "(.+)" widget\.', lambda kind: [_click(_TAGS.get(kind, kind))]),
    "enter-password": (
        r'Enter the password "(.+)" into both text fields and press submit\.',
        lambda password: [_type(password), _type(password, place=1), _SUBMIT],
    ),
    "enter-text": (r'Enter "(.+)" into the text field and press Submit\.', lambda text: [_type(text), _SUBMIT]),
    "enter-text-2": (
        r'Type "(.+)" in all (upper|lower) case letters in the text input and press Submit\.',
        lambda text, case: [_type(text.upper() if case == "upper" else text.lower()), _SUBMIT],
    ),
    "enter-text-dynamic": (r'Enter "(.+)" into the text field and press Submit\.', lambda text: [_type(text), _SUBMIT]),
    "focus-text": (r"Focus into the textbox\.", lambda: [_click("input")]),
    "focus-text-2": (r"Focus into the (\d)\w\w input textbox\.", lambda number: [_click("input", place=int(number) - 1)]),
    "login-user": (
        r'Enter the username "(.+)" and the password "(.+)" into the text fields and press login\.',
        lambda user, password: [_type(user), _type(password, place=1), _click("button", "Login")],
    ),
    "unicode-test": (r'Click on the "(.+)" button\.', lambda text: [_click("button", text)]),
}
"""Page to the pattern of its instruction, and a function from the pattern's groups to the moves."""


class MiniwobExpert:
    """Performs one move per step. It reads observations that are not compact, with either kind of handles."""

    def __init__(self, page: str):
        """Raises UserError if there is no script for the page."""
        if page not in SCRIPTS:
            raise UserError(f"templates: the expert has no script for {page!r}; it has for {', '.join(SCRIPTS)}")
        self._pattern, self._moves = SCRIPTS[page]

    def respond(self, task: Task, rounds: Sequence[Round], observation: str) -> str:
        said = re.fullmatch(self._pattern, task.intent)
        left = self._moves(*said.groups())[len(rounds) :] if said else []
        handle = _find(left[0], observation) if left else None
        if handle is None:
            return format_action(Action(name=EXIT, argument="done"))
        return format_action(Action(name=left[0].action, argument=left[0].argument, element=handle))


def _find(move: ScriptedMove, observation: str) -> str | None:
    fitting = [
        match["handle"]
        for match in _ELEMENT.finditer(observation)
        if move.tag in ("", match["tag"]) and (move.text is None or match["text"].strip() == escape(move.text))
    ]
    return fitting[move.place] if move.place < len(fitting) else None
