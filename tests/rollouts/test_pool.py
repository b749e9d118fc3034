"""Whole runs: collected, resumed, interrupted, labelled, evaluated, with things going wrong on the way."""

import asyncio
import contextlib
import dataclasses
import http.server
import json
import os
import re
import shutil
import sys
import threading

import pytest

from mira_jax.commands import log_to_stderr
from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.files import sole_writer
from mira_jax.trajectories import records
from mira_jax.trajectories import summary as summaries
from mira_jax.trajectories.records import Outcome, Status, Trajectory
from mira_jax.trajectories.shards import ShardReader, Spool, pack
from mira_jax.trajectories.tokenizer import train_tokenizer
from rollouts import collect as collect_command
from rollouts import compare, evaluate
from rollouts.engine.pool import RolloutConfig, collect
from rollouts.labels.outcome import is_labelled, label_folder, read_left_out
from rollouts.suites import make_suite
from rollouts.web.browser import NO_BROWSER, BrowserConfig, BrowserPool
from tests.json_server import serving_json
from tests.rollouts.sites import BROWSER, CountingSuite, config


def test_episodes_are_collected_once_and_hold_what_the_contract_says(use, tmp_path):
    suite = use(CountingSuite())
    tally = collect(config(), tmp_path)
    assert tally.status == {"finished": 4} and tally.steps == sum(1 + i % 3 + 1 for i in range(4))
    assert suite.opened == suite.closed == 4
    assert sorted(url.partition("?")[2] for url in suite.fronts) == ["n=1", "n=1", "n=2", "n=3"]
    episodes = {episode.task.id: episode for episode in ShardReader(tmp_path)}
    episode = episodes["press.train.0.1"]
    assert [step.response for step in episode.steps] == ['do(action="Click", element="press")'] * 2 + ['exit(message="done")']
    assert [step.state["presses"] for step in episode.steps] == [1, 2, 2]
    assert [step.page.url for step in episode.steps] == ["__COUNT__/", "__COUNT__/press?n=1", "__COUNT__/press?n=2"]
    assert episode.steps[0].page.observation == 'count\n<a id="press"> <a id="other">'
    assert episode.evidence.answer == "done" and episode.outcome is None and episode.status is Status.FINISHED
    assert episode.steps[0].seconds.browser > 0
    tally = collect(config(episodes=5), tmp_path)
    assert (tally.wanted, tally.skipped, sum(tally.status.values())) == (5, 4, 1)
    assert len(ShardReader(tmp_path)) == 5 and suite.opened == 5
    assert collect(config(episodes=5), tmp_path).skipped == 5 and suite.opened == 5


def test_a_spending_limit_stops_and_the_same_command_continues(use, tmp_path):
    def post(body):
        answer = {"message": {"content": 'exit(message="done")'}, "finish_reason": "stop"}
        return 200, {"choices": [answer], "usage": {"prompt_tokens": 1000, "completion_tokens": 0}}

    use(CountingSuite())
    with serving_json(post) as url:
        # An answer costs 0.01 USD. One context: nothing is under way when the limit is reached.
        endpoint = {"base_url": f"{url}/v1", "prompt_price": 10.0, "max_cost": 0.02}
        settings = config(episodes=4, browser=BROWSER | {"contexts": 1}, policy={"kind": "chat", "endpoint": endpoint})
        with pytest.raises(UserError, match=r"policy\.endpoint\.max_cost: 0\.0200 USD of 0\.02 are spent"):
            collect(settings, tmp_path)
        tally = collect(settings, tmp_path)
    assert (tally.skipped, tally.status) == (2, {"finished": 2})
    assert len(ShardReader(tmp_path)) == 4


