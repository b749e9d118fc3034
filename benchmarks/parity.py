"""Compares mira_jax's Gemma3 with transformers' own, case by case: the table of docs/parity.md.

    .venv-peers/bin/python benchmarks/parity.py --json parity.json

Each case is a small Gemma3 and a few texts. All parameters, including norms, are random and rounded to bfloat16, so that the
same weights run in both precisions. Our model reads the texts packed to rows by `mira_jax.data.packing`; transformers reads
them one by one. tests/peers asserts on the same cases.

In float32 it reports the largest difference of any logit, and the same for logits read from the cache, one token at a time. For
the gradients of the responses' log-probability it reports the largest relative error of any parameter, |ours - theirs| / |theirs|
in the 2-norm, where |theirs| is at least a thousandth of the largest parameter's.

In bfloat16 every implementation has its own rounding errors, so differences are root mean squares over all logits of all
seeds: between each implementation and transformers in float32 with the same weights, and between each two implementations.
(Maxima are in the JSON too. As extreme values, they vary between seeds by more than the differences under comparison.) "ours" is
the model as it runs: XLA omits roundings between operations that it fuses, and RoPE is computed in float32. transformers' eager
and sdpa attention have the same roundings outside of attention. "rounded" is our model with the roundings of transformers: of
every operation, and of RoPE.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import itertools
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

from mira_jax.data.examples import Examples, one_per_step
from mira_jax.data.packing import Batch, PackedBatches, first_fit
from mira_jax.models import attention, gemma3, huggingface
from mira_jax.models.config import GLOBAL, LOCAL
from mira_jax.models.gemma3 import Gemma3
from mira_jax.training.log_probs import response_log_probs

SIZES = {
    "vocab_size": 131, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "layer_types": [LOCAL, GLOBAL, LOCAL],
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 12, "query_pre_attn_scalar": 8,
    "max_position_embeddings": 4096,
}  # fmt: skip
LOCAL_ROPE = {"rope_type": "default", "rope_theta": 1e4}
GLOBAL_ROPE = {"rope_type": "default", "rope_theta": 1e6}


@dataclasses.dataclass(frozen=True)
class ParityCase:
    """A model and its texts."""

    name: str
    texts: tuple[int, ...] = (40, 33)
    """Number of tokens of each text that the model reads."""
    sizes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Differences from `SIZES`."""
    row_length: int = 0
    """T. 0: the length of the longest text, so that texts of about equal length get one row each."""
    scan_layers: bool = False
    decode: bool = False
    """Also reads the texts through the cache."""
    tile: int | None = None
    """Maximum tile size in tokens. Forces tiled attention, which otherwise runs only for rows longer than those of a small case."""

    @property
    def config(self) -> transformers.Gemma3TextConfig:
        rope = {"rope_parameters": {LOCAL: LOCAL_ROPE, GLOBAL: GLOBAL_ROPE}}
        return transformers.Gemma3TextConfig(**{**SIZES, **rope, **self.sizes})


def deep(layers: int, **sizes: Any) -> dict[str, Any]:
    """Makes every sixth layer global."""
    return {"num_hidden_layers": layers, "layer_types": None, **sizes}


FACTOR_8 = {"rope_parameters": {LOCAL: LOCAL_ROPE, GLOBAL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}}
PACKED = {"texts": (13, 20, 7, 25, 14, 1), "row_length": 40}

