"""Bad habits, which turn the expert into an imperfect demonstrator."""

import re
from collections.abc import Callable, Mapping
from typing import Any

HABITS = {
    "takes_first_result": "opens the first product, place or article of a list, whichever it is",
    "takes_first_order": "opens the first order of a list, whichever it is",
    "takes_first_issue": "opens the first issue of a list, whichever it is",
    "takes_first_other": "takes the first item of a list that is not the wanted one",
    "forgets_option": "leaves a choice, such as colour, stars, label or role, as it is",
    "forgets_quantity": "leaves the quantity (in the admin panel, the stock) as it is",
    "forgets_removal": "leaves what should be removed, from the cart for example",
    "forgets_coupon": "applies no coupon",
    "forgets_shipping": "leaves the shipping method as it is",
    "forgets_address": "leaves the address, or the town of one, as it is",
    "stops_early": "says it is done before the button that makes it so",
}
"""Each habit is drawn once per episode, except those in `DRAWN_EACH_TIME`."""

DRAWN_EACH_TIME = frozenset({"takes_first_other"})
"""Habits that are drawn anew at each move, so that an episode has any number of mistakes."""

_ORDER = re.compile(r"order \d+")

LISTS: Mapping[str, Mapping[str, Callable[[Any, str], bool]]] = {
    "shop": {
        "takes_first_result": lambda content, name: name in content.by_name,
        "takes_first_order": lambda content, name: _ORDER.fullmatch(name) is not None,
    },
    "forum": {"takes_first_result": lambda content, name: name in content.by_title},
    "code": {"takes_first_issue": lambda content, name: name in content.titles},
    "atlas": {"takes_first_result": lambda content, name: name in content.names},
    "tours": {"takes_first_other": lambda content, name: name in content.names},
}
"""Application to its habits of taking the first item of a list. Each has a test whether an element's name is an item, given the content."""
