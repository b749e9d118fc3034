"""The phases command: stages in order, complete ones skipped, other runs moved aside."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from mira_jax import phases, stage_processes
from mira_jax.config import build, load
from mira_jax.errors import UserError
from mira_jax.stages import PhasesConfig, expand
from tests.processes import ends


def make_config(tmp_path, *stages, **fields):
    stages = [
        {"module": "tests.phases_stage", **stage, "set": {"log": "{out}/log", "seed": "{seed}", **stage.get("set", {})}} for stage in stages
    ]
    return build(PhasesConfig, {"out": str(tmp_path / "run"), "stages": stages, **fields})


def log(tmp_path):
    return (tmp_path / "run" / "log").read_text().split("\n")[:-1]


def test_stages_run_in_order_and_once(tmp_path):
    config = make_config(tmp_path, {"name": "a", "set": {"note": "first"}}, {"name": "b", "set": {"note": "second, {out}"}}, seed=3)
    phases.main(config)
    phases.main(config)
    assert log(tmp_path) == ["first 3", f"second, {tmp_path}/run 3"]


def test_a_stage_may_run_at_every_call(tmp_path):
    config = make_config(tmp_path, {"name": "a", "set": {"note": "once"}}, {"name": "b", "set": {"note": "always"}, "always": True})
    phases.main(config)
    phases.main(config)
    assert log(tmp_path) == ["once 0", "always 0", "always 0"]


def test_stages_run_in_parallel_and_share_the_minutes(tmp_path, capfd):
    """Each waits for what the other writes at its start, so one after the other they would never end."""
    code = (
        "import sys, time, pathlib\nmine, other = map(pathlib.Path, sys.argv[1:])\nmine.touch()\nwhile not other.exists(): time.sleep(0.01)"
    )
    pair = {"a": "b", "b": "a"}

    def command_of(stage, overrides):
        return [sys.executable, "-c", code, str(tmp_path / stage.name), str(tmp_path / pair[stage.name])]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_processes, "command_of", command_of)
        phases.main(make_config(tmp_path, {"name": "a"}, {"name": "b", "parallel": True}))
    assert "[2/2] b: 0.0 min, in parallel with 1 more" in capfd.readouterr().err
    seconds = [json.loads((tmp_path / f"run/stages/{name}.json").read_text())["seconds"] for name in pair]
    assert seconds[0] == pytest.approx(seconds[1], abs=0.05)


def test_when_runs_a_stage_is_no_other_setting(tmp_path):
    for parallel in (False, True):
        phases.main(make_config(tmp_path, {"name": "a", "set": {"note": "a"}}, {"name": "b", "set": {"note": "b"}, "parallel": parallel}))
    assert log(tmp_path) == ["a 0", "b 0"]


def test_a_stage_that_fails_stops_those_in_parallel(tmp_path, capfd):
    waiting = {"name": "a", "set": {"note": "a", "wait": 60.0}}
    began = time.monotonic()
    with pytest.raises(UserError, match="stage b failed with exit code 2"):
        phases.main(make_config(tmp_path, waiting, {"name": "b", "parallel": True, "set": {"fail_unless": "{out}/no"}}))
    assert time.monotonic() - began < 50  # it would end by itself after 60 s
    assert not json.loads((tmp_path / "run/stages/a.json").read_text())["complete"]


def test_a_failed_stage_is_named_and_the_next_run_goes_on_from_it(tmp_path):
    config = make_config(
        tmp_path, {"name": "a", "set": {"note": "a"}}, {"name": "b", "set": {"note": "b", "fail_unless": str(tmp_path / "mended")}}
    )
    with pytest.raises(UserError, match="stage b failed with exit code 2"):
        phases.main(config)
    (tmp_path / "mended").touch()
    phases.main(config)
    assert log(tmp_path) == ["a 0", "b 0"]


def test_a_run_with_other_settings_is_moved_aside(tmp_path):
    phases.main(make_config(tmp_path, {"name": "a"}, seed=1))
    phases.main(make_config(tmp_path, {"name": "a"}, seed=2))
    assert log(tmp_path) == [" 2"] and (tmp_path / "run-1" / "log").read_text() == " 1\n"


def test_a_comment_in_a_stage_s_config_is_no_other_setting(tmp_path):
    (tmp_path / "a.yaml").write_text("note: one\n")
    config = make_config(tmp_path, {"name": "a", "config": str(tmp_path / "a.yaml")})
    phases.main(config)
    (tmp_path / "a.yaml").write_text("# why\nnote:   one\n")
    phases.main(config)
    assert log(tmp_path) == ["one 0"] and not (tmp_path / "run-1").exists()
    (tmp_path / "a.yaml").write_text("note: two\n")
    phases.main(config)
    assert log(tmp_path) == ["two 0"] and (tmp_path / "run-1").exists()


def test_a_strangers_folder_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not a run of this command"):
        phases.main(make_config(tmp_path, {"name": "a"}))


@pytest.fixture
def started(tmp_path):
    """Runs two stages as a process, the second of which waits, as the leader of a process group. (process, command)"""
    stages = [
        {"name": name, "module": "tests.phases_stage", "set": {"log": "{out}/log", "note": name, "wait": wait, "save": 0.5}}
        for name, wait in (("a", 0.0), ("b", 3.0))
    ]
    path = tmp_path / "phases.yaml"
    path.write_text(yaml.safe_dump({"out": str(tmp_path / "run"), "stages": stages}))
    command = [sys.executable, "-m", "mira_jax.phases", "--config", str(path)]
    # As in a terminal: a job in the background may have been started with SIGINT ignored.
    as_in_a_terminal = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=as_in_a_terminal)
    deadline = time.monotonic() + 30
    while not (tmp_path / "run" / "log").exists() or len(log(tmp_path)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield process, command
    process.kill()
    process.communicate()


def test_interrupted_and_started_again_it_goes_on(tmp_path, started):
    process, command = started
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "run the same command again to resume" in errors
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert [line.strip() for line in log(tmp_path)] == ["a 0", "b 0", "b 0"]


def test_two_processes_never_share_a_folder(started):
    _, command = started
    second = subprocess.run([*command, "--set", "seed=1"], timeout=60, check=False, capture_output=True, text=True)
    assert second.returncode == 2 and "another process is writing a run of phases here" in second.stderr


def test_ctrl_c_in_a_terminal_leaves_the_stage_time_to_save(tmp_path, started):
    process, _ = started
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "run the same command again to resume" in errors
    assert log(tmp_path) == ["a 0", "b 0", "b saved"]


def test_seeds_are_numbers_with_an_offset(tmp_path):
    stage = {"name": "a", "set": {"seed": "{seeds.explore}", "note": "{seed} {seeds.explore} {out}"}}
    phases.main(make_config(tmp_path, stage, seed=7, seeds={"explore": 100}))
    assert log(tmp_path) == [f"7 107 {tmp_path}/run 107"]


def test_the_seeds_of_the_demo():
    """Other tasks for each of the three collections, and the seed itself elsewhere."""
    for seed in (0, 1, 2):
        config = load(PhasesConfig, "configs/demo/phases.yaml", [f"seed={seed}"])
        stages = {stage.name: stage.set for stage in expand(config)}
        seeds = {name: values["seed"] for name, values in stages.items() if "seed" in values}
        assert {name for name, value in seeds.items() if value != seed} == {"demonstrate-first", "explore"}
        assert (seeds["demonstrate-first"], seeds["demonstrate"], seeds["explore"]) == (100 + seed, seed, 1000 + seed)
        assert stages["explore"]["policy.seed"] == stages["evaluate-mira"]["policy.seed"] == seed


def test_the_stages_of_a_run_share_compiled_programs(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    code = "import os, sys; sys.exit(os.environ['JAX_COMPILATION_CACHE_DIR'] != sys.argv[1])"
    monkeypatch.setattr(stage_processes, "command_of", lambda stage, overrides: [sys.executable, "-c", code, stage.set["folder"]])
    phases.main(make_config(tmp_path, {"name": "a", "set": {"folder": f"{tmp_path}/run/compiled"}}))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/shared/compiled")
    phases.main(make_config(tmp_path, {"name": "b", "set": {"folder": "/shared/compiled"}}))


def test_a_stage_says_which_keys_get_the_address_and_the_name_of_its_model(tmp_path, monkeypatch):
    """A server that is ready at once and waits stands in for the model."""
    ready = "import json, sys, time, pathlib; pathlib.Path(sys.argv[-1].partition('=')[2]).write_text(json.dumps({'url': 'http://x:1'}))"
    start = stage_processes.start

    def instead(command, out, **options):
        if "mira_jax.serve" not in command:
            return start(command, out, **options)
        assert command[command.index("--model") + 1] == str(tmp_path / "run" / "sft")
        return start([sys.executable, "-c", f"{ready}; time.sleep(60)", command[-1]], out, **options)

    monkeypatch.setattr(stage_processes, "start", instead)
    phases.main(make_config(tmp_path, {"name": "a", "serve": {"model": "{out}/sft", "url": "address", "name": "note"}}))
    assert log(tmp_path) == ["sft 0 http://x:1/v1"]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"stages": [{"name": "a", "module": "m"}, {"name": "a", "module": "m"}]}, "same name"),
        ({"stages": [{"name": "a", "module": "m", "parallel": True}]}, r"stages\.0\.parallel: stage a is the first"),
        (
            {"stages": [{"name": "a", "module": "m", "set": {"x": ["{seeds.b}"]}}], "seeds": {"a": 1}},
            r"stages: stage a uses \{seeds\.b\}, but seeds has no b",
        ),
        ({"stages": [{"name": "a", "module": "m", "serve": {"model": "x"}}]}, "stages.0.serve.url: missing"),
        ({"stages": [{"name": "a", "module": "m", "config": "none.yaml"}]}, "stage a: none.yaml: cannot read"),
        ({"stages": [{"name": "a", "module": "m"}], "serve_config": "none.yaml"}, "serve_config: none.yaml: cannot read"),
    ],
)
def test_bad_plans_are_refused_before_anything_runs(tmp_path, tree, message):
    with pytest.raises(UserError, match=message):
        phases.main(build(PhasesConfig, {"out": str(tmp_path / "run"), **tree}))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_killed_it_takes_its_stage_along_and_the_same_command_completes(tmp_path, started):
    process, command = started
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        (stage,) = map(int, file.read().split())
    process.kill()
    process.wait()
    assert ends(stage)
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert [line.strip() for line in log(tmp_path)] == ["a 0", "b 0", "b 0"]


@pytest.mark.parametrize("text", [b"", b"[]", b'{"seconds": NaN}', b'{"seconds": "x"}', b"\xff"])
def test_an_odd_record_of_a_stage_is_one_message_whose_remedy_works(tmp_path, text):
    config = make_config(tmp_path, {"name": "a"}, {"name": "b"})
    phases.main(config)
    record = tmp_path / "run" / "stages" / "a.json"
    record.write_bytes(text)
    with pytest.raises(UserError, match=r"stages/a\.json: .*; remove it, and the stage runs again"):
        phases.main(config)
    record.unlink()
    phases.main(config)
    assert log(tmp_path) == [" 0", " 0", " 0"]


def make_phases(tmp_path, phases, **keys):
    """Each phase writes its number into the log, and whom it follows."""
    stages = {"module": "tests.phases_stage", "name": "work"}
    return build(
        PhasesConfig,
        {
            "out": str(tmp_path / "run"),
            "stages": [{**stages, "name": "first", "set": {"log": "{out}/log", "note": "first"}}],
            "carried": {"last": {"first": "none", "then": "{out}/phase-{phase}/data"}},
            "each_phase": [{**stages, "set": {"log": "{out}/log", "note": "{phase} after {carried.last}"}}],
            "after": [{**stages, "name": "end", "set": {"log": "{out}/log", "note": "end"}}],
            "phases": phases,
            **keys,
        },
    )


def test_a_run_is_resumed_with_more_phases(tmp_path):
    run = tmp_path / "run"
    phases.main(make_phases(tmp_path, 1))
    assert log(tmp_path) == ["first 0", "1 after none 0", "end 0"]
    phases.main(make_phases(tmp_path, 3))
    assert log(tmp_path)[3:] == [f"2 after {run}/phase-1/data 0", f"3 after {run}/phase-2/data 0", "end 0"]
    phases.main(make_phases(tmp_path, 3))
    assert len(log(tmp_path)) == 6 and (run / "stages" / "end-3.json").exists()


def fill_phases(run, phases):
    for phase in range(1, phases + 1):
        for name in ("data/optimizer/1", "data/params/1", "rollouts/episode", "keep/1"):
            path = run / f"phase-{phase}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x" * 1000)


def left(run):
    return sorted(path.relative_to(run).as_posix() for path in run.glob("phase-*/*/**/*") if path.is_file())


PRUNABLE = ["{out}/phase-{phase}/rollouts", "{out}/phase-{phase}/*/optimizer"]


def test_pruning_removes_what_no_stage_ahead_reads(tmp_path, capsys):
    run = tmp_path / "run"
    phases.main(make_phases(tmp_path, 1))
    fill_phases(run, 3)
    phases.main(make_phases(tmp_path, 2, prunable=PRUNABLE, prune=True))
    said = capsys.readouterr().err
    # Phase 3 is not part of this run.
    assert left(run) == sorted(
        [f"phase-{phase}/{name}" for phase in (1, 2) for name in ("data/params/1", "keep/1")]
        + [f"phase-3/{name}" for name in ("data/optimizer/1", "data/params/1", "rollouts/episode", "keep/1")]
    )
    for phase in (1, 2):
        assert f"pruned {run}/phase-{phase}/rollouts: 0.0 MB" in said and f"pruned {run}/phase-{phase}/data/optimizer: 0.0 MB" in said


def test_pruning_keeps_what_a_stage_ahead_reads(tmp_path, capsys):
    """The last stage fails, so it is still ahead: it names the data of phase 2, and a file inside the rollouts of phase 1."""
    run, mended = tmp_path / "run", tmp_path / "mended"
    end = {
        "name": "end",
        "module": "tests.phases_stage",
        "set": {"log": "{out}/log", "fail_unless": str(mended), "note": "{carried.last}", "address": "{out}/phase-1/rollouts/episode"},
    }
    config = make_phases(tmp_path, 2, after=[end], prunable=PRUNABLE, prune=True)
    with pytest.raises(UserError, match="stage end-2 failed"):
        phases.main(config)
    fill_phases(run, 2)
    with pytest.raises(UserError, match="stage end-2 failed"):
        phases.main(config)
    assert {"phase-1/rollouts/episode", "phase-2/data/optimizer/1"} <= set(left(run))
    assert not {"phase-2/rollouts/episode", "phase-1/data/optimizer/1"} & set(left(run))
    mended.touch()
    phases.main(config)
    assert left(run) == [f"phase-{phase}/{name}" for phase in (1, 2) for name in ("data/params/1", "keep/1")]


def test_pruning_never_leaves_the_run(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("precious")
    phases.main(make_phases(tmp_path, 1))
    (run / "phase-1").mkdir()
    (run / "phase-1" / "rollouts").symlink_to(outside)
    (run / "phase-1" / "linked").symlink_to(outside)
    phases.main(make_phases(tmp_path, 1, prunable=[*PRUNABLE, "{out}/phase-{phase}/linked/*"], prune=True))
    assert (outside / "thesis.tex").read_text() == "precious"


def test_a_dry_run_lists_stages_and_what_is_missing(tmp_path, capsys):
    config = make_phases(tmp_path, 1, needs={str(tmp_path / "model"): "import it", "$SOME_KEY": "ask for one"})
    with pytest.raises(UserError, match=r"needs: .*model does not exist: import it; the environment variable SOME_KEY is not set"):
        phases.main(config)
    assert phases.main(dataclasses.replace(config, dry_run=True)) == 1
    shown = capsys.readouterr().out
    assert "[2/3] work-1: to run" in shown and "tests.phases_stage --set" in shown
    assert "model does not exist: import it" in shown and "SOME_KEY is not set: ask for one" in shown
    assert not (tmp_path / "run").exists()
    stages = [{"name": "a", "module": "tests.phases_stage", "set": {"lgo": "x"}}, {"name": "b", "module": "no.such"}]
    bad = build(PhasesConfig, {"out": str(tmp_path / "run"), "stages": stages, "dry_run": True})
    assert phases.main(bad) == 1
    shown = capsys.readouterr().out
    assert "stage a: --set: unknown key lgo; did you mean log?" in shown and "stage b: No module named 'no'" in shown
    phases.main(make_phases(tmp_path, 1))
    capsys.readouterr()
    assert phases.main(make_phases(tmp_path, 2, dry_run=True)) == 0
    shown = capsys.readouterr().out
    assert "work-1: done" in shown and "work-2: to run" in shown and "nothing is missing" in shown
