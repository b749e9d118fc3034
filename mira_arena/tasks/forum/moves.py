"""Moves of the expert on the forum."""

from mira_arena.tasks.moves import Move

MORE = Move("click", "more actions")

LOAD = Move("click", "load more comments")


def open_thread(title: str) -> Move:
    """Starts from a list."""
    return Move("open", title, hasty="takes_first_result")


def find(title: str) -> tuple[Move, ...]:
    return (Move("search", "search", title), open_thread(title))


def go_to(community: str) -> tuple[Move, ...]:
    return (Move("click", "communities"), Move("click", community))


def fill_in(community: str, title: str, text: str) -> tuple[Move, ...]:
    """Fills in the form of a new thread without posting it."""
    return (
        Move("click", "new thread"), Move("choose", "community", community, "forgets_option"), Move("type", "title", title),
        Move("type", "text", text),
    )  # fmt: skip


def write_to(name: str, text: str) -> tuple[Move, ...]:
    """Starts from a page that contains the member's name."""
    send = Move("click", "send", habit="stops_early")
    return (Move("click", name), Move("click", "send message"), Move("type", "your message", text), send)
