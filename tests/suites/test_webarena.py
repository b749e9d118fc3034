"""WebArena-Lite on a small shop and a small code host: tasks, logins, helpers, evidence, and a whole evaluation."""

import json
import sys
import zipfile

import msgspec
import pytest

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.trajectories.records import Page, Policy, Status, Trajectory
from rollouts import evaluate
from rollouts.errors import SiteError
from rollouts.suites import make_suite
from rollouts.suites.login import Logins
from rollouts.suites.webarena.__main__ import WebArenaReportConfig
from rollouts.suites.webarena.__main__ import main as tell
from rollouts.suites.webarena.helpers import Helpers, is_call
from rollouts.suites.webarena.report import tables
from rollouts.suites.webarena.suite import WebArenaLiteSuite
from rollouts.suites.webarena.tasks import FORMS, MEMBER, login_sites, read_tasks, to_task
from rollouts.web.browser import BrowserConfig, BrowserPool
from tests.suites.webarena_sites import FakeSite, target, task


@pytest.fixture
def shop():
    with FakeSite("shopping") as site:
        yield site


@pytest.fixture
def gitlab():
    with FakeSite("gitlab") as site:
        yield site


@pytest.fixture
async def browser(shop, gitlab):
    async with BrowserPool(BrowserConfig(), (shop.host, gitlab.host)) as pool:
        yield pool


ANSWER = {"reference_answers": {"exact_match": "4"}}
ROLE = "func:gitlab_get_project_memeber_role(__page__, 'bob')"


@pytest.fixture
def options(shop, gitlab, tmp_path, monkeypatch):
    """Makes the options of a suite of these tasks."""
    for name, value in {"A_USER": "ann", "A_PASS": "pass", "R_USER": "root", "R_PASS": "top"}.items():
        monkeypatch.setenv(name, value)

    def make(*tasks, **changes):
        path = tmp_path / "tasks.json"
        path.write_text(json.dumps(tasks))
        accounts = {site: {"user": "A_USER", "password": "A_PASS"} for site in ("shopping", "gitlab")}
        accounts["shopping_site_admin"] = {"user": "R_USER", "password": "R_PASS"}
        sites = {"shopping": shop.address, "gitlab": gitlab.address + "/"}
        return {"tasks": str(path), "sites": sites, "accounts": accounts, "settle_seconds": 0} | changes

    return make


def test_tasks_are_read_from_the_wheel_or_its_json(tmp_path):
    items = [task(0, **ANSWER), task(7, "gitlab", sites=["gitlab", "reddit"], **ANSWER)]
    (tmp_path / "tasks.json").write_text(json.dumps(items))
    with zipfile.ZipFile(tmp_path / "lite.whl", "w") as wheel:
        wheel.writestr(MEMBER, json.dumps(items))
    read = read_tasks(str(tmp_path / "lite.whl"))
    assert read == read_tasks(str(tmp_path / "tasks.json")) and list(read) == ["webarena_lite.0", "webarena_lite.7"]
    record = to_task("webarena_lite.7", read["webarena_lite.7"])
    assert (record.template, record.sites, record.split, record.horizon) == ("several_sites", ("gitlab", "reddit"), "test", 30)
    assert login_sites({"storage_state": "./.auth/gitlab.reddit_state.json"}) == ["gitlab", "reddit"]
    assert login_sites({"storage_state": None}) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not WebArena-Lite's tasks"),
        ("[]", "not a list of tasks"),
        ('[{"task_id": 1}]', "a task without sites"),
        ([task(1, "bank", **ANSWER)], "'bank' is none of"),
        ([task(1, program_html=[target("func:__import__('os').getcwd()", "", must_include=["x"])])], "unknown helper"),
        ([task(1, program_html=[target("last", "lambda: 1", must_include=["x"])])], "unknown locator"),
        ([task(1, program_html=[target("last", "", nearly=["x"])])], "exact_match, must_include, fuzzy_match"),
        ([task(1, reference_url="__SHOPPING__/", url_note="LIKE")], "'LIKE' is not 'GOLD in PRED'"),
    ],
)
def test_what_are_not_its_tasks_is_refused(content, message, tmp_path):
    path = tmp_path / "tasks.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_tasks(str(path))
    with pytest.raises(UserError, match="cannot read the tasks"):
        read_tasks(str(tmp_path / "none.whl"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sites": {"shoping": "http://127.0.0.1:1"}}, "'shoping' is none of"),
        ({"sites": {"shopping": "ftp://127.0.0.1"}}, "is the address of a store"),
        ({"sites": {"shopping": "http://me:secret@127.0.0.1"}}, "is not an address"),
        ({"sites": {"shopping": "http://127.0.0.1:port"}}, "is not an address"),
        ({"site": {}}, r"unknown key suite\.options\.site; did you mean suite\.options\.sites"),
        ({"accounts": {"gitlab": {"user": "A_USER"}}}, "accounts.gitlab: name the environment variables"),
        ({"reset": {"shopping": []}}, "reset.shopping: name a command"),
        ({"reset_seconds": 0}, r"suite\.options\.reset_seconds: 0\.0; it must be above 0"),
    ],
)
def test_bad_options_are_refused(changes, message, options):
    with pytest.raises(UserError, match=message):
        make_suite("webarena_lite", **options(task(0, **ANSWER), **changes))


