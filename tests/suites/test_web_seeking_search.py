"""Search APIs: a real local HTTP server in the form of each, with their faults. No request leaves this machine."""

import asyncio
import json
import time

import pytest
import yaml

from mira_jax.config import build
from mira_jax.errors import ConfigError, UserError
from rollouts.errors import SiteError
from rollouts.llm.cache import AnswerCache
from rollouts.suites.web_seeking.apis import PRESETS, Result, SearchConfig, fill, read_results
from rollouts.suites.web_seeking.search import MAX_BYTES, QueryRefused, Results, Search
from tests.suites.web_server import Reply, serving_web

SECRET = "sk-very-secret-1234"
FOUND = [Result("one & two", "https://a.example/1", "about one", "2026-01-01"), Result("three", "http://b.example/?q=3")]


def as_json(tree, status=200, **headers):
    return Reply(json.dumps(tree), status, {"Content-Type": "application/json"} | headers)


def items(title, link, snippet, date):
    return [
        {title: "one &amp; <strong>two</strong>", link: FOUND[0].url, snippet: "about\n<b>one</b>", date: "2026-01-01", "more": [1]},
        {title: "three", link: FOUND[1].url, snippet: None},
        {title: "no page", link: "ftp://c.example/"},
        {title: "no link"},
    ]


APIS = {
    "brave": {"query": {}, "web": {"results": items("title", "url", "description", "page_age")}},
    "serper": {"organic": items("title", "link", "snippet", "date")},
    "tavily": {"results": items("title", "url", "content", "published_date")},
    "searxng": {"results": items("title", "url", "content", "publishedDate"), "answers": []},
}


def config(url="http://127.0.0.1:1/", api="serper", request=None, **changes):
    key = {} if api == "searxng" else {"api_key_env": "TEST_SEARCH_KEY"}
    tree = {"api": api, **key, "backoff": 0.01, "retries": 2, "request": {"url": url, **(request or {})}, **changes}
    return build(SearchConfig, tree, prefix="suite.options.search.")


async def ask(answer, *queries, cache=None, **changes):
    """The results of the queries, one after the other, and the requests."""
    with serving_web(answer) as (host, asked):
        kept = AnswerCache(cache, Results)
        try:
            async with Search(config(f"http://{host}/search", **changes), kept) as search:
                return [(await search.search(query)).results for query in queries], asked
        finally:
            kept.close()


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_SEARCH_KEY", SECRET)


@pytest.mark.parametrize("api", APIS)
async def test_each_preset_sends_the_query_and_reads_the_results(api):
    (found,), (request,) = await ask(lambda _: as_json(APIS[api]), "grey lamp", api=api, count=7)
    assert list(found) == FOUND
    sent = json.loads(request.body) if request.body else request.query
    wanted = {
        "brave": ("GET", {"q": "grey lamp", "count": "7"}, ("x-subscription-token", SECRET)),
        "serper": ("POST", {"q": "grey lamp", "num": 7}, ("x-api-key", SECRET)),
        "tavily": ("POST", {"query": "grey lamp", "max_results": 7}, ("authorization", f"Bearer {SECRET}")),
        "searxng": ("GET", {"q": "grey lamp", "format": "json"}, ("accept", "application/json")),
    }[api]
    assert (request.method, sent) == wanted[:2] and request.headers[wanted[2][0]] == wanted[2][1]
    assert PRESETS[api].url.startswith("https://") or api == "searxng"


async def test_a_custom_api_as_in_the_docs():
    """Google's Custom Search JSON API: the key is a parameter."""
    text = """
    url: URL
    parameters: {key: "{key}", cx: my-engine, q: "{query}", num: "{count}"}
    results: items
    link: link
    """
    tree = {"items": [{"title": "a", "link": "https://a.example/", "snippet": "s"}]}
    request = yaml.safe_load(text)
    del request["url"]
    (found,), (sent,) = await ask(lambda _: as_json(tree), "x y", api="custom", request=request)
    assert found == (Result("a", "https://a.example/", "s"),)
    assert sent.query == {"key": SECRET, "cx": "my-engine", "q": "x y", "num": "10"}


