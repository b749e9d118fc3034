"""WebArena-Infinity on a tiny checkout: one application, with a server and verifiers of its own, in a real browser."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mira_jax.config import load
from mira_jax.errors import UserError
from mira_jax.trajectories.shards import ShardReader
from rollouts import evaluate
from rollouts.errors import SiteError
from rollouts.suites import make_suite
from rollouts.suites.base import to_address
from rollouts.suites.infinity import __main__ as check
from rollouts.suites.infinity.processes import serve
from rollouts.suites.infinity.tasks import fingerprint
from rollouts.web.browser import BrowserConfig, BrowserPool
from tests.processes import ends, runs
from tests.suites.driving import play

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "infinity" / "evaluate.yaml"
LIT, SHUT = "webarena_infinity.lamp.easy.task_e1", "webarena_infinity.lamp.task_2"

SERVER = """
import http.server, sys

state = None

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_PUT(self):
        global state
        state = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"{}")

    def do_GET(self):
        if self.path != "/api/state":
            super().do_GET()
        elif state is None:
            self.send_error(404)
        else:
            self.answer(state)

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

print("what a server prints", flush=True)
http.server.ThreadingHTTPServer(("", int(sys.argv[2])), Handler).serve_forever()
"""

PAGE = """<!doctype html><title>Lamp</title><p id=shown></p><button onclick="light()">Light</button>
<a href="/api/state">State</a> <a href="/%72eal-tasks/task_e1.py">Verifier</a>
<script>
const state = JSON.parse(localStorage.state ?? '{"lamp": "off", "door": "shut"}');
function tell() {
  localStorage.state = JSON.stringify(state);
  shown.textContent = `the lamp is ${state.lamp}`;
  fetch('/api/state', {method: 'PUT', body: JSON.stringify(state)});
}
function light() { state.lamp = 'on'; tell(); }
tell();
</script>"""

VERIFIER = """
import json, urllib.request

def verify(server_url):
    with urllib.request.urlopen(server_url + "/api/state") as answer:
        state = json.load(answer)
    print("what a verifier prints")
    return state["{0}"] == "{1}", "{0} is " + state["{0}"]
"""

FAULTY = {
    "hangs": ("import time\ndef verify(url):\n    time.sleep(600)", SiteError, r"hangs.py took more than 5 s"),
    "ends": ("import os\ndef verify(url):\n    os._exit(0)", SiteError, r"ends.py ended without a verdict"),
    "lost": ("def verify(url):\n    raise ConnectionRefusedError('nobody')", SiteError, r"can't reach the application: .*nobody"),
    "lacks": ("import no_such_package", UserError, r"lacks.py can't be loaded .*no_such_package.* set suite.options.python"),
}


def make_checkout(folder, verifiers, server=SERVER, difficulties=()):
    """A checkout with the application `lamp`, and a task for each verifier."""
    app = folder / "apps" / "lamp"
    (app / "real-tasks").mkdir(parents=True)
    (app / "server.py").write_text(server)
    (app / "index.html").write_text(PAGE)
    entries = []
    for name, text in verifiers.items():
        (app / "real-tasks" / f"{name}.py").write_text(text)
        entries.append({"id": name, "instruction": f"Do {name}.", "verify": f"real-tasks/{name}.py"})
    for entry, difficulty in zip(entries, difficulties, strict=False):
        entry["difficulty"] = difficulty
    (app / "real-tasks.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def checkout(tmp_path):
    verifiers = {"task_e1": VERIFIER.format("lamp", "on"), "task_2": VERIFIER.format("door", "shut")}
    return make_checkout(tmp_path / "checkout", verifiers, difficulties=["easy"])


@pytest.fixture
def checked(checkout):
    """What the check finds, as a file."""
    path = checkout.parent / "checked.json"
    path.write_text(json.dumps({"lamp": {"fingerprint": fingerprint(checkout / "apps" / "lamp"), "tasks": 2, "passed": [SHUT]}}))
    return path


@pytest.fixture
async def browsers():
    async with BrowserPool(BrowserConfig(contexts=2)) as pool:
        yield pool


class Scripted:
    def __init__(self, *responses):
        self.responses = responses

    def respond(self, task, rounds, observation):
        return self.responses[len(rounds)] if len(rounds) < len(self.responses) else 'exit(message="")'


def click(name):
    return f'do(action="Click", element="{name}")'


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def opened(suite, task_id, browsers):
    """A session, and its page in the browser."""
    context = await browsers.context()
    session = await suite.open(suite.task(task_id), context)
    browsers.allow(context, session.hosts)
    page = await context.new_page()
    await page.goto(to_address(session.task.start_url, session.addresses))
    return session, page


async def test_two_episodes_at_once_have_a_state_each_and_the_verifier_judges_it(checkout, browsers):
    suite = make_suite("webarena_infinity", checkout=str(checkout))
    task = suite.task(LIT)
    assert (task.template, task.sites, task.intent, task.horizon) == ("lamp", ("lamp",), "Do task_e1.", 50)
    before = files(checkout)
    lit, dark = await asyncio.gather(*[play(suite, task, policy, browsers) for policy in (Scripted(click("light")), Scripted())])
    assert "the lamp is on" in lit.steps[1].page.observation and "the lamp is off" in dark.steps[0].page.observation
    assert lit.steps[0].page.url == "__LAMP__/"
    for episode, success, detail in ((lit, True, "lamp is on"), (dark, False, "lamp is off")):
        outcome = suite.judge(episode)
        assert (outcome.success, outcome.score, outcome.source, outcome.detail) == (success, float(success), "rule", detail)
    assert files(checkout) == before


async def test_the_api_and_the_verifiers_can_not_be_navigated_to(checkout, browsers):
    """The page's own script reaches the API all the while: it tells the state by it."""
    suite = make_suite("webarena_infinity", checkout=str(checkout))
    policy = Scripted(click("state"), "go_backward()", click("verifier"), "go_backward()", click("light"))
    episode = await play(suite, suite.task(LIT), policy, browsers)
    seen = [step.page.observation for step in episode.steps]
    assert "403" in seen[1] and "403" in seen[3] and "shut" not in seen[1] and "urllib" not in seen[3]
    assert "the lamp is off" in seen[2] and "the lamp is on" in seen[5]
    assert not any(step.error for step in episode.steps) and suite.judge(episode).success


