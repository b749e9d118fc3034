"""The report as one HTML page that asks for nothing from outside.

Everything that comes from a page, a policy or a task is untrusted: it is escaped by the template, control
characters are spelled out, screenshots are taken only if they are JPEG, and the page's content security policy
allows no request, no other script than its own and no writing of markup by scripts.
"""

import base64
import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources

import jinja2
from markupsafe import Markup, escape

from mira_jax.trajectories.records import Step, Trajectory
from rollouts.analysis import charts, svg
from rollouts.analysis.evaluation import Episode, Evaluation, Run
from rollouts.analysis.failures import Failure, key_step
from rollouts.analysis.selection import choose, solved_by
from rollouts.analysis.summary import Pair, Summary

MARKER = "made by rollouts.report"
"""In the second line of every report: such a file may be replaced by a newer one."""

OUTCOMES = (
    ("solved", "solved"),
    *((failure.value.replace("_", " "), failure.value) for failure in Failure),
)
"""(words, style) from the left."""

METRICS_FIRST = ("loss", "eval_loss", "accuracy", "success")
METRICS_LAST = ("tokens_per_second", "learning_rate", "seconds", "epoch", "tokens", "examples")
RESERVED_BYTES = 400_000
"""Of the page's size, for everything but episodes."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to show, and how much of it."""

    title: str
    tasks: int
    page_characters: int
    max_bytes: int
    metrics: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class StepView:
    number: int
    response: str
    error: str | None
    url: str
    observation: str
    cut: int
    """Characters of the page left out."""
    screenshot: str
    """Data URI, or empty."""
    reached: list[str]
    lost: list[str]
    milestones: list[tuple[str, bool]]
    scores: list[tuple[str, float]]
    measures: str
    key: bool


@dataclasses.dataclass(frozen=True)
class EpisodeView:
    id: str
    method: str
    result: str
    result_words: str
    facts: str
    detail: str
    answer: str | None
    chart: Markup
    steps: list[StepView]


@dataclasses.dataclass(frozen=True)
class TaskView:
    intent: str
    template: str
    kind: str
    verdict: str
    episodes: list[EpisodeView]


def render(
    options: Options,
    evaluations: Sequence[Evaluation],
    summary: Summary,
    runs: Sequence[Run] = (),
    minutes: Mapping[str, float] | None = None,
) -> str:
    """The whole page."""
    series = {method.name: place for place, method in enumerate(summary.methods)}
    tasks, offered = _tasks(options, evaluations, summary)
    training = [(run.name, _curves(run, options.metrics)) for run in runs]
    style, script = _asset("report.css"), _asset("report.js")
    pair_kinds = _pair_kinds(summary.headline, series) if summary.headline else []
    sections = [("success", "Success"), ("templates", "By template"), ("progress", "Progress and failures")]
    sections += [("training", "Training")] if training else []
    sections += [("stages", "Time")] if minutes else []
    return _environment().get_template("report.html").render(
        marker=MARKER,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        title=options.title,
        lead=_lead(evaluations, summary),
        sections=[*sections, ("episodes", "Episodes")],
        level=f"{100 * summary.level:g}",
        summary=summary,
        headline=summary.headline,
        verdict=_verdict(summary.headline) if summary.headline else "",
        pair_kinds=pair_kinds,
        pairs_count=sum(count for _, count, _ in pair_kinds),
        pair_of={method.name: next((pair for pair in summary.pairs if pair.method == method.name), None) for method in summary.methods},
        pass_at=sorted({k for method in summary.methods for k in method.pass_at}),
        any_progress=any(method.progress for method in summary.methods),
        infra=_infra(summary),
        swatches={name: svg.swatch(place) for name, place in series.items()},
        legend=_legend(series),
        outcome_kinds=OUTCOMES,
        statuses=sorted({status for method in summary.methods for status in method.statuses}),
        training=training,
        total_minutes=sum((minutes or {}).values()),
        tasks=tasks,
        selection=_selection(summary, len(tasks), offered),
        charts=_charts(summary, series, minutes or {}, pair_kinds),
    )  # fmt: skip


