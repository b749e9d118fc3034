"""Pages that a real Chromium fetches: their scripts run, and reach nothing private."""

import asyncio
import socket
import time

import pytest
import pytest_asyncio

from mira_jax.config import build
from mira_jax.errors import UserError
from rollouts.llm.cache import AnswerCache
from rollouts.suites.web_seeking.fetch import FetchConfig, Fetched, Fetcher
from rollouts.web.fence import PUBLIC, Fence
from tests.suites.web_server import Reply, serving_web

pytestmark = pytest.mark.asyncio(loop_scope="module")
BROWSER = {"contexts": 2, "launch_seconds": 120, "call_seconds": 60, "settle_seconds": 1, "sandbox": False}


class Web:
    """The replies of the page's server by path, and the requests to another server of this machine, which is not allowed."""

    def __init__(self):
        self.pages = {}
        self.host = self.inner = ""
        self.asked, self.reached = [], []

    def answer(self, request):
        reply = self.pages.get(request.path, Reply("no", 404))
        return reply.replace("INNER", self.inner) if isinstance(reply, str) else reply


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served():
    web = Web()
    with (
        serving_web(lambda request: web.answer(request)) as (web.host, web.asked),
        serving_web(lambda _: "secret") as (web.inner, web.reached),
    ):
        config = build(FetchConfig, {"browser": BROWSER, "allow_hosts": [web.host], "retries": 0, "max_bytes": 100_000, "timeout": 30.0})
        async with Fetcher(config, AnswerCache(None, Fetched)) as fetcher:
            yield web, fetcher


async def fetch(served, name, reply):
    web, fetcher = served
    web.pages[f"/{name}"] = reply
    return await fetcher.fetch(f"http://{web.host}/{name}")


async def test_the_text_that_scripts_make_is_read(served):
    page = """<title>a</title><p>before</p><script>
        setTimeout(() => document.body.insertAdjacentHTML("beforeend", "<p>made <a href='/next'>later</a></p>"), 100)</script>"""
    found = await fetch(served, "scripted", page)
    assert (found.title, found.paragraphs) == ("a", ("before", "made later")) and found.links == (
        ("later", f"http://{served[0].host}/next"),
    )
    web, _ = served
    async with Fetcher(build(FetchConfig, {"allow_hosts": [web.host]}), AnswerCache(None, Fetched)) as plain:
        assert (await plain.fetch(f"http://{web.host}/scripted")).paragraphs == ("before",)


HOSTILE = {
    "requests": """<p>shown</p><img src="http://INNER/img"><iframe src="http://INNER/frame"></iframe><script>
        fetch("http://INNER/fetch", {mode: "no-cors"}).catch(() => 0); new WebSocket("ws://INNER/socket");
        navigator.sendBeacon("http://INNER/beacon", "x"); window.open("http://INNER/popup")</script>""",
    "names": """<p>shown</p><script>
        for (const host of ["localhost", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
            fetch("http://" + host + ":" + "INNER".split(":")[1] + "/", {mode: "no-cors"}).catch(() => 0)</script>""",
    "moves": '<p>shown</p><script>setTimeout(() => { location = "http://INNER/moved" }, 50)</script>',
    "file": '<p>shown</p><iframe src="file:///etc/passwd"></iframe>',
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_the_scripts_of_a_page_reach_nothing_private(served, name):
    found = await fetch(served, name, HOSTILE[name])
    assert not served[0].reached
    assert "root:" not in str(found.paragraphs) and "secret" not in str(found.paragraphs)


async def test_these_scripts_do_try(served):
    """The same page reaches the other server if that is allowed."""
    web, _ = served
    config = build(FetchConfig, {"browser": BROWSER, "allow_hosts": [web.host, web.inner], "retries": 0})
    web.pages["/try"] = HOSTILE["requests"]
    async with Fetcher(config, AnswerCache(None, Fetched)) as fetcher:
        await fetcher.fetch(f"http://{web.host}/try")
    assert {"/img", "/frame", "/fetch", "/socket"} <= {request.path for request in web.reached}
    web.reached.clear()


@pytest.mark.parametrize("status", [301, 307])
async def test_a_redirect_to_a_private_address_is_refused(served, status):
    found = await fetch(served, f"redirect{status}", Reply("", status, {"Location": f"http://{served[0].inner}/"}))
    assert found.problem and not found.paragraphs and not served[0].reached


async def test_a_private_address_is_refused(served):
    web, fetcher = served
    assert (await fetcher.fetch(f"http://{web.inner}/")).problem == "its host is not on the public internet" and not web.reached
    assert (await fetcher.fetch("file:///etc/passwd")).problem.startswith("only addresses that begin with http")


@pytest.mark.parametrize(
    ("name", "reply", "problem"),
    [
        ("missing", Reply("gone", 404), "it answered HTTP 404"),
        ("busy", Reply("", 503), "it answered HTTP 503"),
        ("file", Reply(b"x", headers={"Content-Type": "application/zip", "Content-Disposition": "attachment"}), "it is no page of text"),
        ("large", "<p>a</p><script>document.body.append('x'.repeat(200000))</script>", "it is larger than 100,000 bytes"),
        ("empty", "<script>document.title = 'x'</script>", "it has no text"),
    ],
)
async def test_a_page_that_cannot_be_read_says_why(served, name, reply, problem):
    found = await fetch(served, f"problem-{name}", reply)
    assert found.problem == problem and not found.paragraphs


async def test_a_page_that_never_loads_is_given_up(served):
    web, _ = served
    web.pages["/slow"] = Reply("<p>late</p>", seconds=5)
    config = build(FetchConfig, {"browser": BROWSER, "allow_hosts": [web.host], "retries": 0, "timeout": 1.0})
    async with Fetcher(config, AnswerCache(None, Fetched)) as fetcher:
        began = time.monotonic()
        assert (await fetcher.fetch(f"http://{web.host}/slow")).problem == "it did not answer within 1 seconds"
        assert time.monotonic() - began < 4


async def test_the_fence_of_the_public_internet(served, monkeypatch):
    """An allowed host and port allows nothing else of that host, and a name is judged by the addresses that it has now."""
    web, _ = served
    real, fence = socket.getaddrinfo, Fence()
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **names: real(host.replace("rebound.example", "127.0.0.1"), *rest, **names)
    )
    fence.allow((PUBLIC, web.host))

    async def connects(host, port):
        try:
            await fence.connect(asyncio.Protocol(), host, port)
        except OSError:
            return False
        return True

    port, inner = (int(host.rpartition(":")[2]) for host in (web.host, web.inner))
    assert await connects("127.0.0.1", port)
    for host in ("127.0.0.1", "localhost", "rebound.example", "[::1]", "[::ffff:127.0.0.1]"):
        assert not await connects(host, inner), host
    assert fence.allows("8.8.8.8", 443) and not web.reached
    fence.allow((web.host,))
    assert not fence.allows("8.8.8.8", 443)


@pytest.mark.parametrize(
    ("tree", "message"),
    [({"browser": {"driver": "asgi"}}, r"fetch\.browser\.driver: asgi opens no page"), ({"allow_hosts": ["*"]}, "is not host:port"),
     ({"allow_hosts": ["intranet"]}, "is not host:port")],
)  # fmt: skip
async def test_configs_that_cannot_work_are_refused(tree, message):
    with pytest.raises(UserError, match=message):
        build(FetchConfig, tree, prefix="suite.options.fetch.")
