"""Safetensors files, read and written a tensor at a time: memory holds one tensor, however large the file.

A file is the length of its header (8 bytes, little-endian), the header in JSON, then the tensors' bytes
(https://huggingface.co/docs/safetensors). The library of that name maps or holds whole files; plain reads and writes
at offsets keep to what is asked for.
"""

import dataclasses
import errno
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mira_jax.errors import UserError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
"""The most bytes of one file, as transformers writes them; a larger tensor has a file of its own."""

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_PIECE = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor's bytes are."""

    path: Path
    dtype: str
    """As safetensors calls it: F32, BF16 and others."""
    shape: tuple[int, ...]
    offset: int
    """In the file, in bytes."""
    nbytes: int

    @property
    def numpy_dtype(self) -> np.dtype:
        """Raises UserError if these are not floating-point numbers that NumPy can hold."""
        if self.dtype not in _DTYPES:
            raise UserError(f"{self.path}: a tensor has dtype {self.dtype}; expected one of {', '.join(_DTYPES)}")
        return np.dtype(_DTYPES[self.dtype])

    def read(self) -> np.ndarray:
        """The whole tensor."""
        return np.fromfile(self.path, self.numpy_dtype, math.prod(self.shape), offset=self.offset).reshape(self.shape)

    def pieces(self) -> Iterator[bytes]:
        """Its bytes as they are, a piece at a time."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            left = self.nbytes
            while left:
                piece = file.read(min(left, _PIECE))
                if not piece:
                    raise UserError(f"{self.path}: the file ends within a tensor")
                left -= len(piece)
                yield piece

    def holds(self, values: np.ndarray) -> bool:
        """Whether these are its shape, dtype and bits."""
        if (self.dtype, self.shape) != (_NAMES[values.dtype], values.shape):
            return False
        theirs, start = _raw(values), 0
        for piece in self.pieces():
            if not np.array_equal(np.frombuffer(piece, np.uint8), theirs[start : start + len(piece)]):
                return False
            start += len(piece)
        return True


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal bit for bit."""
    return (a.dtype, a.shape) == (b.dtype, b.shape) and all(x == y for x, y in zip(a.pieces(), b.pieces(), strict=True))


def open_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder's safetensors by name: one file, or several with an index.

    Raises:
        UserError: there is no file, one that the index names is missing, or one is not whole.
    """
    index = folder / INDEX
    if index.is_file():
        paths = [folder / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
    elif (folder / WEIGHTS).is_file():
        paths = [folder / WEIGHTS]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise UserError(f"{folder}: no weights; expected {WEIGHTS} or {INDEX}")
    tensors = {}
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: missing; {INDEX} names it")
        tensors.update(read_header(path))
    return tensors


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file by name. Raises UserError if the file is cut short or not in this format."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {}
        for name, about in header.items():
            start, end = about["data_offsets"]
            tensors[name] = Tensor(path, about["dtype"], tuple(about["shape"]), 8 + length + start, end - start)
            dtype = _DTYPES.get(about["dtype"])
            if 8 + length + end > size:
                raise ValueError(f"tensor {name} ends {8 + length + end - size:,} bytes after the file")
            if not 0 <= start <= end or (dtype and math.prod(about["shape"]) * np.dtype(dtype).itemsize != end - start):
                raise ValueError(f"tensor {name} has {end - start:,} bytes for shape {about['shape']} of {about['dtype']}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from None
    return tensors


@dataclasses.dataclass(frozen=True)
class Planned:
    """A tensor that is to be written."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: Any) -> "Planned":
        dtype = np.dtype(dtype)
        return cls(_NAMES[dtype], shape, math.prod(shape) * dtype.itemsize)


class Writer:
    """Writes tensors, in any order, to the files of a new folder; the index too if there are several."""

    def __init__(self, folder: Path, tensors: Mapping[str, Planned], shard_bytes: int = SHARD_BYTES):
        """Makes the files with their headers. `tensors`: all that will be written, by name.

        Raises:
            OSError: the disk has not enough room.
        """
        shards = list(_shards(tensors, shard_bytes))
        total = sum(tensor.nbytes for tensor in tensors.values())
        if shutil.disk_usage(folder).free < total:
            raise OSError(errno.ENOSPC, f"{total / 1e9:.1f} GB do not fit the disk")
        self.tensors: dict[str, Tensor] = {}
        for number, names in enumerate(shards, 1):
            path = folder / (WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors")
            self._make_file(path, {name: tensors[name] for name in names})
        if len(shards) > 1:
            weight_map = {name: tensor.path.name for name, tensor in self.tensors.items()}
            write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})

    def _make_file(self, path: Path, tensors: Mapping[str, Planned]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        # Wider numbers first: each then lies at a multiple of its width.
        for name, tensor in sorted(tensors.items(), key=lambda item: -_width(item[1])):
            header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
            end += tensor.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
        self.tensors.update(read_header(path))

    def write(self, name: str, values: np.ndarray | Iterable[bytes]) -> None:
        """`values`: an array of just the planned shape and dtype, or the bytes in pieces."""
        tensor = self.tensors[name]
        if isinstance(values, np.ndarray):
            if (values.shape, _NAMES[values.dtype]) != (tensor.shape, tensor.dtype):
                raise ValueError(f"{name}: {values.dtype} {values.shape} for {tensor.dtype} {tensor.shape}")
            values = [memoryview(_raw(values))]
        with open(tensor.path, "r+b") as file:
            file.seek(tensor.offset)
            for piece in values:
                file.write(piece)


def _raw(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _shards(tensors: Mapping[str, Planned], shard_bytes: int) -> Iterator[list[str]]:
    names, size = [], 0
    for name, tensor in tensors.items():
        if names and size + tensor.nbytes > shard_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.nbytes
    yield names


def _width(tensor: Planned) -> int:
    return tensor.nbytes // max(1, math.prod(tensor.shape))


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError if there is no such file, or no JSON object in it."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {os.strerror(error.errno or 0)}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a JSON object")
    return tree


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
