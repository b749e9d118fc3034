"""Facts of the forum: what a member can change, and the differences from the initial state."""

import sqlite3
from collections.abc import Iterable, Mapping

ABSENT = "no"
"""Value of a fact that does not exist."""
HERE = "yes"


def thread_named(title: str) -> str:
    return f'thread "{title}"'


def comment_named(author: str, title: str) -> str:
    return f'comment of {author} on "{title}"'


def posted(title: str, community: str) -> str:
    """Name of the fact for an own thread. Its value is the thread's link, if any, and text."""
    return f'thread "{title}" in {community}'


def commented(title: str, text: str, to: str = "") -> str:
    """Name of the fact for an own comment. `to` is the author of the comment that it replies to."""
    return f'comment on "{title}"' + (f" to {to}" if to else "") + f": {text}"


def sent(other: str, text: str) -> str:
    """Name of the fact for an own message."""
    return f"message to {other}: {text}"


def lines(changes: Mapping[str, str]) -> list[str]:
    """Formats changed facts as the list of changes shows them."""
    return [f"{fact} = {changes[fact]}" for fact in sorted(changes)]


def read(database: sqlite3.Connection) -> dict[str, str]:
    """Reads all facts. The name of an own comment or message contains its text, so sending it twice gives another value."""
    ask = database.execute
    ((me,),) = ask("SELECT member FROM visit")
    facts = {f"vote on {name}": "up" if vote > 0 else "down" for name, vote in ask("SELECT name, vote FROM thing WHERE vote")}
    facts |= {f"removed {name}": reason for name, reason in ask("SELECT name, removed FROM thing WHERE removed != ''")}
    for flag in ("saved", "locked", "sticky"):
        facts |= _present(f'{flag} "{title}"' for (title,) in ask(f"SELECT title FROM thread WHERE {flag}"))
    facts |= {f'flair of "{title}"': flair for title, flair in ask("SELECT title, flair FROM thread WHERE flair != ''")}
    facts |= {f"description of {name}": text for name, text in ask("SELECT name, description FROM community")}
    facts |= _present(f"subscribed to {name}" for (name,) in ask("SELECT name FROM community WHERE subscribed"))
    facts |= _present(f"banned {name} from {community}" for community, name in ask("SELECT community, member FROM banned"))
    for name, reporter, reason, status in ask("SELECT name, reporter, reason, status FROM report JOIN thing USING (kind, id)"):
        facts |= {f"own report of {name}: {reason}" if reporter == me else f"report of {name}": status}
    own = ask("SELECT title, community, link || ' ' || text FROM thread WHERE author = ?", (me,))
    facts |= {posted(title, community): text.strip() for title, community, text in own}
    own = ask(
        "SELECT title, comment.text, COALESCE(parent.author, '') FROM comment JOIN thread ON thread.id = comment.thread "
        "LEFT JOIN comment AS parent ON parent.id = comment.parent WHERE comment.author = ?",
        (me,),
    )
    facts |= _present(commented(*row) for row in own)
    return facts | _present(sent(*row) for row in ask("SELECT other, text FROM message WHERE NOT incoming"))


def differences(database: sqlite3.Connection) -> list[str]:
    """Returns the lines of all facts that differ from the initial state."""
    now, initial = read(database), dict(database.execute("SELECT fact, value FROM initial_fact").fetchall())
    return lines({fact: now.get(fact, ABSENT) for fact in now | initial if now.get(fact) != initial.get(fact)})


def _present(names: Iterable[str]) -> dict[str, str]:
    """Maps each name to its number of occurrences."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return {name: HERE if count == 1 else f"{count} times" for name, count in counts.items()}
