"""The driver `asgi` against Chromium: the same actions on the same small site give the same observations, addresses and errors."""

import asyncio
import html

import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Route

from mira_jax.errors import ConfigError
from mira_jax.trajectories.records import Action
from rollouts.engine.worker import check_driver
from rollouts.errors import InfraError, SiteError, UnsupportedError
from rollouts.suites.server import LocalServer
from rollouts.web.asgi.sites import Sites
from rollouts.web.browser import BrowserConfig
from rollouts.web.drivers import Asgi, Chromium
from rollouts.web.observation import ObservationConfig
from rollouts.web.refusals import ActionError

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = BrowserConfig(contexts=1, draw=False, launch_seconds=120, call_seconds=60, load_seconds=60)

ASGI = BrowserConfig(driver="asgi")
NAMES = ObservationConfig(handles="name")

PAGES = {
    "/": """<h1>start</h1> <a href="/form">form</a> <a href="/list">list</a> <a href="/">again</a> <a href="/?again=1">query</a>
      <a href="/ask">ask</a> <a href="/missing">missing</a> <a href="/looks">looks</a> <a href="/long">long</a>
      <details><summary>more</summary><p>hidden <a href="/list#two">second</a></p></details>
      <div class="tile">a <b>tile</b></div>""",
    "/form": """<form action="/show">
      <label for="q">words</label> <input id="q" name="q" value="first"> <label>note <textarea name="t">line</textarea></label>
      <input name="off" autocomplete="off" placeholder="off"> <input type="password" name="p" aria-label="secret">
      <select name="s" aria-label="size"><option>small<option value="M" selected>medium<option disabled>none<option>large</select>
      <label><input type="checkbox" name="c" checked> box</label> <label>yes <input type="radio" name="r" value="y"></label>
      <label>no <input type="radio" name="r" value="n"></label> <input type="hidden" name="h" value="kept">
      <button name="b" value="1">send</button> <button>other</button></form>
      <button form="apart" name="x" value="~*-._ +&amp;é">outside</button>
      <form id="apart" action="/show?lost=1"><input name="only" type="hidden"></form>
      <form action="/show"><input name="single" aria-label="single"></form>
      <form action="/show"><input name="one" aria-label="one"> <input name="two" aria-label="two"></form>
      <button disabled>dead</button> <input readonly value="fixed" aria-label="fixed"> <a href="/">home</a>""",
    "/list": """<a href="#one">one</a> <a href="#two">two</a> <a href="/">home</a> <input aria-label="word">
      <p class="part" id="one">first part</p><div class="part" id="two">second <i>part</i></div>""",
    "/ask": """<form method="post" action="/answer"><input name="a" aria-label="a"><button>answer</button></form>
      <form method="post" action="/moved#end"><input name="a" aria-label="b"><button>move</button></form>
      <form method="post"><textarea name="t" aria-label="text"></textarea><button>itself</button></form>""",
    "/looks": """<p>one<br>two <span class="none">never</span><span class="faint">nothing</span></p>
      <table><tr><th>a</th><td>b</td></tr></table><div class="row"><span>x</span> <span>y</span><a href="/">z <b>bold</b></a></div>
      <ul><li>first<li>second</ul><p>in<span class="box"> box </span>line</p><q>quoted</q><h2>title <i>slanted</i></h2>
      <div hidden>no</div><div hidden class="shown">yes</div><p class="plain wide">wide</p><pre>a
  b</pre><p>&lt;tag&gt; &quot;quotes&quot; \U0001f600 \u200bzero\u00a0space</p><p aria-hidden="true">unread</p>
      <a href="/"><img alt="picture" src="data:,"></a> <span role="button">role</span>""",
    "/long": "<p>" + "word " * 500 + "</p>" + "".join(f"<p>line {i} <a href='/list?n={i}'>link {i}</a></p>" for i in range(100)),
}
STYLE = """
.part { display: none } .part:target { display: block; }
.none { display: none; } .faint { opacity: 0; } .row { display: flex } .row a { cursor: pointer; }
.box { display: inline-block; background: url("data:;,}{") } [hidden].shown { display: block }
.tile { cursor: pointer } p.plain:not(.wide), a:hover::before { display: none; }
@media (max-width: 600px) { p { display: none } } @media (min-width: 601px) { .row > i { display: none; } }
"""