def test_an_evaluation_that_lost_every_episode_has_no_rate(use, tmp_path, capsys):
    async def trouble(session):
        raise OSError("down")

    use(CountingSuite(trouble))
    settings = ["episodes=2", f"browser={json.dumps(BROWSER)}", "limits.tries=1"]
    arguments = ["--out", str(tmp_path / "out"), *(part for setting in settings for part in ("--set", setting))]
    assert evaluate.COMMAND.run(arguments) == 2
    assert "all 2 episodes were lost to infrastructure errors" in capsys.readouterr().err
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_retried_and_a_lost_episode_are_a_line_of_the_log_each(use, tmp_path, capsys):
    async def trouble(session):
        raise OSError("no route to host")

    use(CountingSuite(trouble))
    log_to_stderr()
    collect(config(episodes=1, limits={"tries": 2}), tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("episode ")]
    said = [re.fullmatch(r"episode press\.train\.\S+, seed \d+, attempt 0: (.*): \w+: .*no route to host.*", line)[1] for line in lines]
    assert said == ["try 1 of 2 failed and is repeated", "lost to an infrastructure error"]


def test_the_scripted_expert_is_the_policy_that_needs_no_model():
    assert config(policy={"seed": 1}).policy.kind == "expert"
    assert config(policy={"tokenizer": "run"}).policy.kind == "endpoint"


@pytest.mark.parametrize(
    ("responses", "status", "steps"),
    [
        (['do(action="Click", element="press")'], Status.STUCK, 3),
        (["I give up"], Status.PARSE_FAILURES, 2),
        (['do(action="Click", element="press")', "go_backward()"], Status.HORIZON, 6),
    ],
)
def test_episodes_end_at_their_limits(use, tmp_path, responses, status, steps):
    suite = use(CountingSuite())

    class Script:
        def respond(self, task, rounds, observation):
            return responses[len(rounds) % len(responses)]

    suite.expert = lambda *a, **k: Script()
    collect(config(episodes=1, limits={"stuck_after": 3, "parse_failures": 2}), tmp_path)
    (episode,) = ShardReader(tmp_path)
    assert (episode.status, len(episode.steps)) == (status, steps)
    if status is Status.PARSE_FAILURES:
        assert "expected do(...)" in episode.steps[0].error and episode.steps[0].action is None


@pytest.mark.parametrize("kind", ["random", "idle"])
def test_scripted_policies_act_validly_and_the_same_again(use, tmp_path, kind):
    use(CountingSuite())
    for run in ("a", "b"):
        collect(config(episodes=2, policy={"kind": kind}), tmp_path / run)
    first, second = (sorted(ShardReader(tmp_path / run), key=lambda episode: episode.key) for run in ("a", "b"))
    assert [[step.response for step in episode.steps] for episode in first] == [
        [step.response for step in episode.steps] for episode in second
    ]
    assert all(step.action is not None and step.error in (None, "there is no earlier page") for episode in first for step in episode.steps)


def test_episodes_that_were_collected_again_are_labelled_again(use, tmp_path):
    """Removed and collected anew they have the same keys, and other ids."""
    suite = use(CountingSuite())
    collect(config(), tmp_path / "raw")
    assert label_folder(tmp_path / "raw", tmp_path / "out", suite)
    shutil.rmtree(tmp_path / "raw")
    collect(config(), tmp_path / "raw")
    assert ShardReader(tmp_path / "raw").keys() == ShardReader(tmp_path / "out").keys()
    assert not is_labelled(tmp_path / "raw", tmp_path / "out", {"name": suite.name})
    with pytest.raises(UserError, match="contains the labels of other episodes"):
        label_folder(tmp_path / "raw", tmp_path / "out", suite)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes.txt, which is not a file of labels"):
        label_folder(tmp_path / "raw", tmp_path / "out", suite, overwrite=True)
    (tmp_path / "out" / "notes.txt").unlink()
    assert label_folder(tmp_path / "raw", tmp_path / "out", suite, overwrite=True)
    assert ShardReader(tmp_path / "raw").ids() == ShardReader(tmp_path / "out").ids()


