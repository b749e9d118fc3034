"""The map and the encyclopedia as an application: the same from the same seed, apart between visitors, right, unmoved by odd input."""

import itertools
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mira_arena.sites.atlas.application import APPLICATION
from mira_arena.sites.atlas.articles import make_articles
from mira_arena.sites.atlas.content import make_content
from mira_arena.sites.atlas.roads import SPEEDS, Builder, Leg
from mira_arena.sites.atlas.state import AtlasState, suggest
from mira_arena.sites.atlas.wiki_pages import pieces
from mira_arena.sites.paths import slug
from mira_arena.sites.server import COOKIE, serve
from mira_arena.sites.world import World
from mira_jax.trajectories.records import Action
from rollouts.web.browser import BrowserConfig, BrowserPool
from rollouts.web.executor import Executor
from rollouts.web.observation import ObservationConfig
from rollouts.web.tabs import Tabs
from tests.suites.driving import play, play_over_http
from tests.suites.text_browser import PageReader


def visitors(*seeds: int, setup=None) -> list[TestClient]:
    """A client per seed, all of one application."""
    visits = {f"visitor{number}": World(seed, setup) for number, seed in enumerate(seeds)}
    app = serve(APPLICATION, visits)
    return [TestClient(app, cookies={COOKIE: cookie}, follow_redirects=False) for cookie in visits]


def paths(seed: int) -> list[str]:
    content = make_content(seed)
    town, (one, other) = content.towns[0].name, (place.name for place in content.places[-2:])
    place, article = f"/place/{slug(one)}", f"/wiki/article/{slug(content.museums[0].name)}"
    return [
        "/", f"/search?q={one}", place, f"/place/{slug(town)}", f"{place}/near?kind=cafe", f"{place}/near?page=3", f"{place}/save",
        f"{place}/note", f"{place}/edit", "/saved", "/saved/1", f"/directions?from={one}&to={other}&by=foot", "/directions", "/changes",
        "/map.svg", f"/map.svg?of={one}&kind=bank", f"/map.svg?from={one}&to={town}&by=bike", "/sign-in", "/wiki", "/wiki/",
        f"/wiki/search?q={town}", "/wiki/category/people?page=2", article, f"{article}/history", f"{article}/edit/visiting",
        "/wiki/watchlist", "/wiki/sign-in", "/style.css", "/script.js",
    ]  # fmt: skip


def changes(client: TestClient) -> list[str]:
    return re.findall("<li>(.*?)</li>", client.get("/changes").text)


def test_one_seed_gives_the_same_bytes_and_another_seed_others():
    first, again, other = visitors(1, 1, 2)
    for path in paths(1):
        page = first.get(path)
        assert page.status_code == 200, path
        assert page.content == again.get(path).content, path
    for path in ("/", "/saved", "/map.svg", "/wiki/category/people", "/wiki/category/rivers"):
        assert first.get(path).content != other.get(path).content


def test_countries_share_no_facts():
    """Names come from a closed vocabulary, so that some may return; numbers hardly ever do."""
    one, other = make_content(1), make_content(2)
    assert not {place.phone for place in one.places if place.phone} & {place.phone for place in other.places}
    assert not {place.point for place in one.places} & {place.point for place in other.places}
    assert not {town.population for town in one.towns} & {town.population for town in other.towns}
    assert len({place.name for place in one.places} & {place.name for place in other.places}) < len(one.places) / 2