def make_app() -> Starlette:
    """Counts the pages that it has sent, so that a page that is requested again is seen to be."""
    sent = 0

    def page(body: str, status: int = 200) -> HTMLResponse:
        nonlocal sent
        sent += 1
        text = f'<!doctype html><title> a  title </title><link rel="stylesheet" href="/style.css"><body>page {sent} {body}'
        return HTMLResponse(text, status, {"Cache-Control": "no-store"})

    async def show(request: Request) -> HTMLResponse:
        said = html.escape(f"{request.method} {request.url.query} {(await request.body()).decode()}")
        return page(f"<p>{said}</p><a href='/form'>form</a> <a href='/'>home</a>")

    async def static(request: Request) -> HTMLResponse:
        return page(PAGES[request.url.path])

    async def moved(request: Request) -> RedirectResponse:
        return RedirectResponse("/show?" + (await request.body()).decode(), 303)

    async def style(request: Request) -> PlainTextResponse:
        return PlainTextResponse(STYLE, media_type="text/css")

    async def missing(request: Request, error: Exception) -> HTMLResponse:
        return page("<p>no such page</p><a href='/'>home</a>", 404)

    routes = [Route(path, static) for path in PAGES]
    routes += [Route("/show", show), Route("/answer", show, methods=["POST"]), Route("/moved", moved, methods=["POST"])]
    routes += [Route("/style.css", style), Route("/ask", moved, methods=["POST"])]
    return Starlette(routes=routes, exception_handlers={404: missing})


BACK, FORWARD, ENTER = ("Go Backward",), ("Go Forward",), ("Press Enter",)


def click(element):
    return "Click", element


def enter(text, element):
    return "Type", element, text


def choose(option, element):
    return "Select Dropdown Option", element, option


