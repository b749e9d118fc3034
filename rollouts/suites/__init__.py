"""Suites of tasks, by name."""

from typing import Any

from mira_jax import config
from mira_jax.errors import ConfigError
from mira_jax.schema import Options, load_class
from rollouts.suites.base import Session, Suite

__all__ = ["OPTIONS", "SUITES", "Session", "Suite", "make_suite"]

SUITES = {
    "arena": "rollouts.suites.arena.suite:ArenaSuite",
    "miniwob": "rollouts.suites.miniwob.suite:MiniwobSuite",
    "webarena_infinity": "rollouts.suites.infinity.suite:InfinitySuite",
    "webarena_lite": "rollouts.suites.webarena.suite:WebArenaLiteSuite",
}
"""Name in the config to `module:Class`, imported when it is asked for. The class takes the fields of its options by name."""
OPTIONS = Options(
    {
        "arena": "rollouts.suites.arena.suite:ArenaOptions",
        "miniwob": "rollouts.suites.miniwob.suite:MiniwobOptions",
        "webarena_infinity": "rollouts.suites.infinity.suite:InfinityOptions",
        "webarena_lite": "rollouts.suites.webarena.suite:WebArenaOptions",
    },
    chosen_by=("name",),
    beside=True,
)
"""The config classes of `suite.options`."""


def make_suite(name: str, **options: Any) -> Suite:
    """The suite of that name. Raises UserError if there is none, or for a wrong option."""
    if name not in SUITES:
        raise ConfigError("suite.name", f"{name!r} is none of {', '.join(SUITES)}")
    config.build(load_class(OPTIONS.classes[name]), options, prefix="suite.options.")
    return load_class(SUITES[name])(**options)
