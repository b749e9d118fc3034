"""Pages over HTTP: what is refused, by a real local server that plays hostile sites, and what is read of a page."""

import ipaddress
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_jax.config import build
from rollouts.errors import SiteError
from rollouts.llm.cache import AnswerCache
from rollouts.suites.web_seeking.fetch import DEAD_HOSTS, FetchConfig, Fetched, Fetcher
from rollouts.web import page_text as text
from rollouts.web.addresses import Refused, Unreachable, check, is_public
from tests.suites.web_server import Reply, serving_web

PRIVATE = [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%lo", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1", "2001:0:7f00:1::",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "64:ff9b::808:808"]


def fetcher(*allowed, cache=None, **changes):
    return Fetcher(build(FetchConfig, {"allow_hosts": list(allowed), "timeout": 5.0, **changes}), AnswerCache(cache, Fetched))


async def fetch(answer, path="/", **changes):
    with serving_web(answer) as (host, asked):
        return await fetcher(host, **changes).fetch(f"http://{host}{path}"), asked


@pytest.mark.parametrize("ip", PRIVATE)
def test_private_addresses(ip):
    assert not is_public(ip)


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses(ip):
    assert is_public(ip)


@given(st.ip_addresses(v=4))
@settings(max_examples=300, deadline=None)
def test_an_address_inside_of_another_is_judged_by_both(ip):
    """By the registry of the standard library for version 4, whatever way the address is written in version 6."""
    wanted = ip.is_global and not ip.is_multicast
    assert is_public(str(ip)) == wanted
    assert is_public(f"64:ff9b::{int(ip) >> 16:x}:{int(ip) & 0xFFFF:x}") == wanted
    if not wanted:
        assert not is_public(str(ipaddress.IPv6Address((0xFFFF << 32) | int(ip))))
        assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) | (int(ip) << 80))))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0", "①②⑦.0.0.1"],
)
async def test_this_machine_is_refused_in_every_notation(host):
    with serving_web(lambda _: "secret") as (served, asked):
        port = served.rpartition(":")[2]
        found = await fetcher(retries=0).fetch(f"http://{host}:{port}/")
        assert found.problem in ("its host is not on the public internet", "its host does not exist") and not found.paragraphs
        assert not asked


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.org/", "gopher://example.org/", "javascript:alert(1)", "data:text/html,x", "/etc/passwd", "",
        "http://", "http://user:secret@example.org/", "http://[::1", "http://a:99999/", "http://" + "a" * 300 + "/", "http://a\x00b/",
        "http://" + "ü" * 300 + "/",
    ],
)  # fmt: skip
async def test_other_addresses_than_of_pages_are_refused(url):
    found = await fetcher(retries=0).fetch(url)
    assert found.problem and not found.paragraphs


