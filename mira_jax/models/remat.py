"""Rematerialisation: what the forward pass of a block keeps for the backward pass. The rest is computed again."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax

from mira_jax.errors import ConfigError

Kept = Literal["query", "key", "value", "heads", "output", "gate", "up", "down"]
"""The results that can be kept: those of the matrices of these names, and heads, those of attention. Kernels keep the sums of their
softmax with heads, and are then not run again. `mira_jax.models.attention` is run again in any case."""
Policy = Literal["none", "block", "products"]
Remat = Policy | list[Kept]
"""none: keeps everything, nothing is computed again. block: keeps only the input of each block. products: keeps all that `Kept` names, so
that only norms, activations and RoPE are computed again. A list: keeps these."""


def kept(remat: str | Sequence[str]) -> tuple[str, ...] | None:
    """The names of what is kept, or None for everything. Raises ConfigError for unknown names."""
    names = {"none": None, "block": (), "products": get_args(Kept)}
    if isinstance(remat, str):
        if remat not in names:
            raise ConfigError("model.remat", f"{remat!r} is none of {', '.join(names)}, nor a list of what is kept, such as [heads, gate]")
        return names[remat]
    if unknown := sorted(set(remat) - set(get_args(Kept))):
        raise ConfigError("model.remat", f"{', '.join(unknown)}: a list has some of {', '.join(get_args(Kept))}")
    return tuple(remat)


def text(remat: Remat) -> str:
    """The setting as on the command line."""
    return remat if isinstance(remat, str) else f"[{','.join(remat)}]"


def rematerialised(function: Callable, names: tuple[str, ...] | None) -> Callable:
    """The function, whose derivative keeps only the results with these names. None: it keeps everything."""
    return function if names is None else jax.checkpoint(function, policy=jax.checkpoint_policies.save_only_these_names(*names))
