"""Speed of the train step, compared with transformers and google-tunix at equal weights, batches and optimizer.

    make bench-peers
    python benchmarks/train_step.py --json train_step.json

Cases: the mean negative log-likelihood of all tokens at two sizes, and MiRA's actor loss on web-shaped steps (prompts of
2,000 tokens, responses of 40, a vocabulary of 65,536). In the latter ours packs four steps to a row with the real data pipeline,
and the others have one step per row without padding. The optimizer is AdamW in float32, clipped at a global norm of 1.

Each side is a process in its own environment. All read the same checkpoint, in the layout of Hugging Face, with their own
loaders. In each round all sides do one step, one after another while the others wait, in rotating order. Medians
are compared. The losses of the first two steps must agree. All sides keep freed memory, as `mira_jax.train` does.
transformers runs eagerly and with torch.compile, both with its sdpa attention. In the actor case it computes logits only of the
responses (`logits_to_keep`), as ours does, and also, as its users do, of every token (`full_logits`). All sides of the actor
case together need more than 24 GiB; with less memory, select some with `--sides`. Ratios are in
wall-clock seconds and in CPU seconds of all cores. On a shared machine only the latter are meaningful,
and only on one core, since torch's threads spin while they wait for each other: `taskset -c 0 python benchmarks/train_step.py`.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BETA = 0.1
RATE, DECAY, CLIP = 1e-3, 0.1, 1.0
SIDES = {
    "ours": "ours",
    "eager": "transformers",
    "compiled": "transformers",
    "full_logits": "transformers",
    "tunix": "tunix",
}
"""The sides that are timed, and the environment of each."""


@dataclasses.dataclass(frozen=True)
class StepCase:
    """Tokens of one batch, and the model's sizes."""

    rows: int
    length: int
    """Tokens of a step, prompt and response. The last is only predicted."""
    response: int
    """Number of these that are the response. 0: the loss is on all tokens."""
    sizes: dict[str, int]


