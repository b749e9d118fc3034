"""Keys stay where they belong: an endpoint that repeats what it was sent, and the processes that a run starts."""

import http.server
import json
import os
import subprocess
import sys
import threading
import time

import pytest
import yaml

from mira_jax.config import to_tree
from mira_jax.trajectories.shards import Spool
from mira_jax.trajectories.tokenizer import train_tokenizer
from rollouts.engine.pool import LOST
from tests.rollouts.sites import config, descendants

KEY, PASSWORD = "sk-SECRET-0123456789", "pass-SECRET-word"
ESCAPE = "\x1b]0;pwned\x07\x1b[2J"


class Parrot(http.server.ThreadingHTTPServer):
    """An endpoint whose errors repeat the Authorization header; with status 200 it says exit()."""

    daemon_threads = True

    def __init__(self, status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, {"data": [{"id": "small"}]})

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(0.3)
                said = f"no: {self.headers['Authorization']}{ESCAPE}"
                good = {"choices": [{"text": 'exit(message="x")', "finish_reason": "stop"}], "usage": {}}
                self.answer(status, good if status == 200 else {"error": {"message": said}})

            def answer(self, status, tree):
                body = json.dumps(tree).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


@pytest.fixture
def collect(tmp_path):
    """Runs the command on the arena with a key and an account in its environment. Returns its output, and its processes' environments."""
    train_tokenizer(["press the button"] * 20, tmp_path / "tokenizer.model", 300)

    def run(url):
        tree = to_tree(config())
        tree |= {"templates": ["buy"], "episodes": 2, "limits": {"tries": 1}, "out": str(tmp_path / "out")}
        endpoint = {"base_url": url, "api_key_env": "MY_KEY", "retries": 0}
        tree["policy"] = {"kind": "endpoint", "tokenizer": str(tmp_path), "endpoint": endpoint}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
        command = [sys.executable, "-m", "rollouts.collect", "--config", str(tmp_path / "config.yaml")]
        environment = {**os.environ, "MY_KEY": KEY, "WA_SHOPPING_PASSWORD": PASSWORD}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        seen = {}
        while process.poll() is None:
            for child, name in descendants(process.pid):
                try:
                    with open(f"/proc/{child}/environ") as file:
                        seen[name] = seen.get(name, "") + file.read()
                except OSError:
                    continue
            time.sleep(0.05)
        return process.communicate()[0], seen

    return run


def secrets_in(folder):
    return [str(path) for path in folder.rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()]


@pytest.mark.parametrize("status", [400, 500, 401])
def test_what_an_endpoint_repeats_is_neither_shown_nor_kept(collect, tmp_path, status):
    server = Parrot(status)
    try:
        said, _ = collect(server.url)
    finally:
        server.shutdown()
        server.server_close()
    assert "SECRET" not in said and "\x1b]0" not in said and "\x07" not in said
    if status == 401:
        assert "HTTP 401: no: Bearer [hidden]" in said
    else:
        lost = list(Spool(tmp_path / "out" / LOST).trajectories())
        assert lost and all(f"HTTP {status}: no: Bearer [hidden]" in episode.error for episode in lost)
    assert (tmp_path / "out").is_dir() and not secrets_in(tmp_path)


def test_the_browser_and_its_driver_see_no_key_and_no_account(collect, tmp_path):
    server = Parrot(200)
    try:
        said, seen = collect(server.url)
    finally:
        server.shutdown()
        server.server_close()
    assert "2 finished" in said and "2 steps have no token ids" in said
    assert any("node" in name for name in seen) and any("chrom" in name or "headless" in name for name in seen)
    assert all("SECRET" not in environment for environment in seen.values())
    assert all("PATH=" in environment for name, environment in seen.items() if "node" in name)
    assert not secrets_in(tmp_path)
