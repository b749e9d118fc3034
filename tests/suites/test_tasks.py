"""The suite `tasks`: files of tasks, milestones and state by rules, and episodes on sites of several kinds."""

import json
import sys
import uuid
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.routing import Route

from mira_jax.config import build
from mira_jax.errors import ConfigError, UserError
from mira_jax.needs import Needs
from mira_jax.trajectories import summary
from mira_jax.trajectories.records import Action, Evidence, Page, Policy, Status, Step, Trajectory
from mira_jax.trajectories.shards import ShardReader
from rollouts import evaluate
from rollouts.engine.pool import RolloutConfig, collect
from rollouts.errors import SiteError
from rollouts.suites import make_suite, task_files
from rollouts.suites.server import LocalServer
from rollouts.suites.tasks.checks import done_after_steps, holds, unmet
from rollouts.suites.tasks.items import Check, read_items
from rollouts.suites.tasks.served import ServedSite
from rollouts.web.browser import BrowserConfig, BrowserPool
from tests.suites.driving import play

EXAMPLE = Path("examples/your_site")
LIBRARY = [sys.executable, str(EXAMPLE / "library.py"), "{port}"]
TASK = {
    "task_id": 1,
    "sites": ["shop"],
    "start_url": "__SHOP__/",
    "intent": "Buy it.",
    "eval": {"eval_types": ["string_match"], "reference_answers": {"exact_match": "7"}},
}


def write(folder, *tasks):
    folder.mkdir(exist_ok=True)
    for number, task in enumerate(tasks):
        (folder / f"{number}.json").write_text(task if isinstance(task, str) else json.dumps(task))
    return str(folder)


def changed(**keys):
    return {key: value for key, value in (TASK | keys).items() if value is not None}


def test_tasks_are_read_from_a_folder_and_from_a_list(tmp_path):
    folder = write(tmp_path / "tasks", TASK, [changed(task_id="a", split="train"), changed(task_id="b", template="odd", horizon=5)])
    items = read_items(folder, {"shop": ""})
    assert list(items) == ["tasks.1", "tasks.a", "tasks.b"]
    assert items["tasks.1"].task().template == "shop" and items["tasks.a"].split == "train"
    suite = make_suite("tasks", tasks=folder, sites={"shop": "http://127.0.0.1:8000"})
    assert [task.id for task in suite.tasks("test", None, 2, 0)] == ["tasks.1", "tasks.b"]
    assert [task.horizon for task in suite.tasks("test", ["odd"], 1, 0)] == [5]
    assert len(suite.tasks("test", None, 1, 3)) == 1
    for arguments, message in (
        (("dev", None, 1, 0), "split: 'dev' is none of"),
        (("train", ["odd"], 1, 0), "templates: 'odd' is none of shop"),
        (("train", None, 2, 0), "episodes: 2 tasks are wanted, and there are 1"),
    ):
        with pytest.raises(UserError, match=message):
            suite.tasks(*arguments)


