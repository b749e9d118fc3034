"""The database schema of the forum, and its initial rows."""

import functools
import sqlite3

from mira_arena.sites.forum import facts
from mira_arena.sites.forum.content import ForumContent, make_content
from mira_arena.sites.state import make_image

_SCHEMA = """
CREATE TABLE member (name TEXT PRIMARY KEY, points INTEGER, joined TEXT);
CREATE TABLE community (name TEXT PRIMARY KEY, description TEXT, subscribed INTEGER);
CREATE TABLE rule (id INTEGER PRIMARY KEY, community TEXT, text TEXT);
CREATE TABLE flair (id INTEGER PRIMARY KEY, community TEXT, name TEXT);
CREATE TABLE moderator (id INTEGER PRIMARY KEY, community TEXT, member TEXT);
CREATE TABLE banned (community TEXT, member TEXT, PRIMARY KEY (community, member));
CREATE TABLE thread (id INTEGER PRIMARY KEY, community TEXT, author TEXT, title TEXT UNIQUE, text TEXT, link TEXT, score INTEGER,
    hours INTEGER, flair TEXT, sticky INTEGER, locked INTEGER, removed TEXT, saved INTEGER, vote INTEGER);
CREATE TABLE comment (id INTEGER PRIMARY KEY, thread INTEGER, parent INTEGER, author TEXT, text TEXT, score INTEGER, removed TEXT,
    vote INTEGER);
CREATE INDEX comment_thread ON comment (thread);
CREATE VIEW thing AS
    SELECT 'thread' AS kind, id, id AS thread, community, author, 'thread "' || title || '"' AS name, title, text, link, removed, vote
    FROM thread UNION ALL
    SELECT 'comment', comment.id, thread, community, comment.author, 'comment of ' || comment.author || ' on "' || title || '"', title,
    comment.text, '', comment.removed, comment.vote FROM comment JOIN thread ON thread.id = comment.thread;
CREATE TABLE message (id INTEGER PRIMARY KEY, other TEXT, incoming INTEGER, text TEXT, unread INTEGER);
CREATE TABLE report (number INTEGER PRIMARY KEY, kind TEXT, id INTEGER, reporter TEXT, reason TEXT, status TEXT);
CREATE TABLE initial_fact (fact TEXT PRIMARY KEY, value TEXT);
CREATE TABLE visit (member TEXT, password TEXT, signed_in INTEGER, notice TEXT);
"""


@functools.lru_cache(maxsize=32)
def image(seed: int) -> bytes:
    """Serialised database of the forum with the content of `seed`."""
    return make_image(_SCHEMA, lambda database: _fill(database, make_content(seed)))


def _fill(database: sqlite3.Connection, content: ForumContent) -> None:
    many = database.executemany
    many("INSERT INTO member VALUES (?, ?, ?)", [(member.name, member.points, member.joined) for member in content.members])
    subscribed = {community.name for community in content.subscribed}
    for community in content.communities:
        name = community.name
        database.execute("INSERT INTO community VALUES (?, ?, ?)", (name, community.description, name in subscribed))
        many("INSERT INTO rule (community, text) VALUES (?, ?)", [(name, rule) for rule in community.rules])
        many("INSERT INTO flair (community, name) VALUES (?, ?)", [(name, flair) for flair in community.flairs])
        many("INSERT INTO moderator (community, member) VALUES (?, ?)", [(name, member) for member in community.moderators])
    for thread in content.threads:
        database.execute(
            "INSERT INTO thread VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', ?, 0)",
            (thread.id, thread.community, thread.author, thread.title, thread.text, thread.link, thread.score, thread.hours, thread.flair,
             thread.sticky, thread.title in content.saved),
        )  # fmt: skip
        rows = [(comment.id, thread.id, comment.parent, comment.author, comment.text, comment.score) for comment in thread.comments]
        many("INSERT INTO comment VALUES (?, ?, ?, ?, ?, ?, '', 0)", rows)
    messages = [(message.other, message.incoming, message.text, message.incoming) for message in content.messages]
    many("INSERT INTO message (other, incoming, text, unread) VALUES (?, ?, ?, ?)", messages)
    for report in content.reports:
        kind, identity = ("comment", report.comment.id) if report.comment else ("thread", report.thread.id)
        row = (report.number, kind, identity, report.reporter, report.reason)
        database.execute("INSERT INTO report VALUES (?, ?, ?, ?, ?, 'open')", row)
    database.execute("INSERT INTO visit VALUES (?, ?, 1, '')", (content.member, content.password))
    many("INSERT INTO initial_fact VALUES (?, ?)", facts.read(database).items())