async def test_a_name_with_one_private_address_is_refused_and_the_checked_address_is_connected_to(monkeypatch):
    answers = {"mixed.example": ["8.8.8.8", "10.0.0.1"], "good.example": ["8.8.4.4", "8.8.8.8"]}

    def resolve(host, port, *args, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answers[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(Refused):
        await check("http://mixed.example/")
    address = await check("https://good.example:8443/a?b#c")
    assert (address.origin, address.host_header, address.host) == ("https://8.8.4.4:8443", "good.example:8443", "good.example")
    assert (await check("http://GOOD.example/")).host_header == "good.example"


async def test_a_name_that_resolves_to_this_machine_is_refused_and_connected_to_only_if_allowed(monkeypatch):
    """The name has no other resolution: the connection goes to the address that was checked, with the name as Host."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **names: real("127.0.0.1" if host == "site.example" else host, *rest, **names)
    )
    with serving_web(lambda _: "<p>inside</p>") as (host, asked):
        port = host.rpartition(":")[2]
        assert (await fetcher().fetch(f"http://site.example:{port}/")).problem == "its host is not on the public internet"
        assert not asked
        found = await fetcher(f"site.example:{port}").fetch(f"http://site.example:{port}/x?y=1")
        assert found.paragraphs == ("inside",) and asked[0].headers["host"] == f"site.example:{port}" and asked[0].query == {"y": "1"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/secret", "//localhost:{port}/secret", "file:///etc/passwd", "http://[::1"])
async def test_a_redirect_to_a_private_address_is_refused(status, target):
    with serving_web(lambda _: "secret") as (inner, asked):
        location = target.format(port=inner.rpartition(":")[2])
        found, _ = await fetch(lambda _: Reply("", status, {"Location": location}))
        assert found.problem and not found.paragraphs and not asked


async def test_redirects_are_followed_up_to_a_number():
    def answer(request):
        left = int(request.query["left"])
        return Reply("", 302, {"Location": f"/?left={left - 1}"}) if left else "<title>end</title><p>here</p>"

    found, asked = await fetch(answer, "/?left=10")
    assert (found.title, found.paragraphs) == ("end", ("here",)) and found.url.endswith("left=0") and len(asked) == 11
    found, _ = await fetch(answer, "/?left=11")
    assert found.problem == "it redirects more than 10 times"


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply("x" * 2_000_001), "it is larger than 2,000,000 bytes"),
        (Reply(b"%PDF-1.7", headers={"Content-Type": "application/pdf"}), "it is a PDF, which is not read"),
        (Reply(b"%PDF-1.7"), "it is a PDF, which is not read"),
        (Reply(b"\x89PNG", headers={"Content-Type": "image/png"}), "it is no page of text"),
        (Reply(b"\x00\x01\x02", headers={"Content-Type": None}), "it is no page of text"),
        (Reply("no", 404), "it answered HTTP 404"),
        (Reply("no", 403), "it answered HTTP 403"),
        (Reply("", 204), "it answered HTTP 204"),
        (Reply("<script>render()</script>"), "it has no text without its scripts"),
        (Reply(""), "it has no text without its scripts"),
    ],
)
async def test_a_page_that_cannot_be_read_says_why(reply, problem, tmp_path):
    cache = tmp_path / "cache"
    found, asked = await fetch(lambda _: reply, max_bytes=2_000_000, cache=cache)
    assert found.problem == problem and not found.paragraphs and len(asked) == 1
    pages = AnswerCache(cache, Fetched)
    assert pages._database.execute("SELECT count(*) FROM answers").fetchone() == (1,), "a fact about the page is kept"
    pages.close()


async def test_a_page_of_ten_megabytes_is_not_read_to_its_end():
    began = time.monotonic()
    found, _ = await fetch(lambda _: Reply(b"<p>" + b"a" * 10_000_000))
    assert found.problem == "it is larger than 5,000,000 bytes" and time.monotonic() - began < 5


async def test_a_compressed_page_is_limited_by_its_real_size():
    import gzip

    body = gzip.compress(b"a" * 50_000_000, 9)
    found, _ = await fetch(lambda _: Reply(body, headers={"Content-Encoding": "gzip"}))
    assert found.problem == "it is larger than 5,000,000 bytes"


async def test_transient_failures_are_tried_again_and_not_kept():
    replies = [Reply("", 503), "<p>well</p>"]
    found, asked = await fetch(lambda _: replies.pop(0))
    assert found.paragraphs == ("well",) and len(asked) == 2
    with serving_web(lambda _: Reply("", 503)) as (host, asked):
        one = fetcher(host)
        assert [(await one.fetch(f"http://{host}/")).problem for _ in range(2)] == ["it answered HTTP 503"] * 2
        assert len(asked) == 4


async def test_a_slow_page_is_given_up():
    found, _ = await fetch(lambda _: Reply("<p>late</p>", seconds=1.0), timeout=0.2, retries=0)
    assert found.problem == "it did not answer within 0.2 seconds"


async def test_pages_are_fetched_once(tmp_path):
    with serving_web(lambda _: "<p>kept</p>") as (host, asked):
        first = await fetcher(host, cache=tmp_path / "c").fetch(f"http://{host}/")
        second = await fetcher(host, cache=tmp_path / "c").fetch(f"http://{host}/")
    assert first == second and len(asked) == 1 and first.date.startswith("20")


async def test_a_network_that_is_down_is_an_infrastructure_error():
    closed = []
    for _ in range(DEAD_HOSTS + 1):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            closed.append(f"127.0.0.1:{one.getsockname()[1]}")
    with serving_web(lambda _: "<p>up</p>") as (host, _):
        one = fetcher(host, *closed, retries=0)
        for place in closed[: DEAD_HOSTS - 1]:
            for _ in range(2):
                assert (await one.fetch(f"http://{place}/")).problem == "its host cannot be reached"
        assert (await one.fetch(f"http://{host}/")).paragraphs == ("up",), "one page that answers shows that the network is up"
        for place in closed[: DEAD_HOSTS - 1]:
            await one.fetch(f"http://{place}/")
        with pytest.raises(SiteError, match="none of the last 5 hosts could be reached; check the network"):
            await one.fetch(f"http://{closed[-1]}/")


async def test_a_resolver_that_does_not_answer_is_not_a_host_that_does_not_exist(monkeypatch):
    def fail(number):
        def resolve(*args, **kwargs):
            raise socket.gaierror(number, "no")

        return resolve

    monkeypatch.setattr(socket, "getaddrinfo", fail(socket.EAI_NONAME))
    with pytest.raises(Refused, match="does not exist"):
        await check("http://gone.example/")
    monkeypatch.setattr(socket, "getaddrinfo", fail(socket.EAI_AGAIN))
    with pytest.raises(Unreachable):
        await check("http://gone.example/")


# Text

PAGE = """<!doctype html><html><head><title> A  page </title><style>p{}</style></head><body>
<nav><a href="/menu">menu</a></nav><header><h1>Head</h1></header>
<p>One <b>bold</b>
line.</p><div>Two<br>three</div><ul><li>first</li><li>second <a href="b?x=1#part">link  text</a></li></ul>
<table><tr><th>name</th><td>value</td></tr></table><form><input value="q"><p>in a form</p></form>
<script>document.write("no")</script><noscript>no</noscript><p hidden>kept</p><a href="javascript:x()">script</a>
<a href="#top">top</a><a href="https://c.example/"></a><a href="b?x=1">again</a><!-- comment --><footer>foot</footer></body></html>"""


def test_the_text_and_the_links_of_a_page():
    found = text.read_html(PAGE, "http://a.example/dir/page")
    assert found.title == "A page"
    assert found.paragraphs == (
        "Head", "One bold line.", "Two", "three", "- first", "- second link text", "name | value", "kept", "script topagain",
    )  # fmt: skip
    assert found.links == (text.Link("link text", "http://a.example/dir/b?x=1"),)


def test_the_main_element_is_preferred():
    html = "<p>around</p><main><p>inside</p></main><p>below</p>"
    assert text.read_html(html, "http://a/").paragraphs == ("inside",)
    assert text.read_html("<main></main><p>around</p>", "http://a/").paragraphs == ("around",)
    assert text.read_html("<main>a</main><main>b</main>", "http://a/").paragraphs == ("a", "b")


def test_long_paragraphs_are_split_and_long_pages_cut():
    found = text.read_html(f"<p>{'word ' * 500}</p><p>{'x' * 1200}</p>", "http://a/")
    assert all(len(one) <= text.LONGEST for one in found.paragraphs)
    assert " ".join(found.paragraphs).replace(" ", "") == "word" * 500 + "x" * 1200
    long = text.read_plain("\n".join(["y" * 400] * 2000), "t")
    assert sum(map(len, long.paragraphs[:-1])) == text.MAX_CHARACTERS and long.paragraphs[-1] == text.CUT


@pytest.mark.parametrize("html", ["<div>" * 4_000 + "x", "<a href=x>y" * 5_000, "<table>" * 5_000 + "x", "<b><i>" * 1_000 + "x"])
def test_deep_markup_takes_no_recursion(html):
    assert text.read_html(html, "http://a/").paragraphs


async def test_markup_that_takes_too_much_time_is_given_up(monkeypatch):
    monkeypatch.setattr(text, "__name__", "tests.suites.small_page_text")
    found, asked = await fetch(lambda _: "<div>" * 200_000)
    assert found.problem == "its markup is too complex to be read" and len(asked) == 1


def test_only_a_number_of_nodes_is_read():
    found = text.read_html("<i>x</i>" * text.MAX_NODES, "http://a/")
    assert found.paragraphs[-1] == text.CUT and sum(map(len, found.paragraphs)) > text.MAX_NODES / 4


async def test_the_process_that_reads_pages_has_no_keys(monkeypatch, tmp_path):
    monkeypatch.setenv("SEARCH_KEY", "secret")
    monkeypatch.setattr(text, "__name__", "tests.suites.page_text_environment")
    found, _ = await fetch(lambda _: "<p>x</p>")
    assert set(found.paragraphs) <= {"PYTHONPATH", "PATH", "LANG", "LC_CTYPE"} and "PYTHONPATH" in found.paragraphs


@pytest.mark.parametrize(
    ("data", "header", "wanted"),
    [
        ("é灯".encode(), "text/html", "é灯"),
        ("灯塔".encode("gb18030"), "text/html; charset=GB2312", "灯塔"),
        (b"<meta charset='gbk'>" + "灯塔".encode("gbk"), "text/html", "<meta charset='gbk'>灯塔"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=big5">' + "燈".encode("big5"), "", None),
        ("plain €".encode("cp1252"), "text/html; charset=iso-8859-1", "plain €"),
        ("é".encode("utf-16"), "text/plain", "é"),
        (b"\xef\xbb\xbfa", "text/html; charset=latin-9", "a"),
        (b"a\xff", "text/html", "a\ufffd"),
        (b"abc", "text/html; charset=rot13", "abc"),
        (b"xn--abc", "text/html; charset=idna", "xn--abc"),
        (b"abc", "text/html; charset=unicode_escape", "abc"),
        (b"abc", "text/html; charset=iso-8859-99", "abc"),
    ],
)
def test_encodings(data, header, wanted):
    found = text.decode(data, header)
    assert found == wanted if wanted is not None else found.endswith("燈")


@given(st.text(max_size=300))
@settings(max_examples=50, deadline=None)
def test_any_text_is_read(html):
    found = text.read_html(html, "http://a.example/")
    assert all(one.isprintable() and one == one.strip() and one for one in found.paragraphs)