SCRIPT = {"url": "last", "locator": "alert(1)", "required_contents": {}}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("{", "0.json: not JSON"),
        ([3], r"0.json, task 1 of 1: not a task but 3"),
        (changed(intent=None), "missing required field `intent`"),
        (changed(split="dev"), r"Invalid enum value 'dev' - at `\$.split`"),
        (changed(milstones=[]), "unknown key milstones; did you mean milestones"),
        (changed(sites=["shop", "forum"]), "the site forum is not in suite.options.sites; there are shop"),
        (changed(sites=[]), "Expected `array` of length >= 1"),
        (changed(eval={}), "eval_types is not a list"),
        (
            changed(eval={"eval_types": ["guess"]}),
            "unknown evaluator 'guess'; there are string_match, url_match, program_html, state_match",
        ),
        (changed(eval={"eval_types": ["string_match"]}), "reference_answers must map exact_match, must_include, fuzzy_match"),
        (changed(eval={"eval_types": ["url_match"]}), "eval: reference_url: None is not an address"),
        (changed(eval={"eval_types": ["state_match"]}), "state_match needs state"),
        (
            changed(
                eval={"eval_types": ["program_html"], "program_html": [{"url": "last", "locator": "alert(1)", "required_contents": {}}]}
            ),
            "locator: 'alert",
        ),
        (changed(milestones=[{"text": "x", "done": {}}]), "the milestone 'x' has no condition"),
        (changed(milestones=[{"text": "x", "done": {"css": "a"}}]), "unknown field `css`"),
        (changed(solution=["click it"]), "solution: 'click it': expected do"),
        ('{"task_id": NaN}', "0.json: not JSON: NaN is no JSON"),
        (changed(horizon=0), r"0.json \(id 1\): Expected `int` >= 1 - at `\$.horizon`"),
        (changed(intent=""), "intent: empty; write the instruction"),
        (changed(intent="x" * 10 * 2**20), "intent: 10,485,760 characters; at most 20,000"),
        (changed(task_id="a\nb"), r"the id 'a\\nb' is not 1 to 200 printable characters"),
        (
            changed(start_url="http://evil.example/"),
            "start_url: 'http://evil.example/' is on none of the task's sites; begin it with __SHOP__",
        ),
        (changed(start_url="http://127.0.0.1:80001/"), "start_url: .* is on none"),
        (changed(start_url="__SHOP__ |AND| __FORUM__/"), "start_url: '__FORUM__/' is on none"),
        (
            changed(eval={"eval_types": ["program_html"], "program_html": [SCRIPT | {"url": "http://evil.example/", "locator": "h1"}]}),
            "the url of a target: 'http://evil.example/' is on none",
        ),
        (
            changed(eval={"eval_types": ["program_html"], "program_html": [SCRIPT | {"locator": "a" * 10**7}]}),
            "the locator of a target has 10,000,000 characters",
        ),
        (
            changed(eval={"eval_types": ["string_match"], "reference_answers": {"must_include": [1]}}),
            r"must_include is \[1\]; expected a text",
        ),
        (changed(milestones=[{"text": "x", "done": {"state": {}}}]), "the milestone 'x' has an empty condition"),
        (changed(milestones=[{"text": "x", "done": {"url": "http://[x"}}]), "the milestone 'x': url: .* is not an address"),
        ([TASK, TASK], r"0.json, task 2 of 2 \(id 1\): its id is also that of .*0.json, task 1 of 2 \(id 1\)"),
        ([], "no tasks in it"),
    ],
)
def test_what_is_wrong_with_a_task_is_said(tree, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_items(write(tmp_path / "tasks", tree), {"shop": "http://127.0.0.1:8000"})


def test_addresses_of_the_sites_are_inside():
    def start(url, address):
        return task_files.check_url("start_url", url, {"__SHOP__": address})

    for url in ("__SHOP__", "__SHOP__/a", "__SHOP__?a=1", "__SHOP__/ |AND| http://127.0.0.1:8000/a", "http://127.0.0.1:8000"):
        start(url, "http://127.0.0.1:8000")
    for url in ("http://127.0.0.1:8000/", "__SHOP__@evil.example", "__SHOPPING__/", "", "javascript:alert(1)"):
        with pytest.raises(ValueError, match="is on none"):
            start(url, "")


def test_a_wrong_file_ends_the_run_before_any_browser(tmp_path):
    path = write(tmp_path / "tasks", changed(split="train", horizon=0))
    suite = {"name": "tasks", "options": {"tasks": path, **SHOP}}
    settings = {"suite": suite, "episodes": 1, "policy": {"kind": "idle"}, "browser": {"executable": "/no/browser"}}
    with pytest.raises(UserError, match=r"0\.json \(id 1\): Expected `int` >= 1"):
        collect(build(RolloutConfig, settings), tmp_path / "out")


def test_keys_without_effect_may_hold_anything(tmp_path):
    odd = changed(eval=TASK["eval"] | {"state": None, "program_html": "none", "reference_url": 3}, intent_template_id=[None])
    suite = make_suite("tasks", tasks=write(tmp_path / "tasks", odd), **SHOP)
    assert len(suite.tasks("test", None, 1, 0)) == 1


def test_a_path_into_a_list_with_a_huge_number_is_not_there():
    assert unmet({"a." + "9" * 5000: 1}, {"a": [1]})[0].endswith("is None, not 1")


def test_all_wrong_tasks_are_named_at_once(tmp_path):
    folder = write(tmp_path / "tasks", changed(split="dev"), TASK, changed(task_id=2, eval={}))
    with pytest.raises(UserError, match=r"(?s)0\.json \(id 1\): Invalid enum.*2\.json \(id 2\): eval: eval_types"):
        read_items(folder, {"shop": ""})
    with pytest.raises(ConfigError, match=r"suite\.options\.tasks: .*nowhere: cannot be read"):
        read_items(str(tmp_path / "nowhere"), {})


SHOP = {"sites": {"shop": "http://127.0.0.1:8000"}}
SERVED = {"commands": {"shop": ["python", "{port}"]}}
FORM = {"path": "/login", "user": "user", "password": "password", "probe": "/"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SHOP | SERVED, r"commands\.shop: the site has an address"),
        (SHOP | {"states": {"forum": "/s"}}, r"states\.forum: there is no such site; there are shop"),
        (SHOP | {"states": {"shop": "state"}}, r"states\.shop: 'state' is not a path"),
        (SERVED | {"reset_paths": {"shop": "/reset"}}, r"reset_paths\.shop: only for sites with an address"),
        ({"commands": {"shop": ["python"]}}, r"commands\.shop: name a command .* contains \{port\}"),
        (SHOP | {"reset": {"shop": []}}, r"reset\.shop: name a command"),
        (SHOP | {"logins": {"shop": FORM}}, r"accounts\.shop: not given; a login needs both"),
        ({"sites": {"shop": "http://x?y=1"}}, r"sites\.shop: 'http://x\?y=1' is not an address"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_suite("tasks", tasks="x", **options)


def test_what_the_tasks_need_is_missed_before_anything_runs(tmp_path):
    fuzzy = {"eval_types": ["string_match"], "reference_answers": {"fuzzy_match": ["about 7"]}}
    tasks = [
        changed(task_id=1, eval=fuzzy),
        changed(task_id=2, milestones=[{"text": "x", "done": {"state": {"shop.cart": []}}}]),
        changed(task_id=3, storage_state="./.auth/shop_state.json"),
        changed(task_id=4, eval={"eval_types": ["string_match"], "reference_answers": {"fuzzy_match": "N/A"}}),
    ]
    suite = make_suite("tasks", tasks=write(tmp_path / "tasks", tasks), **SHOP)
    with pytest.raises(UserError, match=r"(?s)judge: not set, and 1 of.*tasks\.1.*logins\.shop.*tasks\.3.*states\.shop.*tasks\.2"):
        suite.tasks("test", None, 4, 0)


STATE = {"shop": {"cart": [{"name": "lamp", "count": 2}], "paid": True}}


def test_paths_into_the_state():
    assert unmet({"shop.cart.0.name": "lamp", "shop.paid": True, "shop.cart": STATE["shop"]["cart"]}, STATE) == []
    assert unmet({"shop.cart.1.name": "lamp", "shop.paid.x": 1, "forum": 0}, STATE) == [
        "shop.cart.1.name is None, not 'lamp'", "shop.paid.x is None, not 1", "forum is None, not 0",
    ]  # fmt: skip
    assert unmet({"shop.paid": True}, None) == ["shop.paid is None, not True"]


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ({"url": "__SHOP__/cart"}, True),
        ({"url": "__SHOP__/checkout"}, False),
        ({"path": "__SHOP__/cart"}, True),
        ({"path": "__SHOP__/*/"}, True),
        ({"path": "__SHOP__/car"}, False),
        ({"path": "*"}, False),  # one part
        ({"text": "TOTAL 12"}, True),
        ({"text": "pay now"}, True),
        ({"element": "Pay now"}, True),
        ({"element": "total"}, False),  # text, not an element
        ({"state": {"shop.paid": True}}, True),
        ({"text": "total", "state": {"shop.paid": False}}, False),
        ({"action": "type", "target": "Quantity", "argument": "two "}, True),
        ({"action": "Click"}, False),
        ({"target": "buy"}, False),  # the next element
        ({"argument": "tw"}, False),
        ({"argument": "two", "text": "basket"}, False),
    ],
)
def test_a_check_holds_if_all_its_conditions_do(check, expected):
    page = Page(url="__SHOP__/cart?x=1", observation='<button id="4">pay now</button>\ntotal 12.50')
    before = Page(url="__SHOP__/lamp", observation='<h1>lamp</h1>\n<input id="3" placeholder="quantity"> <button id="30">buy</button>')
    action = Action(name="Type", argument="two", element="3")
    assert holds(Check(**check), Step(index=0, page=before, response="", action=action, state=STATE), page) is expected
    failed = Step(index=0, page=before, response="", action=action, error="the field is disabled")
    assert holds(Check(**check), failed, None) is False
    assert holds(Check(**check), Step(index=0, page=before, response="no call"), None) is False


