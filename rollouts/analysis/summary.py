"""Summarises several evaluations of the same tasks: figures of each method, and all paired comparisons."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import msgspec

from mira_jax.trajectories.summary import Summary, points, verdict
from rollouts.analysis.evaluation import Evaluation
from rollouts.analysis.figures import LEVEL, gather, summarize
from rollouts.analysis.paired import Paired, compare_tasks


@dataclasses.dataclass(frozen=True)
class Findings:
    summary: Summary
    baseline: str
    treatment: str
    pairs: list[Paired]
    """Comparisons of all pairs of methods, with treatment against baseline first."""

    @property
    def headline(self) -> Paired | None:
        """The comparison of treatment and baseline."""
        return self.pairs[0] if self.baseline != self.treatment else None

    @property
    def templates(self) -> list[str]:
        return sorted({template for method in self.summary.methods.values() for template in method.per_template})


def summarise(evaluations: Sequence[Evaluation], baseline: str, treatment: str, level: float = LEVEL) -> Findings:
    """Raises UserError if two of the evaluations have different tasks or attempts."""
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    pairs = [compare_tasks(by_name[one], by_name[other], level) for one, other in _pairs(list(by_name), baseline, treatment)]
    methods = {one.name: summarize(one.name, one.episodes, one.lost, level=level) for one in evaluations}
    summary = gather(methods, (episode for one in evaluations for episode in one.episodes), level)
    return Findings(msgspec.structs.replace(summary, comparisons=[pair.comparison for pair in pairs]), baseline, treatment, pairs)


def table(summary: Summary) -> str:
    """Formats the summary as text: success per method with its interval, all paired comparisons, and the minutes per stage if known."""
    level = summary.intervals.level
    lines = [f"{'policy':<14}{'success':>9}   {100 * level:g} % interval      tasks"]
    for name, method in summary.methods.items():
        rate = method.success_rate
        lines.append(f"{name:<14}{rate.mean:>8.1%}   {rate.low:>6.1%} - {rate.high:>6.1%}   {rate.tasks:>5}")
    if summary.comparisons:
        lines.append("\npaired by task; these policies, and no other seed of training:")
        for one in summary.comparisons:
            lines += [f"{one.treatment} against {one.baseline}: {points(one, level)}", f"  {verdict(one)}"]
    if summary.minutes:
        minutes = ", ".join(f"{name} {value:.1f}" for name, value in summary.minutes.items())
        lines.append(f"\nminutes: {minutes}; in all {sum(summary.minutes.values()):.1f}")
    return "\n".join(lines)


def to_rows(summary: Summary) -> list[dict[str, Any]]:
    """Success per method and template, one row each, for the report's CSV file. An empty `template` stands for all tasks."""
    return [
        {"method": name, "template": template} | msgspec.to_builtins(rate)
        for name, method in summary.methods.items()
        for template, rate in [("", method.success_rate), *method.per_template.items()]
    ]


def _pairs(names: Sequence[str], baseline: str, treatment: str) -> list[tuple[str, str]]:
    """All (baseline, treatment) pairs of names. `baseline` is ordered first and `treatment` last; the others keep their order."""
    order = [baseline, *(name for name in names if name not in (baseline, treatment))]
    order += [treatment] if treatment != baseline else []
    return sorted(itertools.combinations(order, 2), key=lambda pair: (pair[1] != treatment, pair[0] != baseline))
