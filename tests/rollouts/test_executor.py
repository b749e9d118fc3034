"""Actions on real pages, by mouse and keyboard."""

import asyncio
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Error, async_playwright

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Action
from rollouts.errors import BrowserError, SiteError
from rollouts.web.browser import BrowserConfig, BrowserPool
from rollouts.web.executor import ActionError
from tests.rollouts.sites import QUICK, Look, Site, descendants

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool():
    async with BrowserPool(QUICK) as browsers:
        yield browsers


FORM = """<form action=/s><input name=q aria-label=query value=old><select name=k aria-label=kind><option>Any kind<option>Lamps<option>Table
lamps</select><label><input type=checkbox name=g>gift</label><input type=date name=d aria-label=day><button>go</button></form>
<form action=/save method=post><input name=n aria-label=note><button>save</button></form>"""


async def test_a_form_is_filled_and_sent_with_real_input(pool):
    with Site({"/": FORM}) as site:
        async with Look(pool, site) as look:
            assert await look.do("Type", "query", 'new "text" é') is None
            assert await look.do("Select Dropdown Option", "kind", "LAMPS") is None
            assert await look.do("Click", "gift") is None
            assert await look.do("Type", "day", "2026-01-31") is None
            assert look.seen.text.split("\n")[0] == (
                '<input id="query" value="new \'text\' é"> '
                '<select id="kind" value="Lamps" options="Any kind | Lamps | Table lamps"> <checkbox id="gift" checked> '
                '<input id="day" type="date" value="2026-01-31"> <button id="go">'
            )
            assert await look.do("Select Dropdown Option", "kind", "table") is None
            assert await look.do("Click", "go") is None
            assert look.seen.url.endswith("/s?q=new+%22text%22+%C3%A9&k=Table+lamps&g=on&d=2026-01-31")
            assert await look.do("Go Backward") is None
            assert await look.do("Type", "note", "x") is None
            assert await look.do("Press Enter", "note") is None
            assert look.seen.url.endswith("/done?n=x")
            assert "POST /save n=x" in site.calls
            assert await look.do("Click", "home") is None
            assert await look.do("Search", "query", "") is None
            assert look.seen.url.endswith("/s?q=&k=Any+kind&d=")


async def test_what_cannot_be_done_is_explained(pool):
    page = """<button disabled>off</button><button>under</button><div style="position:fixed;inset:20px 0 0 0">cover text</div>
        <input aria-label=fixed readonly><a href=#x style="position:relative;z-index:2">over</a><select aria-label=s><option>one</select>"""
    with Site({"/": page.replace("<button>under", '<button style="margin-top:60px">under')}) as site:
        async with Look(pool, site) as look:
            assert await look.do("Click", "undre") == 'no element "undre" on this page; the nearest are "under"'
            assert await look.do("Click", "under") == '"under" is covered by <div> "cover text"; close that first'
            assert await look.do("Click", "off") == '"off" is disabled'
            assert await look.do("Type", "over", "x") == '"over" takes no text'
            assert "#x" not in look.seen.url, "the link was not followed"
            assert await look.do("Select Dropdown Option", "s", "two") == '"s" has no option "two"; it has "one"'
            assert await look.do("Select Dropdown Option", "over", "two") == '"over" is not a select; click it instead'
            assert await look.do("Switch Tab", None, "3") == 'no tab "3"; the tabs are 0 to 0'
            assert await look.do("Go Forward") == "there is no later page"
            assert await look.do("Go Backward") == "there is no earlier page"


async def test_options_are_never_chosen_by_what_they_happen_to_contain(pool):
    page = """<select aria-label=country onchange="t.textContent=value"><option>Choose<option>Australia<option>Cyprus<option disabled>Cuba
        <option value=us-1>United States</select><select aria-label=size><option>10<option>20</select><p id=t>nothing</p>"""
    with Site({"/": page}) as site:
        async with Look(pool, site) as look:
            assert (await look.do("Select Dropdown Option", "country", "US")).startswith('"country" has no option "US"; it has "Choose"')
            assert await look.do("Select Dropdown Option", "country", "cuba") == '"country" has the option "Cuba", but it is disabled'
            assert await look.do("Select Dropdown Option", "size", "2") == '"size" has no option "2"; it has "10", "20"'
            assert look.lines[-1] == "nothing"
            assert await look.do("Select Dropdown Option", "country", "us-1") is None
            assert look.lines[-1] == "us-1"


async def test_elements_below_inside_and_hidden_behind_labels_are_reached(pool):
    page = """<style>.c input{opacity:0;position:absolute}</style><label class=c><input type=checkbox onchange="t('check')">box</label>
        <iframe srcdoc="<p style='height:300px'></p><button onclick=&quot;parent.t('frame')&quot;>inner</button>"></iframe>
        <div id=h></div><p style="width:120px">words words wo <a href="javascript:t('link')">a link over two lines</a></p>
        <button style="margin-top:3000px" onclick="t('deep')">deep</button><pre id=log></pre>
        <script>var t = (w) => { log.textContent += w + ' ' };
        h.attachShadow({mode:'open'}).innerHTML = '<button>shade</button>'; h.shadowRoot.firstChild.onclick = () => t('shadow')</script>"""
    with Site({"/": page}) as site:
        async with Look(pool, site) as look:
            for handle in ("deep", "box", "inner", "shade", "a link over two lines"):
                assert await look.do("Click", handle) is None
            assert look.lines[-1] == "deep check frame shadow link"
            assert await look.do("Scroll Up") is None
            assert await look.do("Scroll Down") is None


