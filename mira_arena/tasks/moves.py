"""The expert's plan, in terms of page elements. `rollouts.suites.arena.expert` converts it into actions."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Move:
    """One move of the expert. It is skipped if the bad habit that it names was drawn."""

    kind: str
    """search, click, choose, type; open: opens a link, turning to later pages of its list if necessary; switch: selects the tab
    `argument`; exit; tell: exits with the match of the pattern `argument` on the page."""
    element: str = ""
    """Name of the element, as in its handle."""
    argument: str = ""
    habit: str = ""
    hasty: str = ""
    """Bad habit that makes an `open` take the first item of its list, whatever its name."""
    mistake: str = ""
    """Bad habit, drawn anew at each move, that makes a click take the first other item of the list."""
    note: str = ""
    """Pattern whose group on the page is written into a comment before the action, for use on later pages."""
    missing: str = ""
    """Message with which an `open` exits if its element is on no page of the list. Empty: the move is skipped."""


EXIT = Move("exit", argument="done")
