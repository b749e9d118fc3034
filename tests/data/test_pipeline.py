"""Batches are the same bytes however they are made: in memory, from the cache, in a thread or in processes."""

import contextlib
import math
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mira_jax.data.episodes import Episodes
from mira_jax.data.packing import Share
from mira_jax.data.pipeline import Batches, DataConfig
from mira_jax.recipes.labels import read_labels
from mira_jax.training.setup import pack_data
from mira_jax.trajectories.prompts import PromptConfig, prompt_ids, response_ids, rounds
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic
from tests.processes import ends

ROOT = Path(__file__).parents[2]
PROMPT = PromptConfig(version="compact", max_tokens=200)
T, B, EPOCHS, SEED = 320, 3, 2, 5


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(synthetic.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthetic.write_folder(tmp_path_factory.mktemp("episodes"), count=24, infra_every=5)


@pytest.fixture(scope="module")
def column(folder):
    steps = sum(len(item.steps) for item in ShardReader(folder))
    return np.random.default_rng(0).random(steps).astype(np.float32)


@pytest.fixture(scope="module")
def packed(folder, tokenizer, column, tmp_path_factory):
    """Batches from the token cache."""
    return pack(folder, tokenizer, column, tmp_path_factory.mktemp("cache"))


def pack(folder, tokenizer, column, cache, **keys):
    config = DataConfig(prompt=PROMPT, row_length=T, rows=B)
    episodes = Episodes(ShardReader(folder), PROMPT, tokenizer, cache=cache, progress=False)
    keep = read_labels(episodes).sound
    options = {"epochs": EPOCHS, "updates": None, "seed": SEED} | keys
    return pack_data(config, episodes.examples, keep, {"advantage": column}, True, **options).train


def naive(folder, tokenizer, column):
    """The batches of the module docstring of `packing`, from the records, by lists and without the code of `mira_jax.data`."""
    steps, number = [], 0
    for item in ShardReader(folder):
        for index, step in enumerate(item.steps):
            if item.outcome is not None:
                prompt = prompt_ids(item.task.intent, rounds(item.steps[:index]), step.page.observation, PROMPT, tokenizer)
                steps.append((number, prompt, response_ids(step.response, tokenizer)))
            number += 1
    plan = []
    for epoch in range(EPOCHS):
        draw = np.random.default_rng([SEED, epoch])
        rows = []
        for which in draw.permutation(len(steps)):
            length = len(steps[which][1]) + len(steps[which][2]) - 1
            row = next((row for row in rows if sum(len(p) + len(r) - 1 for _, p, r in row) + length <= T), None)
            if row is None:
                rows.append(row := [])
            row.append(steps[which])
        assert len(rows) <= 64  # with more, packing closes some
        rows = [rows[which] for which in draw.permutation(len(rows))]
        batches = math.ceil(len(rows) / B)
        for k in range(batches):
            # The first batches have one row more if the rows cannot be divided equally.
            size = len(rows) // batches + (k < len(rows) % batches)
            begin = sum(len(rows) // batches + (before < len(rows) % batches) for before in range(k))
            plan.append(rows[begin : begin + size])
    S = max(len(row) for batch in plan for row in batch)
    R = math.ceil(max(sum(len(r) for _, _, r in row) for batch in plan for row in batch) / 8) * 8
    return [assemble(batch, S, R, column) for batch in plan]


def assemble(batch, S, R, column):
    ints = {name: [[0] * T for _ in range(B)] for name in ("tokens", "segment_ids", "positions")}
    ints |= {name: [[0] * R for _ in range(B)] for name in ("response_index", "response_targets", "response_segment")}
    ints |= {"last_prompt_index": [[0] * S for _ in range(B)], "step_id": [[-1] * S for _ in range(B)]}
    floats = {"response_mask": [[0.0] * R for _ in range(B)]}
    floats |= {name: [[0.0] * S for _ in range(B)] for name in ("step_mask", "advantage")}
    for b, row in enumerate(batch):
        t = r = 0
        for s, (number, prompt, response) in enumerate(row):
            for place, token in enumerate([*prompt, *response][:-1]):
                ints["tokens"][b][t + place], ints["segment_ids"][b][t + place], ints["positions"][b][t + place] = token, s + 1, place
            for place, token in enumerate(response):
                ints["response_index"][b][r] = t + len(prompt) - 1 + place
                ints["response_targets"][b][r], ints["response_segment"][b][r], floats["response_mask"][b][r] = token, s, 1.0
                r += 1
            ints["last_prompt_index"][b][s], ints["step_id"][b][s] = t + len(prompt) - 1, number
            floats["step_mask"][b][s], floats["advantage"][b][s] = 1.0, column[number]
            t += len(prompt) + len(response) - 1
    return {name: np.array(rows, np.int32) for name, rows in ints.items()} | {n: np.array(rows, np.float32) for n, rows in floats.items()}


def require_same(ours, expected):
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            assert array.dtype == other[name].dtype and array.shape == other[name].shape, name
            assert array.tobytes() == other[name].tobytes(), name


def test_batches_are_those_of_a_naive_assembly_to_the_byte(folder, tokenizer, column, packed):
    expected = naive(folder, tokenizer, column)
    assert len(expected) >= 8
    require_same(list(Batches(packed)), expected)
    require_same(list(Batches(pack(folder, tokenizer, column, None))), expected)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_make_the_same_batches_and_go_on_from_a_position(packed, workers):
    whole = [packed[k] for k in range(len(packed))]
    with contextlib.closing(Batches(packed, workers)) as batches:
        first = [next(batches) for _ in range(4)]
        state = batches.get_state()
        rest = list(batches)
    require_same([*first, *rest], whole)
    assert state == {"next_index": 4} == _after(packed, 4).get_state()
    with contextlib.closing(Batches(Share(packed, [0, 2]), workers)) as again:
        again.set_state(state)
        require_same(list(again), [{name: array[[0, 2]] for name, array in batch.items()} for batch in whole[4:]])


def _after(packed, count):
    batches = Batches(packed)
    for _ in range(count):
        next(batches)
    return batches


def test_at_the_end_there_is_no_batch(packed):
    batches = Batches(packed)
    batches.set_state({"next_index": len(packed)})
    assert list(batches) == []
    batches.set_state({"next_index": len(packed) - 1})
    assert len(list(batches)) == 1


def test_what_a_worker_receives_contains_no_tokens(packed):
    data = pickle.dumps(Share(packed, [0]))
    assert packed._examples.file is not None and packed._examples.tokens.tobytes() not in data
    require_same([pickle.loads(data)[0]], [Share(packed, [0])[0]])


WORKERS = """
import os, sys, time
from mira_jax.data.pipeline import Batches

class Slow:
    def __len__(self):
        return 1000
    def __getitem__(self, k):
        return {"pid": os.getpid()}

if __name__ == "__main__":
    batches = Batches(Slow(), workers=2)
    print(*sorted({next(batches)["pid"] for _ in range(10)}), flush=True)
    for line in sys.stdin:
        print(next(batches)["pid"], flush=True)
"""


def test_workers_leave_signals_to_their_parent_and_end_with_it(tmp_path):
    (tmp_path / "program.py").write_text(WORKERS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, tmp_path / "program.py"], env=environment, **pipes)
    try:
        workers = [int(word) for word in process.stdout.readline().split()]
        assert len(workers) == 2 and process.pid not in workers
        for worker in workers:
            os.kill(worker, signal.SIGINT)
            os.kill(worker, signal.SIGTERM)
        for _ in range(30):
            process.stdin.write("\n")
            process.stdin.flush()
            assert int(process.stdout.readline()) in workers
    finally:
        process.kill()
        process.communicate()
    assert all(ends(worker) for worker in workers)