def test_what_one_visitor_does_no_other_sees():
    one, other = visitors(1, 1)
    before = {path: other.get(path).content for path in paths(1)}
    content = make_content(1)
    place, article = f"/place/{slug(content.places[-1].name)}", f"/wiki/article/{slug(content.museums[0].name)}"
    for path, form in (
        (f"{place}/save", {"label": "picnic", "note": "bring a rug"}),
        (f"{place}/note", {"text": "the lift is out of order"}),
        (f"{place}/edit", {"hours": "8:30-17:00", "comment": "seen on the door"}),
        ("/saved/remove", {"saved": "2"}),
        ("/saved/up", {"saved": "3"}),
        ("/layer", {"layer": "cycling"}),
        (f"{article}/edit/visiting", {"text": "always open", "summary": "shorter"}),
        (f"{article}/watch", {}),
    ):
        assert one.post(path, data=form).status_code == 303
    first, _, third, *rest = content.saved
    name, museum = content.places[-1].name, content.museums[0].name
    assert changes(one) == [
        f"saved {third.label} is {third.place}", f"saved {first.label} is {first.place}",
        *(f"saved {row.label} is {row.place}" for row in rest), f"saved picnic is {name}, bring a rug",
        f"note at {name}: the lift is out of order", f"hours of {name} 8:30-17:00: seen on the door", "layer cycling",
        f"visiting of {museum}: always open: shorter", f"watching {', '.join(sorted({*content.watched, museum}))}",
    ]  # fmt: skip
    assert {path: other.get(path).content for path in paths(1)} == before


def test_no_link_is_dead_and_pages_are_small():
    (client,) = visitors(3)
    waiting, seen = ["/", "/wiki/"], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        page = client.get(path)
        assert page.status_code == 200, path
        reader = PageReader(page.text)
        assert len(reader.observation()) < 2200, path
        links = [control.attributes["href"].split("#")[0] for control in reader.controls if control.tag == "a"]
        waiting += [link for link in links if link and "/directions?" not in link]
    content = make_content(3)
    assert {f"/place/{slug(town.name)}" for town in content.towns} <= seen
    assert {f"/wiki/article/{slug(title)}" for title in content.titles} <= seen


@pytest.mark.parametrize(
    ("path", "form", "notice"),
    [
        ("/place/PLACE/save", {"label": " "}, "a saved place needs a name"),
        ("/place/PLACE/save", {"label": "x" * 41}, "a name has at most 40 letters"),
        ("/place/PLACE/save", {"label": "SAVED"}, "there is a saved place named SAVED already"),
        ("/place/PLACE/note", {}, "a note needs some words"),
        ("/place/PLACE/edit", {"hours": "at noon", "comment": "x"}, "opening hours look like 8:30-17:00"),
        ("/place/PLACE/edit", {"hours": "8:30-25:00", "comment": "x"}, "opening hours look like 8:30-17:00"),
        ("/place/PLACE/edit", {"hours": "8:30-17:00"}, "please say in the comment how you know"),
        ("/saved/up", {"saved": "1"}, "SAVED is the first already"),
        ("/saved/remove", {"saved": "77"}, "that place is not saved"),
        ("/saved/remove", {"saved": "x"}, "saved must be a whole number"),
        ("/layer", {"layer": "moon"}, "please choose from the layers"),
        ("/sign-in", {"name": "nobody", "password": "guess"}, "name or password is wrong"),
        ("/wiki/article/MUSEUM/edit/visiting", {"summary": "x"}, "a section needs some words"),
        ("/wiki/article/MUSEUM/edit/visiting", {"text": "x"}, "please sum up your edit"),
    ],
)
def test_a_refusal_is_said_on_the_next_page_and_only_there(path, form, notice):
    (client,) = visitors(1)
    content = make_content(1)
    label = content.saved[0].label
    path = path.replace("PLACE", slug(content.places[-1].name)).replace("MUSEUM", slug(content.museums[0].name))
    form = {key: value.replace("SAVED", label) for key, value in form.items()}
    assert client.post(path, data=form).status_code == 303
    notice = notice.replace("SAVED", label)
    assert notice in client.get("/").text
    assert notice not in client.get("/").text
    assert changes(client) == ["none yet"]


