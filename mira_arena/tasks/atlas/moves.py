"""Moves of the expert on the map and in the encyclopedia."""

from mira_arena.sites.atlas.roads import SPEEDS
from mira_arena.tasks.moves import Move

WAYS = tuple(SPEEDS)

LINK = r'<a id="(?:\d+">)?([^"<]+)'
"""Pattern of a link's name, for either kind of handles."""


def find(name: str, note: str = "", missing: str = "", careful: bool = False) -> tuple[Move, ...]:
    """Opens a place on the map, or an article in the encyclopedia.

    Args:
        note: pattern whose match on the previous page is written down.
        missing: message to exit with if it is not found.
        careful: excludes bad habits. Used where the expert only looks at the page, but answers or acts on what the script knows.
    """
    hasty = "" if careful else "takes_first_result"
    return (Move("search", "search", name, note=note), Move("open", name, hasty=hasty, missing=missing))


def go_to_nearest(kind: str, name: str, careful: bool = False) -> tuple[Move, ...]:
    """From the page of a place, opens the nearest place of a kind, the first in its list. A hasty expert opens it whatever its name.

    `careful`: as in `find`.
    """
    return (Move("choose", "nearby", kind), Move("click", "find nearby"), Move("open", name, hasty="" if careful else "takes_first_result"))


def save_as(label: str) -> tuple[Move, ...]:
    """Starts from the page of a place."""
    return (Move("click", "save place"), Move("type", "name", label), Move("click", "save", habit="stops_early"))


def travel(start: str, end: str, by: str, careful: bool = False) -> tuple[Move, ...]:
    """From any page of the map, opens the directions. The default mode of travel needs no move. `careful`: as in `find`."""
    tab = (Move("click", f"by {by}", habit="" if careful else "forgets_option"),) if by != WAYS[0] else ()
    return (
        Move("click", "directions"), *tab, Move("type", "from", start), Move("type", "to", end),
        Move("click", "get directions", habit="" if careful else "stops_early"),
    )  # fmt: skip