def test_a_milestone_is_of_the_page_after_the_step_and_stays(tmp_path):
    item = read_items(write(tmp_path / "tasks", TASK), {"shop": ""})["tasks.1"]
    pages = [Page(url="__SHOP__/", observation=text) for text in ("start", "cart", "elsewhere", "paid")]
    steps = tuple(Step(index=number, page=page, response="") for number, page in enumerate(pages[:3]))
    trajectory = Trajectory(
        id=uuid.uuid4().hex, task=item.task(), policy=Policy(name="p"), steps=steps, status=Status.HORIZON, evidence=Evidence(page=pages[3])
    )
    checks = [[Check(text=name)] for name in ("cart", "paid", "start")]
    assert done_after_steps(trajectory, checks) == [(True, False, False), (True, False, False), (True, True, False)]
    assert done_after_steps(trajectory, [[Check(text="none"), Check(text="paid")], []]) == [(False, False), (False, False), (True, False)]


@pytest.fixture
async def browser():
    async with BrowserPool(BrowserConfig(contexts=1)) as pool:
        yield pool


@pytest.fixture
async def shop():
    """A shared site behind a login, with a counter that a button raises."""
    counts = {"n": 0, "resets": 0}

    async def home(request):
        if request.cookies.get("session") != "ann":
            return RedirectResponse("/login", 303)
        return HTMLResponse(f"<h1 id='n'>count {counts['n']}</h1><form method='post' action='/up'><button>more</button></form>")

    async def login(request):
        if request.method == "POST":
            right = await request.body() == b"user=ann&password=secret"
            response = RedirectResponse("/" if right else "/login", 303)
            response.set_cookie("session", "ann" if right else "")
            return response
        return HTMLResponse("<form method='post'><input name='user'><input name='password' type='password'><button>in</button></form>")

    async def up(request):
        counts["n"] += 1
        return RedirectResponse("/", 303)

    async def reset(request):
        counts.update(n=0, resets=counts["resets"] + 1)
        return JSONResponse({})

    routes = [Route("/", home), Route("/login", login, methods=["GET", "POST"]), Route("/up", up, methods=["POST"])]
    routes += [Route("/reset", reset, methods=["POST"]), Route("/state", lambda _: JSONResponse(counts))]
    server = LocalServer(Starlette(routes=routes))
    await server.start()
    yield f"http://{server.host}", counts
    await server.stop()


