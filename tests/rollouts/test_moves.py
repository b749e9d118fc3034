"""Where a move of the policy leads to what is no page, it sees what people see, and goes on; a site that is down is another thing."""

import dataclasses
import socket
import threading

import pytest
import pytest_asyncio

from rollouts.errors import SiteError
from rollouts.web.browser import BrowserPool
from rollouts.web.neterrors import BROKEN_OFF, DOWN, WORDS
from tests.rollouts.sites import QUICK, Look, Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool():
    async with BrowserPool(QUICK) as browsers:
        yield browsers


def answer(status, *headers, body=b"", length=True):
    lines = [f"HTTP/1.1 {status} x", "Content-Type: text/html", "Connection: close", *headers]
    return "\r\n".join(lines + [f"Content-Length: {len(body)}"] * length).encode() + b"\r\n\r\n" + body


class Raw:
    """A site that answers each path with these bytes, well formed or not; `""` is a page with a link to each."""

    def __init__(self, answers, links=()):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.socket.getsockname()[1]}"
        links = {**{name: f"/{name}" for name in answers}, **{name: to.replace("HOST", self.host) for name, to in dict(links).items()}}
        page = "".join(f'<a href="{to}">{name}</a> ' for name, to in links.items())
        self.answers = {"": answer(200, body=page.encode()), **answers}
        self.asked = []

    def __enter__(self):
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection:
            try:
                request = connection.recv(65536)
                if request[:1] == b"\x16":  # TLS
                    return connection.sendall(b"HTTP/1.1 400 x\r\n\r\n")
                path = request.split(b" ")[1].decode()[1:]
                self.asked.append(path)
                connection.sendall(self.answers.get(path, answer(404)))
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)
            except (OSError, IndexError):
                return


ERRORS = {
    "ERR_CONTENT_DECODING_FAILED": answer(200, "Content-Encoding: gzip", body=b"<p>plain"),
    "ERR_CONTENT_LENGTH_MISMATCH": answer(200, "Content-Length: 9999", body=b"<p>half", length=False),
    "ERR_EMPTY_RESPONSE": b"",
    "ERR_INCOMPLETE_CHUNKED_ENCODING": answer(200, "Transfer-Encoding: chunked", body=b"5\r\n<p>ab\r\n9", length=False),
    "ERR_INVALID_HTTP_RESPONSE": b"neither this nor that\r\n\r\n",
    "ERR_INVALID_REDIRECT": answer(302, "Location: http://[::1"),
    "ERR_INVALID_RESPONSE": answer(500, "Content-Disposition: attachment", body=b"data"),
    "ERR_RESPONSE_HEADERS_MULTIPLE_CONTENT_DISPOSITION": answer(200, "Content-Disposition: inline", "Content-Disposition: attachment"),
    "ERR_RESPONSE_HEADERS_MULTIPLE_CONTENT_LENGTH": answer(200, "Content-Length: 3", body=b"abcd"),
    "ERR_RESPONSE_HEADERS_MULTIPLE_LOCATION": answer(302, "Location: /a", "Location: /b"),
    "ERR_RESPONSE_HEADERS_TOO_BIG": answer(200, "X: " + "a" * 400_000),
    "ERR_TOO_MANY_REDIRECTS": answer(302, "Location: /ERR_TOO_MANY_REDIRECTS"),
    "ERR_UNEXPECTED_PROXY_AUTH": answer(407, "Proxy-Authenticate: Basic realm=x"),
    "ERR_UNSAFE_REDIRECT": answer(302, "Location: data:text/html,x"),
}
"""What the installed browser calls each answer."""
LINKS = {
    "ERR_FILE_NOT_FOUND": "blob:http://HOST/gone",
    "ERR_SSL_PROTOCOL_ERROR": "https://HOST/",
    "ERR_UNKNOWN_URL_SCHEME": "ws://HOST/",
}


@pytest.mark.parametrize("code", [*ERRORS, *LINKS])
async def test_what_can_not_be_shown_is_named_and_left_again(pool, code):
    with Raw(ERRORS, LINKS) as site:
        async with Look(pool, site) as look:
            assert await look.do("Click", code) is None
            whole = (
                "" if code in ("ERR_CONTENT_DECODING_FAILED", "ERR_CONTENT_LENGTH_MISMATCH", "ERR_INCOMPLETE_CHUNKED_ENCODING") else None
            )
            begins = "this page can't be shown" if whole is None else "this page is not whole"
            assert look.lines[0] == f"[{begins}: {WORDS[code]} ({code})]"
            assert look.seen.url.endswith(code) or code in LINKS
            assert await look.do("Click", code) == f'no element "{code}" on this page'
            assert await look.do("Go Backward") is None
            assert len(look.seen.elements) == len(ERRORS) + len(LINKS)


async def test_every_error_that_is_described_is_one_that_the_installed_browser_gives(pool):
    assert set(WORDS) == {*ERRORS, *LINKS, "ERR_CACHE_MISS"}
    assert not DOWN & (BROKEN_OFF | set(WORDS))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("404", "[the site answered HTTP 404 Not Found]"),
        ("401", "[the site answered HTTP 401 Unauthorized]"),
        ("500", "[the site answered HTTP 500 Internal Server Error]"),
        ("503 text", "[the site answered HTTP 503 Service Unavailable]|busy"),
        ("404 text", "no such thing"),
        ("302", "[the site answered HTTP 302 Found]"),
        ("999", "[the site answered HTTP 999]"),
    ],
)
async def test_a_status_is_named_where_the_page_does_not_say_enough(pool, path, line):
    bodies = {"503 text": b"busy", "404 text": b"no such thing"}
    headers = {"401": ["WWW-Authenticate: Basic realm=x"]}
    name = path.replace(" ", "-")
    with Raw({name: answer(path.split()[0], *headers.get(path, ()), body=bodies.get(path, b""))}) as site:
        async with Look(pool, site) as look:
            assert await look.do("Click", name) is None
            assert look.lines == line.split("|")
            assert look.seen.status == int(path.split()[0])
            assert await look.do("Go Backward") is None
            assert look.seen.elements


