"""The expert's plan, in terms of the elements of a page. `rollouts.suites.arena.expert` turns it into actions."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Move:
    """One thing the expert does. A bad habit named here, if it was drawn, makes the expert leave the move out."""

    kind: str
    """search, click, choose, type; open: a link, on a later page of its list if need be; switch: to the tab `argument`; exit; or
    tell: exit with what the pattern `argument` finds on the page."""
    element: str = ""
    """The name of the element, as in its handle."""
    argument: str = ""
    habit: str = ""
    hasty: str = ""
    """The bad habit that makes an `open` go to the first of its list, whichever it is."""
    note: str = ""
    """What this pattern's group finds on the page is written down in a comment before the action, to be known on later pages."""
    missing: str = ""
    """What an `open` exits with if its element is on no page of the list. Without it the move is left out."""


EXIT = Move("exit", argument="done")
