"""Memory and speed of the input pipeline: synthetic shards, then each measurement in a process of its own.

    python benchmarks/data.py --steps 100000 --workers 0 1 2

Pages have 600 to 2000 tokens of 4 characters. The tokenizer only splits the text, so times are without the cost of a real one.
Times are wall-clock seconds from the opening of the shards; cpu is the processor time of the process in the same interval.

    cold, warm   without and with an entry in the token cache
    anonymous    memory of the process that is not backed by a file, at its peak (MB)
    mapped       memory of the process that is backed by files, at its peak: the kernel can drop it (MB)
    workers      anonymous memory of all workers together, at its peak: mostly their imports (MB)
    waits        the share of the time that a step of `--step-seconds` waits for its batch
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mira_jax.data.episodes import Episodes
from mira_jax.data.packing import Share
from mira_jax.data.pipeline import Batches, DataConfig
from mira_jax.recipes.labels import read_labels
from mira_jax.training.setup import pack_data
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Outcome, Page, Policy, Status, Step, Subgoal, Task, Trajectory
from mira_jax.trajectories.shards import ShardReader, write_shard

WIDTH = 4
STEPS_PER_EPISODE = 10
EPISODES_PER_SHARD = 1000


class FourCharacters:
    """The parts of `Tokenizer` that the pipeline uses. A token is four ASCII characters."""

    sha256 = "four characters"
    vocabulary_size, pad_id, eos_id, bos_id, start_of_turn_id, end_of_turn_id = 2**28, 0, 1, 2, 3, 4

    def encode(self, text: str) -> list[int]:
        return np.frombuffer(text.encode().ljust(-(-len(text) // WIDTH) * WIDTH), "<u4").astype(np.int32).tolist()


def trajectories(steps: int, seed: int = 0) -> Iterator[Trajectory]:
    draw = random.Random(seed)
    lines = ["".join(draw.choices("abcdefghij <>=\"'", k=WIDTH * 20)) for _ in range(5000)]
    for number in range(steps // STEPS_PER_EPISODE):
        made = []
        for index in range(STEPS_PER_EPISODE):
            page = "".join(draw.choices(lines, k=draw.randint(600, 2000) // 20))
            response = f'do(action="Click", element="{draw.randrange(100)}")'
            done = (index >= 4, index == STEPS_PER_EPISODE - 1)
            made.append(Step(index=index, page=Page(url="__SITE__/", observation=page), response=response, milestones=done))
        yield Trajectory(
            id=f"episode-{number}",
            task=Task(
                id=f"bench.{number}", suite="bench", sites=("site",), template="bench", split="train", seed=number,
                intent=f"Find the item number {number}", start_url="__SITE__/", horizon=STEPS_PER_EPISODE,
            ),
            policy=Policy(name="bench"),
            subgoals=tuple(Subgoal(text=text, check="") for text in ("open the list", "find the item")),
            steps=tuple(made),
            status=Status.FINISHED,
            outcome=Outcome(success=number % 2 == 0, score=float(number % 2 == 0), source="rule"),
        )  # fmt: skip


def write_folder(folder: Path, steps: int) -> None:
    episodes = trajectories(steps)
    for shard in range(-(-steps // STEPS_PER_EPISODE // EPISODES_PER_SHARD)):
        part = (episode for _, episode in zip(range(EPISODES_PER_SHARD), episodes, strict=False))
        write_shard(folder / f"episodes-{shard:05d}.array_record", part)


def memory() -> dict[str, int]:
    """Bytes of anonymous and of file-mapped memory of this process, and of anonymous memory of its children."""
    own = _status("self")
    children = {child for path in Path("/proc/self/task").glob("*/children") for child in path.read_text().split()}
    return {"anonymous": own["RssAnon"], "mapped": own["RssFile"], "workers": sum(_status(child).get("RssAnon", 0) for child in children)}


def _status(process: str) -> dict[str, int]:
    """The sizes in /proc/PROCESS/status in bytes. {} if the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}


@contextlib.contextmanager
def peaks() -> Iterator[dict[str, int]]:
    """The highest values of `memory` in this context, sampled every 50 ms, less the anonymous memory at its beginning."""
    start, stop = memory(), threading.Event()
    found = dict.fromkeys(start, 0)

    def sample() -> None:
        while not stop.wait(0.05):
            for name, value in memory().items():
                found[name] = max(found[name], value)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        found["anonymous"] -= start["anonymous"]


def measure(folder: str, cache: str, workers: int, options: argparse.Namespace) -> dict[str, float]:
    config = DataConfig(prompt=PromptConfig(max_tokens=4096), row_length=options.row_length, rows=options.rows)
    with peaks() as found:
        began, cpu = time.perf_counter(), time.process_time()
        episodes = Episodes(ShardReader(folder), config.prompt, FourCharacters(), cache=Path(cache) if cache else None, progress=False)
        labels = read_labels(episodes)
        columns = {"success": labels.success.astype(np.float32)}
        packed = pack_data(config, episodes.examples, labels.sound, columns, True, epochs=1, updates=None, seed=0)
        with contextlib.closing(Batches(Share(packed.train, range(options.rows)), workers)) as batches:
            next(batches)
            result = {"first_batch": time.perf_counter() - began, "cpu": time.process_time() - cpu}
            if options.batches:
                began = time.perf_counter()
                for _ in range(options.batches):
                    next(batches)
                result["batches_per_second"] = options.batches / (time.perf_counter() - began)
                waited = 0.0
                began = time.perf_counter()
                for _ in range(options.simulated):
                    time.sleep(options.step_seconds)
                    since = time.perf_counter()
                    next(batches)
                    waited += time.perf_counter() - since
                result["waits"] = waited / (time.perf_counter() - began)
    return result | {name: value / 1e6 for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--row-length", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--batches", type=int, default=200, help="batches for the throughput")
    parser.add_argument("--simulated", type=int, default=40, help="steps for the waiting time")
    parser.add_argument("--step-seconds", type=float, default=0.5)
    parser.add_argument("--folder", help="keep the shards here, and use them if they exist")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, cache, workers = json.loads(options.measure)
        print(json.dumps(measure(name, cache, workers, options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary) / f"shards-{options.steps}"
        if not folder.exists():
            began = time.perf_counter()
            write_folder(folder, options.steps)
            print(f"wrote the shards in {time.perf_counter() - began:.0f} s")
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{options.steps:,} steps, {size / 1e6:,.0f} MB of shards, rows of {options.row_length} tokens, {options.rows} per batch")
        print(f"{'':22}{'first batch':>12}{'cpu':>8}{'anonymous':>11}{'mapped':>8}{'workers':>9}{'batches/s':>11}{'waits':>8}")
        cache = str(Path(temporary) / "cache")
        cases = [("cold, in memory", "", 0), ("cold", cache, 0), *((f"warm, {count} workers", cache, count) for count in options.workers)]
        for name, place, workers in cases:
            brief = ["--batches", "0"] if name.startswith("cold") else []
            command = [sys.executable, __file__, *sys.argv[1:], *brief, "--measure", json.dumps([str(folder), place, workers])]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ)
            result = json.loads(done.stdout)
            speed = f"{result['batches_per_second']:11.1f}{result['waits']:8.1%}" if "waits" in result else ""
            sizes = f"{result['anonymous']:11,.0f}{result['mapped']:8,.0f}{result['workers']:9,.0f}"
            print(f"{name:22}{result['first_batch']:10.1f} s{result['cpu']:6.1f} s{sizes}{speed}", flush=True)


if __name__ == "__main__":
    main()
