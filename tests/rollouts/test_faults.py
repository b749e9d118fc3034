"""What breaks under a run: browser, pages, endpoint, disk, its own process. No episode is lost, doubled, or scored for it."""

import asyncio
import http.server
import json
import os
import random
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import msgspec
import pytest

import rollouts.engine.episode
import rollouts.engine.worker
from mira_jax.errors import UserError
from mira_jax.files import sole_writer
from mira_jax.trajectories.records import Status, episode_key
from mira_jax.trajectories.shards import ShardReader, Spool
from mira_jax.trajectories.tokenizer import train_tokenizer
from rollouts import collect as collect_command
from rollouts import evaluate
from rollouts.agents.policy import make_policy, step_seed
from rollouts.engine.pool import LOST, collect, lost_episodes
from rollouts.labels.outcome import label
from rollouts.web.browser import BrowserPool
from tests.rollouts.sites import BROWSER, CountingSession, CountingSuite, config, descendants, start_worker

PATIENCE = 100
"""Seconds after which something that was to happen is taken never to happen."""


def until(done, what):
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def command_line(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


# The browser.


@pytest.mark.parametrize("victim", ["browser", "renderer"])
def test_a_killed_browser_or_renderer_costs_a_retry_and_no_episode(use, tmp_path, monkeypatch, victim):
    pools = []
    monkeypatch.setattr(rollouts.engine.worker, "BrowserPool", lambda *a: pools.append(BrowserPool(*a)) or pools[-1])
    killed = []

    async def trouble(session):
        if session.task.id.endswith(".2") and session.presses == 1 and not killed:  # two more presses need the browser
            for process, name in descendants(os.getpid()):
                if name.startswith("chrom") and (victim == "browser" or b"--type=renderer" in command_line(process)):
                    killed.append(process)
                    os.kill(process, signal.SIGKILL)

    use(CountingSuite(trouble))
    tally = collect(config(browser=BROWSER | {"call_seconds": 30}), tmp_path)
    assert killed and tally.status == {"finished": 4} and tally.retries >= 1
    assert pools[0].launches == (2 if victim == "browser" else 1)
    for episode in ShardReader(tmp_path):
        assert len(episode.steps) == int(episode.task.intent.split()[1]) + 1
        assert [step.index for step in episode.steps] == list(range(len(episode.steps)))


# The pages.

PRESS = "<button onclick='{}'>press</button>"
PAGES = {
    "silent": None,
    "carousel": "<a href=/left-turn>press</a>",
    "fine": "<a href=/press?n=1>press</a>",
    "dialogs": "<script>onbeforeunload = (event) => event.preventDefault()</script>"
    + PRESS.format("for (let i = 0; i < 33; i++) { alert(i); confirm(i); prompt(i) } location = `/left`"),
    "popups": PRESS.format("for (let i = 0; i < 100; i++) window.open(`/popup?` + i)"),
    "fountain": PRESS.format("setInterval(() => window.open(`/popup`), 1)"),
    "downloads": PRESS.format(
        "for (let i = 0; i < 30; i++) { const a = document.createElement(`a`); a.href = `/file?` + i; a.download = i; a.click() }"
    ),
    "circle": "<a href=/circle>press</a>",
    "huge": b"<a href=/press?n=1>press</a><p>" + b"word " * 10_000_000,
}
FINISHED, GIVEN_UP = {Status.FINISHED}, {Status.INFRA_ERROR}
ENDS = {"silent": GIVEN_UP, "circle": GIVEN_UP, "huge": FINISHED | GIVEN_UP}
"""How an episode on the page may end. What is not here finishes."""


class Zoo(CountingSuite):
    """Each task begins on a page of its own."""

    def tasks(self, split, templates, count, seed):
        return [self.task(f"press.{split}.{seed}.{index}") for index in range(len(PAGES))]

    def task(self, task_id):
        start = "/hang" if self.page_of(task_id) == "silent" else f"/{self.page_of(task_id)}"
        return msgspec.structs.replace(super().task(task_id), intent="press 2", start_url="__COUNT__" + start)

    def page_of(self, task_id):
        return list(PAGES)[int(task_id.rsplit(".", 1)[1])]

    async def start(self):
        await super().start()
        self.site.pages |= {f"/{name}": page for name, page in PAGES.items() if page}
        self.site.pages |= {f"/{a}-turn": f"<script>location = '/{b}-turn'</script>" for a, b in (("left", "right"), ("right", "left"))}


def test_bad_pages_cost_their_own_episodes_at_most(use, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    suite = use(Zoo())
    browser = BROWSER | {"contexts": 4, "call_seconds": 90, "load_seconds": 6}
    tally = collect(config(browser=browser, limits={"tries": 1, "give_up_after": 100}), tmp_path / "out")
    assert tally.wanted == sum(tally.status.values()) == len(PAGES)
    kept, lost = list(ShardReader(tmp_path / "out")), lost_episodes(tmp_path / "out" / LOST)
    ended = {suite.page_of(episode.task.id): episode for episode in [*kept, *lost]}
    assert len(kept) + len(lost) == len(ended) == len(PAGES)
    assert {name: episode.error for name, episode in ended.items() if episode.status not in ENDS.get(name, FINISHED)} == {}
    assert "no page has stayed" in str(ended["carousel"].steps)
    for name in ("silent", "circle"):
        assert ended[name].error.startswith("site: ") and not ended[name].steps
    assert "/left" in suite.site.calls, "after 99 dialogs the page was left, past one more"
    for name in ("popups", "fountain"):
        tabs = [step.page.observation.split("\n")[0].split(",") for step in ended[name].steps]
        assert max(map(len, tabs)) <= 32
    assert "more than 32 tabs; the others were closed" in str(ended["popups"].steps)
    for step in ended["huge"].steps:
        assert len(step.page.observation) < 41_000
    assert [path for path in scratch.rglob("*") if path.is_file()] == [], "nothing that a page sent is kept"


def test_a_page_that_hangs_or_never_stops_talking_is_lost_while_the_others_go_on(use, tmp_path):
    async def trouble(session):
        hang = {"1": "for (;;);", "2": "for (;;) alert(1)"}.get(session.task.id[-1])
        if hang and session.presses == 1:  # one or two more presses need the page
            await session.context.pages[-1].evaluate(f"setTimeout(() => {{ {hang} }}, 0)")

    use(CountingSuite(trouble))
    tally = collect(config(limits={"tries": 1}, browser=BROWSER | {"call_seconds": 5}), tmp_path)
    assert tally.status == {"finished": 2, "infra_error": 2}


# The sites.


def test_lost_episodes_are_counted_apart_never_judged_and_tried_again(use, tmp_path):
    async def trouble(session):
        if session.task.id.endswith((".1", ".3")):
            raise OSError("the site is ill")

    suite = use(CountingSuite(trouble))
    tally = collect(config(limits={"tries": 2}), tmp_path)
    assert tally.status == {"finished": 2, "infra_error": 2} and tally.retries == 4
    assert suite.opened == suite.closed == 6
    lost = lost_episodes(tmp_path / LOST)
    assert {episode.task.id[-1] for episode in lost} == {"1", "3"}
    for episode in lost:
        assert episode.status is Status.INFRA_ERROR and episode.outcome is None and not episode.steps
        assert "the site is ill" in episode.error
        assert label(episode, suite).outcome is None
    assert len(ShardReader(tmp_path)) == 2
    suite.trouble = None
    tally = collect(config(), tmp_path)
    assert (tally.skipped, tally.status) == (2, {"finished": 2})
    assert lost_episodes(tmp_path / LOST) == [] and len(ShardReader(tmp_path)) == 4


def test_a_straggler_has_one_time_limit_for_all_its_tries_and_its_closing(use, tmp_path, monkeypatch):
    monkeypatch.setattr(rollouts.engine.episode, "CLOSE_SECONDS", 1.0)

    class Straggler(CountingSession):
        async def close(self):
            await super().close()
            if self.task.id.endswith(".2"):
                await asyncio.sleep(2 * PATIENCE)

    async def trouble(session):
        if session.task.id.endswith(".2"):
            await asyncio.sleep(2 * PATIENCE)

    suite = use(CountingSuite(trouble))
    monkeypatch.setattr("tests.rollouts.sites.CountingSession", Straggler)
    began = time.monotonic()
    tally = collect(config(limits={"tries": 3, "episode_seconds": 8}), tmp_path)
    assert tally.status == {"finished": 3, "infra_error": 1} and tally.retries <= 1 and suite.opened == suite.closed
    assert "took more than 8 s" in lost_episodes(tmp_path / LOST)[0].error
    assert time.monotonic() - began < PATIENCE


def test_what_nobody_thought_of_costs_its_episode_alone(use, tmp_path, capsys):
    class Odd(CountingSuite):
        async def open(self, task, context):
            session = await super().open(task, context)
            if task.id.endswith(".1"):
                session.state = unwritable
            return session

    async def unwritable():
        return {"presses": 1, "note": "half of a surrogate pair: \ud800"}

    async def trouble(session):
        if session.task.id.endswith(".2"):
            raise KeyError("odd")

    use(Odd(trouble))
    tally = collect(config(limits={"tries": 2}), tmp_path)
    assert tally.status == {"finished": 2, "infra_error": 2}
    errors = sorted(episode.error for episode in lost_episodes(tmp_path / LOST))
    assert errors[0] == "infrastructure: KeyError: 'odd'"
    assert (
        errors[1].startswith("site: the sites' state or evidence cannot be stored in a record: ") and "surrogates not allowed" in errors[1]
    )
    assert "Traceback" in capsys.readouterr().err


def test_nothing_but_infrastructure_errors_ends_the_run(use, tmp_path):
    async def trouble(session):
        raise OSError("down")

    use(CountingSuite(trouble))
    with pytest.raises(UserError, match=r"the last 3 episodes were lost .* site: reading the sites' state: down"):
        collect(config(episodes=50, limits={"tries": 1, "give_up_after": 3}), tmp_path)


# The endpoint.

ANSWER = {"choices": [{"text": "", "logprobs": {"token_logprobs": [-0.5]}, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
FAULTS = ("silence", "429", "500", "drop", "reset", "bytes", "shape", "depth")


class Model:
    """An endpoint that knows what to answer at each step, by the step's seed, unless `fault(episode, asked)` names what goes wrong.

    `asked` counts the requests, by seed.
    """

    def __init__(self, tasks, policy, fault):
        self.fault, self.asked, self.over = fault, {}, threading.Event()
        self.steps = {step_seed(episode_key(task, 0, policy), step): (i, step) for i, task in enumerate(tasks) for step in range(6)}
        self.times = [int(task.intent.split()[1]) for task in tasks]
        model = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, json.dumps({"data": [{"id": "small"}]}).encode())

            def do_POST(self):
                seed = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["seed"]
                episode, step = model.steps[seed]
                model.asked[seed] = model.asked.get(seed, 0) + 1
                fault = model.fault(episode, model.asked[seed])
                # Half of a surrogate pair is legal JSON, and no text that a file could hold.
                text = '# \ud800\ndo(action="Click", element="press")' if step < model.times[episode] else 'exit(message="done")'
                good = json.dumps(ANSWER | {"choices": [ANSWER["choices"][0] | {"text": text}]}).encode()
                if fault == "silence":
                    model.over.wait(2 * PATIENCE)
                elif fault in ("429", "500"):
                    self.answer(int(fault), json.dumps({"error": {"message": "no \ud800"}}).encode(), ("Retry-After", "0"))
                elif fault == "drop":
                    self.answer(200, good[: len(good) // 2], ("Content-Length", str(len(good))))
                elif fault == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                else:
                    garbage = {"bytes": b"\xff\xfe\x00<html>", "shape": b'{"choices": []}', "depth": b"[" * 100_000}
                    self.answer(200, garbage.get(fault, good))

            def answer(self, status, body, *headers):
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.handle_error = True, lambda *_: None

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def policy(self, folder, **endpoint):
        url = f"http://127.0.0.1:{self.server.server_port}/v1"
        return POLICY | {"tokenizer": str(folder), "endpoint": {"base_url": url, "timeout": 4, "backoff": 0.01, **endpoint}}


POLICY = {"kind": "endpoint", "name": "small", "checkpoint": "small"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["press the button"] * 20, folder / "tokenizer.model", 300)
    return folder


def test_an_endpoint_that_fails_in_passing_costs_nothing_and_one_that_stays_broken_no_other_episode(use, tmp_path, tokenizer):
    suite, count = use(CountingSuite()), len(FAULTS) + 4
    broken, passing = dict(enumerate(FAULTS)), iter(FAULTS)

    def fault(episode, asked):
        """Some episodes meet one kind at every request; the others each kind once, at the first request of some step."""
        return broken.get(episode) or (next(passing, "") if broken and asked == 1 else "")

    run = {"episodes": count, "limits": {"tries": 1, "give_up_after": 100}, "browser": BROWSER | {"contexts": 8}}
    record = make_policy(config(policy=POLICY | {"tokenizer": str(tokenizer)}).policy, suite).record
    with Model(suite.tasks("train", None, count, 0), record, fault) as model:
        tally = collect(config(policy=model.policy(tokenizer, retries=1), **run), tmp_path)
        assert next(passing, None) is None and tally.status == {"finished": 4, "infra_error": len(FAULTS)}
        lost = lost_episodes(tmp_path / LOST)
        assert len(lost) == len(FAULTS) and all(episode.error.startswith("endpoint: http://") for episode in lost)
        assert all(label(episode, suite).outcome is None for episode in lost)
        asked = {model.steps[seed]: times for seed, times in model.asked.items() if model.steps[seed][0] in broken}
        assert asked == {(episode, 0): 2 for episode in broken}, "once, and once more"
        assert sum(times - 1 for seed, times in model.asked.items() if model.steps[seed][0] not in broken) >= len(FAULTS)
        broken.clear()
        tally = collect(config(policy=model.policy(tokenizer), **run), tmp_path)
    assert (tally.skipped, tally.status) == (4, {"finished": len(FAULTS)}) and lost_episodes(tmp_path / LOST) == []
    episodes = list(ShardReader(tmp_path))
    assert [suite.judge(episode).success for episode in episodes] == [True] * count
    assert {step.response.split("\n")[0] for episode in episodes for step in episode.steps[:-1]} == {"# ?"}


# The process.


@pytest.fixture
def start():
    """Starts workers, none of which outlives the test."""
    workers = []
    yield lambda *arguments, **environment: workers.append(start_worker(*arguments, **environment)) or workers[-1]
    for worker in workers:
        worker.kill()
        worker.wait()
        worker.stderr.close()


def spooled(folder):
    return len(list(folder.glob("spool/*.episode")))


def marked(mark):
    """Names of the processes that were started with this in their environment or command line."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in Path(f"/proc/{process}/environ").read_bytes() + command_line(process):
                found.append(Path(f"/proc/{process}/comm").read_text().strip())
        except OSError:
            continue
    return found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kills", "episodes"), [(4, 40), pytest.param(30, 300, marks=pytest.mark.slow)])
def test_a_worker_killed_at_any_moment_loses_and_doubles_nothing_and_leaves_nothing_behind(start, tmp_path, kills, episodes):
    """Half of the kills come while it starts, half while it collects."""
    scratch, out, draw = tmp_path / "scratch", tmp_path / "out", random.Random()
    scratch.mkdir()
    mark = str(scratch).encode()
    seen = set()
    for kill in range(kills):
        # The first life is spent on a page that loops for ever.
        worker = start(out if kill else tmp_path / "looping", episodes, "" if kill else LOOP, TMPDIR=str(scratch))
        if not kill:
            until((tmp_path / "looping" / collect_command.CONFIG).exists, "never began")
        elif kill % 2:
            before = spooled(out)
            until(lambda before=before, worker=worker: spooled(out) > before or worker.poll() is not None, "no episode")
        time.sleep(draw.uniform(0, 0.5 if kill % 2 else 1.5))
        seen |= set(marked(mark))
        worker.kill()
        worker.wait()
        assert not spooled(out) or (out / collect_command.CONFIG).exists()
    assert any(name.startswith("chrom") for name in seen), "browsers would have been seen"
    worker = start(out, episodes, TMPDIR=str(scratch))
    _, errors = worker.communicate()
    assert worker.returncode == 0, errors
    until(lambda: not marked(mark), f"left running: {marked(mark)}")
    collected = list(ShardReader(out))
    assert sorted(episode.task.id for episode in collected) == sorted(f"press.train.0.{index}" for index in range(episodes))
    assert {episode.status for episode in collected} == {Status.FINISHED}
    assert all(len(episode.steps) == int(episode.task.intent.split()[1]) + 1 for episode in collected)
    assert [path for path in out.rglob("*") if path.is_file() and path.suffix not in (".yaml", ".json", ".array_record")] == []
    assert list(out.rglob(".*")) == [] and list(scratch.iterdir()) == []


LOOP = "<a href=/press?n=1>press</a><script>setTimeout(() => { for (;;); }, 100)</script>"


def test_what_a_killed_writer_left_half_written_is_swept_away(use, tmp_path):
    use(CountingSuite())
    collect(config(), tmp_path)
    left = [
        tmp_path / ".episodes-00001.array_record.1.part",
        tmp_path / "spool/.a.episode.1.part",
        tmp_path / LOST / "spool/.b.episode.1.part",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert collect(config(), tmp_path).skipped == 4
    assert not any(path.exists() for path in left)


def test_an_evaluation_that_was_killed_before_its_first_episode_can_be_begun_again(tmp_path):
    (tmp_path / evaluate.EPISODES).mkdir()
    (tmp_path / f".{evaluate.CONFIG}.1.part").write_text("episodes: 1")
    arguments = ["--out", str(tmp_path), "--dry-run", "--set", "policy.kind=expert"]
    assert evaluate.COMMAND.run(arguments) == 0


def test_two_processes_never_collect_into_one_folder(use, tmp_path):
    suite = use(CountingSuite())
    with sole_writer(tmp_path, "episodes"), pytest.raises(UserError, match="another process is writing episodes here"):
        collect(config(), tmp_path)
    assert suite.opened == 0
    with sole_writer(tmp_path / "a" / "b", "episodes"):
        pass
    assert not (tmp_path / "a").exists()


def test_sigterm_ends_cleanly_and_keeps_what_is_done(start, tmp_path):
    worker = start(tmp_path, 500)
    until(lambda: spooled(tmp_path) or worker.poll() is not None, "no episode")
    below = [process for process, _ in descendants(worker.pid)]
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 130 and "run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert below and len(Spool(tmp_path).keys()) >= 1
    until(lambda: not any(os.path.exists(f"/proc/{process}") for process in below), "left running")


# The disk.


@pytest.fixture
def resize(tmp_path):
    """Makes the disk that the folder is on so large, in bytes; None where no disk may be mounted."""
    if subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        yield None
    else:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", tmp_path], check=True)
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_disk_loses_no_episode_while_collecting_nor_while_packing(start, resize, tmp_path):
    if not resize:
        pytest.skip("no disk may be mounted here")
    out, pages = tmp_path / "out", os.sysconf("SC_PAGE_SIZE")
    resize(12 * pages)
    worker = start(out, 20)
    _refused(worker)
    there = len(list(Spool(out).trajectories()))
    assert 1 <= there < 20
    resize(24 * pages)  # Room for every episode, and for no shard of them beside.
    worker = start(out, 20)
    _refused(worker)
    assert len(list(Spool(out).trajectories())) == 20 and not list(out.glob("*.array_record"))
    resize(2**22)
    _goes_on(start, out, 20)


def test_a_disk_that_fills_up_ends_the_run_and_the_next_goes_on(start, resize, tmp_path):
    """The limit on file size, set when the run is under way, makes every write fail as a full disk does."""
    if resize:
        pytest.skip("a small disk is filled instead")
    worker = start(tmp_path, 30)
    until(lambda: spooled(tmp_path) or worker.poll() is not None, "no episode")
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, 0))
    _refused(worker)
    assert 1 <= len(list(Spool(tmp_path).trajectories())) < 30
    _goes_on(start, tmp_path, 30)


def _refused(worker):
    _, errors = worker.communicate(timeout=2 * PATIENCE)
    assert worker.returncode == 2, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: ") and "free some disk space and run the same command again" in last and "Traceback" not in errors


def _goes_on(start, out, episodes):
    assert list(out.rglob(".*")) == []
    worker = start(out, episodes)
    _, errors = worker.communicate(timeout=2 * PATIENCE)
    assert worker.returncode == 0, errors
    assert sorted(episode.task.id for episode in ShardReader(out)) == sorted(f"press.train.0.{index}" for index in range(episodes))
    assert Spool(out).paths() == [] and list(out.rglob(".*")) == []
