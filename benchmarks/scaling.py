"""Scaling of the train step: compile time with depth, time per token with row length, loss memory with the vocabulary.

    python benchmarks/scaling.py --json scaling.json

- compile: tracing, lowering and compiling the step of scanned models of 12 and 48 layers with equal small widths, in turn.
- length: the step over rows of 2,048 and of 16,384 tokens, 16,384 tokens in all, in turn: one group of five local
  layers (window 512) and a global one, width 384, 4 query heads of 64 over one kv head, mlp 2,304, loss on all tokens.
  These are the proportions of Gemma3 1B at a third of its width, which makes attention's share three times as large.
- loss: XLA's temporary memory for the gradient of the loss with respect to the hidden states of 8,192 tokens, at vocabularies of
  32,768 to 262,144, width 256, compared with the logits of all tokens. Compiled, not run.
- rows: XLA's temporary memory for the gradient of one layer of Gemma3 12B over a row of 16,384 tokens in bfloat16,
  rematerialised (remat: block), local and global, compared with the logits of all heads. Compiled, not run.

Figures are medians. Ratios are the larger case over the smaller, except memory ratios, which name their denominator.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.models.config import GLOBAL, LOCAL, PRESETS, Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.recipes.objectives.sft import SFT
from mira_jax.training.log_probs import token_log_probs
from mira_jax.training.metrics import Mean
from mira_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from mira_jax.training.state import abstract_state, init_params, init_state, skeleton
from mira_jax.training.step import cut, make_step

GIB = 2**30
KINDS = "clock", "cpu"
"""Wall-clock time, and CPU time of all cores. Only the latter is meaningful on a shared machine."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="PATH", help="file for all figures and a flat `ratios`")
    arguments = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    figures = {"date": str(datetime.date.today()), "machine": machine, "jax": jax.__version__, "flax": flax.__version__}
    print(", ".join(figures.values()))
    ratios: dict[str, float] = {}
    for part in arguments.parts:
        values, found = PARTS[part](arguments.rounds)
        figures[part] = values
        ratios |= {f"{part}/{name}": ratio for name, ratio in found.items()}
        for name, value in values.items():
            print(f"{part} {name}: {value}", flush=True)
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({**figures, "ratios": ratios}, indent=1) + "\n")


