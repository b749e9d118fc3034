"""Reads and writes safetensors files one tensor at a time. Only one tensor is in memory, regardless of the file's size.

A file consists of the length of its header (8 bytes, little-endian), the header in JSON, and the tensors' bytes
(https://huggingface.co/docs/safetensors). The safetensors library maps or loads whole files. This module reads and writes
only the requested byte ranges.
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

from mira_jax import model_files
from mira_jax.errors import UserError
from mira_jax.model_files import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
"""Maximum size of one file, the same as in transformers. A larger tensor is stored in a file of its own."""

FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bytes per element for each dtype of the format."""
MAX_HEADER_BYTES = 100_000_000
"""The same limit as in the safetensors library."""
_NAMES = {np.dtype(dtype): name for name, dtype in FLOATS.items()}
_PIECE = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Tensor:
    """The location of a tensor's bytes."""

    path: Path
    dtype: str
    """The name in safetensors: F32, BF16 and others."""
    shape: tuple[int, ...]
    offset: int
    """Offset in the file, in bytes."""
    nbytes: int

    @property
    def numpy_dtype(self) -> np.dtype:
        """Raises UserError if the elements are not floating-point numbers that NumPy supports."""
        if self.dtype not in FLOATS:
            raise UserError(f"{self.path}: a tensor has dtype {self.dtype}; expected one of {', '.join(FLOATS)}")
        return np.dtype(FLOATS[self.dtype])

    def read(self) -> np.ndarray:
        """The whole tensor."""
        return np.fromfile(self.path, self.numpy_dtype, math.prod(self.shape), offset=self.offset).reshape(self.shape)

    def pieces(self) -> Iterator[bytes]:
        """Its raw bytes, in pieces."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            left = self.nbytes
            while left:
                piece = file.read(min(left, _PIECE))
                if not piece:
                    raise UserError(f"{self.path}: the file ends within a tensor")
                left -= len(piece)
                yield piece

    def numbers(self) -> Iterator[np.ndarray]:
        """Its values in float64, flat, in pieces."""
        total, dtype = math.prod(self.shape), self.numpy_dtype
        for start in range(0, total, _PIECE // 8):
            count, offset = min(_PIECE // 8, total - start), self.offset + start * dtype.itemsize
            yield np.fromfile(self.path, dtype, count, offset=offset).astype(np.float64)

    def holds(self, values: np.ndarray) -> bool:
        """Whether the tensor has the shape, dtype and bits of `values`."""
        if (self.dtype, self.shape) != (_NAMES[values.dtype], values.shape):
            return False
        theirs, start = _raw(values), 0
        for piece in self.pieces():
            if not np.array_equal(np.frombuffer(piece, np.uint8), theirs[start : start + len(piece)]):
                return False
            start += len(piece)
        return True


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are bitwise equal."""
    return (a.dtype, a.shape) == (b.dtype, b.shape) and all(x == y for x, y in zip(a.pieces(), b.pieces(), strict=True))


def equal_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have equal values, whatever their dtypes."""
    if a.dtype == b.dtype:
        return same(a, b)
    return a.shape == b.shape and all(np.array_equal(x, y) for x, y in zip(a.numbers(), b.numbers(), strict=True))


def open_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors in a folder's safetensors files, by name. Reads one file, or several with an index.

    The folder is refused if readers would choose different files: transformers prefers the single file, vLLM the files of the
    index.

    Raises:
        UserError: there is no file, a file named by the index is missing, a file is incomplete, or the location of a tensor
            is ambiguous.
    """
    index, single = folder / INDEX, folder / WEIGHTS
    if model_files.locate(index) is None:
        paths = [single] if os.path.lexists(single) else sorted(folder.glob("*.safetensors"))
        if not paths:
            raise UserError(f"{folder}: no weights; expected {WEIGHTS} or {INDEX}{_other_weights(folder)}")
        return _merge([read_header(path) for path in paths])
    weight_map = _weight_map(index)
    names = sorted(set(weight_map.values()))
    if names != [WEIGHTS] and os.path.lexists(single):
        raise UserError(
            f"{folder}: holds both {WEIGHTS} and {INDEX}, which names {names[0]}: transformers reads the one, vLLM the other; "
            "move the one that is out of date to another folder"
        )
    for name in names:
        if not os.path.lexists(folder / name):
            raise UserError(f"{folder / name}: missing; {INDEX} names it")
    headers = {name: read_header(folder / name) for name in names}
    for name, file in weight_map.items():
        if name not in headers[file]:
            raise UserError(f"{folder / file}: has no tensor {name}; {INDEX} says that it is there")
    return _merge(list(headers.values()))


