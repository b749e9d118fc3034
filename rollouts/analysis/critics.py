"""What critics are worth, as `mira score` writes it to `critic.json`."""

from pathlib import Path

import msgspec

from mira_jax.errors import UserError
from mira_jax.files import read_json

Curve = list[tuple[float, float, int]]
"""(x, y, steps) of each bin that has steps: means over the bin."""


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    nll: float | None
    brier: float | None
    auroc: float | None


class ValueQuality(Measures, frozen=True, kw_only=True):
    constant: Measures
    template: Measures
    reliability: Curve
    """x: V, y: the share of successes."""


class PotentialQuality(msgspec.Struct, frozen=True, kw_only=True):
    failures: int
    by_share: Curve = []
    """At the last states of failures. x: the share of subgoals done, y: P."""
    mae: float | None = None
    mae_of_constant: float | None = None


class CriticQuality(msgspec.Struct, frozen=True, kw_only=True):
    value: ValueQuality | None = None
    potential: PotentialQuality | None = None
    """P of the head `potential`."""
    milestones: PotentialQuality | None = None
    """P as the mean of the milestone heads."""


def read_quality(path: str | Path) -> CriticQuality:
    """Raises UserError if the file is not one of `mira score`."""
    remedy = "write it again with `mira score`"
    try:
        found = msgspec.convert(read_json(Path(path), remedy), CriticQuality)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not the quality of critics: {error}; {remedy}") from None
    if found == CriticQuality():
        raise UserError(f"{path}: has no measures of V or P; {remedy} on labelled episodes")
    return found
