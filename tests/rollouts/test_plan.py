"""What a dry run says, and that it leaves everything as it is."""

from mira_jax.trajectories.records import Policy, Status, Trajectory
from mira_jax.trajectories.shards import Spool, pack
from rollouts import evaluate
from rollouts.engine.pool import LOST
from rollouts.suites import make_suite

SETTINGS = ["policy.kind=expert", "templates=[buy, set_status]", "episodes=4", "attempts=2"]


def run(out, *settings):
    argv = ["--out", str(out), "--dry-run", *(part for one in [*SETTINGS, *settings] for part in ("--set", one))]
    return evaluate.COMMAND.run(argv)


def tree(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*")}


def test_a_dry_run_says_what_would_run_and_writes_nothing(tmp_path, capsys):
    assert run(tmp_path / "new") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["suite arena, split test: 4 tasks of 2 templates", "buy 2", "set_status 2"]
    assert lines[3:5] == ["sites shop (2 tasks), shop_admin (2 tasks)", "policy expert"]
    assert lines[6] == "episodes 8: attempts per task 2; 0 are there, 8 to run"
    assert lines[7].startswith(f"ok out: {tmp_path / 'new'}: ") and lines[8] == "ok suite: arena: 4 tasks"
    assert lines[9].startswith("ok browser: Chromium starts") and lines[10:] == ["3 ok, 0 missing, 0 failed"]
    assert not list(tmp_path.iterdir())


def test_a_dry_run_counts_what_is_there_and_what_was_lost(tmp_path, capsys):
    tasks = make_suite("arena").tasks("test", ["buy", "set_status"], 4, 0)
    episodes, policy = tmp_path / "out" / "episodes", Policy(name="expert")
    for number, task in enumerate(tasks[:3]):
        Spool(episodes).add(Trajectory(id=str(number), task=task, policy=policy, status=Status.HORIZON))
        if number == 1:
            pack(episodes)  # two in a shard, one in the spool
    lost = Trajectory(id="lost", task=tasks[3], attempt=1, policy=policy, status=Status.INFRA_ERROR)
    Spool(episodes / LOST).add(lost)
    (tmp_path / "out" / evaluate.CONFIG).write_text("{policy: {kind: expert}, templates: [buy, set_status], episodes: 4, attempts: 2}")
    before = tree(tmp_path)
    assert run(tmp_path / "out") == 0
    assert "3 are there, 5 to run, 1 of them lost before" in capsys.readouterr().out
    assert run(tmp_path / "out", "seed=1") == 2
    assert "failed   out: " in (shown := capsys.readouterr().out) and "holds an evaluation with other settings (seed)" in shown
    assert run(tmp_path / "out", "browser.driver=asgi") == 2
    assert "holds an evaluation with other settings (browser.driver)" in capsys.readouterr().out
    assert tree(tmp_path) == before


def test_a_dry_run_lists_all_that_a_run_would_refuse(tmp_path, capsys):
    wrong = ["templates=[by]", "browser.executable=/no/such/browser", "policy.kind=endpoint", "policy.tokenizer=/no/such/run"]
    assert run(tmp_path / "out", *wrong, "policy.endpoint.base_url=http://127.0.0.1:1/v1") == 2
    lines = capsys.readouterr().out.splitlines()
    begins = ["ok       out: ", "failed   suite: ", "missing  policy.tokenizer: /no/such/run", "failed   browser.executable: /no/such"]
    begins += ["failed   policy.endpoint.base_url: http://127.0.0.1:1/v1/models: cannot reach", "1 ok, 1 missing, 3 failed"]
    assert [line.startswith(begin) for line, begin in zip(lines, begins, strict=True)] == [True] * 6, lines
    for setting, message in (
        ("browser={driver: asgi, screenshots: true}", "--set: browser.screenshots: needs browser.driver=chromium"),
        ("policy.endpoint.prompt_price=-1", "--set: policy.endpoint.prompt_price: -1.0; it must be at least 0"),
        ("policy.endpoint.response_price=.nan", "--set: policy.endpoint.response_price: nan; it must be at least 0"),
    ):
        assert run(tmp_path / "out", setting) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())