async def test_an_episode_on_a_shared_site_with_login_reset_and_state(shop, browser, tmp_path, monkeypatch):
    url, counts = shop
    monkeypatch.setenv("SHOP_USER", "ann")
    monkeypatch.setenv("SHOP_PASSWORD", "secret")
    target = {"url": "__SHOP__/", "locator": "#n", "required_contents": {"exact_match": "count 2"}}
    kinds = ["program_html", "state_match", "url_match"]
    task = changed(
        eval={"eval_types": kinds, "program_html": [target], "state": {"shop.n": 2}, "reference_url": "__SHOP__"},
        milestones=[{"text": "one", "done": {"state": {"shop.n": 1}}}, {"text": "two", "done": {"text": "count 2"}}],
        solution=['do(action="Click", element="more")'] * 2,
    )
    account = {"user": "SHOP_USER", "password": "SHOP_PASSWORD"}
    suite = make_suite(
        "tasks", tasks=write(tmp_path / "tasks", task), sites={"shop": url}, states={"shop": "/state"}, logins={"shop": FORM},
        accounts={"shop": account}, reset_paths={"shop": "/reset"}, reset_each=True, settle_seconds=0.1,
    )  # fmt: skip
    await suite.reset()
    await suite.start()
    browser.hosts = suite.hosts  # as in the engine
    (task,) = suite.tasks("test", None, 1, 0)
    for _ in range(2):
        played = await play(suite, task, suite.expert(task), browser)
        outcome = suite.judge(played)
        assert outcome.success, outcome.detail
        subgoals, rows = suite.milestones(played)
        assert rows == [(True, False), (True, True), (True, True)]
        assert [one.check for one in subgoals] == ["state: {'shop.n': 1}", "text: count 2"]
    assert counts == {"n": 2, "resets": 3}
    one_step = suite.expert(task)
    one_step._responses = one_step._responses[:1]
    failed = suite.judge(await play(suite, task, one_step, browser))
    assert not failed.success and "shop.n is 1, not 2" in failed.detail and "count 1" in failed.detail
    with pytest.raises(UserError, match=r"policy\.habits"):
        suite.expert(task, {"hurries": 1.0})


def test_resets_before_each_episode_need_one_episode_at_a_time(tmp_path):
    options = {"tasks": write(tmp_path / "tasks", TASK), **SHOP, "reset_paths": {"shop": "/reset"}, "reset_each": True}
    settings = {"suite": {"name": "tasks", "options": options}, "split": "test", "episodes": 1}
    for changes, message in (
        ({"browser": {"contexts": 2}}, r"browser\.contexts: with suite\.options\.reset_each episodes run one at a time"),
        ({"browser": {"contexts": 1}, "pool": "ray"}, r"pool: with suite\.options\.reset_each .* set pool=local"),
    ):
        with pytest.raises(ConfigError, match=message):
            collect(build(RolloutConfig, settings | changes), tmp_path / "out")


