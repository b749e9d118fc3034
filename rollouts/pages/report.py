"""Renders the report as one self-contained HTML page."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mira_jax.trajectories.diagnostics import Distribution
from mira_jax.trajectories.summary import Comparison, Method, p_value
from rollouts.analysis.critics import CriticQuality
from rollouts.analysis.evaluation import Evaluation, Run
from rollouts.analysis.failures import Failure
from rollouts.analysis.paired import Paired
from rollouts.analysis.summary import Findings
from rollouts.pages import charts, frame, svg
from rollouts.pages.critics import figures as critic_figures
from rollouts.pages.episodes import chosen_keys, count, task_views

MARKER = "made by rollouts.report"
"""In the second line of every report. A file with this marker may be overwritten by a newer report."""

OUTCOMES = (("solved", "solved"), *((failure.value.replace("_", " "), failure.value) for failure in Failure))
"""End of an episode with an outcome, from left to right in the chart: (label, style)."""

HOLDOUT = "holdout/"
"""Prefix of a metric measured on held-out steps. It is drawn in the same chart as the metric without the prefix."""

METRICS_LAST = ("tokens_per_second", "learning_rate", "tokens", "steps", "seconds", "epoch")
"""Metrics of the run rather than of the model."""

METRICS_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class PageOptions:
    title: str
    tasks: int
    page_characters: int
    max_bytes: int
    metrics: tuple[str, ...] = ()
    about: str = ""


def render(
    options: PageOptions,
    evaluations: Sequence[Evaluation],
    findings: Findings,
    runs: Sequence[Run] = (),
    minutes: Mapping[str, float] | None = None,
    quality: CriticQuality | None = None,
) -> str:
    """Renders the page. To stay within `options.max_bytes`, screenshots are left out first, then tasks."""
    common = _frame(options, evaluations, findings, runs, minutes or {}, quality)
    keys = chosen_keys(evaluations, findings, options.tasks)

    def page(shown: int, room: int) -> str:
        tasks = task_views(keys[:shown], evaluations, findings, options.page_characters, room)
        values = common | {"tasks": tasks, "selection": _selection(findings, shown, len(keys))}
        return frame.render("report.html", values, "report.css", "report.js")

    shown = len(keys)
    size = len(page(shown, room=0).encode())
    while shown and size > options.max_bytes:
        shown = min(shown - 1, int(shown * options.max_bytes / size))
        size = len(page(shown, room=0).encode())
    return page(shown, room=max(0, options.max_bytes - size))


def _frame(
    options: PageOptions,
    evaluations: Sequence[Evaluation],
    findings: Findings,
    runs: Sequence[Run],
    minutes: Mapping[str, float],
    quality: CriticQuality | None,
) -> dict[str, Any]:
    """Template values, except the episodes."""
    methods = findings.summary.methods
    series = {name: place for place, name in enumerate(methods)}
    headline = findings.headline
    pair_kinds = _pair_kinds(headline, series) if headline else []
    passed = sorted({k for method in methods.values() for k in method.pass_at_k})
    return {
        "marker": MARKER,
        "title": options.title,
        "about": options.about,
        "lead": _lead(evaluations, findings),
        "sections": _sections(bool(quality), bool(runs), bool(minutes)),
        "level": f"{100 * findings.summary.intervals.level:g}",
        "intervals": findings.summary.intervals,
        "methods": methods,
        "templates": findings.templates,
        "comparisons": findings.summary.comparisons,
        "headline": headline.comparison if headline else None,
        "verdict": _verdict(headline.comparison) if headline else "",
        "pair_kinds": pair_kinds,
        "left_out": _left_out(findings.pairs),
        "p_value": p_value,
        "legend": _legend(series),
        "two": [svg.swatch(0), svg.swatch(1)],
        "swatches": {name: svg.swatch(place) for name, place in series.items()},
        "infra": _without_outcome(methods),
        "pass_at": [k for k in passed if k > 1],
        "any_progress": any(method.milestones for method in methods.values()),
        "outcome_kinds": OUTCOMES,
        "statuses": sorted({status for method in methods.values() for status in method.status}),
        "quality": quality,
        "critics": [
            (name, [(svg.swatch(n), words) for n, words in enumerate(names)], chart) for name, names, chart in critic_figures(quality)
        ]
        if quality
        else [],
        "training": [(run.name, [*_curves(run, options.metrics), *_distributions(run)]) for run in runs],
        "total_minutes": sum(minutes.values()),
        "charts": _charts(findings, series, minutes, pair_kinds),
    }


def _sections(critics: bool, training: bool, stages: bool) -> list[tuple[str, str]]:
    """(anchor, title) of each section."""
    sections = [("success", "Success"), ("templates", "By template"), ("progress", "Progress and failures")]
    sections += [("critics", "Critics")] if critics else []
    sections += [("training", "Training")] if training else []
    sections += [("stages", "Time")] if stages else []
    return [*sections, ("episodes", "Episodes")]


def _lead(evaluations: Sequence[Evaluation], findings: Findings) -> str:
    episodes = [episode for evaluation in evaluations for episode in evaluation.episodes]
    tasks = {episode.task for episode in episodes}
    attempts = max(map(len, (evaluation.episodes for evaluation in evaluations))) / len(tasks)
    temperatures = sorted({episode.policy.temperature for episode in episodes})
    days = sorted({episode.created[:10] for episode in episodes if episode.created})
    common = set.intersection(*({episode.task for episode in evaluation.episodes} for evaluation in evaluations))
    same = "the same " if len(common) == len(tasks) else ""
    methods = f"{count(len(evaluations), 'method')} on {same}{count(len(tasks), 'task')}"
    parts = [
        f"{methods} of {count(len(findings.templates), 'template')}",
        "one attempt each" if attempts <= 1 else f"{attempts:.0f} attempts each",
        "temperature " + ", ".join(f"{temperature:g}" for temperature in temperatures),
    ]
    if not same:
        parts.insert(1, f"{count(len(common), 'task')} in common")
    if days:
        parts.append(f"run on {days[0]}" if len(days) == 1 else f"run from {days[0]} to {days[-1]}")
    return "; ".join(parts) + "."


def _verdict(one: Comparison) -> str:
    """States the result of the paired comparison at the 5 % level."""
    chance = "by more than chance would explain" if one.p_value < 0.05 else "but chance could explain the difference"
    if one.difference == 0:
        return f"{one.treatment} solves as many of these tasks as {one.baseline}."
    return f"{one.treatment} solves {'more' if one.difference > 0 else 'fewer'} of these tasks than {one.baseline}, {chance}."


def _pair_kinds(pair: Paired, series: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Number of tasks by the method that solved them, or solved them more often: (label, count, style)."""
    one = pair.comparison
    styles = [f"s{series[name] % svg.SERIES}" for name in (one.treatment, one.baseline)]
    both = sum(task.baseline == task.baseline_attempts and task.treatment == task.treatment_attempts for task in pair.ties)
    if one.attempts > 1:
        words = (f"{one.treatment} more often", f"{one.baseline} more often", "both at every attempt", "equally often")
    else:
        words = (f"only {one.treatment}", f"only {one.baseline}", "both", "neither")
    return list(zip(words, (one.wins, one.losses, both, one.ties - both), (*styles, "both", "neither"), strict=True))


