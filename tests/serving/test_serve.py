"""The command as a process: ready file, signals, and what it refuses."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from mira_jax import serve
from mira_jax.errors import UserError
from mira_jax.serving.server import Server, bind
from mira_jax.training.load import model_fingerprint

COMMAND = [sys.executable, "-m", "mira_jax.serve"]


def start(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_it_serves_tells_where_and_stops_when_told(folder, tmp_path, capsys):
    ready = tmp_path / "state" / "ready.json"
    compiled = tmp_path / "compiled"
    process = start(
        "--model",
        str(folder),
        "--port",
        "0",
        "--set",
        f"ready_file={ready}",
        "--set",
        "name=shopper",
        "--set",
        f"compilation_cache={compiled}",
    )
    try:
        deadline = time.monotonic() + 90
        while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        told = json.loads(ready.read_text())
        assert told["pid"] == process.pid and told["model"] == "shopper"
        answer = httpx.post(told["url"] + "/v1/completions", json={"model": "shopper", "prompt": "red", "max_tokens": 3}, timeout=60)
        assert answer.json()["usage"]["completion_tokens"] in (1, 2, 3)

        card = httpx.get(told["url"] + "/v1/models").json()["data"][0]
        assert (card["fingerprint"], card["dtype"]) == (model_fingerprint(folder), "float32")
        assert answer.json()["system_fingerprint"] == card["fingerprint"]
        assert any(compiled.iterdir())

        # A second server on its port is refused before it reads the model.
        port = told["url"].rpartition(":")[2]
        assert serve.COMMAND.run(["--set", f"port={port}", "--set", "model=/nowhere"]) == 2
        assert capsys.readouterr().err.startswith(f"error: port {port} on 127.0.0.1 is in use")

        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert not ready.exists()
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ([], "model: name a folder"),
        (["model=/nowhere"], "/nowhere"),
        (["model={tmp}"], "no model here"),
        (["model={tmp}", "port=70000"], "70000"),
        (["model={tmp}", "host=256.1.1.1"], "256.1.1.1"),
        (["model={tmp}", "rows=0"], "rows"),
        (["model={tmp}", "max_length=2"], "--set: max_length: 2; it must be at least 64"),
        (["model={tmp}", "prefix_cache_mb=-1"], "prefix_cache_mb"),
        (["model={tmp}", "max_length=64", "warm_up=[63]"], "prompts have 1 to 62 tokens"),
        (["model={tmp}", "max_lenght=5"], "max_length"),
        (["model={tmp}", "mesh.tensor=0"], "mesh.tensor"),
        (["model={tmp}", "mesh.fsdp=2"], "mesh.fsdp"),
        (["model={tmp}", "prefill_tokens=512", "prefix_cache_mb=64"], "prefill_tokens: prompts of a batch can't reuse prefixes"),
    ],
)
def test_bad_settings_are_one_message_and_exit_code_2(overrides, word, tmp_path, capsys):
    arguments = [part for override in overrides for part in ("--set", override.format(tmp=tmp_path))]
    assert serve.COMMAND.run(["--set", "port=0", *arguments]) == 2
    message = capsys.readouterr().err
    assert word in message and message.startswith("error: ") and message.count("\n") == 1


def test_a_mesh_that_does_not_divide_the_kv_heads_is_refused(folder, capsys):
    assert serve.COMMAND.run(["--model", str(folder), "--set", "port=0", "--set", "mesh.tensor=2"]) == 2
    assert capsys.readouterr().err == "error: --set: mesh.tensor: 2 devices can't share 1 kv head(s) evenly; set a divisor of 1\n"


def test_a_port_that_another_takes_meanwhile_is_seen_too(folder):
    first = bind("127.0.0.1", 0)
    second = socket.socket()
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    second.bind(first.getsockname())
    second.listen()
    with pytest.raises(UserError, match="in use"):
        Server(None, first)
    first.close()
    second.close()
