"""The database schema of the code host, and its initial rows."""

import functools
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from mira_arena.sites.code.content import CodeContent, Project, make_content
from mira_arena.sites.state import make_image

_SCHEMA = """
CREATE TABLE person (name TEXT PRIMARY KEY, full_name TEXT);
CREATE TABLE namespace (name TEXT PRIMARY KEY, own INTEGER);
CREATE TABLE project (path TEXT PRIMARY KEY, name TEXT, namespace TEXT, description TEXT, topics TEXT, visibility TEXT, stars INTEGER,
    forks INTEGER, starred INTEGER);
CREATE TABLE member (project TEXT, person TEXT, role TEXT, PRIMARY KEY (project, person));
CREATE TABLE branch (project TEXT, name TEXT, PRIMARY KEY (project, name));
CREATE TABLE file (project TEXT, branch TEXT, path TEXT, text TEXT, PRIMARY KEY (project, branch, path));
CREATE TABLE commits (id INTEGER PRIMARY KEY, project TEXT, branch TEXT, sha TEXT, author TEXT, message TEXT, day TEXT);
CREATE TABLE milestone (project TEXT, number INTEGER, title TEXT, start TEXT, due TEXT, state TEXT, PRIMARY KEY (project, number));
CREATE TABLE issue (project TEXT, number INTEGER, title TEXT, description TEXT, author TEXT, day TEXT, state TEXT, labels TEXT,
    assignee TEXT, milestone TEXT, due TEXT, PRIMARY KEY (project, number));
CREATE TABLE merge_request (project TEXT, number INTEGER, title TEXT, author TEXT, day TEXT, source TEXT, state TEXT, approved INTEGER,
    PRIMARY KEY (project, number));
CREATE TABLE comment (id INTEGER PRIMARY KEY, project TEXT, kind TEXT, number INTEGER, author TEXT, text TEXT);
CREATE TABLE pipeline (project TEXT, number INTEGER, branch TEXT, status TEXT);
CREATE TABLE release (project TEXT, tag TEXT, day TEXT);
CREATE TABLE todo (number INTEGER PRIMARY KEY, author TEXT, text TEXT, project TEXT, issue INTEGER, done INTEGER);
CREATE TABLE visit (seed INTEGER, person TEXT, day TEXT, status TEXT, bio TEXT, notice TEXT);
"""


@functools.lru_cache(maxsize=32)
def image(seed: int) -> bytes:
    """Serialised database of the code host with the content of `seed`."""
    return make_image(_SCHEMA, lambda database: _fill(database, make_content(seed)))


def _fill(database: sqlite3.Connection, content: CodeContent) -> None:
    _insert(database, "person", [(person.name, person.full_name) for person in content.people])
    _insert(database, "namespace", content.groups)
    for project in content.projects:
        _fill_project(database, content.me, project)
    _insert(database, "todo", [(todo.number, todo.author, todo.text, todo.project, todo.issue, 0) for todo in content.todos])
    _insert(database, "visit", [(content.seed, content.me, content.day, content.status, content.bio, "")])


def _fill_project(database: sqlite3.Connection, me: str, project: Project) -> None:
    path = project.path
    about = (project.name, project.group, project.description, ", ".join(project.topics), project.visibility)
    _insert(database, "project", [(path, *about, project.stars, project.forks, 0)])
    members = [(me, project.role)] * bool(project.role) + list(project.teammates)
    _insert(database, "member", [(path, *member) for member in members])
    _insert(database, "branch", [(path, branch) for branch in project.branches])
    _insert(database, "file", [(path, file.branch, file.path, "\n".join(file.lines)) for file in project.files])
    _insert(database, "commits", [(None, path, made.branch, made.sha, made.author, made.message, made.day) for made in project.commits])
    _insert(database, "milestone", [(path, plan.number, plan.title, plan.start, plan.due, "open") for plan in project.milestones])
    for issue in project.issues:
        about = (issue.title, issue.description, issue.author, issue.day, issue.state, ", ".join(sorted(issue.labels)))
        _insert(database, "issue", [(path, issue.number, *about, issue.assignee, issue.milestone, issue.due)])
        _insert(database, "comment", [(None, path, "issue", issue.number, *comment) for comment in issue.comments])
    for request in project.merge_requests:
        about = (request.title, request.author, request.day, request.source, request.state)
        _insert(database, "merge_request", [(path, request.number, *about, 0)])
    _insert(database, "pipeline", [(path, *pipeline) for pipeline in project.pipelines])
    _insert(database, "release", [(path, *release) for release in project.releases])


def _insert(database: sqlite3.Connection, table: str, rows: Iterable[Sequence[Any]]) -> None:
    for row in rows:
        database.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