def test_an_episode_of_a_task_that_has_changed_since_is_refused(tmp_path):
    folder = write(tmp_path / "tasks", TASK)
    task = make_suite("tasks", tasks=folder, **SHOP).task("tasks.1")
    trajectory = Trajectory(id="x", task=task, policy=Policy(name="p"), status=Status.FINISHED, evidence=Evidence(answer="7"))
    write(tmp_path / "tasks", changed(eval={"eval_types": ["string_match"], "reference_answers": {"exact_match": "8"}}))
    assert not make_suite("tasks", tasks=folder, **SHOP).judge(trajectory).success  # judged by the rules as they are now
    write(tmp_path / "tasks", changed(intent="Sell it."))
    with pytest.raises(UserError, match=r"tasks\.1: the task has changed since this episode was collected \(intent\)"):
        make_suite("tasks", tasks=folder, **SHOP).judge(trajectory)


async def test_a_site_that_does_not_start_is_said(tmp_path):
    with pytest.raises(SiteError, match=r"ended with status 3 before it answered; run it by hand"):
        await ServedSite.start("shop", [sys.executable, "-c", "raise SystemExit(3)", "{port}"], 10)
    with pytest.raises(SiteError, match=r"did not answer within 0\.3 s"):
        await ServedSite.start("shop", [sys.executable, "-c", "import time; time.sleep(60)", "{port}"], 0.3)
    with pytest.raises(ConfigError, match=r"suite\.options\.commands\.shop: nothing-there: No such file"):
        await ServedSite.start("shop", ["nothing-there", "{port}"], 1)


async def test_a_command_that_serves_nothing_ends_the_run_before_its_first_episode(tmp_path):
    suite = make_suite("tasks", tasks=write(tmp_path / "tasks", TASK), commands={"shop": [sys.executable, "nope.py", "{port}"]})
    with pytest.raises(ConfigError, match=r"suite\.options\.commands\.shop: .*nope\.py \d+ ended with status 2"):
        await suite.reset()


async def test_cookies_of_a_stored_state_log_in(shop, browser, tmp_path):
    url, _ = shop
    cookie = {"name": "session", "value": "ann", "url": url}
    (tmp_path / "state.json").write_text(json.dumps({"cookies": [cookie], "origins": []}))
    options = {"sites": {"shop": url}, "storage_states": {"shop": str(tmp_path / "state.json")}}
    task = changed(eval={"eval_types": ["url_match"], "reference_url": "__SHOP__", "url_note": "EXACT"})
    suite = make_suite("tasks", tasks=write(tmp_path / "tasks", task), **options)
    await suite.start()
    (one,) = suite.tasks("test", None, 1, 0)
    session = await suite.open(one, context := await browser.context())
    assert [kept["value"] for kept in await context.cookies()] == ["ann"]
    await session.close()
    for content, message in (("{}", "holds no cookies"), (json.dumps({"cookies": [cookie], "origins": [{}]}), "holds local storage")):
        (tmp_path / "state.json").write_text(content)
        with pytest.raises(ConfigError, match=message):
            await suite.open(one, context)


def test_preflight_asks_the_sites_and_looks_for_the_programs(tmp_path):
    options = {"commands": {"library": ["no-such-program", "{port}"]}, "sites": {"shop": "http://127.0.0.1:9"}}
    found = Needs()
    make_suite("tasks", tasks=write(tmp_path / "tasks", TASK), **options).needs(found, lambda *_: None)
    assert any("no-such-program: no such program" in check.text for check in found.checks)
    assert {question.key for question in found.questions} == {"suite.options.commands.library", "suite.options.sites.shop"}


def test_the_example_s_tasks_can_be_done_and_not_by_doing_nothing(tmp_path):
    """Both through the command, with a site of its own for each episode."""
    options = {"tasks": str(EXAMPLE / "tasks.json"), "commands": {"library": LIBRARY}, "states": {"library": "/state.json"}}
    settings = {"suite": {"name": "tasks", "options": options}, "split": "validation", "episodes": 3, "observation": {"handles": "name"}}
    for kind, expected in (("expert", 1.0), ("idle", 0.0)):
        (tmp_path / f"{kind}.yaml").write_text(json.dumps(settings | {"policy": {"kind": kind}}))
        assert evaluate.COMMAND.run(["--config", str(tmp_path / f"{kind}.yaml"), "--out", str(tmp_path / kind)]) == 0
        (method,) = summary.read(tmp_path / kind / "summary.json").methods.values()
        assert method.success_rate.mean == expected
    for trajectory in ShardReader(tmp_path / "expert" / "labelled"):
        assert all(trajectory.steps[-1].milestones)
