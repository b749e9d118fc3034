"""Registry of task suites by name."""

from typing import Any

from mira_jax import config
from mira_jax.errors import ConfigError
from mira_jax.schema import Options, load_class, load_user_class
from rollouts.suites.base import Session, Suite

__all__ = ["OPTIONS", "SUITES", "Session", "Suite", "make_suite"]

SUITES = {
    "arena": "rollouts.suites.arena.suite:ArenaSuite",
    "miniwob": "rollouts.suites.miniwob.suite:MiniwobSuite",
    "seeking": "rollouts.suites.seeking.suite:SeekingSuite",
    "tasks": "rollouts.suites.tasks.suite:TasksSuite",
    "web_seeking": "rollouts.suites.web_seeking.suite:WebSeekingSuite",
    "webarena_infinity": "rollouts.suites.infinity.suite:InfinitySuite",
    "webarena_lite": "rollouts.suites.webarena.suite:WebArenaLiteSuite",
}
"""Name in the config to `module:Class`, imported on first use. The class attribute `Options` is the dataclass of the suite's options,
which the constructor takes as keyword arguments."""
OPTIONS = Options(SUITES, chosen_by=("name",), chosen_by_siblings=True, attribute="Options")
"""Type of `suite.options`. `suite.name` may also be the `module:Class` of a user's own suite."""


def make_suite(name: str, **options: Any) -> Suite:
    """Creates the suite with that name or `module:Class`. Raises UserError if there is none, or if an option is invalid."""
    if name in SUITES:
        suite = load_class(SUITES[name])
    elif ":" in name:
        try:
            suite = load_user_class(name, OPTIONS.attribute)
        except ValueError as error:
            raise ConfigError("suite.name", str(error)) from None
    else:
        raise ConfigError("suite.name", f"{name!r} is none of {', '.join(SUITES)}, nor the module:Class of your own")
    config.build(suite.Options, options, prefix="suite.options.")
    return suite(**options)
