"""The action grammar: the calls that a policy may write, with a hand-written parser. Model output is never evaluated.

    response = { comment-line | blank-line } call
    call     = NAME "(" [ NAME "=" value { "," NAME "=" value } [ "," ] ] ")"
    value    = string in single or double quotes, or an unsigned integer

`exit` and the `do` actions are those of WebRL (arXiv 2411.02337).
"""

import dataclasses
import difflib

from mira_jax.trajectories.records import Action

EXIT = "exit"
GO_BACKWARD = "Go Backward"
GO_FORWARD = "Go Forward"

REQUIRED, OPTIONAL, ABSENT = "required", "optional", "absent"


@dataclasses.dataclass(frozen=True)
class ActionForm:
    """What an action does, and which of the two arguments it takes."""

    about: str
    """For models that have not been trained on the grammar."""
    element: str = ABSENT
    argument: str = ABSENT
    example: str | None = None
    """An argument, for the example."""


FORMS = {
    "Click": ActionForm("clicks an element", element=REQUIRED),
    "Right Click": ActionForm("clicks it with the right button", element=REQUIRED),
    "Hover": ActionForm("moves the pointer onto it", element=REQUIRED),
    "Type": ActionForm("replaces the text in a field", element=REQUIRED, argument=REQUIRED, example="blue lamp"),
    "Search": ActionForm("replaces the text in a field and presses Enter", element=REQUIRED, argument=REQUIRED, example="blue lamp"),
    "Select Dropdown Option": ActionForm("chooses an option of a select", element=REQUIRED, argument=REQUIRED, example="price"),
    "Press Enter": ActionForm("presses Enter in an element, or without one in the page", element=OPTIONAL),
    "Scroll Up": ActionForm("scrolls up by a screen"),
    "Scroll Down": ActionForm("scrolls down by a screen"),
    "Switch Tab": ActionForm("goes to the tab with this number", argument=REQUIRED, example="2"),
    "Wait": ActionForm("waits a moment for the page to change"),
    GO_BACKWARD: ActionForm("goes back to the previous page"),
    GO_FORWARD: ActionForm("goes forward again"),
}
"""The actions of `do(action=..., argument=..., element=...)`. The parser and the instructions both use this table."""

PARAMETERS = {"do": ("action", "argument", "element"), EXIT: ("message",), "go_backward": (), "go_forward": ()}
EXAMPLE_ELEMENT = "7"
MAX_LENGTH = 20_000
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "/": "/"}
_NAMES = {name.lower(): name for name in FORMS}


class ParseError(ValueError):
    """The response is not one call of the grammar. The message states what was expected and is shown to the policy."""


def parse(response: str) -> Action:
    """Parses a response.

    `exit(message="m")` becomes `Action(name="exit", argument="m")`. `go_backward()` is `do(action="Go Backward")`.

    Raises:
        ParseError: the response is not exactly one well-formed call.
    """
    if len(response) > MAX_LENGTH:
        raise ParseError(f"the response has {len(response)} characters; at most {MAX_LENGTH} are read")
    call, values = _ActionParser(_without_comments(response)).call()
    if call == EXIT:
        if "message" not in values:
            raise ParseError('exit needs its message: exit(message="...")')
        return Action(name=EXIT, argument=values["message"])
    if call == "go_backward":
        return Action(name=GO_BACKWARD)
    if call == "go_forward":
        return Action(name=GO_FORWARD)
    if "action" not in values:
        raise ParseError('do needs an action, for example do(action="Click", element="1")')
    name = _NAMES.get(" ".join(values["action"].lower().split()))
    if name is None:
        near = difflib.get_close_matches(values["action"], FORMS, n=1, cutoff=0.0)[0]
        raise ParseError(f'unknown action "{_shown(values["action"])}"; did you mean "{near}"?')
    form = FORMS[name]
    for part, rule in (("element", form.element), ("argument", form.argument)):
        if rule == REQUIRED and part not in values:
            raise ParseError(f'{name} needs {part}="..."')
        if rule == ABSENT and part in values:
            raise ParseError(f"{name} takes no {part}")
    return Action(name=name, argument=values.get("argument"), element=values.get("element"))


def format_action(action: Action) -> str:
    """Returns the text that `parse` reads as `action`."""
    if action.name == EXIT:
        return f"exit(message={quote(action.argument or '')})"
    if action.name == GO_BACKWARD:
        return "go_backward()"
    if action.name == GO_FORWARD:
        return "go_forward()"
    parts = [f"action={quote(action.name)}"]
    if action.argument is not None:
        parts.append(f"argument={quote(action.argument)}")
    if action.element is not None:
        parts.append(f"element={quote(action.element)}")
    return f"do({', '.join(parts)})"