def test_what_needs_a_user_sends_to_the_sign_in_page_and_works_after_it():
    (client,) = visitors(1, setup={"atlas": {"signed_in": False}})
    content = make_content(1)
    place, article = slug(content.places[-1].name), slug(content.museums[0].name)
    for path, sign_in in (
        ("/saved", "/sign-in"), (f"/place/{place}/save", "/sign-in"), (f"/place/{place}/edit", "/sign-in"),
        ("/wiki/watchlist", "/wiki/sign-in"), (f"/wiki/article/{article}/edit/visiting", "/wiki/sign-in"),
    ):  # fmt: skip
        assert client.get(path).headers["location"] == sign_in
    assert client.post(f"/wiki/article/{article}/watch").headers["location"] == "/wiki/sign-in"
    assert changes(client) == ["none yet"]
    client.post("/wiki/sign-in", data={"name": content.user, "password": content.password})
    assert client.get("/saved").status_code == 200
    client.post("/sign-out")
    assert client.get("/saved").status_code == 303


def test_places_near_another_are_those_of_the_kind_in_order_of_distance():
    (client,) = visitors(5)
    content = make_content(5)
    town = content.by_name[content.towns[0].name]
    pages = [client.get(f"/place/{slug(town.name)}/near?kind=all&page={page}").text for page in range(1, 9)]
    listed = re.findall(r'<a href="/place/[^"]*">([^<]*)</a> <span>([\d.]+) km', " ".join(pages))
    wanted = {place.name: place.point for place in content.places if place.kind != "town"}
    assert [name for name, _ in listed] == sorted(wanted, key=[name for name, _ in listed].index)
    kilometres = [float(number) for _, number in listed]
    assert kilometres == sorted(kilometres)
    for name, number in listed:
        (x, y), (other_x, other_y) = town.point, wanted[name]
        assert float(number) == pytest.approx(((x - other_x) ** 2 + (y - other_y) ** 2) ** 0.5 / 100, abs=0.06)
    cafes = re.findall(r">([^<]* cafe)</a>", client.get(f"/place/{slug(town.name)}/near?kind=cafe").text)
    assert cafes == [name for name, _ in listed if name.endswith("cafe")]


def test_the_way_is_the_quickest_and_its_steps_are_whole_roads():
    """By hand: 3 km of a street and 8 km of road take the car 12.9 minutes; round about, by motorway, it is 14.7."""
    builder = Builder()
    home, corner, end, exit_ = (builder.node(point) for point in ((0, 0), (300, 0), (1100, 0), (300, 600)))
    builder.join(home, corner, "mill lane", "street")
    builder.join(corner, end, "road 5", "road")
    builder.join(corner, exit_, "motorway 2", "motorway")
    builder.join(exit_, end, "motorway 2", "motorway")
    builder.join(home, exit_, "path 8", "path")
    roads = builder.done()
    by_car, by_foot = roads.route(home, end, "car"), roads.route(home, end, "foot")
    assert by_car.legs == by_foot.legs == (Leg("mill lane", 3000), Leg("road 5", 8000))
    assert (by_car.minutes, by_foot.minutes, by_foot.kilometres) == (13, 132, "11.0")
    assert roads.route(home, exit_, "car").legs == (Leg("mill lane", 3000), Leg("motorway 2", 6000))
    assert roads.route(end, exit_, "car").legs == (Leg("motorway 2", 10000),)
    assert roads.route(exit_, home, "bike").legs == (Leg("path 8", 6710),)


@pytest.mark.parametrize("by", SPEEDS)
def test_no_way_is_quicker_than_the_one_shown(by):
    """Against plain relaxation of every edge until nothing changes (Bellman and Ford)."""
    for seed in range(4):
        roads = make_content(seed).roads
        edges = [(*edge.ends, edge.metres / 1000 / SPEEDS[by][edge.kind]) for edge in roads.edges if edge.kind in SPEEDS[by]]
        hours = [0.0] + [float("inf")] * (len(roads.points) - 1)
        changed = True
        while changed:
            changed = False
            for one, other, cost in edges:
                for near, far in ((one, other), (other, one)):
                    if hours[near] + cost < hours[far] - 1e-12:
                        hours[far], changed = hours[near] + cost, True
        places = [place.node for place in make_content(seed).places if place.node]
        for node in places:
            assert roads.route(0, node, by).minutes == max(1, round(hours[node] * 60))