def test_episodes_that_lack_a_label_can_be_left_out(use, tmp_path):
    suite = use(CountingSuite())
    collect(config(episodes=3), tmp_path / "raw")
    raw = ShardReader(tmp_path / "raw")
    unlucky = raw.ids()[1]

    def lacks(episode):
        return "it has no outcome" if episode.id == unlucky else ""

    assert label_folder(tmp_path / "raw", tmp_path / "out", suite, lacks=lacks)
    assert ShardReader(tmp_path / "out").ids() == [raw.ids()[0], raw.ids()[2]]
    assert read_left_out(tmp_path / "out") == {unlucky: "it has no outcome"}
    assert not label_folder(tmp_path / "raw", tmp_path / "out", suite, lacks=lacks)
    # Labelled again without leaving any out, it has no such file.
    assert label_folder(tmp_path / "raw", tmp_path / "out", suite, overwrite=True)
    assert not read_left_out(tmp_path / "out") and ShardReader(tmp_path / "out").ids() == raw.ids()
    with pytest.raises(UserError, match="every episode would be left out; the first because it has no outcome"):
        label_folder(tmp_path / "raw", tmp_path / "none", suite, lacks=lambda _: "it has no outcome")
    assert not (tmp_path / "none").exists()


def test_labels_by_other_settings_are_not_taken_for_these(use, tmp_path):
    suite = use(CountingSuite())
    collect(config(), tmp_path / "raw")
    label_folder(tmp_path / "raw", tmp_path / "out", suite, settings={"name": "press", "options": {"judge": "a"}})
    with pytest.raises(UserError, match="labelled with other settings of the suite"):
        label_folder(tmp_path / "raw", tmp_path / "out", suite, settings={"name": "press", "options": {"judge": "b"}})
    (tmp_path / "out" / "label.yaml").unlink()
    with pytest.raises(UserError, match="does not record the settings of its labels"):
        label_folder(tmp_path / "raw", tmp_path / "out", suite)


def test_labelling_goes_on_after_a_kill_also_with_the_same_process_id(use, tmp_path):
    """In a container a command is process 1 each time; what it left behind must not stand in the way of the next."""
    suite = use(CountingSuite())
    collect(config(), tmp_path / "raw")
    left = tmp_path / ".out.part"
    left.mkdir()
    (left / "episodes-00000.array_record").write_bytes(b"half a shard")
    (tmp_path / f".out.{os.getpid()}").mkdir()
    with sole_writer(left, "labels"), pytest.raises(UserError, match=r"another process is writing labels of .*out here"):
        label_folder(tmp_path / "raw", tmp_path / "out", suite)
    assert label_folder(tmp_path / "raw", tmp_path / "out", suite)
    assert len(ShardReader(tmp_path / "out")) == 4 and not left.exists()


def test_episodes_of_other_weights_are_neither_skipped_nor_added_to(tmp_path, capsys):
    """The checkpoint behind the endpoint was replaced: its name, and so every key, is the same as before."""
    train_tokenizer(["press the button"] * 20, tmp_path / "tokenizer.model", 300)
    card: dict[str, str] = {"id": "small", "fingerprint": "a" * 64}
    with listing(card) as url:
        settings = {"kind": "endpoint", "tokenizer": str(tmp_path), "endpoint": {"base_url": url}}
        run = build(RolloutConfig, {"policy": settings, "templates": ["buy"], "episodes": 2})
        tasks = make_suite("arena").tasks("train", ["buy"], 2, 0)
        written = {"name": "small", "checkpoint": "small", "fingerprint": card["fingerprint"]}
        for number, task in enumerate(tasks):
            Spool(tmp_path / "out").add(Trajectory(id=str(number), task=task, policy=records.Policy(**written), status=Status.HORIZON))
            if number == 0:
                pack(tmp_path / "out")
        assert collect(run, tmp_path / "out").skipped == 2
        for mark, shown in (("b" * 64, "b" * 12), ("", "unknown")):
            card["fingerprint"] = mark
            with pytest.raises(UserError, match=f"out: holds episodes of small by other weights: fingerprint {'a' * 12} there, {shown} at"):
                collect(run, tmp_path / "out")
            with pytest.raises(UserError, match="by other weights"):
                collect(dataclasses.replace(run, episodes=3), tmp_path / "out")
        # An endpoint that never says: nothing to compare, and that is said.
        for path in (tmp_path / "out").iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
        for number, task in enumerate(tasks):
            policy = records.Policy(name="small", checkpoint="small")
            Spool(tmp_path / "out").add(Trajectory(id=str(number), task=task, policy=policy, status=Status.HORIZON))
        log_to_stderr()
        capsys.readouterr()
        assert collect(run, tmp_path / "out").skipped == 2
        assert "does not report which weights it serves" in capsys.readouterr().err
        # Nor are episodes that were tokenised otherwise, spooled or packed.
        for name, number in (("spooled", 0), ("packed", 1)):
            policy = records.Policy(name="small", checkpoint="small", tokenizer="c" * 64)
            episode = Trajectory(id=str(number), task=tasks[number], policy=policy, status=Status.HORIZON)
            Spool(tmp_path / name).add(episode)
            if name == "packed":
                pack(tmp_path / name)
            assert Spool(tmp_path / name).read(episode.key) == episode
            with pytest.raises(UserError, match=rf"{name}: holds episodes of small with another tokenizer than policy.tokenizer names"):
                collect(run, tmp_path / name)


