"""The rounds on the side of the rollouts, with a trainer and a server that stand in for the real ones."""

import contextlib
import json

import pytest

from mira_jax import online
from mira_jax.config import build, to_tree
from mira_jax.errors import ConfigError, UserError
from mira_jax.online import OnlineConfig
from mira_jax.rounds import read_version
from tests.json_server import serving_json


@contextlib.contextmanager
def server(answer):
    """A server that answers each POST with `answer(body)`, a status and JSON; yields its address, with /v1, and the requests."""
    seen = []
    with serving_json(answer, requests=seen) as url:
        yield f"{url}/v1", seen


def config(tmp_path, url, trainer=None, **keys):
    stage = {"name": "collect", "module": "tests.phases_stage",
             "serve": {"model": "{policy}", "url": "address"},
             "set": {"log": "{out}/log", "note": "{round} {version} {values.word}", "seed": "{seed}"}}  # fmt: skip
    tree = {
        "out": str(tmp_path / "run"), "rollouts": [stage], "values": {"word": "x"},
        "trainer": {"name": "train", "module": "tests.online_trainer", "set": trainer or {}},
        "server": {"url": url, "reload": [{"path": "/reload", "body": {"version": "{version}"}}]}, "rounds": 3, "seed": 5, **keys,
    }  # fmt: skip
    return build(OnlineConfig, tree)


def log(tmp_path):
    return (tmp_path / "run" / "log").read_text().splitlines()


def right(body):
    return 200, {"fingerprint": f"weights {body['version']}"}


def test_each_round_uses_the_weights_of_the_round_before(tmp_path, capfd):
    with server(right) as (url, seen):
        assert online.main(config(tmp_path, url)) == 0
        assert log(tmp_path) == [f"1 0 x 5 {url}", f"2 1 x 5 {url}", f"3 2 x 5 {url}"]
        assert seen == [("/reload", {"version": version}) for version in (0, 1, 2)]
        assert read_version(tmp_path / "run/rounds/3/done.json").fingerprint == "weights 2"
        # Complete rounds are not drawn again, and a run may be continued with more.
        assert online.main(config(tmp_path, url)) == 0
        assert online.main(config(tmp_path, url, rounds=4)) == 0
    assert len(log(tmp_path)) == 4 and log(tmp_path)[-1].startswith("4 3 x")
    assert "round 4 of 4: rollouts with the weights of round 3" in capfd.readouterr().err


def test_evaluations_come_before_the_first_round_every_n_rounds_and_at_the_end(tmp_path):
    measure = {"name": "measure", "module": "tests.phases_stage", "set": {"log": "{out}/log", "note": "measured {round} {version}"}}
    with server(right) as (url, _):
        online.main(config(tmp_path, url, evaluate=[measure], evaluate_every=2))
    assert [line for line in log(tmp_path) if "measured" in line] == ["measured 0 0 0", "measured 2 2 0", "measured 3 3 0"]


def test_rollouts_may_run_ahead_of_the_updates(tmp_path):
    with server(right) as (url, _):
        online.main(config(tmp_path, url, staleness=1))
    versions = [int(line.split()[1]) for line in log(tmp_path)]
    assert versions[0] == 0 and all(number - 2 <= version <= number - 1 for number, version in enumerate(versions, 1))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda body: (200, {"fingerprint": "others"}), r"uses the weights others, not those of round 0, weights 0"),
        (lambda body: (409, {"error": "its weights changed"}), r"was answered with 409: .*its weights changed"),
        (lambda body: (404, {}), "was answered with 404"),
    ],
)
def test_a_server_that_does_not_take_the_weights_ends_the_run(tmp_path, answer, message):
    with server(answer) as (url, _), pytest.raises(UserError, match=message):
        online.main(config(tmp_path, url))
    assert not (tmp_path / "run/log").exists()


def test_weights_that_are_replaced_while_the_server_reads_them_are_read_again(tmp_path, monkeypatch):
    """The server already has the next version when it is told of the first."""
    versions = iter([online.Version(0, 0, "a"), online.Version(1, 2, "b"), online.Version(1, 2, "b"), online.Version(1, 2, "b")])
    monkeypatch.setattr(online, "read_version", lambda path: next(versions))
    (tmp_path / "run/policy").mkdir(parents=True)
    (tmp_path / "run/policy/round.json").touch()
    with server(lambda body: (200, {"fingerprint": "b"})) as (url, seen):
        rollouts = online._Rollouts(config(tmp_path, url), tmp_path / "run", url, None)
        assert rollouts._load(0) == online.Version(1, 2, "b")
    assert [body["version"] for _, body in seen] == [0, 1]


def test_a_server_that_reports_no_fingerprint_is_believed(tmp_path):
    with server(lambda body: (200, [None])) as (url, _):
        assert online.main(config(tmp_path, url, rounds=1)) == 0