def test_directions_take_the_beginnings_of_names():
    (client,) = visitors(1)
    content = make_content(1)
    one, other = (place.name for place in content.places[-2:])
    beginning = one[: len(one) - 3]
    assert suggest(beginning, sorted(content.by_name))[0] == one
    answer = client.get("/directions", params={"from": beginning.upper(), "to": other, "by": "bike"})
    assert answer.headers["location"] == f"/directions?from={one.replace(' ', '+')}&to={other.replace(' ', '+')}&by=bike"
    for query in ({"from": "atlantis", "to": other}, {"from": one, "to": one}):
        assert client.get("/directions", params=query).headers["location"] == "/directions"


def test_search_finds_what_is_wanted_among_its_neighbours():
    """Whatever the seed, and not always in the first place."""
    firsts = []
    for seed in range(6):
        state, content = AtlasState(seed), make_content(seed)
        for place in content.places[::5]:
            found = [row["name"] for row in state.search(place.name)]
            assert place.name in found
            firsts.append(found[0] == place.name)
        for title in list(content.titles)[::3]:
            assert title in [article.title for article in state.search_articles(title)]
        state.close()
    assert 0.1 < sum(firsts) / len(firsts) < 0.8


def test_an_edited_section_stands_in_the_article_and_in_its_history():
    (client,) = visitors(1)
    content = make_content(1)
    museum, town = content.museums[0].name, content.towns[0].name
    path = f"/wiki/article/{slug(museum)}"
    client.post(f"{path}/edit/visiting", data={"text": f"Near [[{town}]], not [[atlantis]] <b>x</b>", "summary": "New Place"})
    page = client.get(path).text
    assert f'near <a href="/wiki/article/{slug(town)}">{town}</a>, not atlantis &lt;b&gt;x&lt;/b&gt;' in page
    assert client.get(f"{path}/edit/visiting").text.count(f"near [[{town}]]") == 1
    newest = re.search("<li>(.*?)</li>", client.get(f"{path}/history").text)[1]
    assert newest == f"28 {content.month} <b>{content.user}</b> visiting: new place"


def test_articles_link_to_articles_and_can_be_edited_whole():
    """A form keeps 200 characters of a field."""
    for seed in range(5):
        articles = make_articles(seed)
        for article in articles.values():
            texts = [article.lead, *(value for _, value in article.facts), *(section.text for section in article.sections)]
            assert all(len(text) < 200 for text in texts)
            linked = {piece for text in texts for piece, link in pieces(text, articles) if link}
            assert linked, article.title
            assert sum(text.count("[[") for text in texts) == sum(link for text in texts for _, link in pieces(text, articles))


async def test_the_expert_writes_down_what_it_must_remember(arena):
    """The pages that it compares are no longer before it when it answers."""
    for task in arena.tasks("train", ["compare_articles"], 4, seed=1):
        content, values = make_content(task.seed), arena.webarena_task(task.id)["instantiation_dict"]
        episode = await play_over_http(arena, task, arena.expert(task))
        notes = [step.response.split("\n")[0].removeprefix("# Note: ") for step in episode.steps if step.response.startswith("# Note: ")]
        compared = [next(about for about in getattr(content, content.titles[values[key]]) if about.name == values[key])
                    for key in ("first", "second", "third")]  # fmt: skip
        fact = notes[0].split()[0]
        assert notes == [f"{fact} {getattr(about, fact)}" for about in compared]


