"""Nothing but the task's sites is reached, whatever on a page asks: counted at servers outside, by connection."""

import asyncio
import contextlib
import time

import pytest
import pytest_asyncio
from playwright.async_api import Error

from rollouts.web.browser import BrowserPool, resolver_rules
from rollouts.web.fence import Fence, is_inside
from tests.rollouts.sites import QUICK, Look, Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


PATIENCE = 20
"""How often to wait for what a page does by itself."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool():
    async with BrowserPool(QUICK) as browsers:
        yield browsers


class Outside:
    """A server that no task needs. `seen` lists what came: the path that was asked for, or that there was a connection."""

    def __init__(self):
        self.seen: list[str] = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.other = await asyncio.start_server(self._serve, "127.0.0.2", self.port)
        loop = asyncio.get_running_loop()
        self.datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self.seen), ("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *_):
        self.server.close()
        self.other.close()
        self.datagrams.close()

    async def _serve(self, reader, writer):
        self.seen.append("connection")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.seen.append(head.split(b" ")[1].decode().split("?")[0].removeprefix("/"))
            writer.write(b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, seen):
        self.seen = seen

    def datagram_received(self, data, _):
        self.seen.append("datagram")


# What asks for an address as soon as the page is there. URL is the outside server's address, with the way's name as the path.
MARKUP = {
    "picture": "<img src=URL>",
    "script": "<script src=URL></script>",
    "style": "<link rel=stylesheet href=URL>",
    "import": "<style>@import 'URL'</style>",
    "font": "<style>@font-face { font-family: f; src: url(URL) } p { font-family: f }</style><p>text",
    "film": "<video src=URL preload=auto></video>",
    "object": "<object data=URL></object>",
    "frame": "<iframe src=URL></iframe>",
    "prefetch": "<link rel=prefetch href=URL>",
    "preload": "<link rel=preload as=fetch crossorigin href=URL>",
    "module": "<link rel=modulepreload href=URL>",
    "refresh": "<iframe srcdoc='<meta http-equiv=refresh content=\"0;url=URL\">'></iframe>",
    "frame-form": "<iframe name=f></iframe><form id=ff action=URL method=post target=f></form><script>ff.submit()</script>",
    **{f"moved-{code}": f"<img src=/to{code}/HOST/moved-{code}>" for code in (301, 302, 303, 307, 308)},
    "moved-frame": "<iframe src=/to/HOST/moved-frame></iframe>",
    "moved-twice": "<iframe src=/to/SITE/to307/HOST/moved-twice></iframe>",
    "moved-script": "<script src=/to308/HOST/moved-script></script>",
    "moved-form": "<iframe name=g></iframe><form id=gg action=/to307/HOST/moved-form method=post target=g></form>"
    "<script>gg.submit()</script>",
}  # fmt: skip


SCRIPTED = {
    "fetch": "fetch('URL')",
    "fetch-opaque": "fetch('URL', {mode: 'no-cors'})",
    "fetch-moved": "fetch('/to307/HOST/fetch-moved', {method: 'POST', body: 'x'})",
    "request": "new Promise(done => { let x = new XMLHttpRequest(); x.open('PUT', 'URL'); x.onloadend = done; x.send('x') })",
    "request-sync": "new Promise(done => { let x = new XMLHttpRequest(); x.open('GET', 'URL', false); x.send(); done() })",
    "keepalive": "fetch('URL', {keepalive: true, mode: 'no-cors'})",
    "beacon": "navigator.sendBeacon('URL', 'x')",
    "events": "new Promise(done => { let e = new EventSource('URL'); e.onerror = done })",
    "socket": "new Promise(done => { let s = new WebSocket('ws://HOST/socket'); s.onclose = done })",
    "dynamic-import": "import('URL')",
    "worker-fetch": "work(`fetch('URL').finally(() => postMessage(1))`)",
    "worker-script": "work(`try { importScripts('URL') } finally { postMessage(1) }`)",
    "worker-socket": "work(`new WebSocket('ws://HOST/worker-socket').onclose = () => postMessage(1)`)",
    "service-worker": "navigator.serviceWorker.register('/worker.js')",
}


SILENT = """<link rel=preconnect href=http://HOST><link rel=dns-prefetch href=http://HOST>
<script type=speculationrules>{"prefetch": [{"urls": ["http://HOST/speculated"], "eagerness": "immediate"}],
 "prerender": [{"urls": ["http://HOST/prerendered", "/to/HOST/prerender-moved"], "eagerness": "immediate"}]}</script>
