"""Access to the parameters of a Gemma3 one at a time, from a Hub folder, Google's release, a run, or a model.

Code that reads, converts or merges weights implements `Weights`, and code that writes them takes a `Weights`. A 12B model can
be converted on a small machine because only one parameter is in memory at a time.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.errors import UserError
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.remat import Remat

Name = tuple[str | int, ...]
"""A parameter's path in the model's state: ("groups", 0, "attention", "query"). Scanned layers are stacked in one parameter."""
_TILE = 1024
_PIECE = 256 * 1024


class Weights(Protocol):
    """Parameters that can be read one at a time."""

    config: Gemma3Config
    stored: Mapping[Name, jax.ShapeDtypeStruct]
    """Shape and dtype of every parameter, as returned by `read` without a dtype."""

    def read(self, name: Name, dtype: Any = None) -> np.ndarray:
        """Reads one parameter, cast to `dtype` if given. Raises UserError if a value is not finite."""
        ...


def dotted(name: Name) -> str:
    """The name in dotted form: groups.0.attention.query."""
    return ".".join(map(str, name))


def shapes(config: Gemma3Config) -> dict[Name, tuple[int, ...]]:
    """The parameters of a model of these sizes, and their shapes."""
    state = nnx.state(nnx.eval_shape(lambda: Gemma3(config, rngs=nnx.Rngs(0))), nnx.Param)
    return {name: variable.get_value().shape for name, variable in nnx.to_flat_state(state)}


class ModelWeights:
    """The parameters of a model in memory."""

    def __init__(self, model: Gemma3):
        self.config = model.config
        self._values = {name: variable.get_value() for name, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))}
        self.stored = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in self._values.items()}

    def read(self, name: Name, dtype: Any = None) -> np.ndarray:
        return np.asarray(self._values[name]).astype(dtype or self.stored[name].dtype, copy=False)


def build(weights: Weights, *, dtype=jnp.float32, param_dtype=jnp.float32, remat: Remat = "none", shardings: Any = None) -> Gemma3:
    """Builds a model with these parameters, which are read one at a time.

    Args:
        dtype: dtype of activations.
        param_dtype: the dtype that parameters are cast to.
        shardings: shardings of the model's state, from `sharding.shardings`. Default: one device.
    """
    model = nnx.eval_shape(lambda: Gemma3(weights.config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype, remat=remat))
    graph, state = nnx.split(model)
    places = None if shardings is None else dict(nnx.to_flat_state(shardings))
    flat = []
    for name, variable in nnx.to_flat_state(state):
        place = None if places is None else places[name]
        if isinstance(place, nnx.Variable):
            place = place.get_value()
        values = weights.read(name, param_dtype)
        # Each process transfers only the shards of its own devices. device_put would compare the whole array between processes.
        array = jax.device_put(values) if place is None else jax.make_array_from_callback(values.shape, place, values.__getitem__)
        flat.append((name, variable.replace(array)))
    return nnx.merge(graph, nnx.from_flat_state(flat))


def require_finite(values: np.ndarray, where: str) -> None:
    """Raises UserError if a floating-point number is NaN or infinite. The message begins with `where`.

    Checks the values in pieces, without a copy of the whole array. A non-finite number is one whose exponent bits are all
    set.
    """
    bits = np.dtype(f"u{values.dtype.itemsize}")
    infinity = np.array(np.inf, values.dtype).view(bits)
    flat = values.reshape(-1).view(bits)
    pieces = (flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE))
    _require_none(sum(np.count_nonzero((piece & infinity) == infinity) for piece in pieces), values.size, where)


def require_finite_arrays(tree: Any, where: str | Path) -> None:
    """As `require_finite`, for arrays on devices, with one reduction per array. `where` is the source of the values."""
    counts = dict(jax.tree_util.tree_leaves_with_path(jax.device_get(_count_nonfinite(tree))))
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        _require_none(counts[path], leaf.size, f"{where}: parameter {jax.tree_util.keystr(path, simple=True, separator='.')}")


@jax.jit
def _count_nonfinite(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.sum(~jnp.isfinite(leaf), dtype=jnp.uint32), tree)


def _require_none(nonfinite: int, total: int, where: str) -> None:
    if nonfinite:
        raise UserError(
            f"{where}: {nonfinite:,} of {total:,} values are NaN or infinite: training diverged or the file is damaged; "
            "use another checkpoint or copy"
        )


def transpose(matrix: np.ndarray, out: np.ndarray) -> None:
    """Writes `matrix` transposed to `out` in tiles. For large matrices this is several times faster than NumPy's transpose."""
    for i in range(0, matrix.shape[0], _TILE):
        for j in range(0, matrix.shape[1], _TILE):
            out[j : j + _TILE, i : i + _TILE] = matrix[i : i + _TILE, j : j + _TILE].T


def with_scan(config: Gemma3Config, scan_layers: bool | None) -> Gemma3Config:
    """The sizes with or without stacked layers. None: the default for the depth."""
    return dataclasses.replace(config, scan_layers=scan_layers)
