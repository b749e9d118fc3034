"""Reads a Gemma3 from a Hub folder: a text-only model, or the text part of a multimodal one."""

import logging
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mira_jax.errors import UserError
from mira_jax.model_files import read_json
from mira_jax.models import weights
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.huggingface.names import (
    ADAPTERS,
    QUANTISED,
    TEXT_PREFIXES,
    TIED,
    WRAPPERS,
    TextTensor,
    hub_name,
    layer_of,
    text_tensors,
)
from mira_jax.models.huggingface.safetensors import FLOATS, Tensor, equal_values, open_folder
from mira_jax.models.remat import Remat
from mira_jax.models.weights import Name

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"

log = logging.getLogger(__name__)


class HubFolder:
    """The text model of a folder, as `mira_jax.models.weights.Weights`."""

    def __init__(self, folder: str | Path, scan_layers: bool | None = None):
        """Checks names and shapes without reading values.

        Args:
            scan_layers: as in Gemma3Config.

        Raises:
            UserError: a file is invalid, or a tensor is missing, unexpected or has the wrong shape. The message names both.
        """
        self.folder = Path(folder)
        self.config = weights.with_scan(load_config(self.folder), scan_layers)
        tensors = open_folder(self.folder)
        _refuse_foreign(self.folder, tensors)
        self._prefix = _prefix(self.folder, tensors)
        expected = {self._prefix + tensor.name: tensor for tensor in text_tensors(self.config)}
        _check(self.folder, tensors, expected, self.config.layers)
        _check_tied(self.folder / CONFIG, read_json(self.folder / CONFIG), tensors)
        if any(map(hub_name, tensors)):
            log.info("%s: %d vision tensors are not read: this is the text model", self.folder, sum(map(bool, map(hub_name, tensors))))
        self._parts: dict[Name, list[tuple[TextTensor, Tensor]]] = {}
        for name, tensor in expected.items():
            self._parts.setdefault(tensor.parameter, []).append((tensor, tensors[name]))
        self.stored = {
            name: jax.ShapeDtypeStruct(shape, _dtype([on_disk for _, on_disk in self._parts[name]]))
            for name, shape in weights.shapes(self.config).items()
        }

    def read(self, name: Name, dtype: Any = None) -> np.ndarray:
        parts, stored = self._parts[name], self.stored[name]
        if len(parts) == 1 and not parts[0][0].transposed and parts[0][0].group is None:
            values = parts[0][1].read().astype(dtype or stored.dtype, copy=False)
            self._require_finite(values, *parts[0])
            return values
        values = np.empty(stored.shape, dtype or stored.dtype)
        for tensor, on_disk in parts:
            into = values if tensor.group is None else values[tensor.group]
            tensor.to_parameter(on_disk.read(), into)
            self._require_finite(into, tensor, on_disk)
        return values

    def _require_finite(self, values: np.ndarray, tensor: TextTensor, on_disk: Tensor) -> None:
        weights.require_finite(values, f"{on_disk.path}: tensor {self._prefix}{tensor.name}")


def load_config(folder: str | Path) -> Gemma3Config:
    """Reads FOLDER/config.json. Raises UserError if it is missing, invalid or not of a Gemma3."""
    path = Path(folder) / CONFIG
    return Gemma3Config.from_huggingface(read_json(path), source=str(path))


def check(folder: str | Path) -> Gemma3Config:
    """The sizes of the model that `load` would read. Raises the same errors as `load`, from the names and shapes of the tensors."""
    return HubFolder(folder).config


def load(
    folder: str | Path,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat: Remat = "none",
    scan_layers: bool | None = None,
    shardings: Any = None,
) -> Gemma3:
    """Builds the model of a folder.

    Args:
        dtype: dtype of activations.
        param_dtype: the dtype that parameters are cast to.
        scan_layers: as in Gemma3Config.
        shardings: shardings of the model's state, from `sharding.shardings`. Default: one device.

    Raises:
        UserError: a file is invalid, or a tensor is missing, unexpected or has the wrong shape. The message names both.
    """
    return weights.build(HubFolder(folder, scan_layers), dtype=dtype, param_dtype=param_dtype, remat=remat, shardings=shardings)


