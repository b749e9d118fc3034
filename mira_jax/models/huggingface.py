"""Gemma3 to and from Hugging Face folders: config.json and safetensors, in the layout of the Hub.

Reads text-only checkpoints (`model.*`) and the text part of multimodal ones, named as on the Hub
(`language_model.model.*`) or as transformers holds them (`model.language_model.*`).
"""

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mira_jax.errors import UserError
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.trajectories import tokenizer as tokenizers

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
"""The most bytes of one safetensors file, as transformers writes them."""

_TEXT_PREFIXES = ("language_model.model.", "model.language_model.", "model.")
_TIED = ("lm_head.weight", "language_model.lm_head.weight")
_VISION = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")

log = logging.getLogger(__name__)


class _Tensor(NamedTuple):
    """One tensor on disk, and where it goes."""

    name: str
    """Without the prefix."""
    shape: tuple[int, ...]
    """On disk."""
    parameter: tuple[str | int, ...]
    """Path of the parameter in the model's state."""
    group: int | None
    """Its place along the leading axis of a scanned parameter."""


def load_config(folder: str | Path) -> Gemma3Config:
    """Reads FOLDER/config.json. Raises UserError if it is missing, broken or not a Gemma3's."""
    path = Path(folder) / CONFIG
    return Gemma3Config.from_huggingface(_read_json(path), source=str(path))


def check(folder: str | Path) -> Gemma3Config:
    """The sizes of the model that `load` would read. Raises what `load` would, from the names and shapes of the tensors."""
    config = load_config(folder)
    _checked(Path(folder), config)
    return config


def load(
    folder: str | Path,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat: str = "none",
    scan_layers: bool | None = None,
    shardings: Any = None,
) -> Gemma3:
    """Builds the model of a Hugging Face folder.

    Args:
        dtype: of activations.
        param_dtype: what parameters are cast to.
        scan_layers: as in Gemma3Config.
        shardings: shardings of the model's state, from `sharding.shardings`; default: one device.

    Raises:
        UserError: names the file, and the tensor that is missing, surplus or of another shape.
    """
    folder = Path(folder)
    config = dataclasses.replace(load_config(folder), scan_layers=scan_layers)
    model = nnx.eval_shape(lambda: Gemma3(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype, remat=remat))
    graph, state = nnx.split(model)
    files, expected = _checked(folder, config)
    by_parameter: dict[tuple, list[tuple[str, _Tensor]]] = {}
    for name, tensor in expected.items():
        by_parameter.setdefault(tensor.parameter, []).append((name, tensor))
    placed = None if shardings is None else dict(nnx.to_flat_state(shardings))
    flat = []
    for path, variable in nnx.to_flat_state(state):
        target = variable.get_value()
        values = np.empty(target.shape, target.dtype)
        for name, tensor in by_parameter[path]:
            into = values if tensor.group is None else values[tensor.group]
            into[...] = _from_disk(files.read(name), into.shape, name)
        place = None if placed is None else placed[path]
        if isinstance(place, nnx.Variable):
            place = place.get_value()
        flat.append((path, variable.replace(jax.device_put(values, place))))
    return nnx.merge(graph, nnx.from_flat_state(flat))


def save(model: Gemma3, folder: str | Path, tokenizer_path: str | Path | None = None, dtype=None) -> None:
    """Writes config.json, generation_config.json, safetensors and the tokenizer to a new folder.

    Everything is written to a folder beside it first and renamed at the end, so that FOLDER is whole or absent.

    Args:
        tokenizer_path: a SentencePiece model, copied; its ids of eos and end of turn go to the configs.
        dtype: what the tensors are cast to; default: as they are.

    Raises:
        UserError: FOLDER exists and is not empty, or the disk is full.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is already there; give another folder or remove it")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write_weights(model, partial, dtype)
        _write_configs(model, partial, tokenizer_path, dtype)
        if folder.exists():
            folder.rmdir()
        os.replace(partial, folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot write the checkpoint: {error}; free some disk space, or choose another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _checked(folder: Path, config: Gemma3Config) -> tuple["_Files", dict[str, "_Tensor"]]:
    """The files of a folder, and the tensors of the text model by their names in it. Raises UserError if they don't fit."""
    files = _Files(folder)
    prefix = files.prefix()
    expected = {prefix + tensor.name: tensor for tensor in _tensors(config)}
    files.check(expected)
    return files, expected


def _tensors(config: Gemma3Config) -> Iterator[_Tensor]:
    d, n, k, h, f = config.width, config.query_heads, config.kv_heads, config.head_dim, config.mlp_width
    yield _Tensor("embed_tokens.weight", (config.vocabulary_size, d), ("embedding",), None)
    yield _Tensor("norm.weight", (d,), ("norm", "scale"), None)
    in_block = {
        "input_layernorm": ((d,), ("pre_attention_norm", "scale")),
        "post_attention_layernorm": ((d,), ("post_attention_norm", "scale")),
        "pre_feedforward_layernorm": ((d,), ("pre_mlp_norm", "scale")),
        "post_feedforward_layernorm": ((d,), ("post_mlp_norm", "scale")),
        "self_attn.q_proj": ((n * h, d), ("attention", "query")),
        "self_attn.k_proj": ((k * h, d), ("attention", "key")),
        "self_attn.v_proj": ((k * h, d), ("attention", "value")),
        "self_attn.o_proj": ((d, n * h), ("attention", "output")),
        "self_attn.q_norm": ((h,), ("attention", "query_norm", "scale")),
        "self_attn.k_norm": ((h,), ("attention", "key_norm", "scale")),
        "mlp.gate_proj": ((f, d), ("mlp", "gate")),
        "mlp.up_proj": ((f, d), ("mlp", "up")),
        "mlp.down_proj": ((d, f), ("mlp", "down")),
    }
    period, groups = config.grouping
    scanned = period * groups
    for layer in range(config.layers):
        block = ("groups", layer % period) if layer < scanned else ("tail", layer - scanned)
        for name, (shape, parameter) in in_block.items():
            group = layer // period if layer < scanned else None
            yield _Tensor(f"layers.{layer}.{name}.weight", shape, (*block, *parameter), group)


