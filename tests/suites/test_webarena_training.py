"""Training tasks on WebArena's sites: the file, its splits, and episodes that no rule evaluates."""

import json
import logging

import pytest

from mira_jax.config import build
from mira_jax.errors import ConfigError, UserError
from mira_jax.needs import OK, Needs
from mira_jax.recipes.labels import read_labels
from mira_jax.trajectories.records import Evidence, Outcome, Page, Policy, Status, Step, Trajectory
from mira_jax.trajectories.shards import ShardReader
from rollouts import collect, evaluate, label
from rollouts.curriculum.templates import failed_tasks, rates
from rollouts.labels.outcome import label_folder
from rollouts.suites import make_suite
from rollouts.suites.webarena import __main__ as report
from rollouts.suites.webarena.training import PREFIX, read_training
from tests.suites.webarena_sites import FakeSite, target, task

WEBRL = [
    {"intent": "Show the cheapest lamp", "sites": ["shopping"], "start_url": "__SHOPPING__"},
    {"intent": " Thumbs  down the top post. ", "sites": ["reddit"], "start_url": "__REDDIT__"},
    {"intent": "Where is the nearest bakery?", "sites": ["map"], "start_url": "__MAP__"},
]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def read(path, share=0.0, tests=()):
    return read_training(str(path), share, tests)


def test_webrl_s_file_is_read_as_it_is(tmp_path, caplog):
    tests = ["where is the  NEAREST bakery?", "do 0"]
    with caplog.at_level(logging.WARNING):
        found = read(write(tmp_path / "info.json", [*WEBRL, WEBRL[0]]), tests=tests)
    assert [one.task.intent for one in found.tasks.values()] == ["Show the cheapest lamp", "Thumbs  down the top post."]
    assert all(one.id.startswith(PREFIX) and one.task.horizon == 30 and one.task.split == "train" for one in found.tasks.values())
    assert [one.item["storage_state"] for one in found.tasks.values()] == ["./.auth/shopping_state.json", "./.auth/reddit_state.json"]
    described = "2 tasks (2 train, 0 validation), 2 without an evaluator; left out: 1 with the text of a test task, 1 that occur twice"
    assert found.describe() == described and described in caplog.text
    again = read(write(tmp_path / "info.jsonl", "\n".join(map(json.dumps, WEBRL[::-1])) + "\n\n"), tests=tests)
    assert again.tasks == found.tasks


def test_all_keys_of_an_instruction(tmp_path):
    one = {
        "id": 7, "intent": "Compare", "sites": ["map", "gitlab"], "horizon": 5, "eval": {"eval_types": ["url_match"], "reference_url": "x"},
        "milestones": [{"text": "open it", "done": {"url": "/cart"}}],
    }  # fmt: skip
    (found,) = read(write(tmp_path / "a.json", one)).tasks.values()
    assert (found.id, found.task.horizon, found.task.start_url) == (PREFIX + "7", 5, "__MAP__") and found.task.template == "several_sites"
    assert found.item["storage_state"] == "./.auth/gitlab_state.json" and found.milestones[0].done.url == "/cart"


def test_the_splits_are_drawn_by_the_id_and_do_not_depend_on_the_file(tmp_path):
    many = [{"id": f"t{i}", "intent": f"do {i}", "sites": ["map"]} for i in range(400)]
    found = read(write(tmp_path / "a.json", many), 0.25).tasks
    validation = {name for name, one in found.items() if one.task.split == "validation"}
    # SHA-256 of "t0" begins with 51 (0.32), of "t25" with 11 (0.07)
    assert PREFIX + "t0" not in validation and PREFIX + "t25" in validation
    assert 60 < len(validation) < 140  # 100 expected, standard deviation 8.7
    fewer = read(write(tmp_path / "a.json", many[:300:-1]), 0.25).tasks
    assert all(found[name].task == one.task for name, one in fewer.items())
    assert validation < {name for name, one in read(write(tmp_path / "a.json", many), 0.5).tasks.items() if one.task.split == "validation"}


def changed(**keys):
    return {key: value for key, value in ({"id": 1, **WEBRL[0]} | keys).items() if value is not None}


def program(url, locator):
    return {"eval_types": ["program_html"], "program_html": [target(url, locator, must_include=["x"])]}


