"""Merges adapters into the parameters of a model, one parameter at a time, and measures how much of their change remains.

The sum W + D is computed in fp32 and then cast to the dtype of the output. In bfloat16 this loses most of a small D: W has 8
bits of precision, and an element of D below half of W's last bit has no effect.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mira_jax.models.lora import adapters_of, axes
from mira_jax.models.weights import Name, Weights

Layer = tuple[Mapping[str | int, Any], float]
"""One set of adapters, as nested dicts by name, and its `LoraConfig.scale`."""


@dataclasses.dataclass(frozen=True)
class Survival:
    """Compares the change D by adapters with the change C = cast(W + D) - cast(W) that remains after the cast."""

    squares: float
    """|D|^2."""
    products: float
    """<C, D>."""
    errors: float
    """|C - D|^2."""

    @property
    def share(self) -> float:
        """The component of C along D: <C, D> / |D|^2. It is 1 if the cast is exact."""
        return self.products / self.squares if self.squares else 1.0

    @property
    def error(self) -> float:
        """|C - D| / |D|: the relative error, both the part that is lost and the part that rounding adds."""
        return math.sqrt(self.errors / self.squares) if self.squares else 0.0

    def __add__(self, other: "Survival") -> "Survival":
        return Survival(self.squares + other.squares, self.products + other.products, self.errors + other.errors)


NOTHING = Survival(0.0, 0.0, 0.0)


class MergedWeights:
    """The parameters of a merged model, as `mira_jax.models.weights.Weights`."""

    def __init__(self, base: Weights, layers: Sequence[Layer]):
        """`layers`: sets of adapters, oldest first."""
        self.config, self.stored = base.config, base.stored
        self._base, self._layers = base, layers
        self._survival: dict[Name, Survival] = {}

    def read(self, name: Name, dtype: Any = None) -> np.ndarray:
        """Reads one parameter, cast to `dtype` if given. It is merged in fp32, one group at a time."""
        pairs = [(*pair, scale) for layer, scale in self._layers if (pair := adapters_of(name, layer)) is not None]
        if not pairs:
            return self._base.read(name, dtype)
        base = self._base.read(name)
        groups, inputs, outputs = axes(str(name[-1]), base.shape)
        factors = [_factors(a, b, scale, math.prod(groups), math.prod(inputs)) for a, b, scale in pairs]
        merged = np.empty(base.shape, dtype or base.dtype)
        self._survival[name] = NOTHING
        rows = (math.prod(groups), math.prod(inputs), math.prod(outputs))
        for i, (before, after) in enumerate(zip(base.reshape(rows), merged.reshape(rows), strict=True)):
            change = sum(a[i] @ b[i] for a, b in factors)
            after[...] = before.astype(np.float32) + change
            self._survival[name] += _survival(before, change, after)
        return merged

    @property
    def survival(self) -> dict[str, Survival]:
        """The survival for the parameters read so far, by the name of the matrix (query, key ...)."""
        kinds: dict[str, Survival] = {}
        for name, survival in self._survival.items():
            kinds[str(name[-1])] = kinds.get(str(name[-1]), NOTHING) + survival
        return kinds


def _factors(a: Any, b: Any, scale: float, groups: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """(scale A, B) as (groups, inputs, R) and (groups, R, outputs), fp32."""
    a = np.asarray(a, np.float32).reshape(groups, inputs, -1)
    return scale * a, np.asarray(b, np.float32).reshape(groups, a.shape[-1], -1)


def _survival(before: np.ndarray, change: np.ndarray, after: np.ndarray) -> Survival:
    """The sums are computed in fp64. `before` is cast in the same way as `after`."""
    total = NOTHING
    for W, D, merged in zip(_slices(before), _slices(change), _slices(after), strict=True):
        D = D.astype(np.float64)
        C = merged.astype(np.float64) - W.astype(merged.dtype).astype(np.float64)
        total += Survival(float(np.vdot(D, D)), float(np.vdot(C, D)), float(np.vdot(C - D, C - D)))
    return total


def _slices(matrix: np.ndarray) -> Iterator[np.ndarray]:
    """Yields a few rows at a time. A float64 copy of the whole matrix would need eight bytes per element."""
    step = max(1, 2**22 // matrix.shape[1])
    return (matrix[start : start + step] for start in range(0, matrix.shape[0], step))