def _left_out(pairs: Sequence[Paired]) -> str:
    named = "; ".join(
        f"{one.treatment} against {one.baseline}: {len(one.left_out)}" for one in (pair.comparison for pair in pairs) if one.left_out
    )
    return f"Tasks without an outcome of both, and so in no pair: {named}." if named else ""


def _without_outcome(methods: Mapping[str, Method]) -> str:
    named = ", ".join(f"{name} {method.infra_errors}" for name, method in methods.items() if method.infra_errors)
    return f"Episodes without an outcome, because browser, site or endpoint failed; not counted above: {named}." if named else ""


def _legend(series: Mapping[str, int]) -> Markup:
    items = (Markup("<li>{}{}</li>").format(svg.swatch(place), name) for name, place in series.items())
    return Markup('<ul class="legend">{}</ul>').format(svg.join(items))


def _charts(
    findings: Findings, series: Mapping[str, int], minutes: Mapping[str, float], pair_kinds: Sequence[tuple[str, int, str]]
) -> dict[str, Markup | None]:
    methods = findings.summary.methods
    by_template = [
        (template, [(series[name], name, one.per_template[template]) for name, one in methods.items() if template in one.per_template])
        for template in findings.templates
    ]
    rates = [(series[name], name, method.success_rate) for name, method in methods.items()]
    stages = [(stage.replace("_", " "), value) for stage, value in minutes.items()]
    return {
        "headline": charts.headline("Tasks solved by each method", rates),
        "pairs": charts.share("Which of the two solved a task", pair_kinds),
        "templates": charts.templates("Tasks solved, by template and method", by_template),
        "progress": _progress_chart(methods, series),
        "outcomes": charts.shares(
            "How episodes ended", [(name, _outcomes(method)) for name, method in methods.items()], OUTCOMES, "Episodes with an outcome (%)"
        ),
        "stages": charts.bars("Minutes per stage", stages, "Minutes") if stages else None,
    }


