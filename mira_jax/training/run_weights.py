"""Reads and writes a run's parameters one at a time with Orbax."""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint import v1 as ocp

from mira_jax.errors import UserError
from mira_jax.models import weights as model_weights
from mira_jax.models.weights import Name, Weights
from mira_jax.training import checkpoint as checkpoints
from mira_jax.training import checksums, load

BATCH_BYTES = 512 * 2**20
"""Parameters are read and written in batches of up to this many bytes, because each call has a fixed overhead."""


class RunWeights:
    """The policy in a run's newest checkpoint, as `mira_jax.models.weights.Weights`."""

    def __init__(self, folder: str | Path):
        """Checks names and shapes without reading values.

        Raises:
            UserError: there is no checkpoint, it is of a critic, or a parameter is missing or has the wrong shape.
        """
        self.config, heads = load.read_model_json(folder)
        if heads:
            raise UserError(f"{folder}: a critic ({', '.join(heads)}); expected a policy")
        self._path = checkpoints.sound_checkpoint(folder)
        self._part = checkpoints.parameters_part(self._path)
        try:
            with checkpoints.quiet_failure():
                metadata = ocp.metadata(self._path, checkpointable_name=self._part)
            there = flatten_dict(metadata.metadata)
        except Exception as error:
            raise UserError(f"{self._path}: the checkpoint is damaged: {checkpoints.reason(error)}") from error
        self.stored = {}
        for name, shape in model_weights.shapes(self.config).items():
            leaf = there.get(tuple(map(str, name)))
            if leaf is None:
                raise UserError(f"{self._path}: parameter {model_weights.dotted(name)} is missing")
            if tuple(leaf.shape) != shape:
                raise UserError(
                    f"{self._path}: parameter {model_weights.dotted(name)} has shape {tuple(leaf.shape)}; {load.MODEL} says {shape}"
                )
            self.stored[name] = jax.ShapeDtypeStruct(shape, leaf.dtype)
        self._batches = list(_batches(self.stored))
        self._loaded: dict[Name, np.ndarray] = {}

    def read(self, name: Name, dtype: Any = None) -> np.ndarray:
        """Reads one parameter. Small parameters are read together with their neighbours and cached until another batch is read."""
        dtype = np.dtype(dtype or self.stored[name].dtype)
        if name not in self._loaded or self._loaded[name].dtype != dtype:
            self._loaded.clear()
            batch = next(batch for batch in self._batches if name in batch)
            self._loaded = self._load({key: (self.stored[key].shape, dtype) for key in batch})
        return self._loaded[name]

    def _load(self, wanted: Mapping[Name, tuple[tuple[int, ...], np.dtype]]) -> dict[Name, np.ndarray]:
        # Orbax restores an abstract array without a sharding as a NumPy array, on any machine.
        abstract = {name: np.broadcast_to(np.zeros((), dtype), shape) for name, (shape, dtype) in wanted.items()}
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        try:
            with context, checkpoints.quiet_failure():
                loaded = ocp.load(self._path, unflatten_dict(abstract), checkpointable_name=self._part)
        except Exception as error:
            raise UserError(f"{self._path}: the checkpoint is damaged: {checkpoints.reason(error)}") from error
        values = flatten_dict(loaded)
        for name, value in values.items():
            model_weights.require_finite(value, f"{self._path}: parameter {model_weights.dotted(name)}")
        return values


def write(weights: Weights, path: str | Path) -> None:
    """Writes a checkpoint with only the parameters, in the form that `load_model` and `RunWeights` read.

    Uses Orbax's partial saves, one batch of parameters at a time. The checkpoint becomes visible when it is complete.

    Raises:
        OSError: there is not enough disk space, or the files cannot be written.
    """
    path = Path(path).absolute()
    total = sum(map(_nbytes, weights.stored.values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < total:
        raise OSError(errno.ENOSPC, f"{total / 1e9:.1f} GB do not fit the disk")
    context = ocp.Context()
    context.array.saving.use_compression = False
    context.array.saving.storage_options.chunk_byte_size = checkpoints.CHUNK_BYTES
    context.memory.deepcopy_host_arrays = False
    try:
        with context, checkpoints.quiet_failure():
            for batch in _batches(weights.stored):
                ocp.partial.save(path, unflatten_dict({name: weights.read(name) for name in batch}))
            ocp.partial.finalize(path)
        checksums.write(path)
    except ValueError as error:
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from None
        raise


def _batches(stored: Mapping[Name, jax.ShapeDtypeStruct]) -> Iterator[tuple[Name, ...]]:
    """Names in order, grouped into batches of at most `BATCH_BYTES`."""
    batch, size = [], 0
    for name, leaf in stored.items():
        if batch and size + _nbytes(leaf) > BATCH_BYTES:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(name)
        size += _nbytes(leaf)
    yield tuple(batch)


def _nbytes(leaf: jax.ShapeDtypeStruct) -> int:
    return leaf.size * np.dtype(leaf.dtype).itemsize