<script>
  for (const way of ['', '?transport=tcp']) {
    const peer = new RTCPeerConnection({iceServers: [{urls: ['turn:HOST' + way], username: 'u', credential: 'c'}, {urls: 'stun:HOST'}]});
    peer.createDataChannel('d'); peer.createOffer().then(offer => peer.setLocalDescription(offer));
  }
  try { new WebTransport('https://HOST/transport').closed.catch(() => 0); } catch {}
  for (const place of ['localhost', '127.0.0.2', '0.0.0.0', '[::ffff:127.0.0.1]', '2130706433', 'outside.test'])
    fetch('http://' + place + ':PORT/at-' + place, {mode: 'no-cors'}).catch(() => 0);
</script>"""
"""Ways that give no sign of themselves, or that Chromium may not take."""


PAGE = """<title>begun</title>PARTS<script>
const work = (code) => new Promise(done => {
  const w = new Worker(URL.createObjectURL(new Blob([code])));
  w.onmessage = w.onerror = done;
});
Promise.allSettled([SCRIPTS]).then(() => document.title = 'over');
</script>"""


def everything(site, outside):
    def fill(name, text):
        return (
            text.replace("'URL'", f"'http://HOST/{name}'").replace("=URL", f"=http://HOST/{name}").replace("(URL", f"(http://HOST/{name}")
        )

    parts = "".join(fill(name, text) for name, text in MARKUP.items()) + SILENT
    scripts = ",".join(f"(async () => {fill(name, text)})()" for name, text in SCRIPTED.items())
    text = PAGE.replace("PARTS", parts).replace("SCRIPTS", scripts)
    return text.replace("HOST", outside.host).replace("SITE", site.host).replace("PORT", str(outside.port))


async def visit(pool, site, reachable, until):
    """Opens the page that tries everything, and waits for `until`."""
    context = await pool.context()
    try:
        pool.allow(context, reachable)
        page = await context.new_page()
        await page.goto(f"http://{site.host}/everything", wait_until="commit")
        end = time.monotonic() + 30
        while time.monotonic() < end and not await until(page):
            await asyncio.sleep(0.1)
        assert await page.title() == "over"
    finally:
        await pool.close(context)


async def test_what_a_page_asks_for_by_itself_arrives_only_where_it_may(pool):
    with Site({}) as site:
        async with Outside() as outside:
            site.pages["/everything"] = everything(site, outside)
            site.pages["/worker.js"] = f"fetch('http://{outside.host}/service-worker')"
            expected = {*MARKUP, *SCRIPTED} - {"service-worker"}

            async def arrived(page):
                return expected <= set(outside.seen) and await page.title() == "over"

            await visit(pool, site, [site.host, outside.host], arrived)
            assert expected <= set(outside.seen), "the page does try all this"
            places = {path for path in outside.seen if path.startswith("at-")}
            assert places <= {"at-2130706433"}, "the same server by another name is another host, another way to write an address is not"
            outside.seen.clear()

            async def over(page):
                return await page.title() == "over" and await page.evaluate("document.readyState") == "complete"

            await visit(pool, site, [site.host], over)
            await asyncio.sleep(0.5)
            assert outside.seen == []


async def test_where_an_action_leads_outside_nothing_arrives_and_the_policy_is_told(pool):
    async with Outside() as outside:
        other = outside.host
        parts = f"""<a href="http://{other}/">port</a> <a href="http://example.com/">name</a> <a href="http://169.254.169.254/">meta</a>
            <a href="http://127.0.0.2:{outside.port}/">address</a> <a href="http://localhost:{outside.port}/">local</a>
            <a href="https://{other}/">secure</a> <a href="/to/{other}/x">moved</a> <a href="/to308/{other}/x">for ever</a>
            <a href="http://{other}/" target=_blank>tab</a>
            <a href="/to/{other}/x" target=_blank>moved tab</a>
            <button onclick="location = 'http://{other}/'">script</button> <button onclick="window.open('http://{other}/')">popup</button>
            <form action="http://{other}/"><button>get</button></form>
            <form action="/to307/{other}/" method=post><button>post</button></form>"""
        quiet = f"""<a href="#x" ping="http://{other}/">ping</a> <a href="http://{other}/" download>save</a>
            <a href="file:///etc/passwd">file</a> <a href="chrome://version">inside</a> <a href="/refresh">refresh</a>
            <button onclick="fetch('http://{other}/f').catch(e => p.textContent = 'refused')">fetch</button><p id=p></p>"""
        with Site({"/": parts + quiet, "/refresh": f'<meta http-equiv=refresh content="0;url=http://{other}/"><p>wait'}) as site:
            async with Look(pool, site) as look:
                for element in look.seen.elements[:14]:
                    told = await look.do("Click", element.handle)
                    assert "outside of the task's sites" in (told or ""), element
                    assert look.seen.url == f"http://{site.host}/"
                for handle in ("ping", "save", "file", "inside"):
                    await look.do("Click", handle)
                    assert look.seen.url.split("#")[0] == f"http://{site.host}/"
                await look.do("Click", "fetch")
                for _ in range(PATIENCE):
                    if look.lines[-1] == "refused":
                        break
                    await look.do("Wait")
                assert look.lines[-1] == "refused"
            async with Look(pool, site) as look:
                told = await look.do("Click", "refresh")
                for _ in range(PATIENCE):
                    if told:
                        break
                    told = await look.do("Wait")
                assert "outside of the task's sites" in (told or "")
        await asyncio.sleep(0.3)
        assert outside.seen == []


async def test_without_its_proxy_the_browser_reaches_nothing_at_all(pool):
    with Site({"/": "<p>here"}) as site:
        context = await pool._browser.new_context()
        page = await context.new_page()
        for address in (site.host, f"localhost:{site.host.split(':')[1]}", "example.com"):
            with pytest.raises(Error, match="ERR_NAME_NOT_RESOLVED"):
                await page.goto(f"http://{address}/")
        await context.close()
        assert site.calls == []
    assert resolver_rules(["h:1", "h:2"]) == "MAP h:1 h:1 , MAP h:2 h:2 , MAP * ~NOTFOUND"


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
        b"\x05\x01\x02",
        b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50",
        b"\x05\x01\x00\x05\x01\x00\x09aaaaaaa",
        b"\x05\x01\x00\x05\x01\x00\x03\x02\xff\xfe\x00\x50",
        b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x09more",
    ],
)
async def test_what_is_no_request_of_a_browser_is_cut_off(said):
    fence = Fence()
    await fence.start()
    host, port = fence.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(said)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 10) in (b"", b"\x05\x00")
    writer.close()
    fence.stop()


async def test_hosts_are_compared_whole():
    fence = Fence()
    fence.allow(["127.0.0.1:81", "Shop.test", "[::1]:8"])
    assert fence.allows("127.0.0.1", 81) and fence.allows("shop.test", 80) and fence.allows("shop.test", 443) and fence.allows("[::1]", 8)
    for host, port in (("127.0.0.1", 8), ("127.0.0.1", 811), ("127.0.0.2", 81), ("shop.test", 8080), ("a.shop.test", 80), ("[::2]", 8)):
        assert not fence.allows(host, port)


async def test_a_name_leads_for_ever_to_the_addresses_that_it_had_when_it_was_allowed(pool, monkeypatch):
    """DNS rebinding: after the page is open, the site's name is made to mean another address with the same port."""
    loop, meaning, asked = asyncio.get_running_loop(), ["127.0.0.1"], []
    ask = loop.getaddrinfo

    async def look_up(host, *arguments, **options):
        if host == "site.test":
            asked.append(host)
            host = meaning[0]
        return await ask(host, *arguments, **options)

    monkeypatch.setattr(loop, "getaddrinfo", look_up)
    async with Outside() as outside:
        name = f"site.test:{outside.port}"
        outside.other.close()
        await outside.other.wait_closed()
        inner = await asyncio.start_server(lambda reader, writer: _say(writer, b"inner"), "127.0.0.2", outside.port)
        context = await pool.context()
        pool.allow(context, [name])
        page = await context.new_page()
        await page.goto(f"http://{name}/")
        meaning[0] = "127.0.0.2"
        assert await page.evaluate("fetch('/secret?' + Math.random()).then((answer) => answer.text(), String)") == "ok"
        assert asked == ["site.test"]
        await pool.close(context)
        inner.close()


