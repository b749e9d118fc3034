"""The numbers of the report: everything a chart or table shows, worked out once."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mira_jax.trajectories.records import Status
from rollouts.analysis import statistics
from rollouts.analysis.evaluation import Episode, Evaluation
from rollouts.analysis.failures import Failure
from rollouts.analysis.statistics import Comparison, Rate


@dataclasses.dataclass(frozen=True)
class Method:
    """One evaluation in numbers."""

    name: str
    episodes: int
    """With those that infrastructure errors ended."""
    success_rate: Rate
    templates: dict[str, Rate]
    statuses: dict[str, int]
    failures: dict[str, int]
    """Class to count, over the judged failures."""
    mean_steps: float
    """Over judged episodes."""
    progress: list[tuple[float, float, float]]
    """After 0, 1, 2, ... steps: mean share of milestones done and its 95 % interval, over judged episodes with milestones.
    An episode that has ended keeps its last share. Empty where nothing is labelled."""
    pass_at: dict[int, float]
    """k to the mean over tasks of pass@k; empty where each task has one attempt."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """One method against the baseline, task by task."""

    method: str
    baseline: str
    comparison: Comparison
    both: int
    """Tasks that both solved."""
    neither: int
    mcnemar: float
    """Two-sided."""
    difference: float
    """Success of the method less that of the baseline, over the pairs, in [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class Summary:
    baseline: str
    treatment: str
    level: float
    methods: list[Method]
    pairs: list[Pair]
    """Every method but the baseline against it."""
    templates: list[str]

    def method(self, name: str) -> Method:
        return next(method for method in self.methods if method.name == name)

    @property
    def headline(self) -> Pair | None:
        """The treatment against the baseline."""
        return next((pair for pair in self.pairs if pair.method == self.treatment), None)


def summarise(evaluations: Sequence[Evaluation], baseline: str, treatment: str, level: float = 0.95) -> Summary:
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    templates = sorted({episode.template for evaluation in evaluations for episode in evaluation.episodes})
    pairs = [pair(by_name[baseline], evaluation) for evaluation in evaluations if evaluation.name != baseline]
    return Summary(baseline, treatment, level, [_method(evaluation, level) for evaluation in evaluations], pairs, templates)


def pair(baseline: Evaluation, treatment: Evaluation) -> Pair:
    """Pairs two evaluations by task, seed and attempt; only episodes that both judged count."""
    left = {episode.key: episode.success for episode in baseline.judged}
    right = {episode.key: episode.success for episode in treatment.judged}
    shared = left.keys() & right.keys()
    comparison = statistics.compare(left, right)
    both = sum(left[key] and right[key] for key in shared)
    difference = (comparison.wins - comparison.losses) / len(shared) if shared else 0.0
    two_sided = statistics.mcnemar_exact(comparison.wins, comparison.losses)
    return Pair(treatment.name, baseline.name, comparison, both, comparison.ties - both, two_sided, difference)


def mean_progress(episodes: Sequence[Episode]) -> list[tuple[float, float, float]]:
    """See `Method.progress`; the interval is mean +- 1.96 standard errors, kept within [0, 1]."""
    curves = [(0.0, *episode.progress) for episode in episodes if episode.progress]
    if not curves:
        return []
    points = []
    for step in range(max(map(len, curves))):
        values = [curve[min(step, len(curve) - 1)] for curve in curves]
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        half = 1.96 * math.sqrt(variance / len(values))
        points.append((mean, max(0.0, mean - half), min(1.0, mean + half)))
    return points


def to_tree(summary: Summary) -> dict[str, Any]:
    """As plain data. `success_rate` and `paired` are the headline, `methods` and `pairs` are everything."""
    pairs = {pair.method: _pair_tree(pair) for pair in summary.pairs}
    return {
        "success_rate": {method.name: dataclasses.asdict(method.success_rate) for method in summary.methods},
        "paired": pairs.get(summary.treatment),
        "level": summary.level,
        "methods": {method.name: _method_tree(method) for method in summary.methods},
        "pairs": list(pairs.values()),
    }


def to_rows(summary: Summary) -> list[dict[str, Any]]:
    """Success per method and template, a row each (`template` empty: all tasks): the report's CSV."""
    rows = []
    for method in summary.methods:
        for template, rate in [("", method.success_rate), *method.templates.items()]:
            rows.append({"method": method.name, "template": template, **dataclasses.asdict(rate)})
    return rows


def _pair_tree(pair: Pair) -> dict[str, Any]:
    tree = dataclasses.asdict(pair)
    return tree.pop("comparison") | tree


def _method_tree(method: Method) -> dict[str, Any]:
    tree = dataclasses.asdict(method)
    tree.pop("name")
    tree["milestones_after_steps"] = [mean for mean, _, _ in tree.pop("progress")]
    tree["pass_at"] = {str(k): value for k, value in method.pass_at.items()}
    return tree


def _method(evaluation: Evaluation, level: float) -> Method:
    judged = evaluation.judged
    by_template: dict[str, list[Episode]] = {}
    by_task: dict[str, list[bool]] = {}
    for episode in judged:
        by_template.setdefault(episode.template, []).append(episode)
        by_task.setdefault(episode.task, []).append(episode.success)
    failures = Counter(episode.failure for episode in judged if episode.failure)
    statuses = Counter(episode.status.value for episode in evaluation.episodes)
    if evaluation.lost:
        statuses[Status.INFRA_ERROR.value] += evaluation.lost
    fewest = min(map(len, by_task.values()))
    pass_at = {k: _mean(statistics.pass_at_k(len(tries), sum(tries), k) for tries in by_task.values()) for k in range(1, fewest + 1)}
    return Method(
        name=evaluation.name,
        episodes=len(evaluation.episodes) + evaluation.lost,
        success_rate=_rate(judged, level),
        templates={template: _rate(by_template[template], level) for template in sorted(by_template)},
        statuses=dict(sorted(statuses.items())),
        failures={failure.value: failures[failure] for failure in Failure},
        mean_steps=_mean(episode.steps for episode in judged),
        progress=mean_progress(judged),
        pass_at=pass_at if fewest > 1 else {},
    )


def _rate(episodes: Sequence[Episode], level: float) -> Rate:
    return statistics.rate(sum(episode.success for episode in episodes), len(episodes), level)


def _mean(values: Any) -> float:
    values = list(values)
    return math.fsum(values) / len(values) if values else 0.0