def test_what_the_tasks_need_is_missed_before_anything_runs(options, monkeypatch):
    plain, order = task(0, **ANSWER), task(2, program_html=[target("func:shopping_get_latest_order_url()", "", must_include=["x"])])
    fuzzy = task(3, reference_answers={"fuzzy_match": ["about 4"]})
    suite = make_suite("webarena_lite", **options(plain, task(1, "gitlab", **ANSWER), order))
    assert [chosen.id for chosen in suite.tasks("test", None, 3, 0)] == ["webarena_lite.0", "webarena_lite.1", "webarena_lite.2"]
    assert [chosen.template for chosen in suite.tasks("test", ["gitlab"], 1, 0)] == ["gitlab"]
    for arguments, message in [
        (("train", None, 1, 0), "only the split test"),
        (("test", None, 4, 0), "4 tasks are wanted, and there are 3"),
        (("test", ["bank"], 1, 0), "'bank' is none of"),
    ]:
        with pytest.raises(UserError, match=message):
            suite.tasks(*arguments)
    with pytest.raises(UserError, match=r"webarena_lite\.9: no such task"):
        suite.task("webarena_lite.9")
    account = {"user": "A_USER", "password": "A_PASS"}
    for items, changes, message in [
        ((plain,), {"sites": {}}, r"sites\.shopping: not set, and 1 of the tasks need it, the first webarena_lite\.0"),
        ((plain,), {"accounts": {}}, r"accounts\.shopping: not set"),
        ((order,), {"accounts": {"shopping": account}}, r"accounts\.shopping_site_admin: not set"),
        ((fuzzy,), {}, r"judge: not set"),
    ]:
        with pytest.raises(UserError, match=message):
            make_suite("webarena_lite", **options(*items, **changes)).tasks("test", None, 1, 0)
    monkeypatch.delenv("A_PASS")
    with pytest.raises(UserError, match="the environment variable A_PASS is not set"):
        suite.tasks("test", None, 3, 0)


async def test_sites_are_reset_and_must_answer(options, tmp_path):
    made = tmp_path / "reset"
    suite = make_suite("webarena_lite", **options(task(0, **ANSWER), reset={"gitlab": [sys.executable, "-c", f"open({str(made)!r}, 'w')"]}))
    await suite.reset()
    assert made.exists()
    for changes, message in [
        ({"reset": {"gitlab": ["false"]}}, "reset.gitlab: false ended with status 1"),
        ({"reset": {"gitlab": [str(tmp_path / "none")]}}, "reset.gitlab: .*No such file"),
        ({"reset": {"gitlab": ["sleep", "60"]}, "reset_seconds": 0.1}, "not done within reset_seconds"),
        ({"sites": {"shopping": "http://127.0.0.1:9"}}, "sites.shopping: http://127.0.0.1:9 does not answer"),
    ]:
        with pytest.raises(UserError, match=message):
            await make_suite("webarena_lite", **options(task(0, **ANSWER), **changes)).reset()


