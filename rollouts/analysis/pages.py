"""The report as one HTML page that asks for nothing from outside."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rollouts import html
from rollouts.analysis import TEMPLATES, charts, svg
from rollouts.analysis.episodes import chosen_keys, count, task_views
from rollouts.analysis.evaluation import Evaluation, Run
from rollouts.analysis.failures import Failure
from rollouts.analysis.summary import Method, Pair, Summary

MARKER = "made by rollouts.report"
"""In the second line of every report: such a file may be replaced by a newer one."""

OUTCOMES = (("solved", "solved"), *((failure.value.replace("_", " "), failure.value) for failure in Failure))
"""How an episode with an outcome ended, from the left: (words, style)."""

HOLDOUT = "holdout/"
"""Prefix of a metric measured on held-out steps: drawn in the chart of the metric it is of."""

METRICS_LAST = ("tokens_per_second", "learning_rate", "tokens", "steps", "seconds", "epoch")
"""Metrics about the run and not the model."""

METRICS_SHOWN = 4

_SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


@dataclasses.dataclass(frozen=True)
class Options:
    title: str
    tasks: int
    page_characters: int
    max_bytes: int
    metrics: tuple[str, ...] = ()
    about: str = ""


def render(
    options: Options,
    evaluations: Sequence[Evaluation],
    summary: Summary,
    runs: Sequence[Run] = (),
    minutes: Mapping[str, float] | None = None,
) -> str:
    """The whole page. To keep `options.max_bytes`, first screenshots and then tasks are left out."""
    frame = _frame(options, evaluations, summary, runs, minutes or {})
    keys = chosen_keys(evaluations, summary, options.tasks)

    def page(shown: int, room: int) -> str:
        tasks = task_views(keys[:shown], evaluations, summary, options.page_characters, room)
        values = frame | {"tasks": tasks, "selection": _selection(summary, shown, len(keys))}
        return html.render(TEMPLATES, "report.html", values, "report.css", "report.js")

    shown = len(keys)
    size = len(page(shown, room=0).encode())
    while shown and size > options.max_bytes:
        shown = min(shown - 1, int(shown * options.max_bytes / size))
        size = len(page(shown, room=0).encode())
    return page(shown, room=max(0, options.max_bytes - size))


def _frame(
    options: Options, evaluations: Sequence[Evaluation], summary: Summary, runs: Sequence[Run], minutes: Mapping[str, float]
) -> dict[str, Any]:
    """What the template needs, but for the episodes."""
    series = {method.name: place for place, method in enumerate(summary.methods)}
    headline = summary.headline
    pair_kinds = _pair_kinds(headline, series) if headline else []
    return {
        "marker": MARKER,
        "title": options.title,
        "about": options.about,
        "lead": _lead(evaluations, summary),
        "sections": _sections(bool(runs), bool(minutes)),
        "level": f"{100 * summary.level:g}",
        "summary": summary,
        "headline": headline,
        "verdict": _verdict(headline) if headline else "",
        "pair_kinds": pair_kinds,
        "pairs_count": sum(number for _, number, _ in pair_kinds),
        "pair_of": {pair.method: pair for pair in summary.pairs},
        "pass_at": sorted({k for method in summary.methods for k in method.pass_at}),
        "p_value": p_value,
        "any_progress": any(method.progress for method in summary.methods),
        "infra": _without_outcome(summary),
        "swatches": {name: svg.swatch(place) for name, place in series.items()},
        "legend": _legend(series),
        "two": (svg.swatch(0), svg.swatch(1)),
        "outcome_kinds": OUTCOMES,
        "statuses": sorted({status for method in summary.methods for status in method.statuses}),
        "training": [(run.name, _curves(run, options.metrics)) for run in runs],
        "total_minutes": sum(minutes.values()),
        "charts": _charts(summary, series, minutes, pair_kinds),
    }


def _sections(training: bool, stages: bool) -> list[tuple[str, str]]:
    """(anchor, words) of what the page holds."""
    sections = [("success", "Success"), ("templates", "By template"), ("progress", "Progress and failures")]
    sections += [("training", "Training")] if training else []
    sections += [("stages", "Time")] if stages else []
    return [*sections, ("episodes", "Episodes")]


def _lead(evaluations: Sequence[Evaluation], summary: Summary) -> str:
    episodes = [episode for evaluation in evaluations for episode in evaluation.episodes]
    tasks = {episode.task for episode in episodes}
    attempts = max(map(len, (evaluation.episodes for evaluation in evaluations))) / len(tasks)
    temperatures = sorted({episode.policy.temperature for episode in episodes})
    days = sorted({episode.created[:10] for episode in episodes if episode.created})
    common = set.intersection(*({episode.task for episode in evaluation.episodes} for evaluation in evaluations))
    same = "the same " if len(common) == len(tasks) else ""
    methods = f"{count(len(evaluations), 'method')} on {same}{count(len(tasks), 'task')}"
    parts = [
        f"{methods} of {count(len(summary.templates), 'template')}, in a real browser",
        "one attempt each" if attempts <= 1 else f"{attempts:.0f} attempts each",
        "temperature " + ", ".join(f"{temperature:g}" for temperature in temperatures),
    ]
    if not same:
        parts.insert(1, f"{count(len(common), 'task')} in common")
    if days:
        parts.append(f"run on {days[0]}" if len(days) == 1 else f"run from {days[0]} to {days[-1]}")
    return "; ".join(parts) + "."


def _verdict(pair: Pair) -> str:
    """What the paired comparison says, at the 5 % level."""
    wins, losses, p = pair.comparison.wins, pair.comparison.losses, pair.comparison.p_value
    if wins > losses:
        chance = "more than chance would explain" if p < 0.05 else "but chance alone could explain it"
        return f"{pair.method} solves more of these tasks than {pair.baseline}, {chance}."
    if wins < losses:
        return f"{pair.method} solves fewer of these tasks than {pair.baseline}."
    return f"{pair.method} solves as many of these tasks as {pair.baseline}."


def p_value(p: float) -> str:
    """Two significant digits; small ones as a power of ten."""
    if p >= 0.001:
        return f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    mantissa, exponent = f"{p:.1e}".split("e")
    return f"{mantissa}\u00a0\u00d7\u00a010{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def _pair_kinds(pair: Pair, series: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Which of the two solved a task: (words, count, style)."""
    return [
        (f"only {pair.method}", pair.comparison.wins, f"s{series[pair.method] % svg.SERIES}"),
        (f"only {pair.baseline}", pair.comparison.losses, f"s{series[pair.baseline] % svg.SERIES}"),
        ("both", pair.both, "both"),
        ("neither", pair.neither, "neither"),
    ]