def _progress_chart(methods: Mapping[str, Method], series: Mapping[str, int]) -> Markup | None:
    labelled = {name: method.milestones_after_steps for name, method in methods.items() if method.milestones}
    if not labelled:
        return None
    longest = max(map(len, labelled.values()))
    lines, bands = [], {}
    for name, rates in labelled.items():
        points = [*rates, *[rates[-1]] * (longest - len(rates))]
        lines.append((series[name], name, [(float(step), 100 * rate.mean) for step, rate in enumerate(points)]))
        bands[name] = [(float(step), 100 * rate.low, 100 * rate.high) for step, rate in enumerate(points)]
    return charts.lines(
        "Milestones done along an episode", lines, "Steps taken", "Milestones done (%)", bands=bands, y_range=(0, 100), dots=True
    )


def _outcomes(method: Method) -> dict[str, int]:
    solved = method.success_rate.attempts - sum(method.failures.values())
    return {"solved": solved} | {name.replace("_", " "): number for name, number in method.failures.items()}


Figure = tuple[str, Sequence[str], Markup]
"""A chart of a training run: its name, the names of its two lines if it has two, and the chart."""


def _curves(run: Run, wanted: Sequence[str]) -> list[Figure]:
    """One chart of each metric: those in `wanted`, else the first few, losses first."""
    names = [name for name in wanted if name in run.curves]
    if not wanted:
        several = (name for name, points in run.curves.items() if len(points) > 1 and not name.startswith(HOLDOUT))
        names = sorted(several, key=_rank)[:METRICS_SHOWN]
    both = ("training", "holdout")
    return [(_metric_words(name), both if HOLDOUT + name in run.curves else (), _curve(run, name)) for name in names]


def _distributions(run: Run) -> list[Figure]:
    """Charts of the diagnostics: the distributions of advantages and of log ratios."""
    if not run.diagnostics:
        return []
    after = f"after update {run.diagnostics.update}"
    rows = [
        ("Advantages, by outcome", "Advantage", run.diagnostics.advantage),
        (f"Log ratio {after}, by outcome", "log pi - log pi_ref (nats)", run.diagnostics.log_ratio),
        (f"Log ratio {after}, by the advantage's sign", "log pi - log pi_ref (nats)", run.diagnostics.log_ratio_by_sign),
    ]
    return [(words, tuple(groups), _histogram(f"{run.name}: {words}", x_name, groups)) for words, x_name, groups in rows if groups]


def _histogram(title: str, x_name: str, groups: Mapping[str, Distribution]) -> Markup:
    lines = []
    for place, (name, row) in enumerate(groups.items()):
        centres = [(low + high) / 2 for low, high in itertools.pairwise(row.edges)]
        lines.append((place, name, [(at, 100 * count / max(row.steps, 1)) for at, count in zip(centres, row.counts, strict=True)]))
    return charts.lines(title, lines, x_name, "Steps (%)", width=270, height=200, from_zero=True)


def _curve(run: Run, metric: str) -> Markup:
    words = _metric_words(metric)
    lines = [(0, "training", charts.thin(run.curves[metric]))]
    if HOLDOUT + metric in run.curves:
        lines.append((1, "holdout", charts.thin(run.curves[HOLDOUT + metric])))
    return charts.lines(f"{run.name}: {words}", lines, "Update", words, width=270, height=200, from_zero=metric == "tokens_per_second")


def _rank(metric: str) -> tuple[int, int, str]:
    last = METRICS_LAST.index(metric) + 1 if metric in METRICS_LAST else 0
    return last, 0 if metric == "loss" else 1 if "loss" in metric else 2, metric


def _metric_words(metric: str) -> str:
    return metric.replace("/", ": ").replace("_", " ").capitalize()


def _selection(findings: Findings, shown: int, offered: int) -> str:
    if findings.baseline == findings.treatment:
        rule = "unsolved and solved tasks in turn"
    else:
        rule = f"tasks that only {findings.treatment} or only {findings.baseline} solved, in turn; then tasks that neither or both solved"
    left = f" {count(offered - shown, 'task')} more would not fit in this page." if shown < offered else ""
    return f"Chosen by rule: {rule}; new templates first. {count(shown, 'task')} shown; open a step to see the page the policy read.{left}"
