"""Throughput of `mira_jax.serve` in completions per second: by the number of concurrent clients, or for whole episodes.

    python benchmarks/serving.py --clients 1 4 8 --prompt 200 --tokens 10
    python benchmarks/serving.py --episodes 8 --steps 10 --page 200 1000

Uses a random model of the size of the shop's policy (about 1M parameters) or of a preset, token-id prompts and responses of at
most `--tokens`, over loopback.
Episodes are as in rollouts: each step's prompt contains the task, all past responses in full, and a new page. They run
on a server with a prefix cache and on one without, in turn. Each round has new tasks and pages. CPU seconds are those of the
server, which other load on the machine changes less than wall-clock seconds.
"""

import argparse
import asyncio
import datetime
import json
import os
import platform
import statistics
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
from mira_jax.models.config import PRESETS, Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.trajectories.prompts import PromptConfig, Round, prompt_ids
from mira_jax.trajectories.tokenizer import Tokenizer, train_tokenizer

SIZES = {"width": 128, "layers": 4, "query_heads": 4, "kv_heads": 1, "head_dim": 32, "mlp_width": 512, "window": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="shop", help="shop, or a preset such as 270m")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--prompt", type=int, default=200, help="mean tokens of a prompt; the length varies by 20 %%")
    parser.add_argument("--tokens", type=int, default=10, help="tokens of a completion")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        help="duration of a measurement, for each number of clients, after a warm-up of the same length",
    )
    parser.add_argument("--episodes", type=int, help="number of concurrent episodes to run instead")
    parser.add_argument("--steps", type=int, default=10, help="steps of an episode")
    parser.add_argument("--page", type=int, nargs="+", default=[200, 1000], help="approximate tokens of a page")
    parser.add_argument("--answer", type=int, default=20, help="approximate tokens of a past response in the prompt")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of episodes")
    parser.add_argument("--json", help="file for all figures and a flat `ratios`")
    arguments = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}"
    print(f"{datetime.date.today()}, {machine}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        tokenizer = make_model(folder, arguments.size)
        cases, ratios = measure_episodes(folder, tokenizer, arguments) if arguments.episodes else measure_load(folder, tokenizer, arguments)
    if arguments.json:
        about = {"date": str(datetime.date.today()), "machine": machine, **vars(arguments)}
        Path(arguments.json).write_text(json.dumps({**about, "cases": cases, "ratios": ratios}, indent=1) + "\n")


def measure_load(folder: Path, tokenizer: Tokenizer, arguments: argparse.Namespace) -> tuple[list[dict], dict[str, float]]:
    cases, ratios = [], {}
    # Compiles every requested length before anything is measured.
    with serving(folder, f"warm_up={list(range(64, 513, 64))}") as (url, pid):
        print("| clients | completions/s | median ms | 95th percentile ms | server CPU ms a completion |\n|---|---|---|---|---|")
        for clients in arguments.clients:
            asyncio.run(load(url, tokenizer, clients, arguments))
            before = cpu_seconds(pid)
            rate, times = asyncio.run(load(url, tokenizer, clients, arguments))
            cpu = (cpu_seconds(pid) - before) / len(times)
            middle, late = np.percentile(times, [50, 95])
            print(f"| {clients} | {rate:.1f} | {middle * 1e3:.0f} | {late * 1e3:.0f} | {cpu * 1e3:.1f} |", flush=True)
            cases.append({"clients": clients, "completions_per_second": rate, "seconds": times, "cpu_seconds": cpu})
            ratios[f"{clients}_clients/one"] = rate / cases[0]["completions_per_second"]
    return cases, ratios


def measure_episodes(folder: Path, tokenizer: Tokenizer, arguments: argparse.Namespace) -> tuple[list[dict], dict[str, float]]:
    cases, ratios = [], {}
    print(
        "| page tokens | prompt tokens, mean | cache hits | tokens from cache | with cache: s | CPU s | without: s | CPU s |\n"
        + "|---" * 8
        + "|"
    )
    for page in arguments.page:
        seconds: dict[str, list[float]] = {"cache": [], "no cache": []}
        cpu: dict[str, list[float]] = {"cache": [], "no cache": []}
        with (
            serving(folder, "max_length=8192", "prefix_cache_mb=1024") as with_prefixes,
            serving(folder, "max_length=8192") as without,
        ):
            for number in range(-1, arguments.rounds):
                servers = [("cache", *with_prefixes), ("no cache", *without)][:: 1 if number % 2 else -1]
                if number == 0:
                    before = counts(with_prefixes[0])
                for side, url, pid in servers:
                    start, cpu_start = time.monotonic(), cpu_seconds(pid)
                    asyncio.run(episodes(url, tokenizer, page, number, arguments))
                    if number >= 0:  # the first round compiles and is not counted
                        seconds[side].append(time.monotonic() - start)
                        cpu[side].append(cpu_seconds(pid) - cpu_start)
            done = {name: value - before[name] for name, value in counts(with_prefixes[0]).items()}
        case = {
            "page": page, "seconds": seconds, "cpu_seconds": cpu, "prompt_tokens": done["prompt_tokens"] / done["completions"],
            "prefix_hits": done["prefix_hits"] / done["completions"], "prefix_tokens": done["prefix_tokens"] / done["prompt_tokens"],
        }  # fmt: skip
        (kept, other), (kept_cpu, other_cpu) = ([statistics.median(times) for times in side.values()] for side in (seconds, cpu))
        ratios |= {f"page_{page}/no_cache/cache": other / kept, f"page_{page}/no_cache/cache/cpu": other_cpu / kept_cpu}
        reuse = f"{case['prompt_tokens']:.0f} | {case['prefix_hits']:.0%} | {case['prefix_tokens']:.0%}"
        print(f"| {page} | {reuse} | {kept:.2f} | {kept_cpu:.2f} | {other:.2f} | {other_cpu:.2f} |", flush=True)
        cases.append(case)
    return cases, ratios


def counts(url: str) -> dict[str, float]:
    """Counters of the engine."""
    told = httpx.get(url + "/health").json()
    return {name: told[name] for name in ("completions", "prompt_tokens", "prefix_hits", "prefix_tokens")}


async def episodes(url: str, tokenizer: Tokenizer, page: int, seed: int, arguments: argparse.Namespace) -> None:
    """Runs all episodes concurrently, and the steps of each in order."""
    draw = np.random.default_rng(seed + 1)

    def text(tokens: int) -> str:
        return tokenizer.decode(draw.integers(270, tokenizer.vocabulary_size, tokens).tolist())

    async def episode(http: httpx.AsyncClient, intent: str) -> None:
        past: list[Round] = []
        for _ in range(arguments.steps):
            prompt = prompt_ids(intent, past, text(page), PromptConfig(), tokenizer)
            body = {"model": "bench", "prompt": prompt, "max_tokens": arguments.tokens, "temperature": arguments.temperature}
            (await http.post("/v1/completions", json=body)).raise_for_status()
            # A text of fixed length, since a random model's own response may have any length.
            past.append(Round(text(arguments.answer)))

    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        await asyncio.gather(*(episode(http, text(30)) for _ in range(arguments.episodes)))


def make_model(folder: Path, size: str) -> Tokenizer:
    words = " ".join(f"word{number} " for number in np.random.default_rng(0).permutation(3000))
    path = folder.with_name("tokenizer.model")
    train_tokenizer([words[start : start + 500] for start in range(0, len(words), 500)], path, vocabulary_size=1024)
    tokenizer = Tokenizer(path)
    config = Gemma3Config(tokenizer.vocabulary_size, **SIZES) if size == "shop" else PRESETS[size]
    huggingface.save(Gemma3(config, rngs=nnx.Rngs(0)), folder, path)
    return tokenizer


class serving:
    """A server process on a free port, stopped at the end of the block."""

    def __init__(self, folder: Path, *settings: str):
        self._ready = Path(tempfile.mkdtemp(dir=folder.parent)) / "ready.json"
        command = [sys.executable, "-m", "mira_jax.serve", "--model", str(folder), "--port", "0"]
        for setting in (f"ready_file={self._ready}", "name=bench", *settings):
            command += ["--set", setting]
        self._process = subprocess.Popen(command)

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
    """Each client sends its next request once the last is answered. Returns (completions per second, seconds of each)."""
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