SCRIPTS = {
    "history": [
        click("form"), click("home"), BACK, BACK, BACK, FORWARD, FORWARD, FORWARD, click("list"), BACK, click("missing"),
        click("home"), BACK,
    ],
    "same address": [click("again"), click("again"), click("query"), click("again"), BACK, BACK, BACK],
    "fragments": [
        click("list"), click("two"), click("two"), click("one"), enter("x", "word"), BACK, BACK, FORWARD, click("home"), BACK,
        BACK, FORWARD,
        click("one"), ENTER, click("home"),
    ],
    "details": [
        click("more"), click("second"), BACK, click("more"), click("more"), ("Press Enter", "more"), enter("x", "more"), ("Hover", "more"),
        ("Right Click", "more"), click("a tile"),
    ],
    "what was entered": [
        click("form"), enter("second", "words"), enter("two\nlines", "note"), enter("o", "off"), enter("s", "secret"),
        choose("large", "size"),
        click("box"), click("yes"), click("no"), click("home"), BACK, click("home"), FORWARD, BACK, click("send"), BACK, FORWARD,
    ],
    "send": [
        click("form"), enter(" ~*-._ +&é\U0001f600%", "words"), click("yes"), click("send"), BACK, click("other"), BACK,
        click("outside"), BACK,
        enter("a\r\nb\n", "words"), click("send"),
    ],
    "enter": [
        click("form"), ("Press Enter", "words"), BACK, ("Search", "words", "w"), BACK, ("Search", "single", "s"), BACK,
        ("Search", "one", "1"),
        ("Press Enter", "size"), BACK, ("Press Enter", "home"), click("form"), ("Press Enter", "box"), BACK, ("Press Enter", "other"),
    ],
    "selects": [
        click("form"), click("size"), enter("x", "words"), click("size"), click("home"), BACK, ("Press Enter", "size"),
        click("box"), click("size"),
        choose("large", "size"), click("home"), BACK, ("Press Enter", "size"), enter("y", "words"), ENTER,
    ],
    "text area": [
        click("ask"), enter("a", "text"), ENTER, ("Press Enter", "text"), ("Search", "text", "b"), enter("", "text"),
        ENTER, click("itself"),
    ],
    "errors": [
        click("form"), click("nothing"), click("dead"), enter("x", "fixed"), enter("x", "home"), choose("tiny", "size"),
        choose("none", "size"),
        choose("x", "words"), choose("M", "size"), ("Press Enter", "dead"), ("Switch Tab", None, "1"), ("Switch Tab", None, "x"),
        ("Scroll Down",), enter("", "words"), enter("", "words"), enter("x", "box"), enter("\u202e\x07\u00a0z", "words"),
    ],
    "labels": [click("form"), click("box"), click("box"), click("no"), click("yes"), click("yes"), click("send")],
    "answers to forms": [
        click("ask"), click("answer"), click("home"), BACK, BACK, FORWARD, FORWARD, BACK, click("home"), BACK,
    ],
    "moved": [click("ask"), enter("1", "b"), click("move"), BACK, FORWARD, click("form"), BACK],
    "looks": [click("looks"), click("role"), click("picture")],
    "long": [click("long"), ("Scroll Down",), click("link 3")],
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium():
    async with Chromium(SLOW) as driver:
        yield driver


async def play(driver, host, moves, observation, saved_after=0.0):
    """What the policy is shown, before the first move and after each. Waits for `saved_after` seconds after each move
    if the script goes back."""
    context = await driver.context()
    seen = []
    try:
        pages = driver.pages(context, [host], observation)
        await pages.open([f"http://{host}/"])
        shown = await pages.observe()
        seen.append(("open", None, shown.url.removeprefix(f"http://{host}"), shown))
        for move in moves:
            name, element, argument = (*move, None, None)[:3]
            try:
                await pages.perform(Action(name=name, element=element, argument=argument), shown)
                error = None
            except ActionError as refusal:
                error = str(refusal)
            if saved_after and any(one[0] == "Go Backward" for one in moves):
                await asyncio.sleep(saved_after)
            shown = await pages.observe()
            seen.append((move, error, shown.url.removeprefix(f"http://{host}"), shown))
        return seen
    finally:
        await driver.close(context)


@pytest.mark.parametrize("name", SCRIPTS)
async def test_both_drivers_show_the_same(chromium, name):
    observation = ObservationConfig(handles="name", compact=name in ("history", "looks"), max_characters=2_000)
    server = LocalServer(make_app())
    await server.start()
    try:
        # Chromium saves what was entered for its history after up to a second.
        expected = await play(chromium, server.host, SCRIPTS[name], observation, saved_after=1.2)
    finally:
        await server.stop()
    host = "127.0.0.1:1"
    found = await play(Asgi(ASGI, Sites({host: make_app()})), host, SCRIPTS[name], observation)
    for before, (wanted, got) in enumerate(zip(expected, found, strict=True)):
        assert got[:3] == wanted[:3], SCRIPTS[name][: before + 1]
        assert got[3].text == wanted[3].text, SCRIPTS[name][:before]
        assert (got[3].elements, got[3].title, got[3].status) == (wanted[3].elements, wanted[3].title, wanted[3].status), wanted[0]


UNKNOWN = {
    "a script": '<script src="/x.js"></script>',
    "a script in the page": "<script>1</script>",
    "an element": "<video></video>",
    "an attribute": '<p onclick="x()">p</p>',
    "an input": '<input type="date">',
    "a selector": "<style>p:nth-child(2) { display: none }</style>",
    "a style": "<style>p { display: ruby }</style>",
    "a rule": "<style>@layer a { p { display: none } }</style>",
    "what the mouse shows": "<style>p:hover { display: none }</style>",
    "an open brace": "<style>p { color: red</style>",
    "a link without a size": "<p><a href='/'></a></p>",
}


@pytest.mark.parametrize("what", UNKNOWN)
async def test_what_is_not_known_is_refused(what):
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(UNKNOWN[what])

    host = "127.0.0.1:1"
    with pytest.raises(UnsupportedError, match="driver asgi"):
        await play(
            Asgi(ASGI, Sites({host: Starlette(routes=[Route("/{path:path}", page)])})),
            host,
            [],
            ObservationConfig(),
        )


async def test_a_key_in_an_open_list_is_refused():
    host = "127.0.0.1:1"
    for opens in (click("size"), ("Press Enter", "size")):
        with pytest.raises(UnsupportedError, match="open list"):
            await play(Asgi(ASGI, Sites({host: make_app()})), host, [click("form"), opens, ENTER], NAMES)


@pytest.mark.parametrize(
    ("app", "kind"),
    [
        (lambda scope, receive, send: 1 / 0, SiteError),
        (PlainTextResponse("text"), UnsupportedError),
        (HTMLResponse("broken", 500), SiteError),
        (HTMLResponse("x" * 9_000_000), SiteError),
        (RedirectResponse("/"), SiteError),
        (RedirectResponse("http://elsewhere.example/"), UnsupportedError),
        (RedirectResponse("file:///etc/passwd"), UnsupportedError),
        (HTMLResponse(b"\xff\xfe\x00<", headers={"Content-Type": "image/png"}), UnsupportedError),
    ],
)
async def test_what_is_no_page_is_an_infrastructure_error(app, kind):
    host = "127.0.0.1:1"
    with pytest.raises(kind) as raised:
        await play(Asgi(ASGI, Sites({host: app})), host, [], ObservationConfig())
    assert isinstance(raised.value, InfraError)


async def test_any_bytes_are_read_or_refused():
    bodies = [
        b"",
        b"\x00",
        b"<",
        b"<p" * 5000,
        b"<div>" * 5000,
        b"</html></body>x",
        b"<select><p>a<option>b",
        b"<table><a href=/>x<tr>",
        b"\xff" * 100,
    ]
    for body in bodies:
        host = "127.0.0.1:1"
        try:
            await play(Asgi(ASGI, Sites({host: HTMLResponse(body)})), host, [BACK], ObservationConfig())
        except InfraError:
            continue


async def test_a_suite_without_applications_is_refused():
    class Remote:
        name = "remote"

    with pytest.raises(ConfigError, match=r"browser.driver.*remote.*set chromium"):
        check_driver(BrowserConfig(driver="asgi"), Remote())