async def test_a_server_that_is_gone_is_an_infrastructure_error(checkout, browsers):
    suite = make_suite("webarena_infinity", checkout=str(checkout))
    session, _ = await opened(suite, LIT, browsers)
    assert await session.state() == {}
    os.kill(session.server.pid, signal.SIGKILL)
    assert await asyncio.to_thread(ends, session.server.pid)
    for call in (lambda: session.evidence(None, "done"), session.state):
        with pytest.raises(SiteError, match="the server of lamp ended with status -9"):
            await call()
    await session.close()
    await session.close()


async def test_a_server_ends_with_its_whole_group(tmp_path):
    """A child of the server's, which ignores hangups, would outlive it."""
    more = "import subprocess\nopen('../../pid', 'w').write(str(subprocess.Popen(['nohup', 'sleep', '600']).pid))\n"
    folder = make_checkout(tmp_path, {"task_e1": ""}, server=more + SERVER)
    server, host = await serve(sys.executable, folder / "apps" / "lamp")
    grandchild = int((folder / "pid").read_text())
    assert host.startswith("127.0.0.1:") and runs(server.pid) and runs(grandchild)
    await server.end()
    assert server.status == -9 and await asyncio.to_thread(ends, grandchild)


def test_a_server_does_not_outlive_a_worker_that_is_killed(checkout):
    worker = (
        "import asyncio, pathlib, sys; from rollouts.suites.infinity.processes import serve\n"
        "async def main():\n"
        "    server, _ = await serve(sys.executable, pathlib.Path(sys.argv[1]))\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", worker, checkout / "apps" / "lamp"], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        pid = int(process.stdout.readline())
        assert runs(pid)
    finally:
        process.kill()
        process.communicate()
    assert ends(pid)


async def test_a_server_that_does_not_start_is_named(tmp_path):
    folder = make_checkout(tmp_path, {"task_e1": ""}, server="raise SystemExit(3)") / "apps" / "lamp"
    with pytest.raises(SiteError, match=r"lamp/server.py ended before it listened; run it by hand"):
        await serve(sys.executable, folder)


async def test_a_verifier_that_fails_is_not_a_task_that_failed(tmp_path, browsers, monkeypatch):
    """Except for one that raises: the benchmark's own harness takes that for a task that is not done."""
    monkeypatch.setenv("MIRA_KEY", "secret")
    telling = {
        "raises": "def verify(url):\n    return {}['door']",
        "tells": "import os\ndef verify(url):\n    return 'MIRA_KEY' not in os.environ, ' '.join(['x' * 600])",
    }
    texts = telling | {name: text for name, (text, _, _) in FAULTY.items()}
    suite = make_suite("webarena_infinity", checkout=str(make_checkout(tmp_path, texts)), verify_seconds=5)
    items = {item.verifier.stem: item for item in suite.apps["lamp"]}
    session, _ = await opened(suite, "webarena_infinity.lamp.raises", browsers)
    assert await session.verify([items["raises"], items["tells"]]) == [
        {"passed": False, "message": "the verifier raised KeyError: 'door'"},
        {"passed": True, "message": "x" * 500},
    ]
    for name, (_, kind, message) in FAULTY.items():
        with pytest.raises(kind, match=message):
            await session.verify([items[name]])
    await session.close()


