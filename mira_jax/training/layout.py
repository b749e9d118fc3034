"""Placement of a run's arrays: on one device, or sharded over a mesh."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from mira_jax.errors import UserError
from mira_jax.models import sharding
from mira_jax.models.sharding import MeshConfig


@dataclasses.dataclass(frozen=True)
class Layout:
    mesh: Mesh | None = None
    """None: one device, without the overhead of a mesh."""

    def of(self, tree: Any) -> Any:
        """The sharding of each leaf in a tree of parameters or of a train state, arrays or abstract."""
        if self.mesh is None:
            device = SingleDeviceSharding(jax.devices()[0])
            return jax.tree.map(lambda _: device, tree)
        return sharding.shardings(tree, self.mesh)

    def abstract(self, tree: Any) -> Any:
        """The shapes and dtypes of a tree with their shardings, as needed for a restore."""
        return jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree, self.of(tree))

    def rows(self, count: int, parts: int = 1) -> np.ndarray:
        """The rows of a batch that are on this process's devices, sorted. The batch has `count` rows, split into `parts` that
        are computed one after another."""
        of_part = self._rows_of_part(count // parts)
        return np.concatenate([part * (count // parts) + of_part for part in range(parts)])

    def put_batch(self, batch: Mapping[str, np.ndarray], rows: int) -> Mapping[str, Any]:
        """Transfers the parts of a batch, each with the rows given by `rows(...)`, to the devices.

        `rows`: number of rows of one part, over all processes. Arrays have an axis of parts before the axis of rows. With one
        device, the host arrays are returned unchanged.
        """
        if self.mesh is None:
            return batch
        spread = NamedSharding(self.mesh, PartitionSpec(None, *sharding.batch_sharding(self.mesh).spec))
        mine = self._rows_of_part(rows)

        def put(array: np.ndarray) -> jax.Array:
            def local(index: tuple[slice, ...]) -> np.ndarray:
                start, stop, _ = index[1].indices(rows)
                first = int(np.searchsorted(mine, start))
                return array[:, first : first + stop - start]

            return jax.make_array_from_callback((array.shape[0], rows, *array.shape[2:]), spread, local)

        return {name: put(array) for name, array in batch.items()}

    def put_rows(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Transfers a batch whose arrays begin with the axis of rows to the devices, in one process. With one device, the host arrays
        are returned unchanged."""
        return batch if self.mesh is None else jax.device_put(batch, sharding.batch_sharding(self.mesh))

    def _rows_of_part(self, count: int) -> np.ndarray:
        if self.mesh is None:
            return np.arange(count)
        places = sharding.batch_sharding(self.mesh).addressable_devices_indices_map((count,))
        return np.unique(np.concatenate([np.arange(count)[index] for index in places.values()]))

    def active(self) -> contextlib.AbstractContextManager:
        """A context in which the model shards its activations over the mesh."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)


def make_layout(config: MeshConfig, rows: int, row_length: int, prefix: str = "data.") -> Layout:
    """The layout on the devices of all processes.

    Args:
        rows: the number of rows that are computed at once.
        prefix: of the keys `rows` and `row_length`, for messages.

    Raises:
        UserError: the mesh does not match the devices, or the rows or their tokens cannot be divided evenly.
    """
    mesh = sharding.make_mesh(config)
    if mesh.size == 1:
        return Layout()
    if row_length % mesh.shape["sequence"]:
        raise UserError(f"{prefix}row_length: {row_length} tokens can't be split evenly into mesh.sequence={mesh.shape['sequence']} parts")
    sharers = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % sharers:
        raise UserError(f"{prefix}rows: {rows} rows at once can't be shared evenly by {sharers} devices (mesh.data times mesh.fsdp)")
    return Layout(mesh)
