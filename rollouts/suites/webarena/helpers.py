"""The helper functions that WebArena's tasks call by name, as in `func:reddit_get_post_url('__last_url__')`. All others are rejected."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from playwright.async_api import Error, Page

from rollouts.errors import SiteError

_CALL = re.compile(
    r"func:\s*(?P<name>\w+)\(\s*(?P<arguments>(?:__page__|'[^'\\]*'|\"[^\"\\]*\")?(?:\s*,\s*(?:'[^'\\]*'|\"[^\"\\]*\"))*)\s*\)\s*"
)
_ARGUMENT = re.compile(r"__page__|'([^']*)'|\"([^\"]*)\"")
_SECONDS = 15.0

_ROLE = """name => {
    const rows = [...document.querySelectorAll("td[data-label='Account'] span.gl-avatar-labeled-sublabel")];
    const row = rows.findIndex(element => element.outerText === '@' + name);
    return row < 0 ? '' : document.querySelectorAll('td.col-max-role span')[row]?.outerText ?? '';
}"""


class Helpers:
    """The helpers on the user's sites.

    Args:
        addresses: site to address.
        admin: user name and password of the shop's web API.
    """

    def __init__(self, addresses: Mapping[str, str], admin: tuple[str, str] | None):
        self.addresses, self.admin = addresses, admin

    async def call(self, text: str, page: Page, last_url: str) -> str:
        """Returns the result of the call in `text` (see `is_call`). Raises SiteError."""
        name, arguments = _parse(text)
        helper, _ = _HELPERS[name]
        return await helper(self, page, *[argument.replace("__last_url__", last_url) for argument in arguments])

    async def latest_order_url(self, page: Page) -> str:
        found = await self._api(
            "/rest/V1/orders",
            {
                "searchCriteria[sortOrders][0][field]": "created_at",
                "searchCriteria[sortOrders][0][direction]": "DESC",
                "searchCriteria[pageSize]": "1",
            },
        )
        return f"{self.addresses['shopping']}/sales/order/view/order_id/{int(_field(found, 'items', 0, 'increment_id'))}/"

    async def latest_review_author(self, page: Page, sku: str) -> str:
        reviews = await self._api(f"/rest/V1/products/{quote(sku, safe='')}/reviews")
        return str(_field(reviews, -1, "nickname")) if reviews else ""

    async def latest_review_rating(self, page: Page, sku: str) -> str:
        reviews = await self._api(f"/rest/V1/products/{quote(sku, safe='')}/reviews")
        return str(_field(reviews, -1, "ratings", 0, "percent")) if reviews else ""

    async def post_url(self, page: Page, url: str) -> str:
        """Returns the address of a post, given the address of any page below it. Other addresses are returned unchanged."""
        parts = urlsplit(url)
        steps = parts.path.split("/")
        if len(steps) < 4 or steps[1] != "f":
            return url
        return f"{parts.scheme}://{parts.netloc}/f/{steps[2]}/{steps[3]}/"

    async def member_role(self, page: Page, account: str) -> str:
        """Returns the role of an account on a project's members page. Empty if it is not listed."""
        try:
            return str(await page.evaluate(_ROLE, account))
        except Error:
            return ""

    async def log_in(self) -> None:
        """Logs in to the shop's web API. Raises SiteError."""
        await self._api("/rest/V1/store/storeConfigs")

    async def _api(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """Returns the response of the shop's web API."""
        if self.admin is None:
            raise SiteError("the shop's web API needs an account: set suite.options.accounts.shopping_site_admin")
        user, password = self.admin
        async with httpx.AsyncClient(base_url=self.addresses["shopping"], timeout=_SECONDS, follow_redirects=True) as client:
            try:
                given = {"username": user, "password": password}
                token = await _answer(client.post("/rest/default/V1/integration/admin/token", json=given))
                return await _answer(client.get(path, params=parameters, headers={"Authorization": f"Bearer {token}"}))
            except (httpx.HTTPError, json.JSONDecodeError) as error:
                raise SiteError(f"the shop's web API, {path}: {type(error).__name__}") from None


async def _answer(request: Awaitable[httpx.Response]) -> Any:
    response = await request
    if response.status_code != 200:
        raise SiteError(f"the shop's web API, {response.url.path}, answered HTTP {response.status_code}")
    return response.json()


def _field(tree: Any, *keys: str | int) -> Any:
    try:
        for key in keys:
            tree = tree[key]
    except (KeyError, IndexError, TypeError):
        raise SiteError(f"the shop's web API gave no {'.'.join(map(str, keys))}") from None
    return tree


_HELPERS: dict[str, tuple[Callable[..., Awaitable[str]], int]] = {
    "shopping_get_latest_order_url": (Helpers.latest_order_url, 0),
    "shopping_get_sku_latest_review_author": (Helpers.latest_review_author, 1),
    "shopping_get_sku_latest_review_rating": (Helpers.latest_review_rating, 1),
    "reddit_get_post_url": (Helpers.post_url, 1),
    "gitlab_get_project_memeber_role": (Helpers.member_role, 1),
}
"""WebArena's name to the helper and its number of arguments after the page."""


def is_call(text: str) -> bool:
    """Whether `text` is a call of a known helper with plain string arguments."""
    match = _CALL.fullmatch(text.strip())
    return match is not None and match["name"] in _HELPERS and len(_parse(text)[1]) == _HELPERS[match["name"]][1]


def needs_shop_api(text: str) -> bool:
    return text.startswith("func:") and _parse(text)[0].startswith("shopping_")


def _parse(text: str) -> tuple[str, list[str]]:
    match = _CALL.fullmatch(text.strip())
    assert match is not None
    found = [argument for argument in _ARGUMENT.finditer(match["arguments"]) if argument[0] != "__page__"]
    return match["name"], [argument[1] if argument[1] is not None else argument[2] for argument in found]
