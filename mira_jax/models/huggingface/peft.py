"""Writes adapters in the layout of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors.

PEFT computes y = x W^T + (lora_alpha / r) (x A^T) B^T, with A of shape (r, in) and B of shape (out, r).
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mira_jax.models.config import Gemma3Config
from mira_jax.models.huggingface.names import text_tensors
from mira_jax.models.huggingface.safetensors import WEIGHTS, Planned, Writer, write_json
from mira_jax.models.lora import LoraConfig, adapters_of

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"


def write_adapter(
    folder: Path,
    config: Gemma3Config,
    layers: Sequence[tuple[Mapping[str | int, Any], LoraConfig]],
    base: str | None,
    multimodal: bool,
) -> None:
    """Writes the two files to an existing folder. Tensors are fp32.

    Args:
        layers: sets of adapters of one model, oldest first. Several sets are combined into one whose rank is the sum of their
            ranks.
        base: the Hugging Face folder of the base model, which AutoPeftModel loads.
        multimodal: whether the adapters belong to the language model of a Gemma3ForConditionalGeneration.
    """
    trunk = "model.language_model" if multimodal else "model"
    rank = sum(settings.rank for _, settings in layers)
    alpha = layers[0][1].alpha if len(layers) == 1 else float(rank)
    tensors: dict[str, np.ndarray] = {}
    for tensor in text_tensors(config):
        pairs = [(adapters_of(tensor.parameter, layer), settings) for layer, settings in layers]
        if not any(pair for pair, _ in pairs):
            continue
        a, b = _joined(pairs, tensor.parameter[-1], tensor.group, alpha / rank)
        module = f"base_model.model.{trunk}.{tensor.name.removesuffix('.weight')}"
        tensors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    modules = sorted({name.split(".")[-3] for name in tensors})
    # In a multimodal model, a list of names would also match modules of the vision tower.
    everywhere = rf"model\.language_model\.layers\.\d+\.\w+\.({'|'.join(modules)})"
    document = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": everywhere if multimodal else modules,
    }
    writer = Writer(folder, {name: Planned.of(values.shape, values.dtype) for name, values in tensors.items()}, sys.maxsize)
    for name, values in tensors.items():
        writer.write(name, values)
    os.replace(folder / WEIGHTS, folder / TENSORS)
    write_json(folder / CONFIG, document)


def _joined(pairs: Sequence[tuple[Any, LoraConfig]], name: str, group: int | None, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(A, B) in PEFT's shapes. Their product times `scale` is the sum of the contributions of all pairs. A missing pair
    contributes zeros."""
    shape = next(pair for pair, _ in pairs if pair)
    rows_a, rows_b = [], []
    for pair, settings in pairs:
        a, b = (np.asarray(part, np.float32) for part in (pair or shape))
        if group is not None:
            a, b = a[group], b[group]
        a, b = a.reshape(-1, a.shape[-1]).T, b.reshape(b.shape[0], -1)
        if pair is None:
            a, b = (np.zeros((settings.rank, part.shape[1]), np.float32) for part in (a, b))
        rows_a.append(a)
        rows_b.append(b * np.float32(settings.scale / scale))
    return np.ascontiguousarray(np.concatenate(rows_a)), np.ascontiguousarray(np.concatenate(rows_b).T)