def visible(text: str) -> str:
    """Control characters and marks that reorder text, spelled out: a page can't hide or turn round what it says."""
    return _HIDDEN.sub(lambda found: f"\u27e8U+{ord(found.group()):04X}\u27e9", text)


def p_value(p: float) -> str:
    """Two significant digits; small ones as a power of ten."""
    if p >= 0.001:
        return f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    mantissa, exponent = f"{p:.1e}".split("e")
    digits = str(int(exponent)).translate(str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"))
    return f"{mantissa} \u00d7 10{digits}"


_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rollouts.analysis"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"visible": visible, "p_value": p_value, "words": lambda name: name.replace("_", " ").capitalize()}
    return environment


def _asset(name: str) -> str:
    return resources.files("rollouts.analysis").joinpath("templates", name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; style-src 'sha256-{digest(style)}'; script-src 'sha256-{digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _lead(evaluations: Sequence[Evaluation], summary: Summary) -> str:
    episodes = [episode for evaluation in evaluations for episode in evaluation.episodes]
    tasks = {episode.task_key.rpartition("|")[0] for episode in episodes}
    attempts = max(len(evaluation.episodes) for evaluation in evaluations) / max(1, len(tasks))
    temperatures = sorted({episode.temperature for episode in episodes})
    days = sorted({episode.created[:10] for episode in episodes if episode.created})
    parts = [
        f"{_count(len(evaluations), 'method')} on the same {_count(len(tasks), 'task')} of {_count(len(summary.templates), 'template')}, in a real browser",
        "one attempt each" if attempts <= 1 else f"{attempts:.0f} attempts each",
        "greedy" if temperatures == [0.0] else "temperature " + ", ".join(f"{temperature:g}" for temperature in temperatures),
    ]
    if days:
        parts.append(f"run on {days[0]}" if len(days) == 1 else f"run from {days[0]} to {days[-1]}")
    return "; ".join(parts) + "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _verdict(pair: Pair) -> str:
    wins, losses, p = pair.comparison.wins, pair.comparison.losses, pair.comparison.p_value
    if wins > losses:
        chance = "more than chance would explain" if p < 0.05 else "but chance alone could explain it"
        return f"{pair.method} solves more of these tasks than {pair.baseline}, {chance}."
    if wins < losses:
        return f"{pair.method} solves fewer of these tasks than {pair.baseline}."
    return f"{pair.method} solves as many of these tasks as {pair.baseline}."


def _pair_kinds(pair: Pair, series: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """(words, count, style): which of the two solved a task."""
    return [
        (f"only {pair.method}", pair.comparison.wins, f"s{series[pair.method] % svg.SERIES}"),
        (f"only {pair.baseline}", pair.comparison.losses, f"s{series[pair.baseline] % svg.SERIES}"),
        ("both", pair.both, "both"),
        ("neither", pair.neither, "neither"),
    ]


def _infra(summary: Summary) -> str:
    missing = {method.name: method.episodes - method.success_rate.n for method in summary.methods}
    named = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
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
    outcomes = []
    for method in methods:
        solved = method.success_rate.n - sum(method.failures.values())
        counts = {"solved": solved} | {name.replace("_", " "): count for name, count in method.failures.items()}
        outcomes.append((method.name, counts))
    progress = [
        (series[method.name], method.name, [(float(step), 100 * mean) for step, (mean, _, _) in enumerate(method.progress)])
        for method in methods
        if method.progress
    ]
    bands = {
        method.name: [(float(step), 100 * low, 100 * high) for step, (_, low, high) in enumerate(method.progress)] for method in methods if method.progress
    }
    return {
        "headline": charts.headline("Tasks solved by each method", [(series[m.name], m.name, m.success_rate) for m in methods]),
        "pairs": charts.share("Which of the two solved a task", pair_kinds),
        "templates": charts.templates("Tasks solved, by template and method", by_template),
        "progress": charts.lines(
            "Milestones done along an episode", progress, "Steps taken", "Milestones done (%)", bands=bands, y_range=(0, 100), dots=True
        )
        if progress
        else None,
        "failures": charts.shares("How episodes ended", outcomes, OUTCOMES, "Episodes with an outcome (%)"),
        "stages": charts.bars("Minutes per stage", [(stage.replace("_", " "), value) for stage, value in minutes.items()], "Minutes") if minutes else None,
    }


def _curves(run: Run, wanted: Sequence[str]) -> list[tuple[str, Markup]]:
    """(name, chart) of each metric: those asked for, else up to six, losses first."""
    names = [name for name in wanted if name in run.curves]
    if not wanted:
        names = sorted((name for name in run.curves if len(run.curves[name]) > 1), key=_rank)[:6]
    return [(_metric_name(name), _curve(run, name)) for name in names]


def _curve(run: Run, metric: str) -> Markup:
    points = charts.thin(run.curves[metric])
    return charts.lines(f"{run.name}: {_metric_name(metric)}", [(0, run.name, points)], "Step", _metric_name(metric), width=350, height=215)


def _rank(metric: str) -> tuple[int, str]:
    if metric in METRICS_FIRST:
        return METRICS_FIRST.index(metric) - 10, metric
    if metric in METRICS_LAST:
        return METRICS_LAST.index(metric) + 10, metric
    return (-1 if "loss" in metric else 0), metric


def _metric_name(metric: str) -> str:
    return metric.replace("/", ": ").replace("_", " ").capitalize()


def _selection(summary: Summary, shown: int, offered: int) -> str:
    rule = (
        f"Chosen by rule: tasks that only one of {summary.treatment} and {summary.baseline} solved, in turn; then tasks that neither or both solved; "
        if summary.baseline != summary.treatment
        else "Chosen by rule: unsolved and solved tasks in turn; "
    )
    left = f" {_count(offered - shown, 'task')} more would not fit in this page." if shown < offered else ""
    return f"{rule}new templates first. {_count(shown, 'task')} shown; open a step to see the page that the policy read.{left}"


class _Budget:
    """Bytes left for episodes."""

    def __init__(self, size: int):
        self.left = size

    def take(self, size: int) -> bool:
        if size > self.left:
            return False
        self.left -= size
        return True


def _tasks(options: Options, evaluations: Sequence[Evaluation], summary: Summary) -> tuple[list[TaskView], int]:
    """The tasks shown, and how many there would be if the page could be of any size."""
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    baseline, treatment = by_name[summary.baseline], by_name[summary.treatment]
    keys = choose(baseline.by_task, treatment.by_task, options.tasks)
    budget = _Budget(options.max_bytes - RESERVED_BYTES)
    order = [treatment, baseline] if treatment is not baseline else [treatment]
    order += [evaluation for evaluation in evaluations if evaluation not in order]
    views = []
    for number, key in enumerate(keys, start=1):
        found = [(evaluation, evaluation.by_task[key]) for evaluation in order if key in evaluation.by_task]
        loaded = [(evaluation, episode, evaluation.load(episode)) for evaluation, episode in found]
        if not budget.take(sum(_text_bytes(trajectory, options.page_characters) for _, _, trajectory in loaded)):
            break
        kind = solved_by(baseline.by_task[key].success, treatment.by_task[key].success)
        successes = [trajectory for _, episode, trajectory in loaded if episode.success]
        task = loaded[0][2].task
        episodes = [
            _episode(f"{number}-{place}", evaluation, episode, trajectory, successes, options, budget)
            for place, (evaluation, episode, trajectory) in enumerate(loaded, start=1)
        ]
        views.append(TaskView(task.intent, task.template, kind, _kind_words(kind, summary), episodes))
    return views, len(keys)


def _kind_words(kind: str, summary: Summary) -> str:
    if summary.baseline == summary.treatment:
        return {"both": "solved", "neither": "not solved"}[kind]
    return {"treatment": f"only {summary.treatment}", "baseline": f"only {summary.baseline}", "neither": "neither solved it", "both": "both solved it"}[kind]


def _episode(
    number: str, evaluation: Evaluation, episode: Episode, trajectory: Trajectory, successes: Sequence[Trajectory], options: Options, budget: _Budget
) -> EpisodeView:
    value, potential = evaluation.scores("value", trajectory), evaluation.scores("potential", trajectory)
    key = key_step(trajectory, successes)
    names = [subgoal.text for subgoal in trajectory.subgoals]
    milestones = [step.milestones for step in trajectory.steps]
    chart = charts.episode(
        f"{evaluation.name}: milestones and critics along the episode", value, potential, milestones, names, key, len(trajectory.steps)
    )
    steps = []
    for place, step in enumerate(trajectory.steps):
        scores = [(symbol, numbers[place]) for symbol, numbers in (("V", value), ("P", potential)) if numbers]
        before = trajectory.steps[place - 1].milestones if place else ()
        steps.append(_step(place, step, before, names, scores, place == key, options.page_characters, budget))
    facts = [f"Ended: {trajectory.status.value.replace('_', ' ')} after {_count(len(trajectory.steps), 'step')}"]
    if episode.failure:
        facts.append(f"class of failure: {episode.failure.value.replace('_', ' ')}")
    if key is not None:
        facts.append(f"key decision: step {key + 1}")
    if trajectory.error:
        facts.append(visible(trajectory.error))
    result = ("success" if episode.success else "failure") if episode.judged else "unjudged"
    words = {"success": "solved", "failure": "not solved", "unjudged": "no outcome"}[result]
    detail = trajectory.outcome.detail if trajectory.outcome else ""
    return EpisodeView(number, evaluation.name, result, words, "; ".join(facts) + ".", detail, trajectory.evidence.answer, chart, steps)


def _step(
    place: int, step: Step, before: Sequence[bool], names: Sequence[str], scores: list[tuple[str, float]], key: bool, characters: int, budget: _Budget
) -> StepView:
    named = list(zip(names, step.milestones, strict=False))
    earlier = [*before, *[False] * len(named)]
    measures = [f"{step.tokens.prompt} prompt and {step.tokens.response} response tokens"] if step.tokens.prompt or step.tokens.response else []
    spent = [(part, getattr(step.seconds, part)) for part in ("browser", "policy", "judge")]
    measures += [f"{part} {seconds:.2f} s" for part, seconds in spent if seconds]
    measures += [f"log-probability {step.log_prob:.2f} nats"] if step.log_prob is not None else []
    return StepView(
        number=place + 1,
        response=_cut(step.response, characters),
        error=step.error and _cut(step.error, characters),
        url=_cut(step.page.url, 400),
        observation=step.page.observation[:characters],
        cut=max(0, len(step.page.observation) - characters),
        screenshot=_screenshot(step.page.screenshot, budget),
        reached=[name for (name, done), was in zip(named, earlier, strict=False) if done and not was],
        lost=[name for (name, done), was in zip(named, earlier, strict=False) if was and not done],
        milestones=named,
        scores=scores,
        measures="; ".join(measures),
        key=key,
    )


def _screenshot(picture: bytes | None, budget: _Budget) -> str:
    """As a data URI, if it is a JPEG and the page has room."""
    if not picture or not picture.startswith(b"\xff\xd8\xff") or not budget.take(len(picture) * 4 // 3 + 100):
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode()


def _text_bytes(trajectory: Trajectory, characters: int) -> int:
    """About what the episode's text and chart take in the page."""
    texts = [text[:characters] for step in trajectory.steps for text in (step.page.observation, step.response, step.error or "")]
    cells = 180 * len(trajectory.subgoals) * len(trajectory.steps) * 2
    return sum(len(escape(visible(text)).encode()) for text in texts) + cells + 1200 * len(trajectory.steps) + 2000


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]}\u2026 [{len(text) - characters} more characters]"