async def test_a_login_is_kept_and_renewed_when_it_has_expired(shop, gitlab, browser):
    addresses = {"shopping": shop.address, "gitlab": gitlab.address}
    logins = Logins(addresses, dict.fromkeys(addresses, ("ann", "pass")), FORMS)

    async def signed_in():
        context = await browser.context()
        for site in addresses:
            await logins.sign_in(site, context)
        page = await context.new_page()
        shown = []
        for address in addresses.values():
            await page.goto(address + "/account")
            shown.append(await page.inner_text("h1"))
        await browser.close(context)
        return shown

    assert await signed_in() == ["Page /account"] * 2 and logins.renewed == {"shopping": 1, "gitlab": 1}
    assert await signed_in() == ["Page /account"] * 2 and logins.renewed == {"shopping": 1, "gitlab": 1}
    shop.sessions.clear()
    assert await signed_in() == ["Page /account"] * 2 and logins.renewed == {"shopping": 2, "gitlab": 1}
    assert (shop.logins, gitlab.logins) == (2, 1)
    wrong = Logins(addresses, {"shopping": ("ann", "other")}, FORMS)
    with pytest.raises(SiteError, match="shopping: not signed in after the login; check the account"):
        await wrong.sign_in("shopping", await browser.context())


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("func:shopping_get_latest_order_url()", True),
        ("func:reddit_get_post_url('__last_url__')", True),
        ('func:shopping_get_sku_latest_review_author("B0 1")', True),
        (ROLE, True),
        ("func:reddit_get_post_url()", False),
        ("func:reddit_get_post_url('a', 'b')", False),
        ("func:reddit_get_post_url('a' + 'b')", False),
        ("func:reddit_get_post_url(open('x'))", False),
        ("func:exec('x')", False),
        ("shopping_get_latest_order_url()", False),
    ],
)
def test_only_known_helpers_with_plain_strings_are_calls(text, known):
    assert is_call(text) is known


async def test_helpers_ask_the_shop(shop):
    helpers = Helpers({"shopping": shop.address}, ("root", "top"))

    async def call(text, last=""):
        return await helpers.call(text, None, last)

    assert await call("func:shopping_get_latest_order_url()") == f"{shop.address}/sales/order/view/order_id/17/"
    assert await call("func:shopping_get_sku_latest_review_author('B0/1')") == "zoe"
    assert await call("func:shopping_get_sku_latest_review_rating('B0/1')") == "80"
    post = "func:reddit_get_post_url('__last_url__')"
    assert await call(post, "http://r:9/f/books/12/title/-/comment/3") == "http://r:9/f/books/12/"
    assert await call(post, "http://r:9/user/ann") == "http://r:9/user/ann"
    assert await call(post, "http://r:9/f/books") == "http://r:9/f/books"
    shop.orders.clear()
    with pytest.raises(SiteError, match="gave no items"):
        await call("func:shopping_get_latest_order_url()")
    with pytest.raises(SiteError, match="HTTP 401"):
        await Helpers({"shopping": shop.address}, ("root", "wrong")).call("func:shopping_get_latest_order_url()", None, "")


