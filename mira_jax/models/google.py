"""Reads a Gemma3 from Google's release: an Orbax checkpoint with flat names.

    transformer/embedder        input_embedding (V, D)
    transformer/final_norm      scale (D,)
    transformer/layer_0/
        pre_attention_norm, post_attention_norm, pre_ffw_norm, post_ffw_norm    scale (D,)
        attn/q_einsum           w (N, D, H)
        attn/kv_einsum          w (2, K, D, H): keys, values
        attn/attn_vec_einsum    w (N, H, D)
        attn/_query_norm, attn/_key_norm    scale (H,)
        mlp/gating_einsum       w (2, F, D): gate, up
        mlp/linear              w (F, D)

Norm scales are zero-centred, as in `mira_jax.models.gemma3`. The vision tower (SigLiPFromPatches_0 and the embedder's mm_
arrays) is not read.
"""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint import v1 as ocp

from mira_jax import config as configs
from mira_jax.errors import UserError, first_line
from mira_jax.model_files import check_tree
from mira_jax.models import weights
from mira_jax.models.config import PRESETS, Gemma3Config
from mira_jax.models.weights import Name

_EMBEDDING = "transformer/embedder/input_embedding"
_VISION = ("SigLiPFromPatches_0/", "vision_encoder/", "transformer/embedder/mm_")
_SAID_BY_SHAPES = ("vocabulary_size", "width", "layers", "query_heads", "kv_heads", "head_dim", "mlp_width")

log = logging.getLogger(__name__)


class _Array(NamedTuple):
    """An array of the release, or half of one, and the parameter that it belongs to."""

    name: str
    shape: tuple[int, ...]
    half: int | None
    axes: tuple[int, ...] | None
    """The permutation of its axes, or of the axes of the half. None: unchanged."""
    parameter: Name
    group: int | None


def is_release(folder: str | Path) -> bool:
    """Whether the folder is an Orbax checkpoint with an embedding under this name."""
    folder = Path(folder)
    return (folder / "_METADATA").is_file() and _EMBEDDING in _arrays(folder)


class GoogleRelease:
    """The text model of a release, as `mira_jax.models.weights.Weights`."""

    def __init__(self, folder: str | Path, sizes: Mapping[str, Any] | None = None, scan_layers: bool | None = None):
        """Checks names and shapes without reading values.

        Args:
            sizes: fields of Gemma3Config that the shapes do not determine: window, query_scale, rope_factor_global and
                others. Default: those of Google's model with these shapes.
            scan_layers: as in Gemma3Config.

        Raises:
            UserError: an array is missing, unexpected or has the wrong shape (the message names it), or the size is not one
                of Google's and `sizes` is empty.
        """
        self.folder = Path(folder)
        there = _arrays(self.folder)
        shapes = {name: shape for name, (_, shape, _) in there.items()}
        self.config = weights.with_scan(sizes_of(self.folder, shapes, sizes), scan_layers)
        self._parts: dict[Name, list[_Array]] = {}
        expected = list(_expected(self.config))
        for array in expected:
            if array.name not in there:
                raise UserError(f"{self.folder}: array {array.name} is missing")
            if there[array.name][1] != array.shape:
                raise UserError(f"{self.folder}: array {array.name} has shape {there[array.name][1]}; the others say {array.shape}")
            self._parts.setdefault(array.parameter, []).append(array)
        surplus = sorted(set(there) - {array.name for array in expected})
        for name in surplus:
            if not name.startswith(_VISION):
                raise UserError(f"{self.folder}: array {name} is surplus: a Gemma3 of {self.config.layers} layers has none of that name")
        if surplus:
            log.info("%s: %d vision arrays are not read: this is the text model", self.folder, len(surplus))
        self._paths = {name: path for name, (path, _, _) in there.items()}
        self.stored = {}
        for name, shape in weights.shapes(self.config).items():
            dtypes = [there[array.name][2] for array in self._parts[name]]
            self.stored[name] = jax.ShapeDtypeStruct(shape, jnp.result_type(*dtypes))

    def read(self, name: Name, dtype: Any = None) -> np.ndarray:
        stored = self.stored[name]
        dtype = np.dtype(dtype or stored.dtype)
        values = np.empty(stored.shape, dtype)
        for array in self._parts[name]:
            source = self._load(array, dtype)
            if array.half is not None:
                source = source[array.half]
            into = values if array.group is None else values[array.group]
            if array.axes == (1, 0):
                weights.transpose(source, into)
            else:
                into[...] = source if array.axes is None else source.transpose(array.axes)
            weights.require_finite(into, f"{self.folder}: array {array.name}")
        return values

    def _load(self, array: _Array, dtype: np.dtype) -> np.ndarray:
        path = self._paths[array.name]
        # Orbax restores an abstract array without a sharding as a NumPy array, on any machine.
        abstract = unflatten_dict({path: np.broadcast_to(np.zeros((), dtype), array.shape)})
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            return flatten_dict(ocp.load(self.folder.absolute(), abstract))[path]


