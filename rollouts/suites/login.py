"""Logs episodes in to sites by their forms, in their browser context. A valid login is reused, and an expired one renewed."""

import asyncio
import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from playwright.async_api import BrowserContext

from rollouts.errors import SiteError

SECONDS = 20.0
"""Maximum seconds of one page of a login."""


@dataclasses.dataclass(frozen=True)
class LoginForm:
    """Location of a site's login form, and the names of its fields."""

    path: str
    """Path of the page with the form."""
    user: str
    """Name of the field for the user."""
    password: str
    """Name of the field for the password."""
    probe: str
    """Path of a page that shows the form, or redirects to it, if nobody is signed in. {user} stands for the user name."""


class Logins:
    """Cookies of each site's login, kept only in memory.

    Args:
        addresses: site to address.
        accounts: site to user name and password.
        forms: site to form.
    """

    def __init__(self, addresses: Mapping[str, str], accounts: Mapping[str, tuple[str, str]], forms: Mapping[str, LoginForm]):
        self.addresses, self.accounts, self.forms = addresses, accounts, forms
        self.renewed: collections.Counter[str] = collections.Counter()
        """Number of times each site's form was submitted."""
        self._cookies: dict[str, list[Any]] = {}
        self._locks: dict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)

    async def sign_in(self, site: str, context: BrowserContext) -> None:
        """Logs `context` in to the site. Raises SiteError, or Playwright's Error."""
        async with self._locks[site]:
            kept = self._cookies.pop(site, [])
            if kept:
                await context.add_cookies(kept)
                if await self._is_in(site, context):
                    self._cookies[site] = kept
                    return
                for cookie in kept:
                    await context.clear_cookies(name=cookie["name"], domain=cookie["domain"], path=cookie["path"])
            # Sites on other ports of a host share its cookies, so only the cookies that this login sets are kept as its state.
            before = {_identity(cookie): cookie["value"] for cookie in await context.cookies()}
            await self._fill_in(site, context)
            if not await self._is_in(site, context):
                raise SiteError(f"{site}: not signed in after the login; check the account (suite.options.accounts.{site})")
            self._cookies[site] = [cookie for cookie in await context.cookies() if before.get(_identity(cookie)) != cookie["value"]]
            self.renewed[site] += 1

    async def _is_in(self, site: str, context: BrowserContext) -> bool:
        form, (user, _) = self.forms[site], self.accounts[site]
        response = await context.request.get(self.addresses[site] + form.probe.format(user=user), timeout=SECONDS * 1000)
        try:
            if response.status >= 500:
                raise SiteError(f"{response.url} answered HTTP {response.status}")
            asks = re.search(rf"name=[\"']?{re.escape(form.password)}", await response.text())
            return response.status < 400 and not asks
        finally:
            await response.dispose()

    async def _fill_in(self, site: str, context: BrowserContext) -> None:
        form, (user, password) = self.forms[site], self.accounts[site]
        page = await context.new_page()
        try:
            page.set_default_timeout(SECONDS * 1000)
            await page.goto(self.addresses[site] + form.path, wait_until="load")
            await page.fill(f'[name="{form.user}"]', user)
            await page.fill(f'[name="{form.password}"]', password)
            async with page.expect_navigation(wait_until="load"):
                await page.press(f'[name="{form.password}"]', "Enter")
        finally:
            await page.close()


def _identity(cookie: Mapping[str, Any]) -> tuple[str, str, str]:
    return cookie["name"], cookie["domain"], cookie["path"]
