"""Where a run's arrays live: on one device, or spread over a mesh."""

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
    """None: one device, without any of a mesh's overhead."""

    def of(self, tree: Any) -> Any:
        """A sharding for each leaf of a tree of parameters or of a train state, arrays or abstract."""
        if self.mesh is None:
            device = SingleDeviceSharding(jax.devices()[0])
            return jax.tree.map(lambda _: device, tree)
        return sharding.shardings(tree, self.mesh)

    def abstract(self, tree: Any) -> Any:
        """The tree's shapes and dtypes with their shardings: what a restore asks for."""
        return jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree, self.of(tree))

    def rows(self, count: int, parts: int = 1) -> np.ndarray:
        """Which rows of a batch of `count`, cut into `parts` after one another, are on this process's devices; sorted."""
        of_part = self._rows_of_part(count // parts)
        return np.concatenate([part * (count // parts) + of_part for part in range(parts)])

    def put_batch(self, batch: Mapping[str, np.ndarray], rows: int) -> Mapping[str, Any]:
        """Puts the parts of a batch, each with the rows that `rows(...)` gives, where they are computed.

        `rows`: of one part, over all processes. Arrays have an axis of parts before that of rows. One device takes the
        host's arrays as they are.
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

    def _rows_of_part(self, count: int) -> np.ndarray:
        if self.mesh is None:
            return np.arange(count)
        places = sharding.batch_sharding(self.mesh).addressable_devices_indices_map((count,))
        return np.unique(np.concatenate([np.arange(count)[index] for index in places.values()]))

    def active(self) -> contextlib.AbstractContextManager:
        """Within it the model lays out its activations on the mesh."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)


def make_layout(config: MeshConfig, rows: int, row_length: int) -> Layout:
    """The layout on all devices, of all processes. `rows`: of what is computed at once.

    Raises:
        UserError: the mesh does not fit the devices, or the rows or their tokens can't be shared evenly.
    """
    mesh = sharding.make_mesh(config)
    if mesh.size == 1:
        return Layout()
    if row_length % mesh.shape["sequence"]:
        raise UserError(f"data.row_length: {row_length} tokens can't be split evenly into mesh.sequence={mesh.shape['sequence']} parts")
    sharers = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % sharers:
        raise UserError(f"data.rows: {rows} rows at once can't be shared evenly by {sharers} devices (mesh.data times mesh.fsdp)")
    return Layout(mesh)