def _arrays(folder: Path) -> dict[str, tuple[tuple[str, ...], tuple[int, ...], np.dtype]]:
    """(path in the tree, shape, dtype) of every array, by its full name. The tree may be flat or nested."""
    check_tree(folder)
    try:
        tree = flatten_dict(ocp.metadata(folder.absolute()).metadata)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: not a whole Orbax checkpoint: {first_line(error)}") from None
    return {"/".join(map(str, path)): (path, tuple(leaf.shape), np.dtype(leaf.dtype)) for path, leaf in tree.items()}


def sizes_of(folder: str | Path, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, Any] | None = None) -> Gemma3Config:
    """The sizes determined by the release's arrays, by name, and by `sizes`. `folder` is used in messages. Raises the same
    UserErrors as `GoogleRelease`."""
    first = "transformer/layer_0/"
    try:
        vocabulary_size, width = shapes[_EMBEDDING]
        query_heads, _, head_dim = shapes[first + "attn/q_einsum/w"]
        _, kv_heads, _, _ = shapes[first + "attn/kv_einsum/w"]
        mlp_width, _ = shapes[first + "mlp/linear/w"]
    except (KeyError, ValueError) as error:
        raise UserError(f"{folder}: not Google's release of a Gemma3: {error}") from None
    layers = len({name.split("/")[1] for name in shapes if name.startswith("transformer/layer_")})
    known = dict(zip(_SAID_BY_SHAPES, (vocabulary_size, width, layers, query_heads, kv_heads, head_dim, mlp_width), strict=True))
    if sizes:
        return configs.build(Gemma3Config, {**sizes, **known}, prefix="sizes.")
    for preset in PRESETS.values():
        sized = dataclasses.replace(preset, vocabulary_size=vocabulary_size)
        if all(getattr(sized, name) == value for name, value in known.items()):
            return sized
    raise UserError(
        f"{folder}: {known} is not one of Google's sizes ({', '.join(PRESETS)}); set the other sizes, for example sizes.window=512"
    )


def _expected(config: Gemma3Config) -> list[_Array]:
    v, d, n, k, h, f = config.vocabulary_size, config.width, config.query_heads, config.kv_heads, config.head_dim, config.mlp_width
    arrays = [
        _Array(_EMBEDDING, (v, d), None, None, ("embedding",), None),
        _Array("transformer/final_norm/scale", (d,), None, None, ("norm", "scale"), None),
    ]
    in_block = [
        ("pre_attention_norm/scale", (d,), None, None, ("pre_attention_norm", "scale")),
        ("post_attention_norm/scale", (d,), None, None, ("post_attention_norm", "scale")),
        ("pre_ffw_norm/scale", (d,), None, None, ("pre_mlp_norm", "scale")),
        ("post_ffw_norm/scale", (d,), None, None, ("post_mlp_norm", "scale")),
        ("attn/q_einsum/w", (n, d, h), None, (1, 0, 2), ("attention", "query")),
        ("attn/kv_einsum/w", (2, k, d, h), 0, (1, 0, 2), ("attention", "key")),
        ("attn/kv_einsum/w", (2, k, d, h), 1, (1, 0, 2), ("attention", "value")),
        ("attn/attn_vec_einsum/w", (n, h, d), None, None, ("attention", "output")),
        ("attn/_query_norm/scale", (h,), None, None, ("attention", "query_norm", "scale")),
        ("attn/_key_norm/scale", (h,), None, None, ("attention", "key_norm", "scale")),
        ("mlp/gating_einsum/w", (2, f, d), 0, (1, 0), ("mlp", "gate")),
        ("mlp/gating_einsum/w", (2, f, d), 1, (1, 0), ("mlp", "up")),
        ("mlp/linear/w", (f, d), None, None, ("mlp", "down")),
    ]
    for layer in range(config.layers):
        block, group = config.place(layer)
        for name, shape, half, axes, parameter in in_block:
            arrays.append(_Array(f"transformer/layer_{layer}/{name}", shape, half, axes, (*block, *parameter), group))
    return arrays
