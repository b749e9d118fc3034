"""Suites of tasks, by name."""

from collections.abc import Iterable
from typing import Any

from mira_jax.errors import UserError
from rollouts.suites.base import Session, Suite

__all__ = ["NAMES", "Session", "Suite", "make_suite"]

NAMES = ("arena", "miniwob", "webarena_infinity", "webarena_lite")


def make_suite(name: str, **options: Any) -> Suite:
    """The suite of that name. Raises UserError if there is none, or if it has no such option."""
    if name == "arena":
        from rollouts.suites.arena import suite as arena

        _refuse_unknown(options, arena.OPTIONS)
        return arena.ArenaSuite(**options)
    if name == "miniwob":
        from rollouts.suites.miniwob import suite as miniwob

        _refuse_unknown(options, miniwob.OPTIONS)
        return miniwob.MiniwobSuite(**options)
    if name == "webarena_infinity":
        from rollouts.suites.infinity.suite import InfinitySuite

        return InfinitySuite(**options)
    if name == "webarena_lite":
        from rollouts.suites.webarena.suite import WebArenaLiteSuite

        return WebArenaLiteSuite(**options)
    raise UserError(f"suite: {name!r} is none of {', '.join(NAMES)}")


def _refuse_unknown(options: Iterable[str], known: Iterable[str]) -> None:
    for option in options:
        if option not in known:
            raise UserError(f"suite.options: {option!r} is none of {', '.join(known)}")
