"""Search APIs over HTTP: how a query is sent, and where the results are in the JSON of the answer.

The presets follow the documentation of Brave Search (api-dashboard.search.brave.com), Serper (serper.dev), Tavily
(docs.tavily.com/api-reference) and SearXNG (docs.searxng.org/dev/search_api). `custom` is any other.
"""

import dataclasses
import html
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from mira_jax.config import Count, Natural, NonNegative, Positive
from mira_jax.errors import ConfigError
from rollouts.text import sanitize

LONGEST = 400
"""Maximum characters of a title or a snippet."""
MAX_URL = 2_000
_KEYS = frozenset({"authorization", "key", "api_key", "api-key", "apikey", "x-api-key", "x-subscription-token", "token", "access_token"})
"""Headers and parameters that hold a key."""
_PLACE = re.compile(r"\{(query|key|count)\}")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")


class Result(msgspec.Struct, frozen=True):
    title: str
    url: str
    snippet: str = ""
    date: str = ""


@dataclasses.dataclass(frozen=True)
class ApiConfig:
    """The form of a search API. In `headers` and `parameters`, {query}, {key} and {count} stand for the query, the key and the number of
    results."""

    url: str = ""
    """Address. Default: that of the API. Required for searxng and custom."""
    method: Literal["GET", "POST"] | None = None
    """GET: `parameters` are sent in the address. POST: as a JSON object."""
    headers: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Headers to add, or to change. null leaves one out."""
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Parameters to add, or to change. null leaves one out."""
    results: str = ""
    """Path of the list of results in the answer, with dots between the keys."""
    title: str = ""
    """Key of the title in a result."""
    link: str = ""
    """Key of the address in a result."""
    snippet: str = ""
    """Key of the snippet in a result."""
    date: str = ""
    """Key of the date in a result."""


PRESETS: Mapping[str, ApiConfig] = {
    "brave": ApiConfig(
        "https://api.search.brave.com/res/v1/web/search", "GET", {"X-Subscription-Token": "{key}"}, {"q": "{query}", "count": "{count}"},
        "web.results", "title", "url", "description", "page_age",
    ),
    "serper": ApiConfig(
        "https://google.serper.dev/search", "POST", {"X-API-KEY": "{key}"}, {"q": "{query}", "num": "{count}"},
        "organic", "title", "link", "snippet", "date",
    ),
    "tavily": ApiConfig(
        "https://api.tavily.com/search", "POST", {"Authorization": "Bearer {key}"}, {"query": "{query}", "max_results": "{count}"},
        "results", "title", "url", "content", "published_date",
    ),
    "searxng": ApiConfig(
        "", "GET", {}, {"q": "{query}", "format": "json"}, "results", "title", "url", "content", "publishedDate",
    ),
    "custom": ApiConfig("", "GET", {}, {}, "", "title", "url", "snippet", "date"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    api: Literal["none", "brave", "serper", "tavily", "searxng", "custom"] = "none"
    """The search API. none: episodes can be labelled, and none can be collected."""
    api_key_env: str = ""
    """Environment variable that contains the key. Empty: the API needs none."""
    request: ApiConfig = dataclasses.field(default_factory=ApiConfig)
    """Changes to the API's form. `custom` has no other."""
    count: Annotated[int, Meta(ge=1, le=20)] = 10
    """Number of results of a search."""
    timeout: Positive = 20.0
    """Maximum seconds of one request."""
    retries: Natural = 4
    """Maximum number of retries after transient failures."""
    backoff: NonNegative = 0.5
    """Seconds before the first retry, doubled for each further one, at most 30. A Retry-After header takes precedence."""
    concurrency: Count = 8
    """Maximum number of concurrent requests."""
    requests_per_minute: NonNegative = 0.0
    """Maximum number of requests started per minute, in each process. 0: no limit."""

    def __post_init__(self) -> None:
        if self.api == "none":
            return
        form = self.form
        if not form.url:
            raise ConfigError("request.url", f"not set; give the address of the API for $.api={self.api}")
        parts = urlsplit(form.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
            # The address is not shown, since it may contain the key.
            raise ConfigError("request.url", "not an address such as https://example.org/search; give parameters in $.request.parameters")
        for name in ("headers", "parameters"):
            for key, value in getattr(form, name).items():
                if key.lower() in _KEYS and "{key}" not in str(value):
                    raise ConfigError(f"request.{name}.{key}", "a key; write {key} here, and name its variable in $.api_key_env")
        if not all(isinstance(value, str) for value in form.headers.values()):
            raise ConfigError("request.headers", "a value is not a text; put it in quotes")
        if "{query}" not in str(form.parameters):
            raise ConfigError("request.parameters", "none holds {query}; name the parameter of the query, for example {q: '{query}'}")
        if not form.results:
            raise ConfigError("request.results", "not set; give the path of the list of results, for example web.results")
        if "{key}" in f"{form.headers}{form.parameters}" and not self.api_key_env:
            raise ConfigError("api_key_env", f"not set; name the environment variable that holds the key of {self.api}")
        if self.api_key_env and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env, re.ASCII):
            raise ConfigError("api_key_env", "is not the name of an environment variable; give the name, not the key itself")

    @property
    def form(self) -> ApiConfig:
        """The API's form, with the changes."""
        changes, preset = self.request, PRESETS[self.api]
        plain = {
            field.name: getattr(changes, field.name)
            for field in dataclasses.fields(ApiConfig)
            if getattr(changes, field.name) and field.name not in ("headers", "parameters")
        }
        both = {name: _merged(getattr(preset, name), getattr(changes, name)) for name in ("headers", "parameters")}
        return dataclasses.replace(preset, **plain, **both)


def _merged(preset: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**preset, **changes}.items() if value is not None}


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Replaces the placeholders in all texts of a tree, once: a query that contains a placeholder stays as it is. A text that is {count}
    alone becomes a number."""
    if isinstance(template, str):
        return values["count"] if template == "{count}" else _PLACE.sub(lambda found: str(values[found[1]]), template)
    if isinstance(template, Mapping):
        return {name: fill(value, values) for name, value in template.items()}
    return [fill(value, values) for value in template] if isinstance(template, list) else template


class NoList(ValueError):
    """The answer has nothing at the path of the results, which an API may mean by no results."""


def read_results(tree: Any, form: ApiConfig, count: int) -> tuple[Result, ...]:
    """The results in an answer. Those without an http address are left out.

    Raises:
        NoList: nothing is at `form.results`.
        ValueError: what is there is no list of objects.
    """
    found = _at(tree, form.results)
    if found is None:
        raise NoList(f"no {form.results} in it")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{form.results} is not a list of objects")
    results = [
        Result(_text(one, form.title) or url, url, _text(one, form.snippet), _text(one, form.date)[:40])
        for one in found
        if _is_url(url := _at(one, form.link))
    ]
    return tuple(results[:count])


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _text(result: Any, path: str) -> str:
    """Without markup, such as that of the words of the query in a snippet."""
    found = _at(result, path)
    text = " ".join(sanitize(html.unescape(_TAG.sub("", found[: 10 * LONGEST]))).split()) if isinstance(found, str) else ""
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _is_url(url: Any) -> bool:
    try:
        return isinstance(url, str) and url.isprintable() and len(url) <= MAX_URL and urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False