def _from_disk(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Matrices are (out, in) on disk and (in, out) here, with heads and head dim apart; the embedding is the same."""
    return values if name.endswith("embed_tokens.weight") or values.ndim == 1 else values.T.reshape(shape)


def _to_disk(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if name == "embed_tokens.weight" or values.ndim == 1:
        return values
    return np.ascontiguousarray(values.reshape(shape[::-1]).T)


class _Files:
    """The safetensors of a folder: one file, or several with an index."""

    def __init__(self, folder: Path):
        index = folder / INDEX
        if index.is_file():
            names = sorted(set(_read_json(index).get("weight_map", {}).values()))
            paths = [folder / name for name in names]
        elif (folder / WEIGHTS).is_file():
            paths = [folder / WEIGHTS]
        else:
            paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise UserError(f"{folder}: no weights; expected {WEIGHTS} or {INDEX}")
        self.folder = folder
        self._opened, self.where = {}, {}
        for path in paths:
            if not path.is_file():
                raise UserError(f"{path}: missing; {INDEX} names it")
            try:
                self._opened[path] = safe_open(path, "numpy")
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path}: not a whole safetensors file: {error}") from None
            self.where.update(dict.fromkeys(self._opened[path].keys(), path))

    def prefix(self) -> str:
        for prefix in _TEXT_PREFIXES:
            if any(name.startswith((prefix + "layers.", prefix + "embed_tokens.")) for name in self.where):
                return prefix
        raise UserError(f"{self.folder}: no tensor of a Gemma3 text model; expected model.embed_tokens.weight and others")

    def check(self, expected: Mapping[str, _Tensor]) -> None:
        """Names and shapes, before anything is read."""
        for name, tensor in expected.items():
            if name not in self.where:
                raise UserError(f"{self.folder}: tensor {name} is missing")
            shape = tuple(self._opened[self.where[name]].get_slice(name).get_shape())
            if shape != tensor.shape:
                raise UserError(
                    f"{self.where[name]}: tensor {name} has shape {shape}; {CONFIG} says {tensor.shape}: take both from one checkpoint"
                )
        surplus = sorted(set(self.where) - set(expected))
        vision = [name for name in surplus if name.startswith(_VISION)]
        for name in surplus:
            if name in _TIED:
                embedding = next(text for text, tensor in expected.items() if tensor.parameter == ("embedding",))
                if not np.array_equal(self.read(name), self.read(embedding)):
                    raise UserError(f"{self.where[name]}: {name} differs from {embedding}; Gemma3 ties the two")
            elif name not in vision:
                raise UserError(f"{self.where[name]}: tensor {name} is surplus: a Gemma3 of this {CONFIG} has none of that name")
        if vision:
            log.warning("%s: %d vision tensors are not read: this is the text model", self.folder, len(vision))

    def read(self, name: str) -> np.ndarray:
        return self._opened[self.where[name]].get_tensor(name)


def _write_weights(model: Gemma3, folder: Path, dtype) -> None:
    state = {path: variable[...] for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))}

    def value(tensor: _Tensor) -> np.ndarray:
        leaf = state[tensor.parameter]
        values = np.asarray(leaf if tensor.group is None else leaf[tensor.group])
        return _to_disk(values if dtype is None else values.astype(jnp.dtype(dtype)), tensor.shape, tensor.name)

    itemsize = next(iter(state.values())).dtype.itemsize if dtype is None else jnp.dtype(dtype).itemsize
    shards: list[list[_Tensor]] = [[]]
    size = 0
    for tensor in _tensors(model.config):
        bytes_ = int(np.prod(tensor.shape)) * itemsize
        if shards[-1] and size + bytes_ > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += bytes_
    weight_map = {}
    for i, shard in enumerate(shards):
        name = WEIGHTS if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file({"model." + tensor.name: value(tensor) for tensor in shard}, folder / name, metadata={"format": "pt"})
        weight_map.update({"model." + tensor.name: name for tensor in shard})
    if len(shards) > 1:
        total = itemsize * model.config.parameters
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_configs(model: Gemma3, folder: Path, tokenizer_path: str | Path | None, dtype) -> None:
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": [1, 106]}
    if tokenizer_path is not None:
        tokenizer = tokenizers.Tokenizer(tokenizer_path)
        eos = [tokenizer.eos_id, tokenizer.end_of_turn_id]
        ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": eos}
        shutil.copyfile(tokenizer.path, folder / tokenizers.FILE_NAME)
        _write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "GemmaTokenizer",
                "add_bos_token": True,
                "add_eos_token": False,
                "bos_token": "<bos>",
                "eos_token": "<eos>",
                "pad_token": "<pad>",
                "unk_token": "<unk>",
                "clean_up_tokenization_spaces": False,
                "model_max_length": model.config.max_positions,
            },
        )
    torch_dtype = str(jnp.dtype(dtype or model.embedding[...].dtype))
    _write_json(folder / "generation_config.json", {**ids, "do_sample": True})
    _write_json(folder / CONFIG, {**model.config.to_huggingface(), **ids, "torch_dtype": torch_dtype})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a JSON object")
    return tree


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
