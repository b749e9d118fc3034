"""What the expert does on the map and in the encyclopedia."""

from mira_arena.sites.atlas.roads import SPEEDS
from mira_arena.tasks.moves import Move

WAYS = tuple(SPEEDS)

LINK = r'<a id="(?:\d+">)?([^"<]+)'
"""The name of a link, whatever the handles."""


def find(name: str, note: str = "", missing: str = "", careful: bool = False) -> tuple[Move, ...]:
    """A place on the map, or an article in the encyclopedia.

    Args:
        note: what this finds on the page before is written down.
        missing: what to exit with if it is not found.
        careful: has no bad habit: for what the expert looks at, but answers or acts on from what it knows.
    """
    hasty = "" if careful else "takes_first_result"
    return (Move("search", "search", name, note=note), Move("open", name, hasty=hasty, missing=missing))


def go_to_nearest(kind: str, name: str, careful: bool = False) -> tuple[Move, ...]:
    """From the page of a place to that of the nearest of a kind, which leads its list: in a hurry, whatever it is called.

    `careful` as in `find`.
    """
    return (Move("choose", "nearby", kind), Move("click", "find nearby"), Move("open", name, hasty="" if careful else "takes_first_result"))


def save_as(label: str) -> tuple[Move, ...]:
    """From the page of a place."""
    return (Move("click", "save place"), Move("type", "name", label), Move("click", "save", habit="stops_early"))


def travel(start: str, end: str, by: str, careful: bool = False) -> tuple[Move, ...]:
    """From any page of the map to the directions. The tab that is open at first needs no move. `careful` as in `find`."""
    tab = (Move("click", f"by {by}", habit="" if careful else "forgets_option"),) if by != WAYS[0] else ()
    return (
        Move("click", "directions"), *tab, Move("type", "from", start), Move("type", "to", end),
        Move("click", "get directions", habit="" if careful else "stops_early"),
    )  # fmt: skip
