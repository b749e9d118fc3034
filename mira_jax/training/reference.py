"""Checks before the first update that the policy equals its reference: log pi - log pi_ref is 0 up to rounding."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax

from mira_jax.errors import UserError

SQUARES = "log_ratio_squared"
"""A metric of recipes with a reference: the mean over steps of (log pi - log pi_ref)^2, in nats^2."""
BOUNDS = {"float32": 1e-3, "bfloat16": 0.5}
"""Bounds on the rounding error, as root mean square in nats per step, by the dtype of activations. See docs/algorithms.md."""


def check_first(update: Callable[[Any, Any], tuple[Any, Mapping[str, jax.Array]]], dtype: str, say: Callable[[str], None]) -> Callable:
    """Wraps `update` and checks the metrics of its first call, which are those of the policy before the first change.

    Raises (first call):
        UserError: the policy is not the one that the reference was computed with.
    """
    unchecked = True

    def checked(state: Any, batch: Any) -> tuple[Any, Mapping[str, jax.Array]]:
        nonlocal unchecked
        state, values = update(state, batch)
        if unchecked and SQUARES in values:
            require_zero(math.sqrt(float(values[SQUARES])), dtype, say)
        unchecked = False
        return state, values

    return checked


def require_zero(distance: float, dtype: str, say: Callable[[str], None] = print) -> None:
    """Raises UserError unless `distance`, in nats per step, is within the rounding error. NaN also raises."""
    if not distance <= BOUNDS[dtype]:
        raise UserError(
            f"data.side_tables: before the first update log pi differs from log_prob by {distance:.3g} nats a step, more than the "
            f"{BOUNDS[dtype]:g} that {dtype} explains: the table is of another policy than init_from, or was computed with other settings; "
            f"score init_from anew with --set dtype={dtype} to a new folder, and start a new run with that"
        )
    say(f"log pi - log pi_ref before the first update: {distance:.2g} nats a step (root mean square)")
