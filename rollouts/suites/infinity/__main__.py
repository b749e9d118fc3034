"""Finds the tasks of WebArena-Infinity whose verifiers pass in the initial state. Such tasks do not measure a policy.

    mira infinity-check --checkout DIR --out FILE

Every application is opened once, without an action, and all of its verifiers are run on it. FILE is the value for
`suite.options.check`: `rollouts.evaluate` leaves out the tasks listed there.
"""

import asyncio
import dataclasses
import sys
from pathlib import Path

import msgspec
from playwright.async_api import Error

from mira_jax import commands
from mira_jax.errors import UserError, first_line
from mira_jax.files import write_atomically
from mira_jax.needs import Needs
from rollouts.errors import InfraError
from rollouts.suites.base import to_address
from rollouts.suites.infinity.suite import Checked, InfinityOptions, InfinitySuite
from rollouts.suites.infinity.tasks import fingerprint
from rollouts.web.browser import BrowserConfig, BrowserPool


@dataclasses.dataclass(frozen=True)
class CheckConfig:
    checkout: str = ""
    """The checkout, as in suite.options.checkout."""
    out: str = ""
    """Output file."""
    python: str = InfinityOptions.python
    """The interpreter, as in suite.options.python."""
    browser: BrowserConfig = dataclasses.field(default_factory=BrowserConfig)


def main(settings: CheckConfig) -> int:
    suite = InfinitySuite(checkout=settings.checkout, python=settings.python)
    out = Path(settings.out)
    if out.exists():
        raise UserError(f"{out}: exists already; choose another file")
    checks = asyncio.run(_check(suite, settings.browser))
    write_atomically(out, msgspec.json.format(msgspec.json.encode(checks), indent=1))
    passed = [name for checked in checks.values() for name in checked.passed]
    print("\n".join([*passed, f"{len(passed)} of {sum(checked.tasks for checked in checks.values())} tasks are refused; {out} lists them"]))
    return 0


async def _check(suite: InfinitySuite, browser: BrowserConfig) -> dict[str, Checked]:
    checks = {}
    async with BrowserPool(browser) as browsers:
        for app, items in suite.apps.items():
            try:
                passed = await _passed(suite, app, browsers)
            except (InfraError, Error) as error:
                raise UserError(f"{app} can't be checked: {first_line(error)}") from None
            checks[app] = Checked(fingerprint(items[0].folder), len(items), passed)
            print(f"{app}: {len(items)} tasks, {len(passed)} pass untouched", file=sys.stderr)
    return checks


async def _passed(suite: InfinitySuite, app: str, browsers: BrowserPool) -> tuple[str, ...]:
    """Returns the tasks of an application that pass in its initial state."""
    items = suite.apps[app]
    context = await browsers.context()
    try:
        session = await suite.open(items[0].task, context)
        try:
            browsers.allow(context, session.hosts)
            page = await context.new_page()
            await page.goto(to_address(session.task.start_url, session.addresses))
            verdicts = await session.verify(items)
        finally:
            await session.close()
    finally:
        await browsers.close(context)
    return tuple(item.task.id for item, verdict in zip(items, verdicts, strict=True) if verdict["passed"])


def needs(settings: CheckConfig, found: Needs) -> None:
    with found.attempt("checkout"):
        InfinitySuite(checkout=settings.checkout, python=settings.python)
    found.output("out", settings.out)


REQUIRED = {"out": "name the file to write, for example --out infinity.json"}
COMMAND = commands.Command(
    "infinity-check", main, CheckConfig, __doc__, flags=("checkout", "out", "python"), required=REQUIRED, needs=needs
)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
