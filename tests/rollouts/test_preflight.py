"""Preflight against real servers on this machine: some work, one is down, one refuses the key, one has another model."""

import contextlib
import http.server
import json
import threading

import pytest

from mira_jax import cli
from mira_jax.trajectories.tokenizer import train_tokenizer
from tests.suites.webarena_sites import FakeSite, task

JUDGED = {"reference_answers": {"fuzzy_match": ["four"]}}


@contextlib.contextmanager
def endpoint(key="", model="small", length=4096, silent=False, content="ready"):
    """An OpenAI-compatible endpoint with one model. Yields its address and the paths of the requests."""
    asked, release = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.answer(200, {"data": [{"id": model, "max_model_len": length}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(self.path)
            if silent:
                release.wait(60)
            if body["model"] != model:
                return self.answer(404, {"error": {"message": f"The model {body['model']} does not exist"}})
            choice = {"text": "x", "message": {"content": content}, "finish_reason": "length"}
            self.answer(200, {"choices": [choice], "usage": {"completion_tokens": 1}})

        def answer(self, status, tree):
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                status, tree = 401, {"error": {"message": "Incorrect API key"}}
            data = json.dumps(tree).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        release.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(["press the button", 'do(action="Click")'] * 20, path, 300)
    return str(path)


def check(capsys, command, *settings):
    code = cli.main(["preflight", command, *(part for one in settings for part in ("--set", one))])
    *shown, summary = capsys.readouterr().out.splitlines()
    return code, dict(line[9:].split(": ", 1) for line in shown), {line[9:].split(": ")[0]: line[:9].strip() for line in shown}, summary


POLICY = ["policy.kind=endpoint", "episodes=2", "templates=[buy]", "policy.prompt.max_tokens=200", "policy.max_tokens=20"]


def test_a_policy_that_answers(capsys, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("POLICY_KEY", "secret")
    with endpoint(key="secret") as (url, asked):
        code, texts, results, summary = check(
            capsys, "collect", *POLICY, f"policy.tokenizer={tokenizer}", f"policy.endpoint.base_url={url}", "policy.endpoint.model=small",
            "policy.endpoint.api_key_env=POLICY_KEY", f"out={tmp_path / 'run'}",
        )  # fmt: skip
    assert code == 0 and set(results.values()) == {"ok"} and summary == "6 ok, 0 missing, 0 failed"
    assert texts["policy.endpoint"].startswith(f"{url}: small answers, at most 4096 tokens (")
    assert asked == ["/v1/models", "/v1/completions"] and not (tmp_path / "run").exists()
    assert "secret" not in str(texts)


def test_each_fault_of_a_policy_is_told_apart(capsys, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("POLICY_KEY", "wrong")
    common = [*POLICY, f"policy.tokenizer={tokenizer}", f"out={tmp_path / 'run'}", "browser.executable=/no/such/browser"]
    with endpoint(key="secret", length=210) as (url, _):
        at = [*common, f"policy.endpoint.base_url={url}"]
        refused = check(capsys, "collect", *at, "policy.endpoint.api_key_env=POLICY_KEY")
        keyless = check(capsys, "collect", *at)
        unset = check(capsys, "collect", *at, "policy.endpoint.api_key_env=UNSET_KEY")
    assert "HTTP 401: Incorrect API key; check the key in POLICY_KEY" in refused[1]["policy.endpoint.base_url"]
    assert "name the environment variable of the key in policy.endpoint.api_key_env" in keyless[1]["policy.endpoint.base_url"]
    assert unset[2]["policy.endpoint.api_key_env"] == "failed" and "UNSET_KEY is not set" in unset[1]["policy.endpoint.api_key_env"]
    with endpoint(length=210) as (url, _):
        at = [*common, f"policy.endpoint.base_url={url}"]
        other = check(capsys, "collect", *at, "policy.endpoint.model=large", "policy.max_tokens=5")
        short = check(capsys, "collect", *at)
    assert (
        "'large' does not answer" in other[1]["policy.endpoint.model"] and "the endpoint lists small" in other[1]["policy.endpoint.model"]
    )
    assert "small takes 210 tokens, but prompts of 200" in short[1]["policy.endpoint"]
    for code, texts, results, _ in (refused, keyless, unset, other, short):
        assert code == 2 and results["browser.executable"] == "failed" and "not an executable file" in texts["browser.executable"]


def test_a_server_that_never_answers_is_given_up(capsys, tmp_path, tokenizer):
    with endpoint(silent=True) as (url, _):
        at = [*POLICY, f"policy.tokenizer={tokenizer}", f"policy.endpoint.base_url={url}", "policy.endpoint.timeout=1"]
        code, texts, _, _ = check(capsys, "collect", *at, f"out={tmp_path / 'run'}")
    assert code == 2 and "no complete response within 1 s" in texts["policy.endpoint"]


def test_sites_accounts_and_judge(capsys, tmp_path, tokenizer, monkeypatch):
    """One site is down, one account has a wrong password, one lacks a variable, and the judge has another model."""
    for name, value in {"GOOD_USER": "ann", "GOOD_PASS": "pass", "BAD_PASS": "wrong", "R_USER": "root", "R_PASS": "top"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tasks.json").write_text(json.dumps([task(0, **JUDGED), task(1, "gitlab", **JUDGED), task(2, "reddit", **JUDGED)]))
    with (
        FakeSite("shopping") as shop,
        FakeSite("gitlab") as gitlab,
        endpoint() as (url, asked),
        endpoint(model="grader") as (judge, judged),
    ):
        options = {
            "tasks": str(tmp_path / "tasks.json"),
            "sites": {"shopping": shop.address, "gitlab": gitlab.address, "reddit": "http://127.0.0.1:1"},
            "accounts": {
                "shopping": {"user": "GOOD_USER", "password": "GOOD_PASS"},
                "shopping_site_admin": {"user": "R_USER", "password": "R_PASS"},
                "gitlab": {"user": "GOOD_USER", "password": "BAD_PASS"},
                "reddit": {"user": "GOOD_USER", "password": "UNSET_PASS"},
            },
            "judge": {"endpoint": {"base_url": judge, "model": "greater"}},
        }
        suite = ["suite.name=webarena_lite", f"suite.options={json.dumps(options)}"]
        policy = ["policy.kind=endpoint", f"policy.tokenizer={tokenizer}", f"policy.endpoint.base_url={url}", "policy.prompt.max_tokens=99"]
        code, texts, results, summary = check(capsys, "evaluate", *suite, *policy, "episodes=3", f"out={tmp_path / 'run'}")
        assert check(capsys, "label", *suite, f"out={tmp_path / 'labels'}")[2]["suite.options.judge.endpoint.model"] == "failed"
    assert code == 2 and summary == "8 ok, 0 missing, 4 failed"
    assert {key for key, result in results.items() if result == "failed"} == {
        "suite.options.accounts.reddit", "suite.options.accounts.gitlab", "suite.options.sites.reddit",
        "suite.options.judge.endpoint.model",
    }  # fmt: skip
    assert "the environment variable UNSET_PASS is not set" in texts["suite.options.accounts.reddit"]
    assert "not signed in after the login" in texts["suite.options.accounts.gitlab"]
    assert "does not answer (ConnectError); start the site" in texts["suite.options.sites.reddit"]
    assert "the endpoint lists grader" in texts["suite.options.judge.endpoint.model"]
    assert texts["suite.options.accounts.shopping"].startswith("logged in, with the account in GOOD_USER")
    assert asked == ["/v1/models", "/v1/completions"] and judged == ["/v1/models", "/v1/chat/completions"] * 2
    assert not (tmp_path / "run").exists()


def test_a_writer_is_asked_in_the_form_of_its_answers(capsys, tmp_path):
    settings = [f"out={tmp_path / 'tasks.json'}"]
    with endpoint(content='{"ready": true}') as (url, _):
        code, texts, _, _ = check(capsys, "propose-tasks", *settings, f"writer.endpoint.base_url={url}")
    assert code == 0 and texts["writer.endpoint"].startswith(f"{url}: small answers")
    with endpoint() as (url, asked):
        code, texts, _, _ = check(capsys, "propose-tasks", *settings, f"writer.endpoint.base_url={url}")
    assert code == 2 and "small gave no valid answer in two tries" in texts["writer.endpoint"]
    assert asked == ["/v1/models", *["/v1/chat/completions"] * 2]


def test_ports_and_a_ray_cluster_that_is_not_there(capsys, tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as held:
        settings = ["policy.kind=expert", "episodes=2", f"suite.options.port={held.server_port}", "pool=ray", "ray.address=127.0.0.1:1"]
        assert cli.main(["preflight", "collect", f"--out={tmp_path}", *(part for one in settings for part in ("--set", one))]) == 2
    shown = capsys.readouterr().out
    assert f"failed   suite.options.port: 127.0.0.1:{held.server_port}: " in shown and "failed   ray.address: 127.0.0.1:1: " in shown
    assert "browser" not in shown, "the browsers are on the nodes of the cluster"