@contextlib.contextmanager
def listing(card):
    """An endpoint that lists one model, `card` as it is at the moment."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"data": [card]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def test_labels_are_made_offline_once(use, tmp_path):
    suite = use(CountingSuite())
    collect(config(), tmp_path / "raw")
    assert label_folder(tmp_path / "raw", tmp_path / "out", suite) is True
    episodes = list(ShardReader(tmp_path / "out"))
    assert {episode.task.id: episode.success for episode in episodes} == {f"press.train.0.{i}": True for i in range(4)}
    assert all(step.milestones == (True,) for episode in episodes for step in episode.steps)
    assert [subgoal.text for subgoal in episodes[0].subgoals] == ["pressed once"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert label_folder(tmp_path / "raw", tmp_path / "out", suite) is False
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    collect(config(episodes=5), tmp_path / "raw")
    with pytest.raises(UserError, match="contains the labels of other episodes"):
        label_folder(tmp_path / "raw", tmp_path / "out", suite)
    assert label_folder(tmp_path / "raw", tmp_path / "out", suite, overwrite=True) and len(ShardReader(tmp_path / "out")) == 5
    with pytest.raises(UserError, match="the folder of the episodes themselves"):
        label_folder(tmp_path / "raw", tmp_path / "raw", suite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_an_evaluation_counts_by_template_and_can_be_paired(use, tmp_path, capsys):
    suite = use(CountingSuite())
    suite.judge = lambda episode: Outcome(success=episode.steps[-1].state["presses"] in (1, 3), score=0.5, source="rule")
    out = tmp_path / "expert"
    arguments = ["--set", "episodes=4", "--set", f"browser={json.dumps(BROWSER)}", "--set", "observation={handles: name}"]

    def run(*more):
        return evaluate.COMMAND.run([*arguments, *more])

    assert run("--out", str(out), "--dry-run") == 0 and "0 are there, 4 to run" in capsys.readouterr().out
    assert not out.exists()
    assert run("--out", str(out)) == 0
    summary = summaries.read(out / "summary.json")
    (method,) = summary.methods.values()
    rate = method.success_rate
    assert (rate.mean, round(rate.low, 3), round(rate.high, 3), rate.tasks, rate.attempts) == (0.75, 0.301, 0.954, 4, 4)
    assert method.per_template == {"press": rate} and summary.task_seed == 0
    assert {task.split("|")[0]: tries for task, tries in method.tasks.items()} == {f"press.test.0.{i}": (1, int(i != 1)) for i in range(4)}
    assert (method.status, method.infra_errors, method.mean_steps, method.milestones.mean) == ({"finished": 4}, 0, 2.75, 1.0)
    assert "press   75.0 %" in capsys.readouterr().out
    assert len((out / evaluate.TABLE).read_text().splitlines()) == 1 + 4 and "75.0 %" in (out / evaluate.PAGE).read_text()
    assert run("--out", str(out), "--dry-run") == 0 and "4 are there, 0 to run" in capsys.readouterr().out
    assert run("--out", str(tmp_path / "idle"), "--set", "policy.kind=idle") == 0
    (idle,) = summaries.read(tmp_path / "idle" / "summary.json").methods.values()
    assert idle.tasks.keys() == method.tasks.keys() and idle.success_rate.mean == 0
    compare.main(compare.CompareConfig(baseline=str(tmp_path / "idle"), treatment=str(out)))
    assert "4 tasks: 3 wins, 0 losses, 1 ties; exact McNemar test, two-sided: p = 0.25" in capsys.readouterr().out
    assert run("--out", str(out)) == 0
    (again,) = summaries.read(out / "summary.json").methods.values()
    assert again.tasks == method.tasks
    assert run("--out", str(out), "--set", "seed=1") == 2
    assert "holds an evaluation with other settings (seed)" in capsys.readouterr().err
    assert run("--out", str(tmp_path)) == 2


def test_episodes_of_another_way_are_not_mixed_nor_taken_for_these(use, tmp_path, capsys):
    use(CountingSuite())
    arguments = ["--out", str(tmp_path / "out"), "--set", f"browser={json.dumps(BROWSER)}", "--set", "observation={handles: name}"]

    def run(*more):
        more = [part for setting in more for part in ("--set", setting)]
        return collect_command.COMMAND.run([*arguments, *more])

    assert run("episodes=2") == 0
    assert run("episodes=3", "limits.tries=2", "policy={kind: expert, seed: 1}") == 0
    assert len(ShardReader(tmp_path / "out")) == 5
    capsys.readouterr()
    assert run("episodes=3", "browser.driver=asgi") == 2
    assert "holds episodes collected with other settings (browser.driver)" in capsys.readouterr().err
    elsewhere = ["--out", str(tmp_path / "elsewhere"), "--set", "browser.driver=asgi", "--set", "episodes=1"]
    assert collect_command.COMMAND.run(elsewhere) == 2
    assert "asgi serves only suites whose applications run in this process" in capsys.readouterr().err
    assert run("episodes=3", "policy={kind: expert, habits: {lazy: 1.0}}", "observation.handles=integer") == 2
    assert "holds episodes collected with other settings (observation, policy.habits)" in capsys.readouterr().err
    assert len(ShardReader(tmp_path / "out")) == 5


def test_bad_settings_are_one_message_before_any_work(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="not an executable file"):
        collect(config(browser=BROWSER | {"executable": "/no/such/browser"}), tmp_path / "a")
    with pytest.raises(UserError, match="cannot reach the endpoint"):
        (tmp_path / "tokenizer").mkdir()
        _tokenizer(tmp_path / "tokenizer")
        collect(
            config(policy={"tokenizer": str(tmp_path / "tokenizer"), "endpoint": {"base_url": "http://127.0.0.1:9/v1"}}), tmp_path / "b"
        )
    for bad in (
        {"policy": {"kind": "endpoint"}},
        {"policy": {"kind": "expert2"}},
        {"episodes": 0},
        {"browser": {"contexts": 0}},
        {"observation": {"handles": "x"}},
        {"limits": {"horizon": 0}},
        {"browser": {"draw": False, "screenshots": True}},
        {"pool": "roy"},
        {"ray": {"workers": 0}},
        {"ray": {"address": "ray://head:10001"}},
    ):
        with pytest.raises(UserError):
            config(**bad)
    assert not (tmp_path / "a" / "episodes-00000.json").exists() and not (tmp_path / "b").exists()


def test_without_ray_its_pool_says_what_to_install(use, tmp_path, monkeypatch):
    use(CountingSuite())
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^pool: Ray is not installed; pip install 'mira-jax\[ray\]'"):
        collect(config(pool="ray"), tmp_path)
    assert not list(tmp_path.iterdir())


def _tokenizer(folder):
    from mira_jax.trajectories.tokenizer import train_tokenizer

    train_tokenizer(["press the button"] * 20, folder / "tokenizer.model", 300)


async def test_without_any_browser_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with pytest.raises(UserError) as refusal:
        async with BrowserPool(BrowserConfig()):
            pass
    assert str(refusal.value) == NO_BROWSER


async def test_screenshots_are_jpegs(use, tmp_path):
    use(CountingSuite())
    await asyncio.to_thread(collect, config(episodes=1, browser=BROWSER | {"draw": True, "screenshots": True}), tmp_path)
    (episode,) = ShardReader(tmp_path)
    assert all(step.page.screenshot.startswith(b"\xff\xd8\xff") for step in episode.steps)
    assert episode.evidence.page.screenshot.startswith(b"\xff\xd8\xff")
