"""Writes a Gemma3 as a Hub folder that transformers, vLLM and SGLang can load."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mira_jax.errors import UserError
from mira_jax.files import partial_folder, publish
from mira_jax.model_files import locate, read_json
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.huggingface import tokenizer_files
from mira_jax.models.huggingface.names import TextTensor, text_tensors
from mira_jax.models.huggingface.reading import CONFIG, load_config, vision_tensors
from mira_jax.models.huggingface.safetensors import SHARD_BYTES, Planned, Writer, open_folder, same, write_json
from mira_jax.models.weights import ModelWeights, Name, Weights
from mira_jax.trajectories.tokenizer import GENERATION

_OF_VISION = ("preprocessor_config.json", "processor_config.json")


def save(model: Gemma3, folder: str | Path, tokenizer_path: str | Path | None = None, dtype=None, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes a model in memory as text-only, with `write`."""
    write(ModelWeights(model), folder, tokenizer_path, dtype, shard_bytes=shard_bytes)


def write(
    weights: Weights,
    folder: str | Path,
    tokenizer_path: str | Path | None = None,
    dtype=None,
    origin: str | Path | None = None,
    vision: str | Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes config.json, generation_config.json, safetensors and the tokenizer to a new folder.

    The files are first written to a temporary folder in the same parent, which is renamed at the end, so FOLDER is either
    complete or absent. One parameter is in memory at a time.

    Args:
        tokenizer_path: the tokenizer, as in `Tokenizer`. Its files are copied, and a tokenizer.json is written if it has
            none. Its end tokens are written to both configs.
        dtype: the dtype that the text model's tensors are cast to. Default: the stored dtype of each.
        origin: a Hub folder that the model comes from, whose generation config is kept.
        vision: a multimodal Hub folder. Its vision tower and projector are copied bit for bit. Its config around the text
            model's and the files of its processor are copied too. Default: the export is text-only.
        shard_bytes: maximum size of one file.

    Raises:
        UserError: FOLDER exists and is not empty, there is no vision tower, the disk is full, or a file to copy is a link out
            of its folder.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: already exists; choose another folder")
    plan = _Plan(weights, tokenizer_path, dtype, origin, vision)
    try:
        with partial_folder(folder) as partial:
            plan.write(partial, shard_bytes)
            publish(partial, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the checkpoint: {error}; free some disk space, or choose another folder") from None


def holds(
    weights: Weights,
    folder: str | Path,
    tokenizer_path: str | Path | None = None,
    dtype=None,
    origin: str | Path | None = None,
    vision: str | Path | None = None,
) -> bool:
    """Whether the content of FOLDER is exactly what `write` would write, value for value."""
    return _Plan(weights, tokenizer_path, dtype, origin, vision).holds(Path(folder))


class _Plan:
    """The content of an export: documents, files to copy, and tensors."""

    def __init__(
        self,
        weights: Weights,
        tokenizer_path: str | Path | None,
        dtype: Any,
        origin: str | Path | None,
        vision: str | Path | None,
    ):
        self._weights, self._dtype = weights, dtype
        self._vision = vision_tensors(vision) if vision else {}
        if vision and not self._vision:
            raise UserError(f"{vision}: no vision tower there; name the folder of a multimodal Gemma3")
        self._prefix = "language_model.model." if self._vision else "model."
        self._parts: dict[Name, list[TextTensor]] = {}
        for tensor in text_tensors(weights.config):
            self._parts.setdefault(tensor.parameter, []).append(tensor)
        files = tokenizer_files.plan(tokenizer_path, weights.config, origin)
        self._copies, self._documents = files.copies, files.documents
        """Files to copy and JSON to write, by name in the new folder."""
        self._documents[CONFIG] = self._config(files.ids, vision)
        if vision:
            self._copies |= {name: source for name in _OF_VISION if (source := locate(Path(vision) / name))}

    def write(self, folder: Path, shard_bytes: int) -> None:
        writer = Writer(folder, self._tensors(), shard_bytes)
        for name, tensor in self._vision.items():
            writer.write(name, tensor.pieces())
        for name, values in self._text():
            writer.write(name, values)
        for name, source in self._copies.items():
            shutil.copyfile(source, folder / name)
        for name, document in self._documents.items():
            write_json(folder / name, document)

    def holds(self, folder: Path) -> bool:
        if not (folder / CONFIG).is_file() or any(not (folder / name).is_file() for name in (*self._copies, *self._documents)):
            return False
        if any(read_json(folder / name) != json.loads(json.dumps(document)) for name, document in self._documents.items()):
            return False
        if any((folder / name).read_bytes() != source.read_bytes() for name, source in self._copies.items()):
            return False
        there = open_folder(folder)
        if {name: (tensor.dtype, tensor.shape) for name, tensor in there.items()} != {
            name: (tensor.dtype, tensor.shape) for name, tensor in self._tensors().items()
        }:
            return False
        vision = all(same(there[name], tensor) for name, tensor in self._vision.items())
        return vision and all(there[name].holds(values) for name, values in self._text())

    def _tensors(self) -> dict[str, Planned]:
        """All tensors by name."""
        planned = {name: Planned(tensor.dtype, tensor.shape, tensor.nbytes) for name, tensor in self._vision.items()}
        for tensor in text_tensors(self._weights.config):
            dtype = self._dtype or self._weights.stored[tensor.parameter].dtype
            planned[self._prefix + tensor.name] = Planned.of(tensor.shape, dtype)
        return planned

    def _text(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor of the text model in its layout on disk, in the order of parameters."""
        for parameter in self._weights.stored:
            values = self._weights.read(parameter, self._dtype)
            for tensor in self._parts[parameter]:
                yield self._prefix + tensor.name, tensor.from_parameter(values if tensor.group is None else values[tensor.group])

    def _config(self, ids: dict[str, Any], vision: str | Path | None) -> dict[str, Any]:
        dtype = str(np.dtype(self._dtype or self._weights.stored[("embedding",)].dtype))
        text = {**self._weights.config.to_huggingface(), **ids, "torch_dtype": dtype}
        if not vision:
            return text
        load_config(vision)
        outer = read_json(Path(vision) / CONFIG)
        outer.pop("dtype", None)
        text.pop("architectures")
        return {**outer, **ids, "tie_word_embeddings": True, "text_config": text, "torch_dtype": dtype}


def keep_origin(folder: str | Path, into: Path) -> None:
    """Copies the files that `write` may need from the folder of the original model, except the text model and the tokenizer.

    Raises:
        OSError: the disk is full.
        UserError: one of these files is a link out of the folder.
    """
    folder = Path(folder)
    into.mkdir(parents=True)
    vision = vision_tensors(folder)
    if vision:
        writer = Writer(into, {name: Planned(tensor.dtype, tensor.shape, tensor.nbytes) for name, tensor in vision.items()})
        for name, tensor in vision.items():
            writer.write(name, tensor.pieces())
    for name in (CONFIG, GENERATION, *_OF_VISION):
        if source := locate(folder / name):
            shutil.copyfile(source, into / name)