def _weight_map(index: Path) -> dict[str, str]:
    """The file that contains each tensor. Raises UserError if the index is invalid, or names a file outside its folder."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: weight_map is missing or empty; it must map names of tensors to names of files")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file.endswith(".safetensors") or set(file) & set("/\\\0"):
            raise UserError(f"{index}: weight_map names {str(file)[:80]!r} for {name}; expected a .safetensors file of this folder")
    return weight_map


def _merge(headers: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """All tensors. Raises UserError if two files contain a tensor with different values, because readers differ in which they use."""
    tensors: dict[str, Tensor] = {}
    for header in headers:
        for name, tensor in header.items():
            before = tensors.setdefault(name, tensor)
            if before is not tensor and not same(before, tensor):
                raise UserError(f"{tensor.path}: tensor {name} is also in {before.path.name}, other there; take both from one checkpoint")
    return tensors


def _other_weights(folder: Path) -> str:
    """Describes other weights in the folder, for a message."""
    for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack"):
        if found := sorted(folder.glob(pattern)):
            return f"; {found[0].name} is of another format, convert it with `save_pretrained` of transformers"
    return ""


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file by name, with the checks of the safetensors library.

    Raises:
        UserError: the file is truncated or not in this format, or tensors overlap or leave unused bytes between them.
    """
    model_files.locate(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if len(first) < 8:
                raise ValueError(f"it has {size} bytes")
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"it begins with {first!r}, which is a header of {length:,} bytes; the maximum is {MAX_HEADER_BYTES:,}")
            if 8 + length > size:
                raise ValueError(f"its header has {length:,} bytes, the file {size:,}")
            text = file.read(length)
        header = model_files.parse_object(text)
        _check_metadata(header.pop("__metadata__", None))
        tensors = {name: _tensor(path, name, about, 8 + length) for name, about in header.items()}
        _check_layout(tensors, 8 + length, size)
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {os.strerror(error.errno or 0)}") from None
    except ValueError as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from None
    return tensors


def _check_metadata(metadata: Any) -> None:
    if metadata is not None and not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise ValueError("its __metadata__ does not map strings to strings")


def _tensor(path: Path, name: str, about: Any, data: int) -> Tensor:
    """One entry of a header. `data`: the offset at which the tensors' bytes begin. Raises ValueError."""
    if not isinstance(about, dict) or not {"dtype", "shape", "data_offsets"} <= set(about):
        raise ValueError(f"tensor {name} has no dtype, shape and data_offsets")
    dtype, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"tensor {name} has dtype {str(dtype)[:40]!r}; the format has none of that name")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name} has shape {str(shape)[:80]} and data_offsets {str(offsets)[:80]}; expected whole numbers")
    start, end = offsets
    if start > end or math.prod(shape) * _BITS[dtype] != 8 * (end - start):
        raise ValueError(f"tensor {name} has {end - start:,} bytes for shape {shape} of {dtype}")
    return Tensor(path, dtype, tuple(shape), data + start, end - start)


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**64 for value in values)


def _check_layout(tensors: Mapping[str, Tensor], data: int, size: int) -> None:
    """Raises ValueError unless the tensors are contiguous from the header to the end of the file."""
    at = data
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if tensor.offset != at:
            raise ValueError(f"tensor {name} begins {tensor.offset - at:,} bytes after the end of the one before it")
        at += tensor.nbytes
    if at != size:
        raise ValueError(f"its tensors end at byte {at:,}, the file at {size:,}")


@dataclasses.dataclass(frozen=True)
class Planned:
    """A tensor to be written."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: Any) -> "Planned":
        dtype = np.dtype(dtype)
        return cls(_NAMES[dtype], shape, math.prod(shape) * dtype.itemsize)


class Writer:
    """Writes tensors, in any order, to the files of a new folder, and an index if there are several files."""

    def __init__(self, folder: Path, tensors: Mapping[str, Planned], shard_bytes: int = SHARD_BYTES):
        """Creates the files with their headers. `tensors`: all tensors that will be written, by name.

        Raises:
            OSError: there is not enough disk space.
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
        # Wider dtypes first, so that every tensor is aligned to its element size.
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
        """`values`: an array of exactly the planned shape and dtype, or its bytes in pieces."""
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


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
