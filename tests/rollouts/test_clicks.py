"""A click reaches the element that it is meant for, or is refused: through frames, transforms, shadow trees and what lies over them.

What was pressed is what the page itself says, from its own listeners.
"""

import html

import pytest
import pytest_asyncio

from mira_jax.trajectories.records import Action
from rollouts.web.browser import BrowserPool
from rollouts.web.executor import ActionError
from tests.rollouts.sites import QUICK, Look, Site

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAYS = "<p id=said>nothing</p><script>top === self && (window.say = (what) => { said.textContent = what })</script>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool():
    async with BrowserPool(QUICK) as browsers:
        yield browsers


def button(name, style="", more=""):
    return f'<button style="{style}" onclick="event.stopPropagation();top.say(\'{name}\')" {more}>{name}</button>'


ROWS = "<body style='margin:0'>" + "".join(button(name, "display:block;width:200px;height:20px") for name in ("one", "two", "three"))


def frame(inside, style=""):
    return f'<iframe style="width:240px;height:120px;{style}" srcdoc="{html.escape(inside)}"></iframe>'


def shadow(inside):
    return f"<div id=h></div><script>h.attachShadow({{mode: 'open'}}).innerHTML = {inside!r}</script>"


PRESSED = {
    "padding of a frame": frame(ROWS, "padding:40px 0 0 7px;border:3px solid"),
    "scaled frame": frame(ROWS, "transform:scale(.5);transform-origin:0 0"),
    "frame in scaled element": f"<div style='transform:scale(1.5,.7) translate(30px,9px);transform-origin:0 0'>{frame(ROWS)}</div>",
    "zoomed frame": f"<div style='zoom:1.5'>{frame(ROWS, 'padding:20px')}</div>",
    "frame in a frame": frame("<style>iframe{padding:11px}</style>" + frame(ROWS, "transform:scale(.6)"), "padding:15px;height:200px"),
    "frame in a shadow tree": shadow(frame(ROWS, "padding:20px")),
    "shadow tree in a frame": frame("<div id=h></div><script>h.attachShadow({mode: 'open'}).innerHTML = "
                                    + repr(ROWS.removeprefix("<body style='margin:0'>")).replace("</", "<\\/") + "</script>"),
    "scrolled frame": frame("<div style='height:900px'></div>" + ROWS + "<div style='height:900px'></div>", "margin-top:1500px"),
    "cover that lets clicks through": ROWS + "<div style='position:fixed;inset:0;pointer-events:none'>mist</div>",
    "under a header that stays": "<div style='position:fixed;inset:0 0 auto;height:60px;background:red'>header</div>"
                                 + "<div style='height:90px'></div>"
                                 + ROWS + "<div style='height:3000px'></div>"
                                 + "<script>addEventListener('load', () => scrollTo(0, 100))</script>",
    "covered in half": ROWS + "<div style='position:fixed;left:0;top:0;width:150px;height:100%;background:red'>banner</div>",
    "slotted": shadow("<section><slot></slot></section>").replace("<div id=h></div>", f"<div id=h>{ROWS}</div>"),
}  # fmt: skip


@pytest.mark.parametrize("page", PRESSED)
async def test_each_button_is_pressed_where_it_is(pool, page):
    with Site({"/": f"<!doctype html>{PRESSED[page]}{SAYS}"}) as site:
        async with Look(pool, site) as look:
            for name in ("three", "one", "two"):
                assert await look.do("Click", name) is None
                assert await look.tabs.page.inner_text("#said") == name