def test_a_server_that_is_gone_is_named(tmp_path):
    with pytest.raises(UserError, match=r"server\.reload: POST http://127\.0\.0\.1:1/reload failed: ConnectError"):
        online.main(config(tmp_path, "http://127.0.0.1:1/v1"))


def test_a_trainer_that_ends_ends_the_run(tmp_path, capfd):
    with server(right) as (url, _), pytest.raises(UserError, match="the trainer ended with exit code 2; its message is above"):
        online.main(config(tmp_path, url, trainer={"fail_after": 1}))
    assert "told to fail" in capfd.readouterr().err
    assert len(log(tmp_path)) == 2


def test_other_settings_do_not_continue_a_run(tmp_path, capfd):
    with server(right) as (url, _):
        online.main(config(tmp_path, url, rounds=1))
        online.main(config(tmp_path, url, rounds=1, seed=6))
    assert "held a run with other settings; it is now" in capfd.readouterr().err
    assert log(tmp_path) == [f"1 0 x 6 {url}"]


def test_the_trainer_of_another_host_may_have_started_before(tmp_path):
    """Its folder and the first weights of a server are there; a run with other settings is not moved from under it."""
    policy = tmp_path / "run/policy"
    policy.mkdir(parents=True)
    (tmp_path / "run/exports").mkdir()
    (policy / "round.json").write_text(json.dumps({"round": 0, "step": 0, "fingerprint": "weights 0"}))
    with server(right) as (url, _):
        assert online.main(build(OnlineConfig, {**to_tree(config(tmp_path, url, rounds=1)), "trainer": None})) == 0
        assert log(tmp_path) == [f"1 0 x 5 {url}"]
        with pytest.raises(UserError, match="holds a run with other settings; choose another folder"):
            online.main(build(OnlineConfig, {**to_tree(config(tmp_path, url, rounds=1, seed=6)), "trainer": None}))
    assert policy.exists()


def test_a_stranger_s_folder_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes").touch()
    with server(right) as (url, _), pytest.raises(UserError, match="is not a run of this command"):
        online.main(config(tmp_path, url))


def test_stages_of_a_round_may_run_in_parallel(tmp_path):
    stage = {"module": "tests.phases_stage", "set": {"log": "{out}/log", "note": "round {round}"}}
    with server(right) as (url, _):
        online.main(config(tmp_path, url, rounds=1, rollouts=[{"name": "a", **stage}, {"name": "b", "parallel": True, **stage}]))
    assert log(tmp_path) == ["round 1 0", "round 1 0"]


def test_the_newest_export_is_linked_and_earlier_ones_are_removed(tmp_path, monkeypatch):
    def export(out, stages):
        ((stage, _),) = stages
        (tmp_path / "run/exports" / stage.set["out"].rpartition("/")[2]).mkdir(parents=True)

    monkeypatch.setattr(online.stage_processes, "run", export)
    with server(lambda body: (200, {})) as (url, seen):
        keys = {"export": True, "url": url, "reload": [{"path": "/update_weights_from_disk", "body": {"model_path": "{export}"}}]}
        made = config(tmp_path, url, server=keys)
        for version in (0, 1):
            online.reload(made, tmp_path / "run", url, online.Version(version, version, "x"))
    exports = tmp_path / "run/exports"
    assert sorted(path.name for path in exports.iterdir()) == ["1", "newest"] and (exports / "newest").resolve() == exports / "1"
    assert seen[1] == ("/update_weights_from_disk", {"model_path": str(exports / "1")})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rollouts": []}, "rollouts: no stages; name the commands of a round"),
        (
            {"rollouts": [{"name": "a", "module": "m", "set": {"x": "{values.other}"}}]},
            r"stage a uses \{values\.other\}, which has no value",
        ),
        ({"rollouts": [{"name": "a", "module": "m", "set": {"x": "{phase}"}}]}, r"stage a uses \{phase\}"),
        ({"rollouts": [{"name": "a", "module": "m", "always": True}]}, "stage a: always has no effect here"),
        (
            {"rollouts": [{"name": "a", "module": "m", "serve": {"model": "runs/x", "url": "u"}}]},
            r"stage a: .* the model to serve is \{policy\}",
        ),
        ({"rollouts": [{"name": "a", "module": "m"}, {"name": "a", "module": "m"}]}, "two stages have the same name, a"),
    ],
)
def test_stages_that_cannot_run_are_refused(tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, "http://x/v1", **keys)


@pytest.mark.parametrize("text", ["{}", '{"round": "x", "step": 1, "fingerprint": "y"}', "nothing"])
def test_a_damaged_version_is_named(tmp_path, text):
    path = tmp_path / "round.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"round\.json"):
        read_version(path)
