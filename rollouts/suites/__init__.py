"""Suites of tasks, by name."""

from typing import Any

from mira_jax.errors import UserError
from rollouts.suites.base import Session, Suite

__all__ = ["NAMES", "Session", "Suite", "make_suite"]

NAMES = ("arena", "miniwob")


def make_suite(name: str, **options: Any) -> Suite:
    """The suite of that name. Raises UserError if there is none, or if it has no such option."""
    if name == "arena":
        from rollouts.suites.arena.suite import OPTIONS
        from rollouts.suites.arena.suite import ArenaSuite as Made
    elif name == "miniwob":
        from rollouts.suites.miniwob.suite import OPTIONS
        from rollouts.suites.miniwob.suite import MiniwobSuite as Made
    else:
        raise UserError(f"suite: {name!r} is none of {', '.join(NAMES)}")
    for option in options:
        if option not in OPTIONS:
            raise UserError(f"suite.options: {option!r} is none of {', '.join(OPTIONS)}")
    return Made(**options)
