"""BrowserGym's actions in our grammar. The text of an action is parsed, and its arguments are literals: nothing is evaluated.

Functions and parameters are those of `browsergym.core.action.functions`, version 0.14.3.
"""

import ast
import math
from typing import Any

from mira_jax.trajectories import actions
from mira_jax.trajectories.records import Action

PARAMETERS = {
    "click": ("bid", "button", "modifiers"),
    "hover": ("bid",),
    "fill": ("bid", "value", "enable_autocomplete_menu"),
    "clear": ("bid",),
    "select_option": ("bid", "options"),
    "press": ("bid", "key_comb"),
    "keyboard_press": ("key",),
    "scroll": ("delta_x", "delta_y"),
    "tab_focus": ("index",),
    "go_back": (),
    "go_forward": (),
    "noop": ("wait_ms",),
    "send_msg_to_user": ("text",),
    "report_infeasible": ("reason",),
}
"""The functions with a counterpart."""
OPTIONAL = {"enable_autocomplete_menu": False, "button": "left", "modifiers": [], "wait_ms": 1000}
WITHOUT = (
    "check", "uncheck", "dblclick", "focus", "drag_and_drop", "upload_file", "goto", "new_tab", "tab_close", "scroll_at",
    "mouse_move", "mouse_up", "mouse_down", "mouse_click", "mouse_dblclick", "mouse_drag_and_drop", "mouse_upload_file",
    "keyboard_up", "keyboard_down", "keyboard_type", "keyboard_insert_text",
)  # fmt: skip
"""The functions without one."""
UNACHIEVABLE = "N/A"
"""WebArena's answer to a task that cannot be done. BrowserGym's evaluation of WebArena gives it for `report_infeasible`."""


class MalformedError(ValueError):
    """The text is not one call of a function with literals. BrowserGym would not have performed it."""


class NoCounterpartError(ValueError):
    """The action is well-formed, and our grammar cannot express it."""


def parse(text: str) -> Action:
    """The action of a text such as `click('12')`.

    Raises:
        MalformedError, NoCounterpartError: see there. Several calls in one text have no counterpart.
    """
    if len(text) > actions.MAX_LENGTH:
        raise MalformedError(f"the action has {len(text)} characters; at most {actions.MAX_LENGTH} are read")
    try:
        calls = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise MalformedError(f"{text[:60]!r} is no call") from None
    parsed = [_call(call, text) for call in calls]
    if not parsed:
        raise MalformedError("the action is empty")
    if len(parsed) > 1:
        raise NoCounterpartError(f"{len(parsed)} calls in one action; a step has one")
    name, positional, named = parsed[0]
    return convert(name, named, positional)


def convert(name: str, named: dict[str, Any], positional: tuple[Any, ...] = ()) -> Action:
    """The action of a call. Raises the same errors as `parse`."""
    if name not in PARAMETERS:
        if name in WITHOUT:
            raise NoCounterpartError(f"{name} has no counterpart in the action grammar")
        raise MalformedError(f"{name[:60]!r} is no action of BrowserGym")
    given = _bind(name, positional, named)
    if name in _MAKERS:
        return _MAKERS[name](given)
    return _SIMPLE[name]


def _call(statement: ast.stmt, text: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise MalformedError(f"{text[:60]!r} is no call of a function")
    try:
        positional = tuple(ast.literal_eval(argument) for argument in call.args)
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise MalformedError(f"an argument of {call.func.id[:60]} is no literal") from None
    if len(named) != len(call.keywords):
        raise MalformedError(f"an argument of {call.func.id[:60]} has no name, or is given twice")
    return call.func.id, positional, named


def _bind(name: str, positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Parameter to value. Raises MalformedError."""
    known = PARAMETERS[name]
    if len(positional) > len(known):
        raise MalformedError(f"{name} takes {len(known)} arguments, not {len(positional)}")
    given = dict(zip(known, positional, strict=False))
    for key, value in named.items():
        if key not in known or key in given:
            raise MalformedError(f"{name} has no parameter {key[:60]!r}, or it is given twice")
        given[key] = value
    for key in known:
        if key not in given and key not in OPTIONAL:
            raise MalformedError(f"{name} needs {key}")
    return {key: _typed(name, key, given.get(key, OPTIONAL.get(key))) for key in known}


def _typed(name: str, key: str, value: Any) -> Any:
    """The value, if it has the type of the parameter. Raises MalformedError."""
    kinds: dict[str, tuple[type, ...]] = {
        "index": (int,), "delta_x": (int, float), "delta_y": (int, float), "wait_ms": (int, float), "options": (str, list),
        "modifiers": (list, tuple), "enable_autocomplete_menu": (bool,),
    }  # fmt: skip
    if key == "bid" and type(value) is int:
        return str(value)
    kind = kinds.get(key, (str,))
    sound = isinstance(value, kind) and isinstance(value, bool) == (kind == (bool,))
    if not sound or (isinstance(value, float) and not math.isfinite(value)):
        raise MalformedError(f"{key} of {name} is {str(value)[:60]!r}")
    return value


def _click(given: dict[str, Any]) -> Action:
    names = {"left": "Click", "right": "Right Click"}
    if given["modifiers"] or given["button"] not in names:
        raise NoCounterpartError("click with the middle button or with modifiers has no counterpart in the action grammar")
    return Action(name=names[given["button"]], element=given["bid"])


def _select(given: dict[str, Any]) -> Action:
    options = given["options"] if isinstance(given["options"], list) else [given["options"]]
    if len(options) != 1 or not isinstance(options[0], str):
        raise NoCounterpartError("select_option of several options has no counterpart in the action grammar")
    return Action(name="Select Dropdown Option", argument=options[0], element=given["bid"])


def _press(given: dict[str, Any]) -> Action:
    key = given.get("key_comb", given.get("key"))
    if key != "Enter":
        raise NoCounterpartError(f"the key {str(key)[:60]!r} has no counterpart in the action grammar; only Enter has")
    return Action(name="Press Enter", element=given.get("bid"))


def _switch(given: dict[str, Any]) -> Action:
    if given["index"] < 0:
        raise NoCounterpartError("tab_focus with a negative index has no counterpart in the action grammar")
    return Action(name="Switch Tab", argument=str(given["index"]))


def _scroll(given: dict[str, Any]) -> Action:
    if given["delta_x"] or not given["delta_y"]:
        raise NoCounterpartError("scroll has a counterpart in the action grammar only straight up or down")
    return Action(name="Scroll Down" if given["delta_y"] > 0 else "Scroll Up")


_SIMPLE = {
    "go_back": Action(name=actions.GO_BACKWARD),
    "go_forward": Action(name=actions.GO_FORWARD),
    "noop": Action(name="Wait"),
    "report_infeasible": Action(name=actions.EXIT, argument=UNACHIEVABLE),
}
_MAKERS = {
    "click": _click,
    "hover": lambda given: Action(name="Hover", element=given["bid"]),
    "fill": lambda given: Action(name="Type", argument=given["value"], element=given["bid"]),
    "clear": lambda given: Action(name="Type", argument="", element=given["bid"]),
    "select_option": _select,
    "press": _press,
    "keyboard_press": _press,
    "scroll": _scroll,
    "tab_focus": _switch,
    "send_msg_to_user": lambda given: Action(name=actions.EXIT, argument=given["text"]),
}