def compile_time(rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Seconds to trace, lower and compile the SFT step."""
    depths = {12: [], 48: []}
    for number in range(rounds):
        for layers in list(depths)[:: 1 if number % 2 else -1]:
            config = Gemma3Config(512, 64, layers, 2, 1, 32, 128, window=128, scan_layers=True)
            batch = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in sft_batch(2, 256).items()}
            bones, optimizer, rate = step_parts(lambda rngs, config=config: Gemma3(config, rngs=rngs))
            step = make_step(bones, SFT().loss, optimizer, rate)
            state = abstract_state(bones.params, optimizer)
            start, cpu = time.perf_counter(), time.process_time()
            step.lower(state, batch).compile()
            depths[layers].append((time.perf_counter() - start, time.process_time() - cpu))
    return compared(depths, "layers, s", "48_layers_over_12")


def sft_batch(rows: int, length: int) -> dict[str, np.ndarray]:
    ints = lambda *shape: np.zeros(shape, np.int32)  # noqa: E731
    batch = {name: ints(rows, length) for name in ("tokens", "segment_ids", "positions")}
    batch |= {name: ints(rows, 16) for name in ("response_index", "response_targets", "response_segment")}
    return batch | {"response_mask": np.ones((rows, 16), np.float32), "step_mask": np.ones((rows, 1), np.float32)}


def step_parts(build: Callable[[nnx.Rngs], nnx.Module]) -> tuple:
    """A model's skeleton, AdamW, and its learning rate."""
    settings = OptimizerConfig(learning_rate=1e-4, schedule="constant", warmup=0.0, weight_decay=0.1)
    return skeleton(build), make_optimizer(settings, 1), learning_rate(settings, 1)


def all_tokens(model, batch):
    """Mean negative log-likelihood of all tokens, where each target is the token itself. The amount of work is the same."""
    log_probs_BxT = token_log_probs(model, model(batch["tokens"], batch["positions"], batch["segment_ids"]), batch["tokens"])
    return Mean(-log_probs_BxT.sum(), jnp.float32(log_probs_BxT.size)), {}


def row_length(rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Milliseconds per token of the train step."""
    tokens, lengths = 16_384, {2048: [], 16_384: []}
    config = Gemma3Config(1024, 384, 6, 4, 1, 64, 2304, window=512)
    build = lambda rngs: Gemma3(config, rngs=rngs)  # noqa: E731
    bones, optimizer, rate = step_parts(build)
    step = make_step(bones, all_tokens, optimizer, rate)
    state = init_state(init_params(build, seed=0), optimizer)
    draw = np.random.default_rng(0)
    for number in range(rounds + 1):
        for length in list(lengths)[:: 1 if number % 2 else -1]:
            shape = tokens // length, length
            batch = {
                "tokens": draw.integers(0, config.vocabulary_size, shape).astype(np.int32),
                "segment_ids": np.ones(shape, np.int32),
                "positions": np.broadcast_to(np.arange(length, dtype=np.int32), shape),
                "step_mask": np.ones((shape[0], 1), np.float32),
            }
            start, cpu = time.perf_counter(), time.process_time()
            state, report = step(state, cut(batch, 1))
            float(report["loss"])
            if number:  # The first of each compiles.
                lengths[length].append((1e3 * (time.perf_counter() - start) / tokens, 1e3 * (time.process_time() - cpu) / tokens))
    return compared(lengths, "tokens, ms a token", "16384_over_2048")


def compared(runs: dict[int, list[tuple[float, float]]], unit: str, name: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Medians of wall-clock time and of CPU time of all cores, and the ratio of the last case to the first."""
    medians = {
        case: {kind: statistics.median(times) for kind, times in zip(KINDS, zip(*each, strict=True), strict=True)}
        for case, each in runs.items()
    }
    values = {f"{case} {unit}": {**medians[case], "runs": runs[case]} for case in runs}
    first, *_, last = medians.values()
    return values, {f"{name}/{kind}": last[kind] / first[kind] for kind in KINDS}


def loss_memory(rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    tokens, width = 8192, 256
    values, temporary = {}, {}
    for vocabulary in (32_768, 65_536, 131_072, 262_144):
        config = Gemma3Config(vocabulary, width, 1, 1, 1, 16, 16)
        bones = skeleton(lambda rngs, config=config: Gemma3(config, rngs=rngs))

        def total(params, hidden, targets, bones=bones):
            return token_log_probs(bones.merge(params), hidden, targets).sum()

        hidden = jax.ShapeDtypeStruct((1, tokens, width), jnp.float32)
        targets = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
        of_hidden, of_all = (
            jax.jit(jax.grad(total, wrt)).lower(bones.params, hidden, targets).compile().memory_analysis().temp_size_in_bytes / GIB
            for wrt in (1, (0, 1))
        )
        temporary[vocabulary] = of_hidden
        logits = 4 * tokens * vocabulary / GIB
        values[f"{vocabulary} words, GiB"] = {"hidden": of_hidden, "hidden_and_embedding": of_all, "all_logits": logits}
    return values, {"262144_over_32768": temporary[262_144] / temporary[32_768]}


def row_memory(rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    length, config = 16_384, PRESETS["12b"]
    values, ratios = {}, {}
    for kind in (LOCAL, GLOBAL):
        one = dataclasses.replace(config, vocabulary_size=256, layers=1, layer_types=(kind,), scan_layers=False)
        bones = skeleton(lambda rngs, one=one: Gemma3(one, rngs=rngs, dtype=jnp.bfloat16, remat="block"))

        def total(params, tokens, segments, bones=bones):
            return bones.merge(params)(tokens, None, segments).astype(jnp.float32).sum()

        ids = jax.ShapeDtypeStruct((1, length), jnp.int32)
        analysis = jax.jit(jax.grad(total)).lower(bones.params, ids, ids).compile().memory_analysis()
        logits = 4 * config.query_heads * length**2 / GIB
        values[f"{kind}, GiB"] = {"temporary": analysis.temp_size_in_bytes / GIB, "all_logits": logits}
        ratios[f"{kind}_over_all_logits"] = analysis.temp_size_in_bytes / GIB / logits
    return values, ratios


PARTS = {"compile": compile_time, "length": row_length, "loss": loss_memory, "rows": row_memory}


if __name__ == "__main__":
    main()