TEXT = st.text(max_size=12) | st.sampled_from(
    ["1", "0", "-1", "99999999999999999999", "'; DROP TABLE saved; --", "<b>x</b>", "8:30-17:00", "[[]]", "[[<b>x</b>]]", "\x00", "cycling"]
)
FIELDS = ("label", "note", "text", "hours", "comment", "saved", "layer", "summary", "name", "password", "back")
QUERIES = ("q", "from", "to", "by", "of", "kind", "page")


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    forms=st.lists(st.dictionaries(st.sampled_from(FIELDS), TEXT), min_size=1, max_size=2),
    query=st.dictionaries(st.sampled_from(QUERIES), TEXT),
    number=st.integers(0, 10**20),
)
def test_no_form_and_no_query_breaks_the_sites(forms, query, number):
    (client,) = visitors(1)
    content = make_content(1)

    def fill(path: str) -> str:
        title = content.museums[0].name
        path = path.replace("{slug}", slug(title)).replace("{heading}", "visiting").replace("{name}", "towns")
        return path.replace("{number:int}", str(number if number % 2 else 1))

    for (path, method, _), form in itertools.product(APPLICATION.routes, forms):
        if method == "POST" and not path.endswith("/sign-out"):
            answer = client.post(fill(path), data=form)
            assert answer.status_code in (303, 404)
            assert answer.status_code == 404 or answer.headers["location"].startswith("/")
    for path, method, _ in APPLICATION.routes:
        if method == "GET":
            answer = client.get(fill(path), params=query)
            assert answer.status_code in (200, 303, 404)
            assert "<b>x</b>" not in answer.text


async def test_widgets_work_through_the_observation(arena):
    """Suggestions, tabs, the menu of layers, the table of contents: what is folded is not on the page until it is unfolded."""
    task = arena.tasks("test", ["save_near_birthplaces"], 1, seed=2)[0]
    content = make_content(task.seed)
    (one, other), museum = (place.name for place in content.places[-2:]), content.museums[0].name
    async with BrowserPool(BrowserConfig(draw=False)) as browser:
        context = await browser.context()
        session = await arena.open(task, context)
        browser.allow(context, session.hosts)
        tabs = Tabs(context, BrowserConfig(), ObservationConfig(handles="name", compact=True))
        executor = Executor(tabs)
        await tabs.open([session.addresses["__MAP__"] + "/directions"], session.hosts)

        async def do(name: str, element: str, argument: str | None = None) -> set[str]:
            """The handles on the page after the action."""
            await executor.perform(Action(name=name, element=element, argument=argument), await tabs.observe())
            return {found.handle for found in (await tabs.observe()).elements}

        assert one in await do("Type", "from", one[:-2])
        assert one not in await do("Click", one)
        assert f'<input id="from" value="{one}">' in (await tabs.observe()).text
        await do("Click", "by foot")
        assert '<tab id="by foot" selected>' in (await tabs.observe()).text
        await do("Type", "to", other)
        await do("Click", "get directions")
        assert f"km to {other} by foot" in (await tabs.observe()).text
        await do("Click", "by bike")
        assert f"km to {other} by bike" in (await tabs.observe()).text

        assert "cycling" in await do("Click", "layers")
        assert "cycling" not in await do("Click", "cycling")
        assert (await session.state())["atlas"]["layer"] == "cycling"
        await do("Click", "layers")
        assert '<button id="cycling" checked>' in (await tabs.observe()).text

        await do("Type", "search", one[:-2])
        await do("Click", one)
        assert tabs.page.url.endswith(f"/search?q={one.replace(' ', '+')}")

        await tabs.page.goto(f"{session.addresses['__WIKI__']}/article/{slug(museum)}")
        seen = {found.handle for found in (await tabs.observe()).elements}
        assert "contents" in seen
        assert not {"visiting", "edit visiting"} & seen
        seen = await do("Click", "contents")
        assert "visiting" in seen
        assert "edit visiting" not in seen
        seen = await do("Click", "visiting")
        assert "edit visiting" in seen
        assert "edit collection" not in seen
        await session.close()
        await browser.close(context)


async def test_the_sites_can_be_used_on_a_narrow_screen(arena):
    async with BrowserPool(BrowserConfig(draw=False, width=400, height=700)) as browser:
        for task in arena.tasks("test", ["show_way_on_layer", "edit_section_and_watch"], 2, seed=4):
            episode = await play(arena, task, arena.expert(task), browser)
            assert arena.judge(episode).success, (task.id, [step.error for step in episode.steps])
            assert not any(step.error for step in episode.steps)