async def test_parameters_of_a_preset_can_be_changed():
    request = {"parameters": {"num": None, "gl": "de", "tbs": ["{query}"]}, "headers": {"X-Team": "a"}}
    _, (sent,) = await ask(lambda _: as_json(APIS["serper"]), "q", request=request)
    assert json.loads(sent.body) == {"q": "q", "gl": "de", "tbs": ["q"]} and sent.headers["x-team"] == "a"


def test_a_query_with_a_placeholder_stays_as_it_is():
    values = {"query": "what is {key} {count}", "key": SECRET, "count": 3}
    assert fill({"q": "{query}", "n": ["{count}", "n{count}"]}, values) == {"q": "what is {key} {count}", "n": [3, "n3"]}


async def test_a_full_service_is_asked_again_after_the_time_that_it_names():
    replies = [as_json({}, 429, **{"Retry-After": "1"}), as_json(APIS["serper"])]
    began = time.monotonic()
    (found,), asked = await ask(lambda _: replies.pop(0), "q")
    assert list(found) == FOUND and len(asked) == 2 and time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("reply", "message", "count"),
    [
        (Reply("down", 500), "HTTP 500: down .*the last of 3 requests", 3),
        (Reply("<html>not json", 200), "not an answer of this API", 3),
        (Reply('{"organic": NaN}', 200), "not an answer of this API", 3),
        (Reply("[" * 100_000, 200), "not an answer of this API", 3),
        (as_json([1]), "no organic in it; check suite.options.search.request.results", 3),
        (as_json({"organic": {"a": 1}}), "organic is not a list of objects", 3),
        (as_json({"organic": ["a"]}), "organic is not a list of objects", 3),
        (as_json({"error": {"message": f"bad key {SECRET}"}}, 403), r"HTTP 403: bad key \[hidden\]$", 1),
        (Reply("", 302, {"Location": "http://127.0.0.1:1/"}), "HTTP 302", 1),
        (as_json({}, 400), "HTTP 400", 1),
        (Reply(b"x" * (MAX_BYTES + 1)), "more than 8 MiB", 3),
    ],
)
async def test_faults_are_infrastructure_errors(reply, message, count):
    asked = []

    def answer(request):
        asked.append(request)
        return reply

    with pytest.raises(SiteError, match=message) as error:
        await ask(answer, "q")
    assert len(asked) == count and SECRET not in str(error.value)


async def test_a_slow_api_is_given_up():
    with pytest.raises(SiteError, match=r"no complete answer within 0\.2 s"):
        await ask(lambda _: Reply("{}", seconds=1.0), "q", timeout=0.2, retries=0)


async def test_nothing_listens():
    kept = AnswerCache(None, Results)
    async with Search(config("http://127.0.0.1:9/", retries=0), kept) as search:
        with pytest.raises(SiteError, match=r"suite\.options\.search .*ConnectError"):
            await search.search("q")


async def test_a_query_that_the_api_refuses_is_no_infrastructure_error():
    def answer(request):
        return as_json({}, 422) if b"long" in request.body else as_json(APIS["serper"])

    with serving_web(answer) as (host, _):
        async with Search(config(f"http://{host}/"), AnswerCache(None, Results)) as search:
            await search.search("q")
            with pytest.raises(QueryRefused, match="HTTP 422"):
                await search.search("long")


async def test_no_list_means_no_results_once_there_was_one():
    found, _ = await ask(lambda request: as_json(APIS["serper"] if b"good" in request.body else {"credits": 1}), "good", "rare")
    assert list(found[0]) == FOUND and found[1] == ()


