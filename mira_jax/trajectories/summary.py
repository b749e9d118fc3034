"""`summary.json`: the figures of an evaluation, or of several on the same tasks. Written and read here alone.

`rollouts.evaluate` writes one method, `rollouts.report` several with every comparison.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mira_jax.errors import UserError
from mira_jax.files import read_json, write_atomically

FORMAT = 2
"""1 had no number, and two layouts."""
WRITE_AGAIN = "write it again with the command that made it (`mira evaluate` or `mira report`)"


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Rate(_Part):
    """A mean over tasks of a share in [0, 1], with its interval (`Summary.intervals.rate`)."""

    method: str
    mean: float
    low: float
    high: float
    tasks: int
    attempts: int
    """Judged, over all tasks."""


class Comparison(_Part):
    """The treatment against the baseline, paired by task (id and seed)."""

    baseline: str
    treatment: str
    tasks: int
    """With an outcome of both."""
    attempts: int
    """The most judged of one task."""
    wins: int
    """Tasks that the treatment solved at a larger share of its attempts."""
    losses: int
    ties: int
    difference: float
    """Mean over tasks of the treatment's share of solved attempts less the baseline's, in [-1, 1]."""
    low: float
    """Of its interval (`Summary.intervals.difference`)."""
    high: float
    p_value: float
    test: str
    sided: str
    left_out: list[str]
    """Tasks without an outcome of both."""


class SeedComparison(_Part):
    """Two methods over several seeds of training: the seeds are the sample."""

    baseline: str
    treatment: str
    seeds: list[int]
    differences: list[float]
    """Of each seed, in [-1, 1]."""
    difference: float
    """Their mean."""
    low: float | None
    """Of its interval; None where there is none: one seed, or equal differences."""
    high: float | None
    interval: str
    p_value: float
    smallest_p: float
    """That the test can give with this number of seeds."""
    test: str
    sided: str


class Spent(_Part):
    """Of the judged episodes; None where there is nothing to divide by."""

    total: float
    per_episode: float | None
    per_step: float | None


class Cost(_Part):
    """In USD. Prices are per million tokens."""

    usd: float
    usd_per_episode: float | None
    usd_per_success: float | None
    prompt_price: float
    response_price: float


class Evaluated(_Part):
    """A policy whose episodes are counted."""

    name: str
    checkpoint: str
    temperature: float
    fingerprint: str = ""
    """Of the model's weights, where recorded."""


class Method(_Part):
    """One evaluation. Only judged episodes count, except in `status` and `infra_errors`."""

    success_rate: Rate
    per_domain: dict[str, Rate]
    per_template: dict[str, Rate]
    pass_at_k: dict[int, Rate]
    status: dict[str, int]
    infra_errors: int
    failures: dict[str, int]
    """Class to number of failed episodes."""
    mean_steps: float | None
    mean_score: float | None
    milestones: Rate | None
    """Share done at the end; None where none are labelled."""
    milestones_after_steps: list[Rate]
    """After 0, 1, 2, ... steps; an episode that has ended keeps its last share."""
    seconds: dict[str, Spent]
    tokens: dict[str, Spent]
    cost: Cost | None
    """None where the prices are not known."""
    policies: list[Evaluated]
    tasks: dict[str, tuple[int, int]]
    """`id|seed` of each task to (judged attempts, solved)."""


class Intervals(_Part):
    level: float
    rate: str
    difference: str


class Summary(_Part):
    suite: str
    split: str
    intervals: Intervals
    methods: dict[str, Method]
    comparisons: list[Comparison]
    """The treatment against the baseline first."""
    format: int = FORMAT
    created: str = ""
    task_seed: int | None = None
    """That drew the tasks, where known."""
    seed: int | None = None
    """Of the run, where the report was given it."""
    minutes: dict[str, float] = {}
    """Stage to wall-clock minutes, of the stages that were complete before the report."""


_SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def p_value(p: float) -> str:
    """Two significant digits; small ones as a power of ten."""
    if p >= 0.001:
        return f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    mantissa, exponent = f"{p:.1e}".split("e")
    return f"{mantissa}\u00a0\u00d7\u00a010{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def points(one: Comparison | SeedComparison, level: float) -> str:
    """The difference and its interval in words, in points of success."""
    interval = "no interval" if one.low is None else f"{100 * level:g} % interval {100 * one.low:+.1f} to {100 * one.high:+.1f}"
    return f"{100 * one.difference:+.1f} points, {interval}"


def verdict(one: Comparison) -> str:
    """Wins, losses, ties and the test in words."""
    return f"{one.wins} wins, {one.losses} losses, {one.ties} ties; {one.test}, {one.sided}: p = {p_value(one.p_value)}"


def write(path: str | Path, content: msgspec.Struct) -> None:
    """Raises ValueError for a number that JSON can't hold."""
    tree = msgspec.to_builtins(content, str_keys=True)
    write_atomically(Path(path), (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode())


def read(path: str | Path, remedy: str = WRITE_AGAIN) -> Summary:
    """Raises UserError for a missing or damaged file, one of another format, or one that contradicts itself."""
    tree = read_json(path, remedy)
    number = tree.get("format")
    if number != FORMAT:
        found = "no format number, so it is no summary or one of an older version" if number is None else f"format {number!r}"
        raise UserError(f"{path}: {found}; this version reads summaries of format {FORMAT}; {remedy}")
    try:
        summary = msgspec.convert(tree, Summary, str_keys=True)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not a summary: {error}; {remedy}") from None
    if wrong := next(_contradictions(summary), None):
        raise UserError(f"{path}: {wrong}; {remedy}")
    return summary


def _contradictions(summary: Summary) -> Iterator[str]:
    for name, method in summary.methods.items():
        rates = {"success_rate": method.success_rate} | method.per_domain | method.per_template
        for where, rate in rates.items():
            if not 0 <= rate.low <= rate.mean <= rate.high <= 1:
                yield f"methods.{name}, {where}: {rate.mean} is not within its interval, or outside [0, 1]"
    for one in summary.comparisons:
        if one.wins + one.losses + one.ties != one.tasks:
            yield f"comparisons, {one.treatment} against {one.baseline}: wins, losses and ties do not add up to {one.tasks} tasks"