async def test_hover_and_right_click(pool):
    page = """<div id=m style="width:80px" role=button
        onmouseover="s.textContent='hovered'"
        oncontextmenu="s.textContent='menu';return false">m</div>
        <p id=s></p>"""
    with Site({"/": page}) as site:
        async with Look(pool, site) as look:
            await look.do("Hover", "m")
            assert look.lines[-1] == "hovered"
            await look.do("Right Click", "m")
            assert look.lines[-1] == "menu"


async def test_slow_pages_and_scripts_are_waited_for(pool):
    page = """<a href=/slow>slow</a> <a href=/to/HOST/end>moved</a>
        <button onclick="fetch('/data').then(r=>r.text()).then(t=>p.innerHTML=t)">load</button>
        <button onclick="setTimeout(()=>location='/slow',0)">later</button><p id=p></p>"""
    with Site({"/data": "came"}) as site:
        site.pages["/"] = page.replace("HOST", site.host)
        site.delay = {"/slow": 0.4, "/data": 0.3}
        async with Look(pool, site) as look:
            await look.do("Click", "load")
            assert look.lines[-1] == "came"
            for link in ("slow", "later"):
                await look.do("Click", link)
                assert look.seen.url.endswith("/slow")
                await look.do("Go Backward")
            await look.do("Click", "moved")
            assert look.seen.url.endswith("/end")


async def test_answers_that_are_no_page_leave_the_page(pool):
    with Site(
        {"/": "<a href=/file>file</a> <a href=/nothing>nothing</a> <a href=mailto:a@b.c>mail</a> <a href=/x download>save</a>"}
    ) as site:
        async with Look(pool, site) as look:
            for link in ("file", "nothing", "mail", "save"):
                assert await look.do("Click", link) is None
                assert look.seen.url.endswith(f"{site.host}/")


async def test_new_tabs_come_to_the_front_and_can_be_left(pool):
    page = "<a href=/new target=_blank>new</a> <button onclick=\"window.open('/pop')\">pop</button>"
    with Site({"/": page, "/pop": "<button onclick=window.close()>shut</button>"}) as site:
        async with Look(pool, site) as look:
            await look.do("Click", "new")
            assert look.lines == ["[tab 1 is in front; other tabs: 0]", "page /new", '<a id="home">']
            assert await look.do("Switch Tab", None, "0") is None
            assert look.lines[0] == "[tab 0 is in front; other tabs: 1]"
            await look.do("Click", "pop")
            assert look.lines == ["[tab 2 is in front; other tabs: 0, 1]", '<button id="shut">']
            await look.do("Click", "shut")
            assert look.lines[:2] == ["[tab 1 is in front; other tabs: 0]", "page /new"]


async def test_dialogs_are_answered_and_told(pool):
    page = "<button onclick=\"p.textContent = confirm('Sure? <b>') + ' ' + prompt('Name?') + ' ' + alert('Ok')\">ask</button><p id=p></p>"
    with Site({"/": page}) as site:
        async with Look(pool, site) as look:
            await look.do("Click", "ask")
            assert look.lines == [
                '[the page said "Sure? &lt;b&gt;"; it was accepted]',
                '[the page asked "Name?"; it was dismissed]',
                '[the page said "Ok"; it was accepted]',
                '<button id="ask">',
                "true null undefined",
            ]


async def test_a_page_that_never_stops_talking_is_still_read(pool):
    with Site({"/": "<button onclick='setInterval(() => alert(1), 1)'>start</button>"}) as site:
        async with Look(pool, site) as look:
            await look.do("Click", "start")
            await asyncio.sleep(0.5)
            await look.do("Scroll Down")
            assert look.lines == ['[the page said "1"; it was accepted]'] * 5 + ['<button id="start">']


async def test_a_page_that_hangs_is_an_error_in_bounded_time(pool):
    page = "<button onclick='for(;;);'>spin</button> <a href=/hang>hang</a>"
    with Site({"/": page}) as site:
        for link, kind in (("spin", BrowserError), ("hang", SiteError)):
            look = Look(pool, site)
            began = time.monotonic()
            with pytest.raises(kind):
                async with look:
                    await look.do("Click", link)
            assert time.monotonic() - began < 5 * QUICK.call_seconds
        async with Look(pool, site) as look:
            assert len(look.seen.elements) == 2


async def test_a_dead_server_is_a_site_error(pool):
    with Site({"/": "<a href=/next>next</a>"}) as site:
        look = Look(pool, site)
        await look.__aenter__()
    with pytest.raises(SiteError, match="can't be reached"):
        await look.do("Click", "next")
    await pool.close(look.context)
    with pytest.raises(SiteError):
        await Look(pool, site).__aenter__()


