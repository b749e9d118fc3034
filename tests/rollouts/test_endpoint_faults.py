"""An endpoint that fails under a run: transient failures cost nothing, and a broken endpoint costs only its episodes."""

import http.server
import json
import socket
import threading

import pytest

from mira_jax.trajectories.records import episode_key
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.tokenizer import train_tokenizer
from rollouts.agents.base import step_seed
from rollouts.agents.policy import make_policy
from rollouts.engine.pool import LOST, collect, lost_episodes
from rollouts.labels.outcome import label
from tests.rollouts.sites import BROWSER, CountingSuite, config
from tests.rollouts.waiting import PATIENCE

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
        assert len(lost) == len(FAULTS) and all(episode.error.startswith("endpoint: policy.endpoint (http://") for episode in lost)
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
