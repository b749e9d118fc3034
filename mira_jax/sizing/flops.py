"""Floating-point operations of a program: the number it needs, and the number it performs.

The needed number follows the convention used here for MFU. A product of m x k and k x n counts 2 m k n. The backward pass
counts twice the forward pass, or once where the parameters are frozen. Attention counts the query-key pairs that are causal,
within the window and within one step of a row. Logits count where the loss reads them, and so does the last layer, except its
keys and values. Norms, softmax, RoPE, padding and rematerialisation are not counted.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from mira_jax.models.config import LOCAL, Gemma3Config
from mira_jax.models.kernels import ranges
from mira_jax.models.kernels.choose import Kernels

CONVENTION = "causal, window counted, rematerialisation not counted, logits where the loss reads them"


@dataclasses.dataclass(frozen=True)
class Text:
    """One step of a packed row, or a whole row of plain text."""

    tokens: int
    outputs: int
    """Number of its last tokens at which the loss reads the output of the last layer."""
    targets: int
    """Number of its tokens that have logits."""


def training_flops(model: Gemma3Config, texts: Sequence[Text], trained: float = 1.0) -> float:
    """FLOPs of forward and backward over `texts`. `trained`: the share of the matrices' parameters that have gradients."""
    matrices, attention = _forward(model, texts)
    return (2 + trained) * matrices + 3 * attention


def forward_flops(model: Gemma3Config, texts: Sequence[Text]) -> float:
    """FLOPs of the forward pass over `texts`."""
    return sum(_forward(model, texts))


def decode_flops(model: Gemma3Config, rows: int, length: int) -> float:
    """FLOPs of one more token in each of `rows` rows that have `length` tokens with it."""
    before, after = ([Text(tokens, tokens, 0)] for tokens in (length - 1, length))
    logits = 2.0 * model.vocabulary_size * model.width
    return rows * (forward_flops(model, after) - forward_flops(model, before) + logits)


def _forward(model: Gemma3Config, texts: Sequence[Text]) -> tuple[float, float]:
    """FLOPs of products with parameters, and of attention."""
    d, f, h = model.width, model.mlp_width, model.head_dim
    kv, rest = 2 * d * model.kv_heads * h, 2 * d * model.query_heads * h + 3 * d * f
    tokens, outputs = sum(text.tokens for text in texts), sum(text.outputs for text in texts)
    matrices = 2.0 * (model.layers * kv + (model.layers - 1) * rest) * tokens + 2.0 * rest * outputs
    logits = 2.0 * model.vocabulary_size * d * sum(text.targets for text in texts)
    seen = 0
    for layer, kind in enumerate(model.layer_types):
        window = model.window if kind == LOCAL else None
        for text in texts:
            unread = text.tokens - text.outputs if layer == model.layers - 1 else 0
            seen += pairs(text.tokens, window) - pairs(unread, window)
    return matrices + logits, 4.0 * model.query_heads * h * seen


def pairs(length: int, window: int | None) -> int:
    """Query-key pairs of causal attention over `length` tokens. Each token sees at most `window` tokens, itself included."""
    reach = min(length, window or length)
    return length * reach - reach * (reach - 1) // 2


def per_token(model: Gemma3Config, length: int) -> float:
    """FLOPs per token of pretraining on rows with one text of `length` tokens, in which every token is a target."""
    return training_flops(model, [Text(length, length, length)]) / length


def kernel_flops(chosen: Kernels, model: Gemma3Config, texts: Sequence[Text], length: int) -> dict[str, float]:
    """FLOPs of each Pallas kernel of attention for GPUs, by name, for one query head and one row of `length` tokens that holds `texts`."""
    found: dict[str, float] = {}
    for layer_type, kernel in chosen.items():
        if kernel.name != "pallas" or layer_type not in model.layer_types:
            continue
        from mira_jax.models.kernels import flash

        window = model.window if layer_type == LOCAL else None
        ends = np.cumsum([text.tokens for text in texts])
        segments = np.searchsorted(ends, np.arange(length), side="right")
        first = ranges.first_seen(segments[None], window)[0]
        each = flash.flops(first, model.head_dim, flash.default_tiling(model.head_dim, kernel.capability))
        found |= {name + flash.label(window): count for name, count in each.items()}
    return found


def call_flops(name: str, queries_BxTxNxH: Sequence[int], kernels: Mapping[str, float]) -> float:
    """FLOPs of one call of a kernel with queries of this shape. 0 if its name is unknown."""
    return queries_BxTxNxH[0] * queries_BxTxNxH[2] * kernels[name] if name in kernels else 0.0


def done(jaxpr: Any, kernels: Mapping[str, float] = MappingProxyType({})) -> float:
    """FLOPs of all matrix products in a traced program, including masked blocks and rematerialisation. Bodies of scans are
    counted once per iteration.

    A `while` loop with an unknown trip count is counted as one iteration. A kernel that is not in `kernels` (from `kernel_flops`)
    counts with all blocks of its grid, also those that it skips.
    """
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _product(equation)
            continue
        if name == "pallas_call" and parameters["name"] in kernels:
            total += call_flops(parameters["name"], equation.invars[0].aval.shape, kernels)
            continue
        inner = [done(body, kernels) for value in parameters.values() for body in _bodies(value)]
        if name == "cond":
            total += max(inner, default=0.0)
        else:
            total += _trip_count(name, parameters) * sum(inner)
    return total


def _product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, result = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    flops = 2.0
    for size in (*result, *(left[axis] for axis in contracted)):
        flops *= size
    return flops


def _trip_count(name: str, parameters: dict[str, Any]) -> int:
    if name == "scan":
        return parameters["length"]
    if name == "pallas_call":
        turns = 1
        for size in parameters["grid_mapping"].grid:
            turns *= size
        return turns
    return 1


def _bodies(value: Any) -> list[Any]:
    """The programs nested in a parameter of an equation."""
    if hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns"):
        return [value]
    return [body for item in value for body in _bodies(item)] if isinstance(value, (tuple, list)) else []