async def test_results_are_kept_with_their_date_and_asked_for_once(tmp_path):
    cache, up = tmp_path / "deep" / "cache.sqlite", True

    async def run(host, *queries, **changes):
        kept = AnswerCache(cache, Results)
        async with Search(config(f"http://{host}/", **changes), kept) as search:
            found = [await search.search(query) for query in queries]
        kept.close()
        return found

    with serving_web(lambda _: as_json(APIS["serper"]) if up else Reply("down", 500)) as (host, asked):
        first = await run(host, "q", "q", "other")
        assert len(asked) == 2
        up = False
        assert await run(host, "q", "other") == [first[0], first[2]], "the date, too"
        assert len(asked) == 2 and first[0].date.startswith("20")
        with pytest.raises(SiteError):
            await run(host, "q", count=3)
    assert SECRET not in cache.read_bytes().decode("latin-1")


async def test_equal_queries_at_the_same_time_are_sent_once_and_others_in_turn():
    with serving_web(lambda _: Reply(json.dumps(APIS["serper"]), seconds=0.1)) as (host, asked):
        async with Search(config(f"http://{host}/", requests_per_minute=600), AnswerCache(None, Results)) as search:
            began = time.monotonic()
            await asyncio.gather(*[search.search(query) for query in ("a", "b", "a", "c", "a")])
            assert sorted(json.loads(one.body)["q"] for one in asked) == ["a", "b", "c"]
            assert time.monotonic() - began >= 0.2, "600 a minute is one in 0.1 s"


def test_long_texts_are_cut_and_control_characters_removed():
    tree = {"r": [{"title": "a\x1b[31m" + "b" * 1000, "url": "https://a.example/", "snippet": "\u202ec"}]}
    (one,) = read_results(tree, PRESETS["searxng"].__class__(results="r", title="title", link="url", snippet="snippet", date="d"), 5)
    assert one.title.startswith("a [31mbbb") and len(one.title) == 400 and one.snippet == "c"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"api": "searxng"}, r"search\.request\.url: not set"),
        ({"api": "custom", "request": {"url": "http://a/", "results": "r"}}, r"request\.parameters: none holds \{query\}"),
        ({"api": "custom", "request": {"url": "http://a/", "parameters": {"q": "{query}"}}}, r"request\.results: not set"),
        ({"api": "brave"}, r"search\.api_key_env: not set; name the environment variable that holds the key of brave"),
        ({"api": "brave", "api_key_env": SECRET}, r"api_key_env: is not the name of an environment variable"),
        ({"api": "brave", "api_key_env": "A", "request": {"headers": {"X-Subscription-Token": SECRET}}}, "write {key} here"),
        ({"api": "serper", "api_key_env": "A", "request": {"parameters": {"api_key": SECRET}}}, "write {key} here"),
        ({"api": "serper", "api_key_env": "A", "request": {"url": f"https://u:{SECRET}@a/"}}, r"request\.url: not an address"),
        ({"api": "serper", "api_key_env": "A", "request": {"url": f"https://a/?key={SECRET}"}}, r"request\.url: not an address"),
        ({"api": "serper", "api_key_env": "A", "request": {"headers": {"X-Depth": 3}}}, "not a text; put it in quotes"),
        ({"api": "bing"}, "'bing'"),
        ({"count": 50}, "50"),
    ],
)
def test_configs_that_cannot_work_are_refused_without_showing_a_key(tree, message):
    with pytest.raises(UserError, match=message) as error:
        build(SearchConfig, tree, prefix="suite.options.search.")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(("value", "message"), [(None, "is not set"), (" ", "is not set"), ("kéy", "contains characters")])
async def test_a_missing_key_is_named(monkeypatch, value, message):
    monkeypatch.setenv("TEST_SEARCH_KEY", value) if value else monkeypatch.delenv("TEST_SEARCH_KEY")
    with pytest.raises(ConfigError, match=f"TEST_SEARCH_KEY {message}"):
        async with Search(config(), AnswerCache(None, Results)):
            pass