def examples() -> list[tuple[str, str]]:
    """One call of each action, with what it does."""
    calls = []
    for name, form in FORMS.items():
        action = Action(name=name, argument=form.example, element=None if form.element == ABSENT else EXAMPLE_ELEMENT)
        calls.append((format_action(action), form.about))
    end = "ends the task, with the answer if it asks for one, else with an empty text"
    return [*calls, (format_action(Action(name=EXIT, argument="42")), end)]


def quote(text: str) -> str:
    """Returns a string literal of the grammar."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def _without_comments(response: str) -> str:
    lines = response.split("\n")
    first = 0
    while first < len(lines) and (not lines[first].strip() or lines[first].lstrip().startswith("#")):
        first += 1
    return "\n".join(lines[first:])


def _shown(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."


class _ActionParser:
    def __init__(self, text: str):
        self.text = text
        self.at = 0

    def call(self) -> tuple[str, dict[str, str]]:
        if not self.text.strip():
            raise ParseError('no action; expected one call such as do(action="Click", element="1") or exit(message="...")')
        self._space()
        name = self._word()
        if name not in PARAMETERS:
            raise ParseError(f'expected do(...), exit(...), go_backward() or go_forward(), not "{_shown(self._rest_of_line(name))}"')
        self._expect("(", f"after {name}")
        values: dict[str, str] = {}
        while not self._take(")"):
            key = self._word()
            if not key:
                raise ParseError(f'expected name="value" or ) inside {name}(...), not "{_shown(self._rest_of_line())}"')
            if key not in PARAMETERS[name]:
                known = ", ".join(PARAMETERS[name]) or "no parameters"
                raise ParseError(f'{name} has no parameter "{_shown(key)}"; it takes {known}')
            if key in values:
                raise ParseError(f"{key} is given twice")
            self._expect("=", f"after {key}")
            values[key] = self._value(key)
            if not self._take(","):
                self._expect(")", f"or , after the value of {key}")
                break
        self._space()
        if self.at < len(self.text):
            raise ParseError(f'nothing may follow the call, but "{_shown(self._rest_of_line())}" does; write one action at a time')
        return name, values

    def _space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
            self.at += 1

    def _word(self) -> str:
        self._space()
        start = self.at
        while self.at < len(self.text) and (self.text[self.at] == "_" or (self.text[self.at].isascii() and self.text[self.at].isalnum())):
            self.at += 1
        return self.text[start : self.at]

    def _take(self, mark: str) -> bool:
        self._space()
        if self.text.startswith(mark, self.at):
            self.at += 1
            return True
        return False

    def _expect(self, mark: str, where: str) -> None:
        if not self._take(mark):
            found = self._rest_of_line()
            raise ParseError(f"expected {mark} {where}, not " + (f'"{_shown(found)}"' if found else "the end of the response"))

    def _value(self, key: str) -> str:
        self._space()
        mark = self.text[self.at : self.at + 1]
        if mark in ('"', "'") and mark:
            return self._string(mark, key)
        number = self._word()
        if number and number.isdigit():
            return number
        raise ParseError(f'the value of {key} must be in quotes: {key}="..."')

    def _string(self, mark: str, key: str) -> str:
        self.at += 1
        out: list[str] = []
        while self.at < len(self.text):
            character = self.text[self.at]
            self.at += 1
            if character == mark:
                return "".join(out)
            if character == "\n":
                break
            if character != "\\":
                out.append(character)
                continue
            escape = self.text[self.at : self.at + 1]
            self.at += 1
            if escape == "u":
                out.append(self._unicode())
            elif escape in _ESCAPES:
                out.append(_ESCAPES[escape])
            else:
                raise ParseError(f"unknown escape \\{escape} in the value of {key}; write \\\\ for a backslash")
        raise ParseError(f"the value of {key} has no closing {mark} on its line")

    def _unicode(self) -> str:
        digits = self.text[self.at : self.at + 4]
        if len(digits) < 4 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
            raise ParseError("\\u needs four hexadecimal digits")
        self.at += 4
        code = int(digits, 16)
        if 0xD800 <= code < 0xE000:
            raise ParseError(f"\\u{digits} is half of a surrogate pair; write the character itself")
        return chr(code)

    def _rest_of_line(self, before: str = "") -> str:
        return (before + self.text[self.at :]).strip().split("\n")[0]
