"""The shortest time that a step can take, and what that makes of the chips."""

import dataclasses
from collections.abc import Mapping

from mira_jax.sizing.chips import Topology


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds a step, each alone, as if the others cost nothing. Nothing can be faster than the longest of them."""

    compute: float
    memory: float
    links: float
    seconds: float
    """The longest."""
    bound: str
    """Which it is: compute, memory or links."""
    tokens_per_second: float
    """Of all chips."""
    mfu: float
    """FLOPs that the step needs over those that the chips could do in that time."""


def roofline(
    topology: Topology,
    mesh: Mapping[str, int],
    *,
    done: float,
    needed: float,
    tokens: int,
    hbm_bytes: float,
    sent: Mapping[str, float],
    efficiency: float,
) -> Roofline:
    """Of one step.

    Args:
        mesh: the size of each axis.
        done: FLOPs of all chips, rematerialisation included; `needed`: without it (`mira_jax.sizing.flops`).
        tokens: of all rows.
        hbm_bytes: that one chip moves to and from its memory.
        sent: bytes that one chip sends, by mesh axis, or by several joined by +.
        efficiency: share of the peak that products reach.
    """
    chip = topology.chip
    compute = done / topology.chips / (chip.flops * efficiency)
    memory = hbm_bytes / chip.hbm_rate
    links = 0.0
    for axes, count in sent.items():
        size = 1
        for axis in axes.split("+"):
            size *= mesh.get(axis, 1)
        links += count / topology.rate(size)
    times = {"compute": compute, "memory": memory, "links": links}
    bound = max(times, key=times.__getitem__)
    seconds = times[bound]
    return Roofline(compute, memory, links, seconds, bound, tokens / seconds, needed / (seconds * chip.flops * topology.chips))
