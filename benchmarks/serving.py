"""Completions a second of `mira_jax.serve`, by the number of clients that ask at once.

    python benchmarks/serving.py --clients 1 4 8 --prompt 200 --tokens 10

A random model of the demo's size (about 1M parameters), token-id prompts, fixed-length answers, over loopback.
"""

import argparse
import asyncio
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import jax
import numpy as np
from flax import nnx

from mira_jax.models import huggingface
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.trajectories.tokenizer import Tokenizer, train_tokenizer

SIZES = {"width": 128, "layers": 4, "query_heads": 4, "kv_heads": 1, "head_dim": 32, "mlp_width": 512, "window": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--prompt", type=int, default=200, help="tokens of a prompt, give or take a fifth")
    parser.add_argument("--tokens", type=int, default=10, help="tokens of an answer")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=5.0, help="measured for each number of clients, after as long a warm-up")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        tokenizer = make_model(folder)
        with serving(folder) as (url, pid):
            print(f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}")
            print("| clients | completions/s | median ms | 95th percentile ms | server CPU ms a completion |\n|---|---|---|---|---|")
            for clients in arguments.clients:
                asyncio.run(load(url, tokenizer, clients, arguments))
                before = cpu_seconds(pid)
                rate, times = asyncio.run(load(url, tokenizer, clients, arguments))
                cpu = (cpu_seconds(pid) - before) / len(times)
                middle, late = np.percentile(times, [50, 95])
                print(f"| {clients} | {rate:.1f} | {middle * 1e3:.0f} | {late * 1e3:.0f} | {cpu * 1e3:.1f} |", flush=True)


def make_model(folder: Path) -> Tokenizer:
    words = " ".join(f"word{number} " for number in np.random.default_rng(0).permutation(3000))
    path = folder.with_name("tokenizer.model")
    train_tokenizer([words[start : start + 500] for start in range(0, len(words), 500)], path, vocabulary_size=1024)
    tokenizer = Tokenizer(path)
    huggingface.save(Gemma3(Gemma3Config(tokenizer.vocabulary_size, **SIZES), rngs=nnx.Rngs(0)), folder, path)
    return tokenizer


class serving:
    """A server process on a free port, ended with the block."""

    def __init__(self, folder: Path):
        self._ready = folder.with_name("ready.json")
        # Every length that is asked for is compiled before anything is measured.
        lengths = list(range(64, 513, 64))
        settings = ["--set", f"warm_up={lengths}", "--port", "0", "--set", f"ready_file={self._ready}", "--set", "name=bench"]
        self._process = subprocess.Popen([sys.executable, "-m", "mira_jax.serve", "--model", str(folder), *settings])

    def __enter__(self) -> tuple[str, int]:
        deadline = time.monotonic() + 120
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not start")
            time.sleep(0.1)
        return json.loads(self._ready.read_text())["url"], self._process.pid

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(url: str, tokenizer: Tokenizer, clients: int, arguments: argparse.Namespace) -> tuple[float, list[float]]:
    """Each client asks again as soon as it is answered. Returns (completions a second, seconds each took)."""
    draw, times = np.random.default_rng(clients), []
    end = time.monotonic() + arguments.seconds

    async def client(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            length = int(arguments.prompt * draw.uniform(0.8, 1.2))
            prompt = draw.integers(270, tokenizer.vocabulary_size, length).tolist()
            body = {"model": "bench", "prompt": prompt, "max_tokens": arguments.tokens, "temperature": arguments.temperature}
            start = time.monotonic()
            (await http.post("/v1/completions", json=body)).raise_for_status()
            times.append(time.monotonic() - start)

    start = time.monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return len(times) / (time.monotonic() - start), times


if __name__ == "__main__":
    main()
