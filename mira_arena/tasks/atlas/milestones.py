"""Milestones of tasks on the map and in the encyclopedia, and the addresses of their pages."""

from mira_arena.sites.paths import page_url, slug
from mira_arena.tasks import milestones as done
from mira_arena.tasks.milestones import Milestone


def place_page(name: str) -> str:
    return f"__MAP__/place/{slug(name)}"


def article_page(title: str) -> str:
    return f"__WIKI__/article/{slug(title)}"


def opened(place: str) -> Milestone:
    return done.on_page(f'open "{place}"', place_page(place))


def read(title: str) -> Milestone:
    return done.on_page(f'open the article "{title}"', article_page(title))


def saved_as(label: str, place: str) -> Milestone:
    return done.in_snapshot(f'save "{place}" as "{label}"', "atlas", "saved", [label, place, ""])


def shown_way(start: str, end: str, by: str) -> Milestone:
    return done.on_query(f'get directions from "{start}" to "{end}" by {by}', "__MAP__/directions", by=by, **{"from": start, "to": end})


def directions_url(start: str, end: str, by: str) -> str:
    return page_url("__MAP__/directions", by=by, **{"from": start, "to": end})
