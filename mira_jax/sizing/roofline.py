"""The minimum time of a step, and the resulting utilisation of the chips."""

import dataclasses
from collections.abc import Mapping

from mira_jax.sizing.chips import Topology


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds per step of each resource, as if the others were free. The longest of them is a lower bound of the step time."""

    compute: float
    memory: float
    links: float
    seconds: float
    """The longest of these times."""
    bound: str
    """The limiting resource: compute, memory or links."""
    tokens_per_second: float
    """Tokens per second over all chips."""
    mfu: float
    """FLOPs that the step needs, divided by the FLOPs that the chips could perform in that time."""


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
    """The roofline of one step.

    Args:
        mesh: the size of each axis.
        done: FLOPs over all chips, including rematerialisation; `needed`: without it (`mira_jax.sizing.flops`).
        tokens: tokens of all rows.
        hbm_bytes: bytes that one chip moves to and from its memory.
        sent: bytes that one chip sends, by mesh axis, or by several axes joined with +.
        efficiency: share of the peak rate that matrix products reach.
    """
    chip = topology.chip
    compute = done / topology.chips / (chip.flops * efficiency)
    memory = hbm_bytes / chip.hbm_rate
    links = sum(count / topology.rate(mesh, axes.split("+")) for axes, count in sent.items())
    times = {"compute": compute, "memory": memory, "links": links}
    bound = max(times, key=times.__getitem__)
    seconds = times[bound]
    return Roofline(compute, memory, links, seconds, bound, tokens / seconds, needed / (seconds * chip.flops * topology.chips))