CASES = (
    ParityCase("7 layers", sizes=deep(7)),
    ParityCase("7 layers, scanned", sizes=deep(7), scan_layers=True, decode=True),
    ParityCase("13 layers, scanned", sizes=deep(13), scan_layers=True),
    ParityCase("26 layers, scanned, as 1B", sizes=deep(26), scan_layers=True),
    ParityCase("34 layers, scanned, as 4B", sizes=deep(34, num_key_value_heads=2, **FACTOR_8), scan_layers=True),
    ParityCase(
        "62 layers, scanned, as 27B",
        sizes=deep(62, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=168, **FACTOR_8),
        scan_layers=True,
    ),
    ParityCase(
        "no pattern, scanned", sizes={"num_hidden_layers": 5, "layer_types": [GLOBAL, LOCAL, LOCAL, GLOBAL, LOCAL]}, scan_layers=True
    ),
    ParityCase("only global layers", sizes={"layer_types": [GLOBAL] * 3}),
    ParityCase("only local layers", sizes={"layer_types": [LOCAL] * 3}, decode=True),
    ParityCase("window 1", texts=(20, 17), sizes={"sliding_window": 1}, decode=True),
    ParityCase("window 20, text 19", texts=(19, 19), sizes={"sliding_window": 20}),
    ParityCase("window 20, text 20", texts=(20, 20), sizes={"sliding_window": 20}, decode=True),
    ParityCase("window 20, text 21", texts=(21, 21), sizes={"sliding_window": 20}, decode=True),
    ParityCase("window longer than the text", sizes={"sliding_window": 512}, decode=True),
    ParityCase("window 5, text 90", texts=(90, 71), sizes={"sliding_window": 5}, decode=True),
    ParityCase("positions divided by 8", texts=(300, 170), sizes=FACTOR_8),
    ParityCase("query scale 168, head dim 128", sizes={"head_dim": 128, "query_pre_attn_scalar": 168}),
    ParityCase("2 kv heads of 4", sizes={"num_key_value_heads": 2}, decode=True),
    ParityCase("4 kv heads of 4", sizes={"num_key_value_heads": 4}),
    ParityCase("vocabulary of 1,021 rows", sizes={"vocab_size": 1021}),
    ParityCase("vocabulary of 1,088 rows", sizes={"vocab_size": 1088}),
    ParityCase("packed", **PACKED),
    ParityCase("packed, 8 layers scanned", **PACKED, sizes=deep(8, num_key_value_heads=2, **FACTOR_8), scan_layers=True),
    ParityCase("blocks of queries", texts=(150, 131), sizes={"sliding_window": 70}),
    ParityCase("long row, banded", texts=(1100,), sizes={"sliding_window": 16}),
    ParityCase("long row, banded, packed", texts=(500, 37, 560), row_length=1100, sizes={"sliding_window": 16}),
    ParityCase("long row, banded, twice the window and 1", texts=(1025,), sizes={"sliding_window": 512}),
    ParityCase("tile by tile", texts=(150, 131), sizes={"sliding_window": 40}, tile=32),
    ParityCase(
        "tile by tile, packed", texts=(90, 37, 5, 120), row_length=132, sizes={"sliding_window": 40, "num_key_value_heads": 2}, tile=32
    ),
)


