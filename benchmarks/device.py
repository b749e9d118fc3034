"""What one accelerator does: kernels, training steps and decoding, with random weights. Every figure is a line of JSON.

    python benchmarks/device.py --json device.jsonl             # all parts, each case in a process of its own
    python benchmarks/device.py --parts kernels --json k.jsonl  # with every tiling of the GPU kernels
    python benchmarks/device.py --tiny                          # the same code at sizes for a CPU, to rehearse

kernels: one layer's attention, forward, and forward with backward, over packed rows; errors are relative to fp32 at 2,048 tokens. steps:
the real training step of configs/lora/actor.yaml and configs/12b/actor.yaml. decode: the sampler of `mira serve`. Times are medians of
several calls. MFU is that of docs/size.md, against the peak rate of `mira_jax.sizing.chips` for --chip.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PARTS = ("kernels", "steps", "decode")
HEADS = {256: (16, 8), 128: (32, 16)}
"""Head dim to query and kv heads: those of 12B and 27B."""
PACKED = 4
"""Steps in a row."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step to time."""

    config: str
    preset: str
    row_length: int
    rows: int
    accumulate: int
    attention: str
    remat: Any
    unroll: bool = False


def steps(tiny: bool) -> list[Step]:
    adapters, full = "configs/lora/actor.yaml", "configs/12b/actor.yaml"
    if tiny:
        return [Step(adapters, "tiny", 256, 2, 2, "xla", "products", True), Step(full, "tiny", 256, 2, 1, "xla", ["heads", "gate"])]
    most = ["query", "key", "value", "heads", "output", "gate", "up"]
    return [
        Step(adapters, "12b", 8192, 4, 4, "xla", "block"),
        Step(adapters, "12b", 8192, 4, 4, "auto", "block"),
        Step(adapters, "12b", 8192, 4, 4, "auto", ["query", "key", "value", "heads", "output", "down"]),
        Step(adapters, "12b", 8192, 4, 4, "auto", "products"),
        Step(adapters, "12b", 8192, 4, 4, "auto", "products", unroll=True),
        Step(full, "1b", 8192, 4, 1, "xla", "block"),
        Step(full, "1b", 8192, 4, 1, "auto", "products"),
        Step(full, "4b", 8192, 2, 1, "auto", most),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="small sizes, kernels interpreted")
    parser.add_argument("--chip", default="h100", help="of mira_jax.sizing.chips, for MFU and the choice of kernels")
    parser.add_argument("--json", type=Path, help="file that figures are appended to")
    parser.add_argument("--seconds", type=float, default=600, help="no case begins after this time")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        return run_case(arguments)
    began = time.monotonic()
    for case in cases(arguments.parts, arguments.tiny):
        if time.monotonic() - began > arguments.seconds:
            print(f"left out for lack of time: {case}", flush=True)
            continue
        command = [sys.executable, __file__, "--chip", arguments.chip, "--case", json.dumps(case)]
        command += ["--json", str(arguments.json)] if arguments.json else []
        # A case that fails does not keep the others from running.
        subprocess.run(command + ["--tiny"] * arguments.tiny, check=False)


def cases(parts: list[str], tiny: bool) -> Iterator[dict[str, Any]]:
    if "kernels" in parts:
        yield from ({"part": "kernels", "head_dim": head_dim} for head_dim in ((16,) if tiny else HEADS))
    if "steps" in parts:
        yield from ({"part": "steps", "number": number} for number in range(len(steps(tiny))))
    if "decode" in parts:
        yield from ({"part": "decode", "batch": batch} for batch in ((2,) if tiny else (1, 8, 32)))


def run_case(arguments: argparse.Namespace) -> None:
    import jax

    case = json.loads(arguments.case)
    device = jax.devices()[0]
    about = {"device": device.device_kind, "jax": jax.__version__, "date": time.strftime("%Y-%m-%d"), "part": case["part"]}
    runs = {"kernels": kernels, "steps": step, "decode": decode}
    for figures in runs[case["part"]](case, arguments):
        line = json.dumps({**about, **figures})
        print(line, flush=True)
        if arguments.json:
            with open(arguments.json, "a") as file:
                file.write(line + "\n")