def vision_tensors(folder: str | Path) -> dict[str, Tensor]:
    """The vision tower and projector of a folder, by their names on the Hub. Empty if the folder is text-only or has no weights."""
    folder = Path(folder)
    if not any(folder.glob("*.safetensors")):
        return {}
    return {on_hub: tensor for name, tensor in open_folder(folder).items() if (on_hub := hub_name(name))}


def _refuse_foreign(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Raises UserError for a checkpoint with unmerged adapters or quantised weights."""
    if os.path.lexists(folder / ADAPTER_CONFIG):
        raise UserError(f"{folder}: holds an adapter ({ADAPTER_CONFIG}), which transformers applies to the model; merge it first with PEFT")
    for name, tensor in tensors.items():
        if any(part in name for part in ADAPTERS):
            raise UserError(f"{tensor.path}: tensor {name} is of an adapter; merge it first with PEFT (merge_and_unload)")
        if not hub_name(name) and (tensor.dtype not in FLOATS or any(part in name for part in QUANTISED)):
            raise UserError(f"{tensor.path}: tensor {name} ({tensor.dtype}) is of a quantised model; use the checkpoint that is not")


def _prefix(folder: Path, tensors: dict[str, Tensor]) -> str:
    for prefix in TEXT_PREFIXES:
        if any(name.startswith((prefix + "layers.", prefix + "embed_tokens.")) for name in tensors):
            return prefix
    found = next((name for name in tensors if "embed_tokens." in name or layer_of(name) is not None), None)
    if found is None:
        some = f"the first of {len(tensors)} is {min(tensors)}" if tensors else "there is no tensor at all"
        raise UserError(f"{folder}: no tensor of a Gemma3 text model; expected model.embed_tokens.weight and others, {some}")
    for prefix, wrapper in WRAPPERS.items():
        if prefix in found:
            raise UserError(f"{folder}: tensor {found} was saved from inside of {wrapper}; remove {prefix} from all names, or save again")
    raise UserError(f"{folder}: tensor {found} has an unknown prefix; expected one of {', '.join(filter(None, TEXT_PREFIXES))}, or none")


def _check(folder: Path, tensors: dict[str, Tensor], expected: dict[str, TextTensor], layers: int) -> None:
    for name, tensor in expected.items():
        if name not in tensors:
            raise UserError(f"{folder}: tensor {name} is missing; {CONFIG} says num_hidden_layers {layers}")
        there = tensors[name]
        if there.shape != tensor.shape:
            raise UserError(
                f"{there.path}: tensor {name} has shape {there.shape}; {CONFIG} says {tensor.shape}: take both from one checkpoint"
            )
    embedding = next(iter(expected))
    for name in sorted(set(tensors) - set(expected)):
        if name in TIED:
            if not equal_values(tensors[name], tensors[embedding]):
                raise UserError(f"{tensors[name].path}: {name} differs from {embedding}; Gemma3 ties the two")
        elif not hub_name(name):
            raise UserError(
                f"{tensors[name].path}: tensor {name} is surplus: a Gemma3 of this {CONFIG}, with {layers} layers, has none of that name"
            )


def _check_tied(path: Path, tree: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raises UserError unless the output matrix equals the embedding: by `tie_word_embeddings`, or by its stored values."""
    for part, prefix in ((tree, ""), (tree.get("text_config") or {}, "text_config.")):
        tied = part.get("tie_word_embeddings", True)
        if not isinstance(tied, bool):
            raise UserError(f"{path}: {prefix}tie_word_embeddings is {tied!r}; expected true or false")
        if not tied and not set(TIED) & set(tensors):
            raise UserError(
                f"{path}: {prefix}tie_word_embeddings is false, but there is no {TIED[0]}: transformers would draw it at random; "
                "set it to true if the model was trained so"
            )


def _dtype(tensors: list[Tensor]) -> np.dtype:
    """A dtype that can represent all of them."""
    dtype = tensors[0].numpy_dtype
    for tensor in tensors[1:]:
        dtype = jnp.promote_types(dtype, tensor.numpy_dtype)
    return np.dtype(dtype)
