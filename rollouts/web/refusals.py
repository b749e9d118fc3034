"""The messages to a policy about an action that its page does not allow. Both drivers use them."""

from collections.abc import Mapping
from typing import Any

from rollouts.text import sanitize
from rollouts.web.observation import Element, Observation

NEVER_TEXT = frozenset({"a", "button", "select", "checkbox", "radio"})
"""Elements that text can't be typed into. They are refused before the click that starts typing, which would follow the link or press
the button."""

OUTSIDE = "that leads outside of the task's sites, which can't be opened from here"


class ActionError(Exception):
    """The action can't be performed on this page. The message is shown to the policy."""


def find(handle: str, observation: Observation) -> Element:
    """Returns the element with that handle. Raises ActionError."""
    element = observation.element(handle)
    if element is not None:
        return element
    near = observation.nearest(handle)
    hint = "; the nearest are " + ", ".join(f'"{name}"' for name in near) if near else ""
    raise ActionError(f'no element "{sanitize(handle)[:60]}" on this page{hint}')


def no_text(element: Element) -> ActionError:
    return ActionError(f'"{element.handle}" takes no text')


def no_tab(argument: str, count: int) -> ActionError:
    return ActionError(f'no tab "{sanitize(argument)[:20]}"; the tabs are 0 to {count - 1}')


def no_page(backward: bool) -> ActionError:
    return ActionError(f"there is no {'earlier' if backward else 'later'} page")


def no_option(element: Element, refusal: ValueError) -> ActionError:
    return ActionError(f'"{element.handle}" {refusal}')


def refuse(problem: str, element: Element, answer: Mapping[str, Any] | None = None) -> ActionError:
    """The error for a problem that a page script found. `answer`: what else it returned."""
    answer = answer or {}
    handle = f'"{element.handle}"'
    cover = f'<{answer.get("tag")}> "{sanitize(str(answer.get("by", ""))).strip()}"'.removesuffix(' ""')
    return ActionError(
        {
            "gone": f"{handle} is no longer on the page",
            "disabled": f"{handle} is disabled",
            "invisible": f"{handle} has no place on the page where it could be clicked",
            "covered": f"{handle} is covered by {cover}; close that first",
            "unreached": f"{handle} takes no clicks now",
            "turned": f"{handle} is in a turned or mirrored frame, where no point can be found to click",
            "no focus": f"{handle} can't have the keyboard's focus",
            "readonly": f"{handle} is read-only",
            "not text": f"{handle} takes no text",
            "format": f"{handle} takes a {answer.get('type')} value, such as the ones it shows",
            "no select": f"{handle} is not a select; click it instead",
        }[problem]
    )


def tab_notice(front: int, count: int) -> list[str]:
    """The line that names the tabs, if there are several."""
    if count < 2:
        return []
    return [f"tab {front} is in front; other tabs: {', '.join(str(index) for index in range(count) if index != front)}"]