PAIRS = (
    "ours - float32", "sdpa - float32", "eager - float32", "ours - eager", "rounded - eager", "rounded - sdpa", "sdpa - eager",
)  # fmt: skip
"""Columns of the table in bfloat16."""
RATIOS = (
    ("ours - float32", "eager - float32"), ("ours - float32", "sdpa - float32"), ("ours - eager", "sdpa - eager"),
    ("rounded - eager", "sdpa - eager"), ("rounded - sdpa", "sdpa - eager"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Errors:
    """Errors of one case. See the module's docstring."""

    largest_logit: float
    float32_logits: float
    float32_decoding: float | None
    float32_gradients: float
    worst_gradient: str
    """Name of the parameter."""
    bfloat16_rms: dict[str, float]
    """By pair of "ours", "rounded", "sdpa", "eager" and "float32". The last is transformers in float32."""
    bfloat16_max: dict[str, float]
    bfloat16_excess: float
    """Distance of ours from float32 minus that of the farther of eager and sdpa, in standard errors. Below 0: ours is nearer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", metavar="WORDS", help="only those whose name has one of these")
    parser.add_argument("--seeds", type=int, default=3, help="models of each case, in bfloat16")
    parser.add_argument("--json", type=Path, metavar="PATH", help="file for all figures and a flat `ratios`")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if not arguments.cases or any(words in case.name for words in arguments.cases)]
    versions = {name: version(name) for name in ("jax", "flax", "torch", "transformers")}
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}"
    figures = {"date": str(datetime.date.today()), "machine": machine, "versions": versions, "seeds": arguments.seeds, "cases": {}}
    print(f"{figures['date']}, {machine}, {', '.join(map(' '.join, versions.items()))}, {arguments.seeds} seeds")
    print(
        "| case | largest logit | fp32 logits | fp32 decoding | fp32 gradients "
        "| bf16 ours - fp32 | sdpa - fp32 | eager - fp32 | ours - eager | rounded - eager | rounded - sdpa | sdpa - eager |\n|"
        + "---|"
        * 12
    )
    ratios = {}
    for case in chosen:
        errors = compare(case, range(arguments.seeds))
        figures["cases"][case.name] = dataclasses.asdict(errors)
        rms = errors.bfloat16_rms
        of_case = {f"{near} / {far}": rms[near] / rms[far] for near, far in RATIOS}
        ratios |= {f"{case.name}: {name}": ratio for name, ratio in of_case.items()}
        exact = (errors.float32_logits, errors.float32_decoding, errors.float32_gradients)
        cells = [f"{errors.largest_logit:.1f}", *("" if x is None else f"{x:.0e}" for x in exact), *(f"{rms[pair]:.4f}" for pair in PAIRS)]
        print(f"| {case.name} | " + " | ".join(cells) + " |", flush=True)
    for near, far in RATIOS:
        over_cases = [ratios[f"{case.name}: {near} / {far}"] for case in chosen]
        print(f"bf16, ({near}) / ({far}): {min(over_cases):.2f} to {max(over_cases):.2f}, mean {np.mean(over_cases):.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({**figures, "ratios": ratios}, indent=1) + "\n", encoding="utf-8")


def compare(case: ParityCase, seeds: Sequence[int]) -> Errors:
    """Measures one case: float32 with the first seed's model, bfloat16 with those of all seeds."""
    with _tiles(case.tile):
        runs = [_run(case, seed, all_of_it=seed == seeds[0]) for seed in seeds]
    logits, decoded, gradients, theirs = runs[0]
    exact = logits["float32"]
    norms = {name: np.linalg.norm(gradient) for name, gradient in theirs.items()}
    least = 1e-3 * max(norms.values())
    off = {name: np.linalg.norm(gradients[name] - theirs[name]) / max(norms[name], least) for name in theirs}
    worst = max(off, key=off.get)
    apart = {
        f"{a} - {b}": np.concatenate([(run[0][a] - run[0][b]).ravel() for run in runs])
        for a, b in itertools.combinations(("ours", "rounded", "sdpa", "eager", "float32"), 2)
    }
    return Errors(
        largest_logit=float(np.abs(exact).max()),
        float32_logits=float(np.abs(logits["ours in float32"] - exact).max()),
        float32_decoding=None if decoded is None else float(np.abs(decoded - exact).max()),
        float32_gradients=float(off[worst]),
        worst_gradient=worst,
        bfloat16_rms={pair: float(np.sqrt(np.mean(np.square(difference)))) for pair, difference in apart.items()},
        bfloat16_max={pair: float(np.abs(difference).max()) for pair, difference in apart.items()},
        bfloat16_excess=_excess([run[0] for run in runs]),
    )


def _excess(runs: list[dict[str, np.ndarray]]) -> float:
    """Computed from the paired differences of the tokens' mean squared errors."""
    squares = {
        name: np.concatenate([np.mean(np.square(logits[name] - logits["float32"]), axis=-1) for logits in runs])
        for name in ("ours", "eager", "sdpa")
    }
    more = squares["ours"] - max(squares["eager"], squares["sdpa"], key=np.mean)
    return float(more.mean() / (more.std(ddof=1) / len(more) ** 0.5))


@contextlib.contextmanager
def _tiles(size: int | None) -> Iterator[None]:
    """Code compiled in this context uses tiles of this size in attention."""
    if size is None:
        yield
        return
    jax.clear_caches()
    with mock.patch.multiple(attention, KEPT_WEIGHTS=0, TILE=size):
        yield
    jax.clear_caches()


def _run(case: ParityCase, seed: int, all_of_it: bool):
    """Returns logits of all texts, [tokens, V] by implementation. With `all_of_it`, also the cache's logits and both sides' gradients."""
    examples = draw_texts(case, seed)
    batch, order = pack(case, examples)
    with tempfile.TemporaryDirectory() as folder:
        random_model(case.config, seed).to(torch.bfloat16).save_pretrained(folder)
        exact, rounded = (
            transformers.Gemma3ForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
            for dtype in (torch.float32, torch.bfloat16)
        )
        ours = huggingface.load(folder, scan_layers=case.scan_layers)
        ours_rounded = huggingface.load(folder, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, scan_layers=case.scan_layers)
    logits = {"float32": torch_logits(exact, examples), "eager": torch_logits(rounded, examples)}
    rounded.set_attn_implementation("sdpa")
    logits["sdpa"] = torch_logits(rounded, examples)
    logits["ours"] = unpack(our_logits(ours_rounded, batch), batch, order)
    with mock.patch.object(gemma3, "rope", _rope_of_transformers):
        logits["rounded"] = unpack(_rounded_logits(ours_rounded, batch), batch, order)
    decoded = gradients = theirs = None
    if all_of_it:
        logits["ours in float32"] = unpack(our_logits(ours, batch), batch, order)
        gradients, theirs = our_gradients(ours, batch), torch_gradients(exact, examples)
        decoded = unpack(decode(gemma3.unscan(ours), batch), batch, order) if case.decode else None
    return logits, decoded, gradients, theirs


def random_model(config: transformers.Gemma3TextConfig, seed: int) -> transformers.Gemma3ForCausalLM:
    """Draws every parameter, including norms, so that a wrong use of any of them is detected."""
    model = transformers.Gemma3ForCausalLM(config).eval().float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


def draw_texts(case: ParityCase, seed: int) -> Examples:
    """Draws random tokens. Two thirds of each text are its prompt. Its last token is only predicted."""
    lengths = np.array(case.texts)
    vocabulary = {**SIZES, **case.sizes}["vocab_size"]
    tokens = np.random.default_rng(seed).integers(3, vocabulary, int((lengths + 1).sum())).astype(np.int32)
    return one_per_step(
        tokens=tokens,
        starts=np.concatenate([[0], np.cumsum(lengths + 1)]),
        prompt_lengths=np.maximum(1, lengths * 2 // 3).astype(np.int32),
    )


def pack(case: ParityCase, examples: Examples) -> tuple[Batch, list[np.ndarray]]:
    """Packs all texts into one batch. Returns it with the texts in each row."""
    length = case.row_length or max(case.texts)
    rows = len(list(first_fit(np.array(case.texts), length)))
    batches = PackedBatches(examples, np.arange(len(examples)), {}, row_length=length, rows=rows, shuffle=False)
    return batches[0], batches.row_examples(0)


def unpack(values_BxTxV: jax.Array, batch: Batch, order: list[np.ndarray]) -> np.ndarray:
    """Reorders values computed in rows into the order of the texts: [tokens, V]."""
    values = np.asarray(values_BxTxV, np.float32)
    texts = {step: values[row][batch["segment_ids"][row] == s + 1] for row, steps in enumerate(order) for s, step in enumerate(steps)}
    return np.concatenate([texts[step] for step in sorted(texts)])


@jax.jit
def our_logits(model: Gemma3, batch: Batch) -> jax.Array:
    """BxTxV fp32."""
    return model.logits(model(batch["tokens"], batch["positions"], batch["segment_ids"]))


@functools.partial(jax.jit, compiler_options={"xla_allow_excess_precision": False})
def _rounded_logits(model: Gemma3, batch: Batch) -> jax.Array:
    return model.logits(model(batch["tokens"], batch["positions"], batch["segment_ids"]))


def _rope_of_transformers(x_BxTxNxH: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """`gemma3.rope` with the cosines and sines of its angles, and each operation, rounded to the dtype of x."""
    cos, sin = (angle.astype(x_BxTxNxH.dtype) for angle in angles)
    first, second = jnp.split(x_BxTxNxH, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def our_gradients(model: Gemma3, batch: Batch) -> dict[str, np.ndarray]:
    """Gradients of the sum of the responses' log-probabilities, by transformers' names. They are converted through a file, like
    parameters."""
    with tempfile.TemporaryDirectory() as folder:
        huggingface.save(_gradients(model, batch), Path(folder) / "gradients")
        return load_file(Path(folder) / "gradients" / "model.safetensors")


_gradients = jax.jit(jax.grad(lambda model, batch: response_log_probs(model, batch).sum()))


def decode(model: Gemma3, batch: Batch) -> np.ndarray:
    """Logits BxTxV of rows of one text each. The first half of each is read at once, the rest token by token."""
    tokens, lengths = batch["tokens"], (batch["segment_ids"] > 0).sum(1)
    rows, starts = np.arange(len(tokens)), np.maximum(1, lengths // 2)
    most = int(starts.max())
    prompt_mask = (np.arange(most) < starts[:, None]).astype(np.int32)
    out = np.zeros((*tokens.shape, model.config.vocabulary_size), np.float32)
    out[:, :most], cache = _read(model, tokens[:, :most], prompt_mask, model.init_cache(len(tokens), tokens.shape[1] + most))
    for step in range(int((lengths - starts).max())):
        # A row that has ended rereads its last token, and the result is discarded.
        at = np.minimum(starts + step, tokens.shape[1] - 1)
        logits, cache = _read(model, tokens[rows, at][:, None], None, cache)
        going = starts + step < lengths
        out[rows[going], at[going]] = np.asarray(logits)[going, 0]
    return out


@jax.jit
def _read(model: Gemma3, tokens_BxT, segment_ids_BxT, cache):
    hidden, cache = model(tokens_BxT, segment_ids_BxT=segment_ids_BxT, cache=cache)
    return model.logits(hidden), cache


def torch_logits(model: transformers.Gemma3ForCausalLM, examples: Examples) -> np.ndarray:
    """Logits of all texts, each read separately: [tokens, V] fp32."""
    with torch.no_grad():
        return np.concatenate([_read_alone(model, text)[0].float().numpy() for text in texts_of(examples)])


def torch_gradients(model: transformers.Gemma3ForCausalLM, examples: Examples) -> dict[str, np.ndarray]:
    """As `our_gradients`, computed by torch."""
    model.zero_grad()
    for text, prompt in zip(texts_of(examples), examples.prompt_lengths, strict=True):
        log_probs = torch.log_softmax(_read_alone(model, text)[0, prompt - 1 :], dim=-1)
        log_probs.gather(1, torch.from_numpy(text[prompt:]).long()[:, None]).sum().backward()
    return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


def texts_of(examples: Examples) -> list[np.ndarray]:
    return [examples.tokens[start:stop] for start, stop in itertools.pairwise(examples.starts)]


def _read_alone(model: transformers.Gemma3ForCausalLM, text: np.ndarray) -> torch.Tensor:
    return model(input_ids=torch.from_numpy(text[None, :-1]).long(), use_cache=False).logits


if __name__ == "__main__":
    transformers.utils.logging.disable_progress_bar()
    main()