async def _say(writer, text):
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + text)
    await writer.drain()
    writer.close()


async def test_much_is_let_through_whole_and_no_faster_than_it_is_taken():
    sent = bytes(range(256)) * 40_000

    async def serve(reader, writer):
        writer.write(sent)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    fence = Fence()
    await fence.start()
    fence.allow([f"localhost:{port}"])
    reader, writer = await asyncio.open_connection(*fence.address.split(":"))
    for byte in b"\x05\x02\x01\x00":
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(b"\x05\x01\x00\x03\x09localhost" + port.to_bytes(2, "big"))
    assert (await reader.readexactly(10))[:2] == b"\x05\x00"
    await asyncio.sleep(0.2)
    assert await reader.read(-1) == sent
    writer.close()
    fence.stop()
    server.close()


async def test_which_addresses_are_inside():
    hosts = ("127.0.0.1:81", "shop.test")
    inside = [
        "http://127.0.0.1:81/",
        "https://shop.test/a",
        "http://shop.test",
        "http://shop.test:80/?q",
        "http://name:word@shop.test/",
        "data:text/html,x",
        "about:blank",
    ]
    outside = ["http://127.0.0.1:8/", "http://127.0.0.1:811/", "http://127x0.0.1:81/", "http://shop.test.evil/", "http://shop.test@evil/",
               "file:///etc/passwd", "http://evil/http://shop.test/", "chrome://version", "http://[::1", "http://shop.test:x/"]  # fmt: skip
    assert [url for url in inside if not is_inside(url, hosts)] == []
    assert [url for url in outside if is_inside(url, hosts)] == []
