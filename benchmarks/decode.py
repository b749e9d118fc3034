"""Compares text generation with transformers: the sampler of `mira_jax.serve` and `generate`, with the same weights.

    python benchmarks/decode.py --size shop --batch 1 8 32
    python benchmarks/decode.py --size 270m --batch 8 --dtype bfloat16 --json decode.json

transformers runs in its own environment (`--peers`, created by `make test-peers`), in a separate process. In each
round one side waits while the other works. The order changes from round to round, and medians are compared. transformers'
static and dynamic cache are both timed. Ratios are against the faster of them, in wall-clock seconds and in CPU seconds of all
cores; the latter are more reliable on a shared machine. Prompts are random tokens, all different, and new in each round.
Weights are random, written by us and read by both sides. In float32 every greedy token must be equal.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CACHES = ("static", "dynamic")
SHOP = "configs/shop/sft.yaml"


@dataclasses.dataclass(frozen=True)
class Work:
    """One unit of work for a side."""

    batch: int
    prompt: int
    tokens: int
    """Number of new tokens per prompt."""
    seed: int
    cache: str = ""
    """Kind of cache of transformers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="shop", help=f"shop ({SHOP}), or a preset such as 270m")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt", type=int, default=1000, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens for each prompt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="dtype of mira_jax")
    parser.add_argument("--peer-dtype", choices=("float32", "bfloat16"), help="dtype of transformers; default: the same")
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="a Python with torch and transformers")
    parser.add_argument("--json", help="file for all figures and a flat `ratios`")
    parser.add_argument("--worker", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return serve_work(ours(arguments) if arguments.worker == "ours" else theirs(arguments))

    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        model = str(Path(scratch) / "model")
        one = stack.enter_context(worker(sys.executable, "ours", model, arguments.size, arguments.dtype))
        peer_dtype = arguments.peer_dtype or arguments.dtype
        two = stack.enter_context(worker(arguments.peers, "theirs", model, arguments.size, peer_dtype))
        machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
        print(f"{datetime.date.today()}, {machine}, {one.versions}, {two.versions}; {arguments.size}, prompts of {arguments.prompt}")
        print(
            "| batch | new tokens | ours ms | static | dynamic | ours, range | speedup | speedup in CPU time | equal tokens |\n|"
            + "---|" * 9
        )
        cases, ratios = [], {}
        for batch in arguments.batch:
            for tokens in (1, arguments.tokens):
                case = compare(one, two, Work(batch, arguments.prompt, tokens, seed=2 * batch + (tokens == 1)), arguments.rounds)
                cases.append(case)
                name = "prefill" if tokens == 1 else "total"
                ratios[f"{arguments.size}/batch_{batch}/{name}"] = case["ratio"]
                ratios[f"{arguments.size}/batch_{batch}/{name}_cpu"] = case["cpu_ratio"]
                ms = {side: 1e3 * seconds for side, seconds in case["median"].items()}
                spread = f"{1e3 * min(case['seconds']['ours']):.0f}-{1e3 * max(case['seconds']['ours']):.0f}"
                print(
                    f"| {batch} | {tokens} | {ms['ours']:.0f} | {ms['static']:.0f} | {ms['dynamic']:.0f} | {spread} | {case['ratio']:.2f} |"
                    f" {case['cpu_ratio']:.2f} | {case['equal_tokens']:.1%} |",
                    flush=True,
                )
            first, whole = cases[-2]["median"], cases[-1]["median"]
            decode = {side: whole[side] - first[side] for side in whole}
            ratios[f"{arguments.size}/batch_{batch}/decode"] = min(decode[cache] for cache in CACHES) / decode["ours"]
            print(f"| {batch} | decode only | " + " | ".join(f"{1e3 * decode[side]:.0f}" for side in ("ours", *CACHES)), end=" | ")
            print(f"| {ratios[f'{arguments.size}/batch_{batch}/decode']:.2f} | | |", flush=True)
        if arguments.json:
            about = {"date": str(datetime.date.today()), "machine": machine, "ours": one.versions, "theirs": two.versions}
            about |= {"size": arguments.size, "dtype": arguments.dtype, "peer_dtype": peer_dtype, "rounds": arguments.rounds}
            Path(arguments.json).write_text(json.dumps({**about, "cases": cases, "ratios": ratios}, indent=1) + "\n")


def compare(one: "DecodeWorker", two: "DecodeWorker", work: Work, rounds: int) -> dict[str, Any]:
    """Runs all three sides in rounds, after a warm-up round. Reports how many greedy tokens are equal."""

    def do(side: str, round_: int) -> tuple[float, float, list[list[int]]]:
        # New prompts in each round.
        now = dataclasses.replace(work, seed=work.seed + 1000 * round_, cache="" if side == "ours" else side)
        return (one if side == "ours" else two).do(now)

    sides = ("ours", *CACHES)
    drawn = {side: do(side, 0)[-1] for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    cpu_seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(1, rounds + 1):
        for side in sides[:: 1 if number % 2 else -1]:
            taken, used, _ = do(side, number)
            seconds[side].append(taken)
            cpu_seconds[side].append(used)
    pairs = [(a, b) for row, other in zip(drawn["ours"], drawn["static"], strict=True) for a, b in zip(row, other, strict=True)]
    equal = sum(a == b for a, b in pairs) / len(pairs)
    if one.dtype == two.dtype == "float32" and equal < 1:
        raise SystemExit(f"the greedy tokens differ at batch {work.batch}: {equal:.1%} are equal")
    median, cpu_median = ({side: statistics.median(values) for side, values in times.items()} for times in (seconds, cpu_seconds))
    ratio, cpu_ratio = (min(times[cache] for cache in CACHES) / times["ours"] for times in (median, cpu_median))
    case = {**dataclasses.asdict(work), "seconds": seconds, "cpu_seconds": cpu_seconds, "median": median, "cpu_median": cpu_median}
    return {**case, "ratio": ratio, "cpu_ratio": cpu_ratio, "equal_tokens": equal}


class DecodeWorker:
    """A process that performs `Work` on request: one line of JSON in, one line of JSON out."""

    def __init__(self, process: subprocess.Popen, dtype: str):
        self._process, self.dtype = process, dtype
        self.versions: str = self._read()

    def do(self, work: Work) -> tuple[float, float, list[list[int]]]:
        """Returns wall-clock seconds, CPU seconds of all cores, and the tokens of each prompt."""
        print(json.dumps(dataclasses.asdict(work)), file=self._process.stdin, flush=True)
        return tuple(self._read())

    def _read(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side of the comparison ended; its message is above")
        return json.loads(line)


@contextlib.contextmanager
def worker(python: str, side: str, model: str, size: str, dtype: str) -> Iterator[DecodeWorker]:
    command = [python, __file__, "--worker", side, "--model", model, "--size", size, "--dtype", dtype]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise SystemExit(f"{python} is not there; `make test-peers` makes an environment with transformers") from None
    try:
        yield DecodeWorker(process, dtype)
    finally:
        process.stdin.close()
        process.wait()


def serve_work(side: tuple[str, Callable[[Work], list[list[int]]]]) -> None:
    """The worker's side of the pipe."""
    versions, do = side
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        work = Work(**json.loads(line))
        start, cpu_start = time.perf_counter(), time.process_time()
        tokens = do(work)
        print(json.dumps([time.perf_counter() - start, time.process_time() - cpu_start, tokens]), flush=True)


def prompts(work: Work, vocabulary_size: int) -> Any:
    """batch x prompt random token ids, excluding special tokens."""
    import numpy as np

    return np.random.default_rng(work.seed).integers(110, vocabulary_size, (work.batch, work.prompt))


def ours(arguments: argparse.Namespace) -> tuple[str, Callable[[Work], list[list[int]]]]:
    from mira_jax import host_memory

    host_memory.keep()
    import flax
    import jax

    from mira_jax.models import huggingface
    from mira_jax.models.sampler import Sampler, Sampling, Work

    save_random(arguments.size, Path(arguments.model))
    dtype = jax.numpy.dtype(arguments.dtype)
    model = huggingface.load(arguments.model, dtype=dtype, param_dtype=dtype)
    samplers: dict[tuple[int, int], Sampler] = {}

    def do(work: Work) -> list[list[int]]:
        length = work.prompt + max(work.tokens, arguments.tokens)
        sampler = samplers.get((work.batch, length)) or Sampler(model, (), work.batch, length)
        samplers[work.batch, length] = sampler
        rows = [
            row
            for prompt in prompts(work, model.config.vocabulary_size).tolist()
            for row in sampler.insert([Work(prompt, Sampling(work.tokens))])
        ]
        tokens: list[list[int]] = [[] for _ in rows]
        going = True
        while going:
            chunk = sampler.advance()
            for row in rows:
                tokens[row] += chunk.tokens[row, : chunk.count[row]].tolist()
            going = bool(chunk.active.any())
        for row in rows:
            sampler.release(row)
        return tokens

    return f"jax {jax.__version__} flax {flax.__version__} {arguments.dtype}", do


def save_random(size: str, folder: Path) -> None:
    """Writes random weights. The final norm's scales are spread out, since otherwise the model only repeats its last token."""
    import jax
    from flax import nnx

    from mira_jax.config import load
    from mira_jax.models import huggingface
    from mira_jax.models.config import PRESETS, Gemma3Config
    from mira_jax.models.gemma3 import Gemma3
    from mira_jax.train import TrainConfig

    if size == "shop":
        shop = load(TrainConfig, SHOP)
        config = Gemma3Config(shop.tokenizer.train.vocabulary_size, **shop.model.sizes)
    else:
        config = PRESETS[size]
    model = Gemma3(config, rngs=nnx.Rngs(0))
    model.norm.scale[...] = 2 * jax.random.normal(jax.random.key(1), (config.width,))
    huggingface.save(model, folder)


def theirs(arguments: argparse.Namespace) -> tuple[str, Callable[[Work], list[list[int]]]]:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype)).eval()
    model.generation_config.eos_token_id = None

    def do(work: Work) -> list[list[int]]:
        ids = torch.from_numpy(prompts(work, model.config.vocab_size))
        cache = {"cache_implementation": "static"} if work.cache == "static" else {}
        with torch.inference_mode():
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=work.tokens, do_sample=False, **cache)
        return whole[:, work.prompt :].tolist()

    return f"torch {torch.__version__} transformers {transformers.__version__} {arguments.dtype}", do


if __name__ == "__main__":
    main()