def kernels(case: dict[str, Any], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each implementation and tiling, on global and local layers."""
    import jax
    import jax.numpy as jnp

    from mira_jax.models import attention
    from mira_jax.models.kernels import flash, ranges

    head_dim, tiny = case["head_dim"], arguments.tiny
    heads, kv_heads = (4, 2) if tiny else HEADS[head_dim]
    length, checked = (128, 64) if tiny else (8192, 2048)
    tilings = {"small": flash.Tiling(*(flash.Blocks(16, 16, 4),) * 3)} if tiny else candidates(head_dim)

    def arrays(length: int, dtype: Any) -> list[jax.Array]:
        keys = jax.random.split(jax.random.key(length), 4)
        return [
            jax.random.normal(key, (1, length, n, head_dim), dtype) for key, n in zip(keys, (heads, kv_heads, kv_heads, heads), strict=True)
        ]

    def packed(length: int) -> jax.Array:
        return (jnp.arange(length, dtype=jnp.int32) // (length // PACKED) + 1)[None]

    def implementations(segments: jax.Array, window: int | None) -> Iterator[tuple[str, Callable]]:
        yield "xla", lambda q, k, v: attention.attend(q, k, v, segments, window, head_dim**-0.5)
        first = ranges.first_seen(segments, window)
        for name, tiling in tilings.items():
            yield f"pallas {name}", lambda q, k, v, t=tiling: flash.attend(q, k, v, first, head_dim**-0.5, tiling=t, interpret=tiny)

    def gradient(attend: Callable) -> Callable:
        """The output, and the gradients of its product with a probe."""

        def both(q, k, v, probe):
            out, backward = jax.vjp(attend, q, k, v)
            return out, *backward(probe)

        return jax.jit(both)

    for window in (None, length // 8):
        exact = gradient(lambda q, k, v, w=window: attention.attend(q, k, v, packed(checked), w, head_dim**-0.5))
        with jax.default_matmul_precision("highest"):
            wanted = exact(*(x.astype(jnp.float32) for x in arrays(checked, jnp.bfloat16)))
        near, far = dict(implementations(packed(checked), window)), dict(implementations(packed(length), window))
        for name in far:
            figures = {"head_dim": head_dim, "window": window, "length": length, "segments": PACKED, "implementation": name}
            try:
                found = gradient(near[name])(*arrays(checked, jnp.bfloat16))
                error = max(
                    float(jnp.linalg.norm((a.astype(jnp.float32) - b).ravel()) / jnp.linalg.norm(b.ravel()))
                    for a, b in zip(found, wanted, strict=True)
                )
                q, k, v, probe = arrays(length, jnp.bfloat16)
                forward, both = jax.jit(far[name]), gradient(far[name])
                figures |= {"error": error, "forward_ms": 1e3 * timed(forward, q, k, v), "both_ms": 1e3 * timed(both, q, k, v, probe)}
            except Exception as error:
                figures["failed"] = f"{type(error).__name__}: {str(error)[:200]}"
            yield figures


def candidates(head_dim: int) -> dict[str, Any]:
    """Tilings to compare."""
    from mira_jax.models.kernels.flash import SMALL_TILINGS, Blocks, Tiling, default_tiling

    more = {
        256: [
            Tiling(Blocks(128, 32, 8), Blocks(64, 32, 4), Blocks(32, 64, 8)),
            Tiling(Blocks(64, 64, 4), Blocks(128, 32, 8), Blocks(64, 64, 8)),
        ],
        128: [
            Tiling(Blocks(128, 64, 8), Blocks(64, 64, 4), Blocks(64, 64, 4)),
            Tiling(Blocks(64, 128, 4), Blocks(128, 128, 8), Blocks(64, 64, 8)),
        ],
    }[head_dim]
    return {
        "default": default_tiling(head_dim),
        "small": SMALL_TILINGS[head_dim],
        **{f"other {n}": tiling for n, tiling in enumerate(more, 1)},
    }


def step(case: dict[str, Any], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compiles a step and runs it a few times on one packed batch."""
    import jax

    from mira_jax.sizing import flops
    from mira_jax.sizing.chips import CHIPS
    from mira_jax.training.state import init_state
    from mira_jax.training.step import make_step

    one = steps(arguments.tiny)[case["number"]]
    figures = dataclasses.asdict(one)
    plan = plan_of(one, arguments.chip, arguments.tiny)
    state = init_state(random_like(plan.skeleton.params), plan.optimizer)
    frozen = random_like(plan.skeleton.frozen) if plan.skeleton.frozen else None
    batch = batch_of(plan, one)
    began = time.perf_counter()
    program = make_step(plan.skeleton, plan.recipe.loss, plan.optimizer, plan.rate, sum_dtype=plan.sum_dtype).lower(state, batch, frozen)
    program = program.compile()
    figures["compile_s"] = time.perf_counter() - began
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        state, report = program(state, batch, frozen)
        figures |= {"loss": float(report["loss"]), "gradient_norm": float(report["gradient_norm"])}
        seconds.append(time.perf_counter() - began)
    taken, tokens = statistics.median(seconds[1:]), plan.workload.tokens
    needed = flops.training_flops(plan.model, plan.workload.texts, 0.0 if frozen else 1.0) * plan.workload.rows
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    yield figures | {
        "seconds": taken, "tokens_per_second": tokens / taken, "tflops": needed / taken / 1e12,
        "mfu": needed / taken / CHIPS[arguments.chip].flops, "peak_gb": peak / 1e9,
    }  # fmt: skip


def plan_of(one: Step, chip: str, tiny: bool) -> Any:
    import yaml

    from mira_jax import config as configs
    from mira_jax.recipes import make_recipe
    from mira_jax.sizing.chips import CHIPS, Topology
    from mira_jax.sizing.plan import make_plan, make_workload
    from mira_jax.train import TrainConfig

    tree = yaml.safe_load(Path(one.config).read_text())
    small = {"width": 64, "layers": 12, "query_heads": 4, "kv_heads": 2, "head_dim": 16, "mlp_width": 128, "vocabulary_size": 512}
    sizes = {"sizes": small, "preset": None} if tiny else {"sizes": {}, "preset": one.preset}
    tree = {key: value for key, value in tree.items() if key not in ("init_from", "epochs")} | {"updates": 100}
    tree["model"] = {**tree["model"], **sizes, "remat": one.remat, "attention": one.attention, "unroll": one.unroll}
    tree["data"] = {**tree["data"], "rows": one.rows, "row_length": one.row_length}
    tree["optimizer"] = {**tree.get("optimizer", {}), "accumulate": one.accumulate}
    config = configs.build(TrainConfig, tree, source=one.config)
    recipe = make_recipe(config.recipe)
    workload = make_workload(recipe, one.rows, one.accumulate, one.row_length, *step_lengths(one))
    return make_plan(config, recipe, workload, None if tiny else Topology(CHIPS[chip], (1,), f"{chip}:1"))


def step_lengths(one: Step) -> tuple[int, int]:
    """Tokens of the prompt and of the response of each step."""
    response = 8 if one.row_length < 1000 else 40
    return one.row_length // PACKED - 48, response


def batch_of(plan: Any, one: Step) -> Any:
    """A batch of random steps, packed as in training, on the device."""
    import jax
    import numpy as np

    from mira_jax.data.examples import one_per_step
    from mira_jax.data.packing import PackedBatches
    from mira_jax.training.step import cut

    prompt, response = step_lengths(one)
    length, count, random = prompt + response, PACKED * one.rows, np.random.default_rng(0)
    tokens = random.integers(10, plan.model.vocabulary_size, count * length).astype(np.int32)
    examples = one_per_step(tokens, np.arange(count + 1, dtype=np.int64) * length, np.full(count, prompt, np.int32))
    columns = {"advantage": random.normal(size=count), "reference_log_prob": np.full(count, -12.0 * response)}
    columns = {name: values.astype(np.float32) for name, values in columns.items()}
    packed = PackedBatches(examples, np.arange(count), columns, row_length=one.row_length, rows=one.rows, shuffle=False)[0]
    wanted = plan.part(one.rows // one.accumulate)
    return jax.device_put({name: array for name, array in cut(packed, one.accumulate).items() if name in wanted})


def random_like(tree: Any) -> Any:
    """Random arrays of these shapes and dtypes: zeros for vectors."""
    import jax
    import jax.numpy as jnp

    leaves, structure = jax.tree.flatten(tree)
    draw = jax.jit(lambda key, like: jax.random.normal(key, like.shape, like.dtype) * 0.02, static_argnums=1)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    made = [
        jnp.zeros(leaf.shape, leaf.dtype) if leaf.ndim < 2 else draw(key, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, made)


def decode(case: dict[str, Any], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Prefill and decoding of 12B in bfloat16."""
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from mira_jax.models.config import PRESETS, Gemma3Config
    from mira_jax.models.gemma3 import Gemma3
    from mira_jax.models.sampler import Sampler, Sampling, Work

    small = Gemma3Config(vocabulary_size=512, width=64, layers=6, query_heads=4, kv_heads=2, head_dim=16, mlp_width=128, window=32)
    config = small if arguments.tiny else PRESETS["12b"]
    batch, prompt, tokens = case["batch"], *((100, 8) if arguments.tiny else (2000, 64))
    shapes = nnx.eval_shape(lambda: Gemma3(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16))
    graph, state = nnx.split(shapes)
    sampler = Sampler(nnx.merge(graph, random_like(state)), (), batch, prompt + tokens + 8, prefix_bytes=0)
    seconds: dict[str, list[float]] = {"prefill": [], "decode": []}
    for round_ in range(3):
        drawn = np.random.default_rng(round_).integers(10, config.vocabulary_size, (batch, prompt)).tolist()
        began = time.perf_counter()
        rows = [sampler.insert([Work(one, Sampling(tokens))])[0] for one in drawn]
        sampler.advance()
        middle = time.perf_counter()
        while sampler.advance().active.any():
            pass
        seconds["prefill"].append(middle - began)
        seconds["decode"].append(time.perf_counter() - middle)
        for row in rows:
            sampler.release(row)
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    yield {"batch": batch, "prompt": prompt, "tokens": tokens, **{f"{name}_s": value for name, value in median.items()}}


def timed(function: Callable, *arguments: Any, calls: int = 10) -> float:
    """Seconds of one call: the median of three series, after a first call that compiles."""
    import jax

    jax.block_until_ready(function(*arguments))
    series = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(calls):
            result = function(*arguments)
        jax.block_until_ready(result)
        series.append((time.perf_counter() - began) / calls)
    return statistics.median(series)


if __name__ == "__main__":
    main()
