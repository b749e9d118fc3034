"""A run's parameters, read and written one at a time through Orbax."""

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

BATCH_BYTES = 512 * 2**20
"""Parameters up to so many bytes are read or written in one go: each go has a price of its own."""
CHUNK_BYTES = 64 * 2**20
"""What is read or written of an array at once."""


class RunWeights:
    """The policy in a run's newest checkpoint, as `mira_jax.models.weights.Weights`."""

    def __init__(self, folder: str | Path):
        """Checks names and shapes; reads no numbers.

        Raises:
            UserError: no checkpoint, a critic, or a parameter that is missing or of another shape.
        """
        self.config, heads = checkpoints.read_model_json(folder)
        if heads:
            raise UserError(f"{folder}: a critic ({', '.join(heads)}); expected a policy")
        self._path = checkpoints.latest_checkpoint(folder)
        self._part = checkpoints.parameters_part(self._path)
        there = flatten_dict(ocp.metadata(self._path, checkpointable_name=self._part).metadata)
        self.stored = {}
        for name, shape in model_weights.shapes(self.config).items():
            leaf = there.get(tuple(map(str, name)))
            if leaf is None:
                raise UserError(f"{self._path}: parameter {model_weights.dotted(name)} is missing")
            if tuple(leaf.shape) != shape:
                raise UserError(
                    f"{self._path}: parameter {model_weights.dotted(name)} has shape {tuple(leaf.shape)}; {checkpoints.MODEL} says {shape}"
                )
            self.stored[name] = jax.ShapeDtypeStruct(shape, leaf.dtype)
        self._batches = list(_batches(self.stored))
        self._at_hand: dict[Name, np.ndarray] = {}

    def read(self, name: Name, dtype: Any = None) -> np.ndarray:
        """One parameter. Small ones are read with their neighbours, which are kept at hand until another batch is read."""
        dtype = np.dtype(dtype or self.stored[name].dtype)
        if name not in self._at_hand or self._at_hand[name].dtype != dtype:
            self._at_hand.clear()
            batch = next(batch for batch in self._batches if name in batch)
            self._at_hand = self._load({key: (self.stored[key].shape, dtype) for key in batch})
        return self._at_hand[name]

    def _load(self, wanted: Mapping[Name, tuple[tuple[int, ...], np.dtype]]) -> dict[Name, np.ndarray]:
        # An abstract array without a sharding is read as a NumPy array, on any machine.
        abstract = {name: np.broadcast_to(np.zeros((), dtype), shape) for name, (shape, dtype) in wanted.items()}
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            loaded = ocp.load(self._path, unflatten_dict(abstract), checkpointable_name=self._part)
        return flatten_dict(loaded)


def write(weights: Weights, path: str | Path) -> None:
    """Writes a checkpoint of the parameters alone, which `load_model` and `RunWeights` read.

    Orbax's partial saves take a batch of parameters after another; the checkpoint appears when all are there.
    """
    context = ocp.Context()
    context.array.saving.use_compression = False
    context.array.saving.storage_options.chunk_byte_size = CHUNK_BYTES
    context.memory.deepcopy_host_arrays = False
    with context:
        for batch in _batches(weights.stored):
            ocp.partial.save(Path(path).absolute(), unflatten_dict({name: weights.read(name) for name in batch}))
        ocp.partial.finalize(Path(path).absolute())


def _batches(stored: Mapping[Name, jax.ShapeDtypeStruct]) -> Iterator[tuple[Name, ...]]:
    """Names in order, together while they stay below `BATCH_BYTES`."""
    batch, size = [], 0
    for name, leaf in stored.items():
        nbytes = leaf.size * np.dtype(leaf.dtype).itemsize
        if batch and size + nbytes > BATCH_BYTES:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(name)
        size += nbytes
    yield tuple(batch)