SMALL = {"width": 256, "layers": 6, "query_heads": 4, "kv_heads": 1, "head_dim": 64, "mlp_width": 1024}
TINY = {"width": 128, "layers": 4, "query_heads": 4, "kv_heads": 1, "head_dim": 32, "mlp_width": 512}
CASES = {
    "6.8M": StepCase(8, 513, 0, {"vocabulary_size": 4096, **SMALL}),
    "1.2M": StepCase(16, 257, 0, {"vocabulary_size": 2048, **TINY}),
    "actor": StepCase(4, 2040, 40, {"vocabulary_size": 65_536, **SMALL}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transformers", default=".venv-peers/bin/python", help="a Python with torch and transformers")
    parser.add_argument("--tunix", default=".venv-tunix/bin/python", help="a Python with google-tunix")
    parser.add_argument("--json", type=Path, metavar="PATH", help="file for all figures and a flat `ratios`")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return serve_steps(arguments.worker, arguments.folder, CASES[arguments.cases[0]])

    pythons = {"ours": sys.executable, "transformers": arguments.transformers, "tunix": arguments.tunix}
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    figures: dict[str, Any] = {"date": str(datetime.date.today()), "machine": machine, "rounds": arguments.rounds, "cases": {}}
    ratios: dict[str, float] = {}
    print(f"{figures['date']}, {machine}")
    print("| case | side | tokens/s | least - most | ms a step | CPU ms | first call s | peak MiB | first losses |\n|" + "---|" * 9)
    for name in arguments.cases:
        case = CASES[name]
        sides = [side for side in arguments.sides if case.response or side != "full_logits"]
        results = compare(name, case, {side: pythons[SIDES[side]] for side in sides}, arguments.rounds)
        figures["cases"][name] = {**dataclasses.asdict(case), "sides": results}
        for side, result in results.items():
            rates = [result["tokens"] / seconds for seconds in result["seconds"]]
            cells = [name, side, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} - {max(rates):,.0f}"]
            cells += [f"{1e3 * median:,.0f}" for median in result["median"].values()]
            cells += [f"{result['first_call']:.1f}", f"{result['peak_mib']:,.0f}", ", ".join(f"{loss:.5f}" for loss in result["losses"])]
            print("| " + " | ".join(cells) + " |", flush=True)
        ratios |= against(name, results)
    versions = {SIDES[side]: result["versions"] for case in figures["cases"].values() for side, result in case["sides"].items()}
    print("; ".join(versions.values()))
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({**figures, "versions": versions, "ratios": ratios}, indent=1) + "\n")


def against(name: str, results: dict[str, dict]) -> dict[str, float]:
    """Speed-up of ours over each variant of the peers."""
    ours_too = results.get("ours", {}).get("median", {})
    others = {side: result["median"] for side, result in results.items() if side != "ours"}
    return {f"{name}/{side}/{kind}": median[kind] / ours_too[kind] for side, median in others.items() for kind in ours_too}


def compare(name: str, case: StepCase, pythons: dict[str, str], rounds: int) -> dict[str, dict]:
    """Returns every side's seconds and losses. Ends the program if the losses differ."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        write_inputs(Path(scratch), case)
        workers = {side: stack.enter_context(worker(python, side, name, scratch)) for side, python in pythons.items()}
        results = {side: each.ready() for side, each in workers.items()}
        for number in range(rounds):
            order = list(workers)[number % len(workers) :] + list(workers)[: number % len(workers)]
            for side in order:
                for kind, seconds in zip(("seconds", "cpu_seconds"), workers[side].do(), strict=True):
                    results[side].setdefault(kind, []).append(seconds)
        for side, result in results.items():
            result |= {"peak_mib": workers[side].end(), "tokens": case.rows * case.length}
            result["median"] = {kind: statistics.median(result[kind]) for kind in ("seconds", "cpu_seconds")}
    losses = np.array([result["losses"] for result in results.values()])
    if not np.allclose(losses, losses[0], rtol=1e-4):
        raise SystemExit(f"{name}: the sides' losses differ: {dict(zip(results, losses.tolist(), strict=True))}")
    return results


def write_inputs(folder: Path, case: StepCase) -> None:
    """Writes a checkpoint with random weights, and a batch."""
    from flax import nnx

    from mira_jax.models import huggingface
    from mira_jax.models.config import Gemma3Config
    from mira_jax.models.gemma3 import Gemma3

    huggingface.save(Gemma3(Gemma3Config(**case.sizes), rngs=nnx.Rngs(0)), folder / "model")
    draw = np.random.default_rng(0)
    tokens = draw.integers(10, case.sizes["vocabulary_size"], (case.rows, case.length)).astype(np.int32)
    # The expected log-probability of a random response, with noise, so that the reference term does not dominate the loss.
    reference = -case.response * np.log(case.sizes["vocabulary_size"]) + draw.normal(0, 3, case.rows)
    advantage = draw.normal(0, 1, case.rows).astype(np.float32)
    np.savez(folder / "batch.npz", tokens=tokens, reference=reference.astype(np.float32), advantage=advantage)


class StepWorker:
    """A process that does one step on request: one line in, one line of JSON out."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def ready(self) -> dict[str, Any]:
        """Waits for the two steps that are not timed."""
        return self._read()

    def do(self) -> tuple[float, float]:
        """Returns wall-clock seconds of one step, and CPU seconds of all cores."""
        print("step", file=self._process.stdin, flush=True)
        return tuple(self._read())

    def end(self) -> float:
        """Returns the peak resident memory in MiB."""
        self._process.stdin.close()
        return self._read()

    def _read(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side of the comparison ended; its message is above")
        return json.loads(line)


@contextlib.contextmanager
def worker(python: str, side: str, case: str, folder: str) -> Iterator[StepWorker]:
    command = [python, __file__, "--worker", side, "--cases", case, "--folder", folder]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise SystemExit(f"{python} is not there; `make bench-peers` makes the environments of the peers") from None
    try:
        yield StepWorker(process)
    finally:
        process.stdin.close()
        process.wait()


def serve_steps(side: str, folder: Path, case: StepCase) -> None:
    """The worker's side of the pipe. Output of libraries is redirected to stderr."""
    sys.path.append(str(Path(__file__).parent.parent))
    from mira_jax import host_memory

    host_memory.keep()
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    say = lambda value: print(json.dumps(value), file=pipe, flush=True)  # noqa: E731
    batch = dict(np.load(folder / "batch.npz"))
    start = time.perf_counter()
    if side == "ours":
        versions, step = ours(folder / "model", case, batch)
    elif side == "tunix":
        versions, step = tunix(folder / "model", case, batch)
    else:
        versions, step = transformers(folder / "model", case, batch, side)
    losses = [step()]
    first_call = time.perf_counter() - start
    losses.append(step())
    say({"versions": versions, "first_call": first_call, "losses": losses})
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        step()
        say([time.perf_counter() - start, time.process_time() - cpu])
    say(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def ours(folder: Path, case: StepCase, batch: dict[str, np.ndarray]) -> tuple[str, Callable[[], float]]:
    import flax
    import jax
    import jax.numpy as jnp

    from mira_jax.models import huggingface
    from mira_jax.recipes.objectives.mira import Mira
    from mira_jax.training.log_probs import token_log_probs
    from mira_jax.training.metrics import Mean
    from mira_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
    from mira_jax.training.state import Skeleton, init_state, params_of
    from mira_jax.training.step import cut, make_step

    def all_tokens(model, batch):
        hidden_BxTxD = model(batch["tokens"], batch["positions"], batch["segment_ids"])
        log_probs_BxT = token_log_probs(model, hidden_BxTxD, batch["targets"])
        return Mean(-log_probs_BxT.sum(), jnp.float32(log_probs_BxT.size)), {}

    model = huggingface.load(folder)
    graph, state = flax.nnx.split(model, flax.nnx.Param)
    params = params_of(state)
    bones = Skeleton(graph, jax.tree.structure(state), jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params))
    settings = OptimizerConfig(learning_rate=RATE, schedule="constant", warmup=0.0, weight_decay=DECAY, clip=CLIP)
    optimizer = make_optimizer(settings, 1)
    packed = cut(pack(batch, case) if case.response else plain(batch), 1)
    loss = Mira(beta=BETA).loss if case.response else all_tokens
    step = make_step(bones, loss, optimizer, learning_rate(settings, 1))
    held = [init_state(params, optimizer)]

    def update() -> float:
        held[0], report = step(held[0], packed)
        return float(report["loss"])

    return f"mira_jax on jax {jax.__version__}, flax {flax.__version__}", update


def plain(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One segment per row, with every token a target."""
    tokens = batch["tokens"]
    rows, length = tokens[:, :-1].shape
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    ones = {"segment_ids": np.ones((rows, length), np.int32), "step_mask": np.ones((rows, 1), np.float32)}
    return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "positions": positions, **ones}


def pack(batch: dict[str, np.ndarray], case: StepCase) -> dict[str, np.ndarray]:
    """Packs all steps into one row, with the data pipeline of training."""
    from mira_jax.data.examples import one_per_step
    from mira_jax.data.packing import PackedBatches

    prompts = np.full(case.rows, case.length - case.response, np.int32)
    starts = np.arange(case.rows + 1, dtype=np.int64) * case.length
    examples = one_per_step(batch["tokens"].reshape(-1), starts, prompts)
    columns = {"advantage": batch["advantage"], "reference_log_prob": batch["reference"]}
    return PackedBatches(examples, np.arange(case.rows), columns, row_length=case.rows * case.length, rows=1, shuffle=False)[0]


def transformers(folder: Path, case: StepCase, batch: dict[str, np.ndarray], side: str) -> tuple[str, Callable[[], float]]:
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # Trained weights have few denormal numbers, and these weights have equally few. Flushing them costs nothing.
    torch.set_flush_denormal(True)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32)
    model.config.use_cache = False
    model.train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    tokens = torch.from_numpy(batch["tokens"]).long()
    keep = 0 if side == "full_logits" else case.response
    targets = tokens[:, -(case.response or case.length - 1) :]
    reference, advantage = torch.from_numpy(batch["reference"]), torch.from_numpy(batch["advantage"])

    def loss_of(tokens, targets, reference, advantage):
        logits = model(input_ids=tokens, logits_to_keep=keep).logits[:, -targets.shape[1] :]
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        if not case.response:
            return nll.mean()
        return (BETA * (-nll.sum(1) - reference) - advantage).square().mean()

    compiled = torch.compile(loss_of) if side == "compiled" else loss_of

    def update() -> float:
        loss = compiled(tokens[:, :-1], targets, reference, advantage)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return f"transformers {transformers.__version__} on torch {torch.__version__}", update


def tunix(folder: Path, case: StepCase, batch: dict[str, np.ndarray]) -> tuple[str, Callable[[], float]]:
    import importlib.metadata

    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx
    from tunix.models.gemma3 import model as gemma3
    from tunix.models.gemma3.params_safetensors import create_model_from_safe_tensors
    from tunix.rl.common import selective_log_softmax

    config = gemma3.ModelConfig(
        num_layers=case.sizes["layers"],
        num_embed=case.sizes["vocabulary_size"],
        embed_dim=case.sizes["width"],
        hidden_dim=case.sizes["mlp_width"],
        num_heads=case.sizes["query_heads"],
        num_kv_heads=case.sizes["kv_heads"],
        head_dim=case.sizes["head_dim"],
        sliding_window_size=512,
        global_base_frequency=1_000_000,
        param_dtype=jnp.float32,
    )
    model = create_model_from_safe_tensors(str(folder), config, dtype=jnp.float32)
    matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
    adamw = optax.adamw(RATE, weight_decay=DECAY, mask=matrices)
    optimizer = nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(CLIP), adamw), wrt=nnx.Param)
    tokens = jnp.asarray(batch["tokens"])
    reference, advantage = jnp.asarray(batch["reference"]), jnp.asarray(batch["advantage"])
    length = case.length - 1
    positions = jnp.broadcast_to(jnp.arange(length), (case.rows, length))
    causal = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (case.rows, length, length))

    def loss_of(model, tokens, reference, advantage):
        logits, _ = model(tokens[:, :-1], positions, None, causal)
        count = case.response or length
        log_probs = selective_log_softmax(logits[:, -count:], tokens[:, -count:])
        if not case.response:
            return -log_probs.mean()
        return jnp.square(BETA * (log_probs.sum(1) - reference) - advantage).mean()

    @nnx.jit(donate_argnames=("optimizer",))
    def train_step(model, optimizer, tokens, reference, advantage):
        loss, gradients = nnx.value_and_grad(loss_of)(model, tokens, reference, advantage)
        optimizer.update(model, gradients)
        return loss

    cached = nnx.cached_partial(train_step, model, optimizer)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("google-tunix", "jax", "flax"))
    return versions, lambda: float(cached(tokens, reference, advantage))


if __name__ == "__main__":
    main()