@pytest.mark.parametrize("how", ["Go Backward", "Go Forward", "outside"])
async def test_a_page_that_was_the_answer_to_a_form_can_not_be_come_back_to(pool, how):
    """RFC 9111 (section 5.2.2.5): an answer with no-store is kept nowhere; browsers ask before they send the form again."""
    form = b"<form method=post action=/found><button>search</button></form>"
    with Raw({}) as site:
        away = b"<a href=http://127.0.0.1:1/>outside</a>"
        site.answers |= {
            "": answer(200, body=form),
            "found": answer(200, "Cache-Control: no-store", body=b"<a href=/one>one</a>" + away),
            "one": answer(200, body=b"<p>the first"),
        }
        async with Look(pool, site) as look:
            assert await look.do("Click", "search") is None
            if how == "outside":
                assert "outside of the task's sites" in await look.do("Click", "outside")
            elif how == "Go Backward":
                assert await look.do("Click", "one") is None
                assert await look.do("Go Backward") is None
            else:
                assert await look.do("Go Backward") is None
                assert look.seen.element("search")
                assert await look.do("Go Forward") is None
            assert look.lines == [f"[this page can't be shown: {WORDS['ERR_CACHE_MISS']} (ERR_CACHE_MISS)]"]
            assert look.seen.url == f"http://{site.host}/found"
            assert await look.do("Wait") is None and await look.do("Scroll Down") is None and await look.do("Press Enter") is None
            assert look.lines == [f"[this page can't be shown: {WORDS['ERR_CACHE_MISS']} (ERR_CACHE_MISS)]"]
            assert await look.do("Go Backward") is None
            assert look.seen.element("search")
            assert await look.do("Go Backward") == "there is no earlier page"
        assert site.asked.count("found") == 1, "the form was sent once"


async def test_pages_that_lead_to_each_other_for_ever_are_left_again():
    async with BrowserPool(dataclasses.replace(QUICK, contexts=1, load_seconds=2)) as pool:
        turns = {f"/{a}": f"<script>location = '/{b}'</script>" for a, b in (("left", "right"), ("right", "left"))}
        with Site({"/": "<a href=/left>round</a>", **turns}) as site:
            async with Look(pool, site) as look:
                assert await look.do("Click", "round") is None
                assert look.lines == ["[no page has stayed in the last 2 s: each leads to another]"]
                assert await look.do("Go Backward") is None
                assert look.seen.element("round")


async def test_what_is_offered_for_download_is_said(pool):
    script = (
        "const a = document.createElement('a'); a.href = window.URL.createObjectURL(new Blob(['a,b'])); a.download = 'x.csv'; a.click()"
    )
    page = f"""<a href=/file>by header</a> <a href=/x download=b.txt><b>by attribute</b></a> <button onclick="{script}">export</button>
        <a href=/file target=_blank>in a tab</a>"""
    with Site({"/": page}) as site:
        async with Look(pool, site) as look:
            for handle, name in (("by header", "a.bin"), ("by attribute", "b.txt"), ("export", "x.csv"), ("in a tab", "a.bin")):
                assert await look.do("Click", handle) is None
                if handle == "export" and len(look.lines) == 1:  # Nothing announces what a script saves.
                    assert await look.do("Wait") is None
                assert look.lines[0] == f'[the page offered the file "{name}"; it was not saved]', handle
            assert await look.do("Switch Tab", None, "0") is None
            assert look.seen.element("export")


async def test_a_page_that_objects_to_being_left_says_so(pool):
    page = """<textarea aria-label=text></textarea><a href=/next>next</a><script>
        addEventListener('beforeunload', (event) => { if (document.querySelector('textarea').value) event.preventDefault() })</script>"""
    notice = "[the page asked whether to leave it though changes may not be saved; it was left]"
    with Site({"/": page, "/next": "<p>there"}) as site:
        async with Look(pool, site) as look:
            assert await look.do("Click", "next") is None
            assert look.lines == ["there"]
            assert await look.do("Go Backward") is None
            assert await look.do("Type", "text", "draft") is None
            assert await look.do("Click", "next") is None
            assert look.lines == [notice, "there"]


async def test_a_site_that_is_down_is_no_answer_to_a_move(pool):
    """Refused, broken off by a server that died of it, answered with 503 from the start."""
    for name, said in (("refused", None), ("died", b""), ("half", answer(200, "Content-Length: 99", body=b"<p>half", length=False))):
        with Raw({"next": said or b""}) as site:
            look = Look(pool, site)
            await look.__aenter__()
            if name == "refused":
                site.socket.shutdown(socket.SHUT_RDWR)
                site.socket.close()
            else:
                serve = site._answer

                def dying(connection, site=site, serve=serve):
                    site.socket.shutdown(socket.SHUT_RDWR)
                    site.socket.close()
                    serve(connection)

                site._answer = dying
            with pytest.raises(SiteError, match="can't be reached"):
                await look.do("Click", "next")
            await pool.close(look.context)
    with Site({}) as site, pytest.raises(SiteError, match="/status/503 answered HTTP 503"):
        await Look(pool, site, path="/status/503").__aenter__()