def milestone(**done):
    return [{"text": "m", "done": done}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" + json.dumps(WEBRL[0])[:-5], "a.json: not JSON: .*line 1"),
        ("", "a.json: not JSON"),
        ("[]", "suite.options.training: .*a.json: no tasks in it"),
        ("[" * 100_000, "a.json: not JSON: nested too deeply"),
        ('[{"id": NaN}]', "a.json: not JSON: NaN is no JSON"),
        ('[{"id": 1, "horizon": 1e999}]', "a.json: not JSON: 1e999 is too large a number"),
        ('[{"id": ' + "9" * 5000 + "}]", "a.json: not JSON: Exceeds the limit"),
        ([3], "a.json, task 1 of 1: not a task but 3"),
        ([WEBRL[0], {"task": "Buy", "web": "map"}], "task 2 of 2: unknown key task"),
        ([changed(intent=None)], r"task 1 of 1 \(id 1\): .*missing required field `intent`"),
        ([changed(intent=" ")], r"\(id 1\): intent: empty"),
        ([changed(intent="x" * 10 * 2**20)], "intent: 10,485,760 characters; at most 20,000"),
        ([changed(intent="a\ud800b")], r"'\\ud800' is half a character"),
        ([changed(id="a\nb")], r"the id 'a\\nb' is not"),
        ([changed(id="")], "the id '' is not"),
        ([changed(id=1.5)], "Expected `str | int | null`, got `float`"),
        ([changed(sites=None)], "missing required field `sites`"),
        ([changed(sites=["bank"])], "the site bank is not one of WebArena's; there are shopping, "),
        ([changed(sites="shopping")], "Expected `array`"),
        ([changed(horizon=0)], r"Expected `int` >= 1 - at `\$.horizon`"),
        ([changed(horizon=10**30)], r"horizon"),
        (
            [changed(start_url="http://evil.example/")],
            r"start_url: 'http://evil.example/' is on none .*; begin it with __SHOPPING__",
        ),
        ([changed(start_url="__MAP__/")], "start_url: '__MAP__/' is on none"),
        ([changed(start_url="__SHOPPING__@evil.example")], "is on none"),
        ([changed(start_url="__SHOPPING__ |AND| file:///etc/passwd")], "start_url: 'file:///etc/passwd' is on none"),
        ([changed(), changed()], r"task 2 of 2 \(id 1\): its id is also that of .*task 1 of 2"),
        ([changed(eval={"eval_types": ["guess"]})], "unknown evaluator 'guess'; there are string_match, url_match, program_html"),
        ([changed(eval={"eval_types": [["x"]]})], "unknown evaluator"),
        ([changed(eval={"eval_types": ["state_match"], "state": {"a": 1}})], "unknown evaluator 'state_match'"),
        ([changed(eval={"eval_types": []})], "eval_types is not a list of evaluators"),
        ([changed(eval={"eval_types": ["string_match"], "reference_answers": {"exact_match": 5}})], "exact_match is 5; expected a text"),
        (
            [changed(eval={"eval_types": ["string_match"], "reference_answers": {"must_include": []}})],
            r"must_include is .*a text, or a list",
        ),
        ([changed(eval={"eval_types": ["url_match"], "reference_url": "http://[x"})], r"reference_url: 'http://\[x' is not an address"),
        (
            [changed(eval={"eval_types": ["url_match"], "reference_url": "x", "url_note": "EXACT"})],
            "'EXACT' is not 'GOLD in PRED'",
        ),
        ([changed(eval=program("last", "alert(1)"))], "unknown locator"),
        ([changed(eval=program("func:os.remove('x')", ""))], "unknown helper"),
        ([changed(eval=program("http://evil.example", ""))], "is on none of the task's sites"),
        # `is_call` takes time quadratic in the spaces.
        ([changed(eval=program("last", "func:reddit_get_post_url(" + " " * 10**6))], "the locator of a target has 1,000,025 characters"),
        ([changed(milestones=milestone())], "the milestone 'm' has no condition"),
        ([changed(milestones=milestone(text=""))], "the milestone 'm' has an empty condition"),
        ([changed(milestones=milestone(url="http://[x"))], "the milestone 'm': url: .* is not an address"),
        ([changed(milestones=milestone(state={"a": 1}))], "WebArena's sites have no state"),
        ([changed(milestones=milestone(regex="(a+)+$"))], "unknown field `regex`"),
        ([changed(solution=["exit()"])], "unknown key solution"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_task(content, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        read(write(tmp_path / "a.json", content))
    assert "a.json" in str(error.value) and len(str(error.value)) < 1000


def test_files_that_are_no_text_or_too_large(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"intent": "caf\xe9"}')
    with pytest.raises(UserError, match=r"a\.jsonl: not UTF-8, at byte 15"):
        read(path)
    path.write_bytes(json.dumps(WEBRL[0]).encode("utf-16"))
    with pytest.raises(UserError, match="not UTF-8, at byte 0"):
        read(path)
    path.write_text(json.dumps(WEBRL[0]) + '\n{"intent": \n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: not JSON"):
        read(path)
    path.write_text("\ufeff" + json.dumps(WEBRL[0]))
    assert len(read(path).tasks) == 1
    with path.open("w") as file:
        file.truncate(64 * 2**20 + 1)
    with pytest.raises(UserError, match=r"a\.jsonl: larger than 64 MiB"):
        read(path)
    with pytest.raises(ConfigError, match=r"suite\.options\.training: .*nowhere: cannot be read"):
        read(tmp_path / "nowhere")


def test_many_wrong_tasks_make_a_short_message_and_ten_megabytes_are_read(tmp_path):
    with pytest.raises(UserError, match="480 more tasks are wrong") as error:
        read(write(tmp_path / "a.json", [changed(id=i, horizon=0) for i in range(500)]))
    assert len(str(error.value)) < 10_000
    large = [{"id": i, "intent": f"{i} " + "long " * 2_000, "sites": ["map"]} for i in range(1_000)]
    assert len(read(write(tmp_path / "a.json", large)).tasks) == 1_000


ANSWER = {"eval_types": ["string_match"], "reference_answers": {"exact_match": "4"}}


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Options of a suite with one test task and these instructions."""
    monkeypatch.setenv("A_USER", "ann")
    monkeypatch.setenv("A_PASS", "pass")
    with FakeSite("shopping") as shop:

        def make(*instructions, **changes):
            return {
                "tasks": write(tmp_path / "tests.json", [task(0, reference_answers={"exact_match": "4"})]),
                "training": write(tmp_path / "training.json", list(instructions)),
                "validation_share": 0.0,
                "sites": {"shopping": shop.address},
                "accounts": {"shopping": {"user": "A_USER", "password": "A_PASS"}},
                "settle_seconds": 0,
            } | changes

        yield make


def test_tasks_of_each_split_and_what_they_need(options):
    suite = make_suite("webarena_lite", **options(changed(), changed(id=2, eval=ANSWER), changed(id=3, intent="DO 0")))
    assert [one.id for one in suite.tasks("test", None, 1, 0)] == ["webarena_lite.0"]
    train = suite.tasks("train", None, 2, 0)
    assert [one.id for one in train] == [PREFIX + "1", PREFIX + "2"] and [suite.has_rules(one) for one in train] == [False, True]
    assert suite.task(PREFIX + "2") == train[1]
    for split, message in [("validation", "1 tasks are wanted, and there are 0"), ("dev", "split: 'dev' is none of")]:
        with pytest.raises(UserError, match=message):
            suite.tasks(split, None, 1, 0)
    with pytest.raises(UserError, match=r"instruction\.9: no such task in .*training\.json"):
        suite.task(PREFIX + "9")
    with pytest.raises(ConfigError, match=r"suite\.options\.training: .*name a file of instructions"):
        make_suite("webarena_lite", **options(training="")).tasks("train", None, 1, 0)
    with pytest.raises(UserError, match=r"accounts\.shopping: not set, and 1 of the tasks need it"):
        make_suite("webarena_lite", **options(changed(), accounts={})).tasks("train", None, 1, 0)


def test_preflight_reads_the_file(options):
    for instruction, results in ((changed(), {OK}), (changed(horizon=0), {"failed"})):
        found = Needs()
        suite = {"name": "webarena_lite", "options": options(instruction)}
        settings = build(collect.CollectConfig, {"suite": suite, "split": "train", "episodes": 1, "policy": {"kind": "idle"}})
        collect.needs(settings, found)
        assert {check.result for check in found.checks} == results
        told = [check.text for check in found.checks if "training.json" in check.text or "tasks (" in check.text]
        assert len(told) == 1 and ("1 tasks (1 train" in told[0] or "training.json, task 1 of 1 (id 1): Expected `int` >= 1" in told[0])


def test_collected_episodes_have_no_outcome_by_rule_and_one_by_a_model(options, tmp_path, caplog):
    suite = {"name": "webarena_lite", "options": options(changed(milestones=milestone(url="__SHOPPING__")), changed(id=2, eval=ANSWER))}
    settings = {"suite": suite, "split": "train", "episodes": 2, "policy": {"kind": "random"}, "out": str(tmp_path / "out")}
    assert collect.main(build(collect.CollectConfig, settings | {"limits": {"horizon": 2}})) == 0
    folders = {"folder": str(tmp_path / "out"), "out": str(tmp_path / "labelled")}
    with pytest.raises(
        ConfigError, match=r"judge\.kind: no rule evaluates webarena_lite\.instruction\.1 .*set judge\.kind=model or judge\.kind=orm"
    ):
        label.main(build(label.LabelConfig, folders | {"suite": suite}))
    assert not (tmp_path / "labelled").exists()

    class Model:
        def __init__(self):
            self.usage = {}

        def outcomes(self, trajectories):
            return iter([Outcome(success=one.task.id.endswith("1"), score=0.5, source="orm") for one in trajectories])

    made = make_suite("webarena_lite", **suite["options"])
    label_folder(tmp_path / "out", tmp_path / "labelled", made, judge=Model())
    labelled = {episode.task.id: episode for episode in ShardReader(tmp_path / "labelled")}
    assert labelled[PREFIX + "1"].success and not labelled[PREFIX + "2"].success
    assert all(step.milestones == (True,) for step in labelled[PREFIX + "1"].steps[1:])
    assert labelled[PREFIX + "2"].subgoals == ()
    with pytest.raises(UserError, match=r"instruction\.\d, which is none of the benchmark's tasks; evaluate the split test"):
        report.main(report.WebArenaReportConfig(folder=str(tmp_path), tasks=suite["options"]["tasks"]))
    assert list(read_labels(ShardReader(tmp_path / "labelled")).by_rule) == [False] * sum(len(one.steps) for one in labelled.values())


def test_an_evaluation_of_tasks_without_rules_is_refused_before_any_episode(options, tmp_path):
    suite = {"name": "webarena_lite", "options": options(changed(), changed(id=2, eval=ANSWER))}
    settings = {"suite": suite, "split": "train", "episodes": 2, "policy": {"kind": "idle"}, "out": str(tmp_path / "out")}
    with pytest.raises(ConfigError, match=r"split: no rule evaluates webarena_lite\.instruction\.1 .*use the split test"):
        evaluate.main(build(evaluate.EvaluateConfig, settings))
    assert not (tmp_path / "out").exists()
    found = Needs()
    evaluate.needs(build(evaluate.EvaluateConfig, settings), found)
    assert [check.key for check in found.checks if check.result != OK] == ["split"]


def test_no_outcome_is_neither_success_nor_failure(options):
    suite = make_suite("webarena_lite", **options(changed()))
    episode = Trajectory(
        id="a", task=suite.task(PREFIX + "1"), policy=Policy(name="p"), status=Status.FINISHED,
        evidence=Evidence(answer="4", page=Page(url="__SHOPPING__/", observation="")),
        steps=(Step(index=0, page=Page(url="__SHOPPING__/", observation=""), response="exit()"),),
    )  # fmt: skip
    assert suite.judge(episode) is None and failed_tasks([episode]) == [] and rates([episode]) == {}
    with pytest.raises(UserError, match="has no outcome"):
        read_labels([episode])
    other = make_suite("webarena_lite", **options(changed(intent="Buy another lamp")))
    with pytest.raises(UserError, match=r"instruction\.1: the task has changed since this episode was collected \(intent\)"):
        other.judge(episode)
