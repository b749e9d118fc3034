"""Reads the elements that the targets of program_html select, at the end of an episode."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from playwright.async_api import BrowserContext, Page

from rollouts.errors import BrowserError, SiteError

LAST = "last"
"""The address of the page in front."""


async def read_targets(
    targets: Sequence[Mapping[str, Any]],
    context: BrowserContext,
    front: Page | None,
    settle_seconds: float,
    to_url: Callable[[str], Awaitable[str]],
    select: Callable[[Page, str], Awaitable[str]],
) -> tuple[str, ...]:
    """Returns the text that each target selects, on the page in front or on a page opened for this purpose.

    Args:
        settle_seconds: the time that an opened page is given to render.
        to_url: the address to open for a target's `url`; `last` for the page in front.
        select: the text that a locator selects on a page.

    Raises:
        InfraError: a site fails, or the page in front is gone.
    """
    contents, own, at = [], None, ""
    for target in targets:
        shown, url = front, await to_url(target["url"])
        if url != LAST:
            shown = own = own or await context.new_page()
            if url != at:
                response = await own.goto(url, wait_until="load")
                if response and response.status >= 500:
                    raise SiteError(f"{target['url']} answered HTTP {response.status}")
                await asyncio.sleep(settle_seconds)
                at = url
        if shown is None:
            raise BrowserError("the last page is gone")
        contents.append(await select(shown, target["locator"]))
    return tuple(contents)
