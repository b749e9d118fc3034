"""Sharding rules: one table from the logical axes of parameters and activations to the axes of a device mesh."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from msgspec import Meta

from mira_jax.errors import ConfigError, UserError

AXES = ("data", "fsdp", "tensor", "sequence")

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "copies": ("data",),
    "tokens": ("sequence",),
    "vocabulary": ("tensor",),
    "width": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
}
"""Logical axis to mesh axes. An axis that is not listed is replicated. `copies` are rows of an array in which another axis is
sharded over fsdp."""

PARAMETERS: dict[str, tuple[str | None, ...]] = {
    "embedding": ("vocabulary", "width"),
    "query": ("width", "heads", None),
    "key": ("width", "heads", None),
    "value": ("width", "heads", None),
    "output": ("heads", None, "width"),
    "gate": ("width", "mlp"),
    "up": ("width", "mlp"),
    "down": ("mlp", "width"),
    "query_a": ("width", None),
    "query_b": (None, "heads", None),
    "key_a": ("width", None),
    "key_b": (None, "heads", None),
    "value_a": ("width", None),
    "value_b": (None, "heads", None),
    "output_a": ("heads", None, None),
    "output_b": (None, "width"),
    "gate_a": ("width", None),
    "gate_b": (None, "mlp"),
    "up_a": ("width", None),
    "up_b": (None, "mlp"),
    "down_a": ("mlp", None),
    "down_b": (None, "width"),
}
"""Logical axes of each parameter, by name. NAME_a and NAME_b are the adapters of NAME (`mira_jax.models.lora`). A parameter that
is not listed (norms, critic heads) is replicated. A scanned parameter has an additional leading axis, which is never sharded."""


Parts = Annotated[int, Meta(ge=-1)]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    data: Parts = 1
    """Number of replicas of the parameters, each with its own rows."""
    fsdp: Parts = -1
    """Number of shards of parameters and optimizer state, each with its own rows. -1: all remaining devices."""
    tensor: Parts = 1
    """Number of shards of heads, mlp and vocabulary."""
    sequence: Parts = 1
    """Number of shards of the tokens of a row."""

    def __post_init__(self) -> None:
        rest = [axis for axis in AXES if getattr(self, axis) == -1]
        if len(rest) > 1:
            both = " and ".join(rest)
            raise ConfigError("", f"{both} are -1; only one axis can take the remaining devices, so set the others")
        for axis in AXES:
            if not getattr(self, axis):
                raise ConfigError(axis, "0; it is at least 1, or -1 for all devices that are left")


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh of all devices. Raises UserError if the product of the sizes is not the number of devices."""
    devices = list(devices or jax.devices())
    sizes = mesh_sizes(config, len(devices))
    # jax.make_mesh refuses an axis that covers only part of a dimension of a TPU's torus, such as 2 of 4x4x4.
    placed = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return jax.sharding.Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
    """The size of each of `AXES` for a number of devices. Raises UserError if the product of the sizes is not that number."""
    sizes = [getattr(config, axis) for axis in AXES]
    known = math.prod(max(size, 1) for size in sizes)
    sizes = [max(1, devices // known) if size == -1 else size for size in sizes]
    if math.prod(sizes) != devices:
        made = f"{dict(zip(AXES, sizes, strict=True))} makes {math.prod(sizes)} devices"
        raise UserError(f"mesh: {made}; there are {devices}: give other sizes, or leave one -1")
    return tuple(sizes)


def shardings(tree: Any, mesh: jax.sharding.Mesh, rules: Mapping[str, tuple[str, ...]] = RULES) -> Any:
    """A tree of NamedSharding for a tree of parameters, their gradients or an optimizer's state, arrays or abstract.

    Leaves are identified by the last name in their path. An axis that is not divisible by its mesh axes is replicated: a
    single kv head is on every device of `tensor`.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, _spec(path, leaf.shape, mesh.shape, rules)), tree)


def batch_sharding(mesh: jax.sharding.Mesh, rules: Mapping[str, tuple[str, ...]] = RULES) -> NamedSharding:
    """The sharding of arrays whose first axis is batch rows."""
    return NamedSharding(mesh, PartitionSpec(rules["batch"]))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains the sharding of an activation, given its logical axes, on the mesh of `jax.set_mesh`. Without a mesh, does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(AXES) <= set(mesh.shape):
        return x
    return jax.lax.with_sharding_constraint(x, partition(axes, x.shape, mesh.shape))


def whole_width(matrix: jax.Array, name: str) -> jax.Array:
    """A parameter in the form that matrix products use on a mesh: gathered over `fsdp`, still sharded over `tensor`.

    The sharding is set explicitly: for scanned parameters on a mesh of data x fsdp x tensor, the automatic choice of XLA's
    partitioner gave wrong gradients (jax 0.10.2).
    """
    return constrain(matrix, *(None if axis == "width" else axis for axis in PARAMETERS[name]))


def _spec(path: tuple, shape: tuple[int, ...], mesh: Mapping[str, int], rules: Mapping[str, tuple[str, ...]]) -> PartitionSpec:
    names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
    name = next((name for name in reversed(names) if name in PARAMETERS), None)
    axes = PARAMETERS.get(name, ())
    if len(shape) < len(axes):
        return PartitionSpec()
    return partition((None,) * (len(shape) - len(axes)) + axes, shape, mesh, rules)


def partition(
    axes: Sequence[str | None], shape: Sequence[int], mesh: Mapping[str, int], rules: Mapping[str, tuple[str, ...]] = RULES
) -> PartitionSpec:
    """The mesh axes of an array, given its logical axes. An axis that is not divisible by its mesh axes is replicated.

    Raises ValueError if two axes of one array would be sharded over the same mesh axis."""
    parts, used = [], set()
    for axis, length in zip(axes, shape, strict=True):
        mesh_axes = rules.get(axis, ()) if axis else ()
        if used & set(mesh_axes):
            raise ValueError(f"the sharding rules send two of the axes {tuple(axes)} to one mesh axis")
        used |= set(mesh_axes)
        size = 1
        for mesh_axis in mesh_axes:
            size *= mesh[mesh_axis]
        parts.append(mesh_axes if size > 1 and length % size == 0 else None)
    return PartitionSpec(*parts)