async def test_evidence_is_what_the_targets_select(options, shop, gitlab, browser):
    last, gold = "__SHOPPING__/cart", ["__SHOPPING__/x"]
    targets = [
        target("last", "document.querySelector('.name').outerText", exact_match="Page /cart"),
        target("last", "[...document.querySelectorAll('.l')].map(e => e.href).join(' ')", must_include=gold),
        target("last", "document.querySelector('.none').outerText", exact_match=""),
        target("func:shopping_get_latest_order_url()", "", must_include=["order_id/17/</h1>"]),
        target("__GITLAB__/a/-/project_members", ROLE, must_include=["owner |OR| guest"]),
    ]
    item = task(0, sites=["shopping", "gitlab"], program_html=targets, reference_url=last)
    suite = WebArenaLiteSuite(**options(item | {"storage_state": "./.auth/gitlab.shopping_state.json"}))
    await suite.start()
    context = await browser.context()
    session = await suite.open(suite.task("webarena_lite.0"), context)
    assert session.hosts == {shop.host, gitlab.host}
    front, other = await context.new_page(), await context.new_page()
    await front.goto(shop.address + "/cart")
    await other.goto(gitlab.address)
    evidence = await session.evidence(Page(url=last, observation=""), "done", front)
    assert front.url == shop.address + "/cart" and evidence.answer == "done"
    assert evidence.contents[:3] == ("Page /cart", "__SHOPPING__/x", "") and evidence.contents[4] == "Guest"
    assert "__SHOPPING__/x" in evidence.contents[3] and shop.host not in evidence.contents[3]
    assert suite.judge(_trajectory(session.task, evidence)).success
    gitlab.broken = "/a/-/project_members"
    with pytest.raises(SiteError, match="__GITLAB__/a/-/project_members answered HTTP 503"):
        await session.evidence(Page(url=last, observation=""), "done", front)
    gitlab.broken = ""
    await front.evaluate("document.querySelector('.name').textContent = 'other'")
    evidence = await session.evidence(Page(url=last, observation=""), "done", front)
    assert not suite.judge(_trajectory(session.task, evidence)).success
    await browser.close(context)


def _trajectory(task, evidence):
    return Trajectory(id="a", task=task, policy=Policy(name="p"), status=Status.FINISHED, evidence=evidence)


async def test_a_written_task_is_run_signed_in_and_has_no_outcome(options, shop, browser):
    suite = WebArenaLiteSuite(**options(task(0, **ANSWER)))
    like = suite.task("webarena_lite.0")
    written = msgspec.structs.replace(like, id="webarena_lite.written.1", template="written", split="train", intent="Buy a lamp")
    await suite.start()
    context = await browser.context()
    session = await suite.open(written, context)
    assert session.task == written and session.hosts == {shop.host} and shop.logins == 1
    evidence = await session.evidence(Page(url="__SHOPPING__/", observation=""), "done", await context.new_page())
    assert evidence.answer == "done" and evidence.contents == ()
    assert suite.judge(_trajectory(session.task, evidence)) is None
    assert suite.milestones(_trajectory(session.task, evidence)) == ((), [])
    with pytest.raises(UserError, match="no such task"):
        await suite.open(msgspec.structs.replace(written, template="shopping"), context)
    await browser.close(context)


def test_a_whole_evaluation_is_told_in_both_ways(options, tmp_path, capsys):
    last = "document.querySelector('h1').outerText"
    items = [
        task(0, program_html=[target("last", last, exact_match="Page /")]),
        task(1, reference_url="__SHOPPING__/cart"),
        task(2, "gitlab", reference_url="__GITLAB__/"),
    ]
    made = options(*items)
    settings = {
        "out": str(tmp_path / "out"), "suite": {"name": "webarena_lite", "options": made}, "episodes": 3, "policy": {"kind": "idle"},
    }  # fmt: skip
    assert evaluate.main(build(evaluate.EvaluateConfig, settings)) == 0
    capsys.readouterr()
    assert tell(WebArenaReportConfig(folder=settings["out"], tasks=made["tasks"])) == 0
    printed = capsys.readouterr().out
    assert "OSS       50.0 %    1/2" in printed and "Gitlab   100.0 %    1/1" in printed and "average   66.7 %    2/3" in printed
    assert "shopping   50.0 %    1/2" in printed


def test_a_task_without_an_outcome_is_no_success_in_the_paper_and_apart_by_sites():
    several = ["reddit", "gitlab"]
    tasks = [to_task(f"t{i}", task(i, sites=sites, **ANSWER)) for i, sites in enumerate([["map"], ["map"], several, several[::-1]])]
    text = tables(tasks, {"t0": True, "t2": True, "t3": False})
    paper, by_sites = text.split("\n\n")
    assert "Map       50.0 %    1/2" in paper and "average   50.0 %    2/4" in paper and "Reddit       -" in paper
    assert "map              100.0 %    1/1  (1 without an outcome)" in by_sites
    assert "gitlab + reddit   50.0 %    1/2" in by_sites and "all               66.7 %    2/3" in by_sites
