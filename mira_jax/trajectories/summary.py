"""`summary.json`: the figures of one or more evaluations on the same tasks. All reading and writing of the file is in this
module.

`rollouts.evaluate` writes one method. `rollouts.report` writes several, with all comparisons.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mira_jax.errors import UserError
from mira_jax.files import read_json, write_atomically

FORMAT = 2
"""Format of the file. Format 1 had no number and two layouts."""
WRITE_AGAIN = "write it again with the command that made it (`mira evaluate` or `mira report`)"


class Rate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mean over tasks of a share in [0, 1], with its interval (`Summary.intervals.rate`)."""

    method: str
    mean: float
    low: float
    high: float
    tasks: int
    attempts: int
    """Number of judged attempts over all tasks."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The treatment compared with the baseline, paired by task (id and seed)."""

    baseline: str
    treatment: str
    tasks: int
    """Number of tasks for which both have an outcome."""
    attempts: int
    """Maximum number of judged attempts at one task."""
    wins: int
    """Number of tasks for which the treatment has the larger share of solved attempts."""
    losses: int
    ties: int
    difference: float
    """Mean over tasks of the treatment's share of solved attempts minus the baseline's, in [-1, 1]."""
    low: float
    """Lower end of its interval (`Summary.intervals.difference`)."""
    high: float
    p_value: float
    test: str
    sided: str
    left_out: list[str]
    """Tasks for which at least one of the two has no outcome."""


class SeedComparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two methods compared over several training seeds. The sample consists of the seeds."""

    baseline: str
    treatment: str
    seeds: list[int]
    differences: list[float]
    """The difference for each seed, in [-1, 1]."""
    difference: float
    """Their mean."""
    low: float | None
    """Lower end of its interval. None if there is no interval: one seed, or equal differences."""
    high: float | None
    interval: str
    p_value: float
    smallest_p: float
    """The smallest p value that the test can give for this number of seeds."""
    test: str
    sided: str


class Spent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resources used by the judged episodes. None if the denominator would be 0."""

    total: float
    per_episode: float | None
    per_step: float | None


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cost in USD. Prices are per million tokens."""

    usd: float
    usd_per_episode: float | None
    usd_per_success: float | None
    prompt_price: float
    response_price: float
    planner_usd: float = 0.0
    """The planner's part of `usd`, by its own prices."""


class Planned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a planner did in the judged episodes."""

    unanswered: int
    """Number of steps before which it gave no valid answer. They keep the plan before."""
    replans: int
    held_exits: int


class RoleUsage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Questions to a chat model in a role, such as a judge, and what they used."""

    requests: int
    """Requests that were answered."""
    cached: int
    """Questions answered from the cache."""
    repaired: int
    """Answers of the wrong form that the model was asked to correct."""
    invalid: int
    """Questions without a valid answer."""
    prompt_tokens: int
    response_tokens: int
    cost: float
    """In USD, by the configured prices. 0 without prices."""


class Evaluated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy that was evaluated."""

    name: str
    checkpoint: str
    temperature: float
    fingerprint: str = ""
    """Fingerprint of the model's weights, if recorded."""
    planner: str = ""
    """Planner and its settings, as `Policy.planner`."""


class Method(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One evaluation. Only judged episodes count, except in `status` and `infra_errors`."""

    success_rate: Rate
    per_domain: dict[str, Rate]
    per_template: dict[str, Rate]
    pass_at_k: dict[int, Rate]
    status: dict[str, int]
    infra_errors: int
    failures: dict[str, int]
    """Number of failed episodes in each class of failure."""
    mean_steps: float | None
    mean_score: float | None
    milestones: Rate | None
    """Share of milestones done at the end. None if no milestones are labelled."""
    milestones_after_steps: list[Rate]
    """Share after 0, 1, 2, ... steps. An episode that has ended keeps its last share."""
    seconds: dict[str, Spent]
    tokens: dict[str, Spent]
    cost: Cost | None
    """None if the prices are unknown."""
    policies: list[Evaluated]
    tasks: dict[str, tuple[int, int]]
    """`id|seed` of each task to (judged attempts, solved attempts)."""
    planned: Planned | None = None
    """None without a planner."""


class Intervals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: float
    rate: str
    difference: str


class Summary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    suite: str
    split: str
    intervals: Intervals
    methods: dict[str, Method]
    comparisons: list[Comparison]
    """The comparison of the treatment with the baseline comes first."""
    format: int = FORMAT
    created: str = ""
    task_seed: int | None = None
    """Seed that determines the tasks, if known."""
    seed: int | None = None
    """Seed of the run, if the report was given one."""
    minutes: dict[str, float] = {}
    """Stage to wall-clock minutes, of the stages that were complete before the report."""
    usage: dict[str, RoleUsage] = {}
    """What the labels used, by the path of the role's config. Questions that an interrupted command asked before are not counted."""


_SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def p_value(p: float) -> str:
    """The p value with two significant digits. Small values are written as a power of ten."""
    if p >= 0.001:
        return f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    mantissa, exponent = f"{p:.1e}".split("e")
    return f"{mantissa}\u00a0\u00d7\u00a010{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def points(one: Comparison | SeedComparison, level: float) -> str:
    """The difference and its interval as text, in percentage points of success."""
    interval = "no interval"
    if one.low is not None and one.high is not None:
        interval = f"{100 * level:g} % interval {100 * one.low:+.1f} to {100 * one.high:+.1f}"
    return f"{100 * one.difference:+.1f} points, {interval}"


def verdict(one: Comparison) -> str:
    """Wins, losses, ties and the test as text."""
    return f"{one.wins} wins, {one.losses} losses, {one.ties} ties; {one.test}, {one.sided}: p = {p_value(one.p_value)}"


def write(path: str | Path, content: msgspec.Struct) -> None:
    """Raises ValueError for a number that JSON cannot represent."""
    tree = msgspec.to_builtins(content, str_keys=True)
    write_atomically(Path(path), (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode())


def read(path: str | Path, remedy: str = WRITE_AGAIN) -> Summary:
    """Raises UserError if the file is missing, damaged, of another format, or inconsistent."""
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