def test_the_check_finds_what_passes_untouched(checkout, checked, tmp_path, capsys):
    before, out = files(checkout), tmp_path / "out" / "check.json"
    argv = ["--checkout", str(checkout), "--out", str(out)]

    def run():
        return check.COMMAND.run(argv)

    assert run() == 0
    assert json.loads(out.read_text()) == json.loads(checked.read_text()) and files(checkout) == before
    assert capsys.readouterr().out.splitlines() == [SHUT, f"1 of 2 tasks are refused; {out} lists them"]
    assert run() == 2 and "exists already" in capsys.readouterr().err


def test_an_evaluation_takes_the_tasks_that_do_not_pass_untouched(checkout, checked, tmp_path):
    options = [f"suite.options.checkout={checkout}", f"suite.options.check={checked}"]
    overrides = [*options, "policy.kind=idle", "episodes=1", f"out={tmp_path / 'out'}"]
    assert evaluate.main(load(evaluate.EvaluateConfig, CONFIG, overrides)) == 0
    (episode,) = ShardReader(tmp_path / "out" / "labelled")
    assert episode.task.id == LIT and episode.outcome.detail == "lamp is off" and not episode.success
    (checkout / "apps" / "lamp" / "index.html").write_text(PAGE + " ")
    with pytest.raises(UserError, match=r"checked.json is not of lamp as it is now; run `mira infinity-check .* again"):
        make_suite("webarena_infinity", checkout=str(checkout), check=str(checked)).tasks("test", ["lamp"], 1, 0)


@pytest.mark.parametrize(
    ("options", "call", "message"),
    [
        ({"checkout": ""}, None, r"suite.options.checkout is not set: name .* https://github.com/web-arena-x/webarena-infinity"),
        ({"checkout": "{}/apps"}, None, r"suite.options.checkout: no apps/\*/real-tasks.json in .*/apps"),
        ({"python": "no-such-python"}, None, "suite.options.python: 'no-such-python' is not an executable file"),
        ({"verify_seconds": 0}, None, "suite.options.verify_seconds: 0.0; it must be above 0"),
        ({"chekout": "x"}, None, "chekout.*checkout"),
        ({"check": ""}, lambda suite: suite.tasks("test", None, 1, 0), "suite.options.check is not set: run `mira .* once"),
        ({"check": "{}/none"}, lambda suite: suite.tasks("test", None, 1, 0), "suite.options.check: .*none: .*No such file"),
        ({}, lambda suite: suite.tasks("train", None, 1, 0), "webarena_infinity has only the split test"),
        ({}, lambda suite: suite.tasks("test", ["oven"], 1, 0), "templates: 'oven' is none of lamp"),
        ({}, lambda suite: suite.tasks("test", None, 2, 0), f"2 tasks are wanted, and there are 1; refused, .*: {SHUT}"),
        ({}, lambda suite: suite.task("webarena_infinity.lamp.task_e1"), "lamp.task_e1: no such task"),
        ({}, lambda suite: suite.expert(suite.task(LIT)), "webarena_infinity has no expert; choose endpoint"),
    ],
)
def test_what_is_wrong_is_named(checkout, checked, options, call, message):
    options = {name: value.format(checkout) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(UserError, match=message):
        call(make_suite("webarena_infinity", **{"checkout": str(checkout), "check": str(checked)} | options))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[]", "no tasks, or two of one name"),
        ("{}", "Expected `array`"),
        ('[{"id": "a", "instruction": "A"}]', "missing required field `verify`"),
        ('[{"id": "a", "instruction": "A", "verify": "../outside.py"}]', "a: no verifier '../outside.py' in the folder"),
        ('[{"id": "a|b", "instruction": "A", "verify": "server.py"}]', "is no name of a task"),
    ],
)
def test_what_is_no_task_is_refused(checkout, entries, message):
    (checkout / "apps" / "outside.py").write_text("")
    (checkout / "apps" / "lamp" / "real-tasks.json").write_text(entries)
    with pytest.raises(UserError, match=f"real-tasks.json: not tasks of WebArena-Infinity: .*{message}"):
        make_suite("webarena_infinity", checkout=str(checkout))
