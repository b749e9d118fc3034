"""Numbers that are averaged over batches and devices, and where they are written."""

from typing import NamedTuple

from jax import Array


class Mean(NamedTuple):
    """A weighted mean, kept as its two sums so that means over parts can be added exactly."""

    total: Array
    """Scalar: the weighted sum."""
    weight: Array
    """Scalar: the sum of the weights."""

    def __add__(self, other: "Mean") -> "Mean":  # type: ignore[override]
        return Mean(self.total + other.total, self.weight + other.weight)
