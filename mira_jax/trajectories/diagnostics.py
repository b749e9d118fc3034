"""`RUN/diagnostics.json`: what training did to a policy, on the steps that it was trained on. `mira diagnose` writes it, `mira report`
draws it."""

from pathlib import Path

import msgspec

from mira_jax.errors import UserError
from mira_jax.files import read_json, to_json, write_atomically

FILE = "diagnostics.json"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Distribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number per step, over a group of steps."""

    steps: int
    mean: float | None
    """None without steps, as the quantiles."""
    quantiles: list[float] | None
    """At `QUANTILES`."""
    edges: list[float]
    """Of the histogram's bins, the same for all groups. The outer bins also hold what lies beyond them."""
    counts: list[int]


class Diagnostics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Log-probabilities are of whole responses, in nats."""

    update: int
    """The update after which the policy was measured."""
    steps: int
    kl: float
    """Mean of log pi_ref - log pi. If pi_ref produced the episodes, it estimates KL(pi_ref || pi) per step."""
    entropy: float
    """Of the policy, mean over response tokens, in nats."""
    reference_entropy: float
    log_ratio: dict[str, Distribution]
    """log pi - log pi_ref, by outcome: successes, failures."""
    log_ratio_by_sign: dict[str, Distribution] | None = None
    """The same by the sign of the advantage: positive, negative. None for objectives without advantages."""
    advantage: dict[str, Distribution] | None = None
    """By outcome."""
    room: float | None = None
    """The share of the rise of A / beta nats, over steps with A > 0, that probabilities of at most 1 allow. None for objectives whose
    loss is not least at log pi - log pi_ref = A / beta."""


def write(folder: str | Path, found: Diagnostics) -> None:
    write_atomically(Path(folder) / FILE, to_json(msgspec.to_builtins(found)).encode())


def read(folder: str | Path) -> Diagnostics | None:
    """None if the run has none. Raises UserError for a damaged file."""
    path = Path(folder) / FILE
    if not path.exists():
        return None
    remedy = f"write it again with `mira diagnose {folder}`"
    try:
        return msgspec.convert(read_json(path, remedy), Diagnostics)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not the diagnostics of a run: {error}; {remedy}") from None


def describe(found: Diagnostics) -> list[str]:
    """Lines for people."""
    lines = [
        f"{found.steps:,} steps: KL from the reference {found.kl:.3f} nats a step; entropy {found.entropy:.3f} nats a token, "
        f"reference {found.reference_entropy:.3f}"
    ]
    if found.room is not None:
        lines.append(f"probabilities allow {100 * found.room:.0f} % of the rise that A / beta asks for")
    groups = [("A", found.advantage), ("log pi - log pi_ref", found.log_ratio), ("log pi - log pi_ref, A", found.log_ratio_by_sign)]
    for name, rows in groups:
        for group, row in (rows or {}).items():
            if row.mean is not None and row.quantiles is not None:
                values = " ".join(f"{value:.2f}" for value in row.quantiles)
                lines.append(f"{name}, {group}: mean {row.mean:.3f}; at 5, 25, 50, 75, 95 %: {values}")
    return lines
