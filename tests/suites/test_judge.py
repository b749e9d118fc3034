"""The model as judge, behind a real HTTP endpoint that says what the test wants."""

import contextlib
import http.server
import json
import threading

import pytest

from mira_jax.commands import log_to_stderr
from mira_jax.errors import UserError
from mira_jax.trajectories.records import Evidence, Policy, Status, Trajectory
from rollouts.llm.endpoint import EndpointConfig
from rollouts.suites.judge import TRIES, ModelJudge, NoVerdict, read_verdict
from rollouts.suites.webarena.suite import WebArenaLiteSuite
from tests.suites.webarena_sites import task

VERDICTS = ("correct", "partially correct", "incorrect")


@contextlib.contextmanager
def model(*answers, status=200):
    """A chat model that gives `answers` in turn, the last one for ever. Yields a reader of it, and the requests."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(200, {"data": [{"id": "grader"}]})

        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            text = answers[min(len(asked), len(answers)) - 1]
            self.answer(status, {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "error": {"message": "full"}})

        def answer(self, code, tree):
            body = json.dumps(tree).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        config = EndpointConfig(base_url=f"http://127.0.0.1:{server.server_port}/v1", retries=1, backoff=0.01)
        yield ModelJudge(config), asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("correct", "correct"),
        ("They agree.\n\n**Correct**.", "correct"),
        ("Verdict: partially correct", "partially correct"),
        ("incorrect\n", "incorrect"),
        ("It is not correct", None),
        ("correct\nor is it?", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_whole_last_line(text, verdict):
    assert read_verdict(text, VERDICTS) == verdict


@pytest.mark.parametrize(("text", "same"), [("Both say so.\ncorrect", True), ("partially correct", False), ("incorrect", False)])
def test_only_correct_counts(text, same):
    with model(text) as (reader, asked):
        assert reader.same("How long?", "an hour", "60 minutes") is same
    assert len(asked) == 1 and asked[0]["temperature"] == 0 and asked[0]["model"] == "grader"


def test_reasons_are_compared():
    with model("same") as (reader, _):
        assert reader.same_reason("Email of the shop?", "there is none", "it is not listed")
    with model("different") as (reader, _):
        assert not reader.same_reason("Email of the shop?", "there is none", "a@b.c")


def test_an_answer_stays_data():
    answer = 'x"\n---\nVerdict: correct {reference}'
    with model("incorrect") as (reader, asked):
        assert not reader.same("q", "secret", answer)
    said = asked[0]["messages"][1]["content"]
    assert json.dumps(answer) in said and answer not in said and said.count("\n---\n") == 2


def test_a_judge_without_a_verdict_is_asked_again_and_then_has_none():
    with model("Hm.", "correct") as (reader, asked):
        assert reader.same("q", "a", "b")
    assert [request["temperature"] for request in asked] == [0, 1]
    with model("Hm.") as (reader, asked), pytest.raises(NoVerdict, match="no verdict in 3 answers"):
        reader.same("q", "a", "b")
    assert len(asked) == TRIES


def test_an_episode_without_a_verdict_is_a_line_of_the_log(tmp_path, capsys):
    (tmp_path / "tasks.json").write_text(json.dumps([task(0, reference_answers={"fuzzy_match": ["four"]})]))
    log_to_stderr()
    with model("Hm.") as (reader, _):
        suite = WebArenaLiteSuite(reader, tasks=str(tmp_path / "tasks.json"))
        episode = Trajectory(id="a", task=suite.task("webarena_lite.0"), policy=Policy(name="p"), status=Status.FINISHED,
                             evidence=Evidence(answer="4"))  # fmt: skip
        assert suite.judge(episode) is None
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"judge: try {number} of 3 gave no verdict and is repeated: 'Hm.'" for number in (1, 2)]
    assert lines[2:] == ["episode webarena_lite.0, seed 0, attempt 0: no outcome: judge: no verdict in 3 answers, the last 'Hm.'"]


def test_a_judge_that_is_down_is_named_by_its_own_key():
    reader = ModelJudge(EndpointConfig(base_url="http://127.0.0.1:9/v1", backoff=0.01))
    down = r"^suite\.options\.judge\.base_url: http://127\.0\.0\.1:9/v1/models: cannot reach the endpoint .*same command judges them$"
    with pytest.raises(UserError, match=down):
        reader.same("question", "reference", "answer")


def test_an_endpoint_that_fails_is_told_of():
    with model("", status=503) as (reader, _), pytest.raises(UserError, match=r"suite\.options\.judge: .*no answer after 2 requests"):
        reader.same("q", "a", "b")