ADVERT = "<div style='position:fixed;inset:0 0 50% 0;background:#fe9' onclick=\"say('advert')\">Advert</div>"
REFUSED = {
    "over a frame": (frame(ROWS) + ADVERT, 'covered by <div> "Advert"; close that first'),
    "over a frame in a frame": (frame(frame(ROWS), "width:300px;height:200px") + ADVERT, 'covered by <div> "Advert"'),
    "inside of the frame": (frame(ROWS + "<p style='position:fixed;inset:0;margin:0;background:red'>wall"), 'covered by <p> "wall"'),
    "another frame": (frame(ROWS) + frame("<p>framed", "position:fixed;inset:0"), "covered by <iframe>"),
    "pointer-events": ("<div style='pointer-events:none'>" + ROWS + "</div>", "takes no clicks now"),
    "a turned frame": (frame(ROWS, "transform:rotate(20deg)"), "turned or mirrored frame"),
    "a mirrored frame": (f"<div style='transform:scaleX(-1)'>{frame(ROWS)}</div>", "turned or mirrored frame"),
    "inert": ("<div inert>" + ROWS + "</div>", "no element"),
    "a fieldset": ("<fieldset disabled>" + ROWS + "</fieldset>", "is disabled"),
}


@pytest.mark.parametrize("page", REFUSED)
async def test_what_another_element_would_get_is_refused(pool, page):
    markup, refusal = REFUSED[page]
    with Site({"/": f"<!doctype html>{markup}{SAYS}"}) as site:
        async with Look(pool, site) as look:
            for action in ("Click", "Right Click", "Hover"):
                assert refusal in await look.do(action, "two")
            assert await look.tabs.page.inner_text("#said") == "nothing"


async def test_what_lies_in_an_element_is_not_pressed_for_it(pool):
    page = f"""<div role=link tabindex=0 aria-label=card onclick="say('card')" style="width:300px;height:120px;position:relative">card
        {button("delete", "position:absolute;left:110px;top:45px;width:80px;height:30px")}</div>
        <label>I <a href=#terms style="padding:0 90px">terms</a> agree<input type=checkbox style="opacity:0;position:absolute;width:0"
        onchange="say('agreed')"></label><a href=#all style="display:inline-block"><b style="display:block">all</b></a>"""
    with Site({"/": page + SAYS}) as site:
        async with Look(pool, site) as look:
            for handle, said in (("card", "card"), ("delete", "delete"), ("i terms agree", "agreed")):
                assert await look.do("Click", handle) is None
                assert look.lines[-1] == said and "#" not in look.seen.url
            for handle in ("terms", "all"):
                assert await look.do("Click", handle) is None
                assert look.seen.url.endswith(f"#{handle}")


@pytest.mark.parametrize("how", ["dialog", "cover"])
async def test_nothing_is_typed_chosen_or_sent_behind_a_modal(pool, how):
    """The handles are of the page as it was before the dialog: what is behind it is not in the next observation."""
    page = f"""<form action=/sent><input name=q aria-label=field><select aria-label=choice onchange="say(value)"><option>a<option>b</select>
        <div role=option style="width:50px">other</div></form><dialog id=d>stop<input></dialog>
        <div id=c hidden style="position:fixed;inset:0;background:#ddd">cover</div>{SAYS}"""
    with Site({"/": page}) as site:
        async with Look(pool, site) as look:
            await look.tabs.page.evaluate("d.showModal()" if how == "dialog" else "c.hidden = false")
            for name, element, argument in (("Type", "field", "x"), ("Search", "field", "x"), ("Select Dropdown Option", "choice", "b")):
                with pytest.raises(ActionError, match=r'covered by <(dialog|div)> "(stop|cover)"'):
                    await look.executor.perform(Action(name=name, element=element, argument=argument), look.seen)
            if how == "dialog":
                with pytest.raises(ActionError, match="can't have the keyboard's focus"):
                    await look.executor.perform(Action(name="Press Enter", element="field"), look.seen)
            assert await look.tabs.page.evaluate("[said.textContent, document.querySelector('form').q.value, location.pathname]") == [
                "nothing", "", "/",
            ]  # fmt: skip


async def test_enter_is_pressed_only_on_what_has_the_focus(pool):
    with Site({"/": "<form action=/sent><input name=q aria-label=field></form><div role=option style='width:50px'>other</div>"}) as site:
        async with Look(pool, site) as look:
            assert await look.do("Type", "field", "x") is None
            assert await look.do("Press Enter", "other") == "\"other\" can't have the keyboard's focus"
            assert "/sent" not in " ".join(site.calls)
            assert await look.do("Press Enter", "field") is None
            assert look.seen.url.endswith("/sent?q=x")