async def test_a_killed_browser_is_an_error_at_once_and_started_again():
    async with BrowserPool(QUICK) as browsers:
        with Site({"/": "<button>b</button>"}) as site:
            look = Look(browsers, site)
            await look.__aenter__()
            await browsers._browser.close()
            with pytest.raises(BrowserError):
                await asyncio.wait_for(look.do("Click", "b"), 3)
            async with Look(browsers, site) as again:
                assert again.seen.elements[0].handle == "b"
            assert browsers.launches == 2


async def test_pages_that_are_not_painted_work_the_same():
    async with BrowserPool(BrowserConfig(draw=False)) as browsers:
        with Site({"/": FORM + "<button style='margin-top:3000px' onclick='this.remove()'>deep</button>"}) as site:
            async with Look(browsers, site) as look:
                await look.do("Click", "deep")
                assert look.seen.element("deep") is None
                await look.do("Search", "query", "x")
                assert "/s?q=x" in look.seen.url


async def test_a_page_that_leaves_by_itself_takes_its_elements_along(pool):
    """Neither a click nor a text may end up on the page that came instead."""
    page = "<input aria-label=note><button>go</button><script>setTimeout(() => location = '/next', 400)</script>"
    with Site({"/": page, "/next": "<input aria-label=other autofocus>"}) as site:
        for action in (("Click", "go"), ("Type", "note", "x"), ("Press Enter", "note")):
            async with Look(pool, site) as look:
                await asyncio.sleep(0.8)
                assert await look.do(*action) == f'"{action[1]}" is no longer on the page'
                assert look.seen.text == '<input id="other">'
    with Site({"/": "<button>a</button><a href=/pop target=_blank>open</a>", "/pop": "<button>b</button>"}) as site:
        async with Look(pool, site) as look:
            assert await look.do("Click", "open") is None
            await look.tabs.page.evaluate("window.close()")
            await asyncio.sleep(0.2)
            assert await look.do("Click", "b") == '"b" is no longer on the page'
            assert look.seen.element("a") is not None


async def test_a_page_that_leaves_while_it_is_asked_is_no_error_of_the_machinery(pool, monkeypatch):
    with Site({"/": "<input aria-label=note><button>go</button>"}) as site:
        for action in (("Click", "go"), ("Type", "note", "x")):
            async with Look(pool, site) as look:

                async def leave(*_):
                    raise Error("CDPSession.send: Protocol error (Runtime.callFunctionOn): Cannot find context with specified id")

                with monkeypatch.context() as patch:
                    patch.setattr(look.tabs, "ask", leave)
                    with pytest.raises(ActionError, match="is no longer on the page"):
                        await look.executor.perform(Action(name=action[0], element=action[1], argument=(*action, None)[2]), look.seen)


@pytest.mark.parametrize("killed", ["chrom", "node"])
async def test_a_browser_that_hangs_or_whose_driver_died_is_started_again(killed):
    others = {process for process, _ in descendants(os.getpid())}
    async with BrowserPool(BrowserConfig(call_seconds=2, launch_seconds=20, draw=False)) as browsers:
        context = await browsers.context()
        for process, name in descendants(os.getpid()):
            if name.startswith(killed) and process not in others:
                os.kill(process, signal.SIGSTOP if killed == "chrom" else signal.SIGKILL)
        await browsers.close(context)
        with Site({"/": "<p>again"}) as site:
            try:
                async with Look(browsers, site) as look:
                    assert look.seen.text == "again"
            except BrowserError:
                async with Look(browsers, site) as look:
                    assert look.seen.text == "again"
        assert browsers.launches == 2
    await asyncio.sleep(0.5)
    assert {process for process, _ in descendants(os.getpid())} <= others


async def test_a_browser_that_does_not_start_is_one_message(tmp_path):
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho 'libnss3.so: cannot open shared object file' >&2; exit 127\n")
    broken.chmod(0o755)
    with pytest.raises(UserError, match=r"chromium does not start \(.*\); install the distribution's package"):
        async with BrowserPool(BrowserConfig(executable=str(broken), launch_seconds=10)):
            pass


async def test_the_headless_shell_that_was_downloaded_is_found_behind_a_stub(tmp_path, monkeypatch):
    shell = shutil.which("chromium-headless-shell")
    if not shell:
        pytest.skip("no chromium-headless-shell to put in the place of a downloaded one")
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "downloads"))
    async with async_playwright() as playwright:
        with pytest.raises(Error) as absent:
            await playwright.chromium.launch()
    place = Path(re.search(r"Executable doesn't exist at (\S+)", str(absent.value))[1])
    place.parent.mkdir(parents=True)
    place.write_text(f'#!/bin/sh\nPATH={os.environ["PATH"]} exec {shell} "$@"\n')
    stub = tmp_path / "chromium-browser"
    stub.write_text("#!/bin/sh\necho 'requires the snap to be installed' >&2; exit 1\n")
    for file in (place, stub):
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    async with BrowserPool(BrowserConfig()) as browsers:
        assert browsers._executables == [None]