def _without_outcome(summary: Summary) -> str:
    missing = {method.name: method.episodes - method.success_rate.n for method in summary.methods}
    named = ", ".join(f"{name} {number}" for name, number in missing.items() if number)
    return f"Episodes without an outcome, because browser, site or endpoint failed; not counted above: {named}." if named else ""


def _legend(series: Mapping[str, int]) -> Markup:
    items = (Markup("<li>{}{}</li>").format(svg.swatch(place), name) for name, place in series.items())
    return Markup('<ul class="legend">{}</ul>').format(svg.join(items))


def _charts(
    summary: Summary, series: Mapping[str, int], minutes: Mapping[str, float], pair_kinds: Sequence[tuple[str, int, str]]
) -> dict[str, Markup | None]:
    methods = summary.methods
    by_template = [
        (template, [(series[method.name], method.name, method.templates[template]) for method in methods if template in method.templates])
        for template in summary.templates
    ]
    rates = [(series[method.name], method.name, method.success_rate) for method in methods]
    stages = [(stage.replace("_", " "), value) for stage, value in minutes.items()]
    return {
        "headline": charts.headline("Tasks solved by each method", rates),
        "pairs": charts.share("Which of the two solved a task", pair_kinds),
        "templates": charts.templates("Tasks solved, by template and method", by_template),
        "progress": _progress_chart(summary, series),
        "outcomes": charts.shares(
            "How episodes ended", [(method.name, _outcomes(method)) for method in methods], OUTCOMES, "Episodes with an outcome (%)"
        ),
        "stages": charts.bars("Minutes per stage", stages, "Minutes") if stages else None,
    }


def _progress_chart(summary: Summary, series: Mapping[str, int]) -> Markup | None:
    labelled = [method for method in summary.methods if method.progress]
    if not labelled:
        return None
    longest = max(len(method.progress) for method in labelled)
    lines, bands = [], {}
    for method in labelled:
        points = [*method.progress, *[method.progress[-1]] * (longest - len(method.progress))]
        lines.append((series[method.name], method.name, [(float(step), 100 * mean) for step, (mean, _, _) in enumerate(points)]))
        bands[method.name] = [(float(step), 100 * low, 100 * high) for step, (_, low, high) in enumerate(points)]
    return charts.lines(
        "Milestones done along an episode", lines, "Steps taken", "Milestones done (%)", bands=bands, y_range=(0, 100), dots=True
    )


def _outcomes(method: Method) -> dict[str, int]:
    solved = method.success_rate.n - sum(method.failures.values())
    return {"solved": solved} | {name.replace("_", " "): number for name, number in method.failures.items()}


def _curves(run: Run, wanted: Sequence[str]) -> list[tuple[str, bool, Markup]]:
    """(name, whether a holdout curve is in it, chart) of each metric: those asked for, else the first few, losses first."""
    names = [name for name in wanted if name in run.curves]
    if not wanted:
        several = (name for name, points in run.curves.items() if len(points) > 1 and not name.startswith(HOLDOUT))
        names = sorted(several, key=_rank)[:METRICS_SHOWN]
    return [(_metric_words(name), HOLDOUT + name in run.curves, _curve(run, name)) for name in names]


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


def _selection(summary: Summary, shown: int, offered: int) -> str:
    if summary.baseline == summary.treatment:
        rule = "unsolved and solved tasks in turn"
    else:
        rule = f"tasks that only {summary.treatment} or only {summary.baseline} solved, in turn; then tasks that neither or both solved"
    left = f" {count(offered - shown, 'task')} more would not fit in this page." if shown < offered else ""
    return f"Chosen by rule: {rule}; new templates first. {count(shown, 'task')} shown; open a step to see the page the policy read.{left}"
