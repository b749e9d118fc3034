"""The HTML page of one evaluation: success with intervals, pass@k, end statuses, cost, and failing tasks."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from mira_jax.trajectories.records import Status
from mira_jax.trajectories.summary import Method, Rate, Spent, Summary
from rollouts.analysis.evaluation import Episode
from rollouts.analysis.figures import planner_words
from rollouts.pages import charts, frame, svg
from rollouts.pages.episodes import count, visible

MARKER = "made by rollouts.evaluate"
MOST_TASKS = 500
"""Maximum number of tasks on the page. The table of episodes contains all."""
_INTENT, _ERROR = 300, 200
"""Maximum characters shown."""


@dataclasses.dataclass(frozen=True)
class FailingTask:
    """A task with at least one failed attempt."""

    id: str
    intent: str
    domain: str
    solved: str
    style: str
    endings: str


def render(summary: Summary, episodes: Sequence[Episode], lost: Sequence[Episode] = ()) -> str:
    """Renders the page.

    Args:
        summary: the summary of one method, from `figures.gather`.
        episodes, lost: as for `figures.gather`.
    """
    judged = [episode for episode in episodes if episode.judged]
    failing = failing_tasks(judged)
    (method,) = summary.methods.values()
    several = len(method.pass_at_k) > 1
    without = [*(episode for episode in episodes if not episode.judged), *lost]
    statuses = _statuses([*episodes, *lost])
    values = {
        "marker": MARKER,
        "title": ", ".join(sorted({visible(policy.name) for policy in method.policies})),
        "lead": _lead(summary, method, [*episodes, *lost]),
        "sections": _sections(several),
        "level": f"{100 * summary.intervals.level:g}",
        "tiles": _tiles(method),
        "interval": summary.intervals.rate,
        "domains": _bars(method.per_domain),
        "templates": _bars(method.per_template),
        "pass_chart": _pass_chart(method.pass_at_k) if several else None,
        "pass_at": list(method.pass_at_k.items()),
        "status_chart": charts.share(
            "Episodes by status", [(name.replace("_", " "), number, style) for name, style, number, *_ in statuses], width=760
        ),
        "statuses": statuses,
        "costs_of": "Tokens, time and cost" if method.cost and method.cost.usd else "Tokens and time",
        "costs": _costs(method, sum(episode.steps for episode in judged)),
        "planner": planner_words(method),
        "failing": failing[:MOST_TASKS],
        "failing_words": _failing_words(failing, len({episode.task for episode in judged}), several),
        "lost": [(visible(episode.spec.id), visible(episode.error[:_ERROR])) for episode in without[:MOST_TASKS]],
    }
    return frame.render("evaluation.html", values, "report.css")


def failing_tasks(judged: Sequence[Episode]) -> list[FailingTask]:
    """Lists failing tasks by increasing success rate, then by template and id."""
    by_task: dict[str, list[Episode]] = collections.defaultdict(list)
    for episode in judged:
        by_task[episode.task].append(episode)
    failing = [attempts for attempts in by_task.values() if not all(episode.success for episode in attempts)]
    failing.sort(key=lambda attempts: (_share(attempts), attempts[0].template, attempts[0].spec.id, attempts[0].spec.seed))
    return [_failing_task(sorted(attempts, key=lambda episode: episode.attempt)) for attempts in failing]


def _failing_task(attempts: Sequence[Episode]) -> FailingTask:
    first, solved = attempts[0], sum(episode.success for episode in attempts)
    endings = collections.Counter(_ending(episode) for episode in attempts if not episode.success)
    return FailingTask(
        id=visible(first.spec.id),
        intent=visible(svg.shorten(first.spec.intent, _INTENT)),
        domain=visible(first.domain),
        solved="not solved" if len(attempts) == 1 else f"{solved} of {len(attempts)} solved",
        style="plain" if solved else "failure",
        endings="; ".join(f"{words} ({number} times)" if number > 1 else words for words, number in endings.items()),
    )


def _ending(episode: Episode) -> str:
    failure = f", {episode.failure.value.replace('_', ' ')}" if episode.failure else ""
    return f"{episode.status.value.replace('_', ' ')} after {count(episode.steps, 'step')}{failure}"


def _share(attempts: Sequence[Episode]) -> float:
    return sum(episode.success for episode in attempts) / len(attempts)


def _sections(several: bool) -> list[tuple[str, str]]:
    """(anchor, title) of each section."""
    sections = [("success", "Success"), ("domains", "By domain and template")]
    sections += [("attempts", "Several attempts")] if several else []
    return [*sections, ("endings", "How episodes ended"), ("failing", "Failing tasks")]


def _lead(summary: Summary, method: Method, episodes: Sequence[Episode]) -> str:
    tasks = {episode.task for episode in episodes}
    attempts = max(collections.Counter(episode.task for episode in episodes).values())
    days = sorted({visible(episode.created[:10]) for episode in episodes if episode.created})
    parts = [
        f"{visible(summary.suite)}, split {visible(summary.split)}: "
        f"{count(len(tasks), 'task')} of {count(len(method.per_template), 'template')}",
        "one attempt each" if attempts == 1 else f"{attempts} attempts each",
        "temperature " + ", ".join(sorted({f"{policy.temperature:g}" for policy in method.policies})),
    ]
    if summary.task_seed is not None:
        parts.append(f"seed {summary.task_seed}")
    if checkpoints := sorted({visible(policy.checkpoint) for policy in method.policies if policy.checkpoint}):
        parts.append("checkpoint " + ", ".join(checkpoints))
    if planners := sorted({visible(policy.planner) for policy in method.policies if policy.planner}):
        parts.append("planner " + ", ".join(planners))
    if days:
        parts.append(f"run on {days[0]}" if len(days) == 1 else f"run from {days[0]} to {days[-1]}")
    return "; ".join(parts) + "."


def _tiles(method: Method) -> list[tuple[str, str, str]]:
    """(name, figure, details) of the headline figures."""
    solved, seconds = method.success_rate, method.seconds
    tiles = [
        ("Solved", f"{100 * solved.mean:.1f} %", f"{100 * solved.low:.1f} – {100 * solved.high:.1f} %"),
        ("Episodes", f"{solved.attempts:,}", f"{method.infra_errors} more without an outcome" if method.infra_errors else "all judged"),
        ("Steps per episode", f"{method.mean_steps or 0:.1f}", _milestones(method.milestones)),
        ("Seconds per episode", f"{sum(spent.per_episode or 0 for spent in seconds.values()):.1f}",
         ", ".join(f"{role} {spent.per_episode or 0:.1f}" for role, spent in seconds.items())),
    ]  # fmt: skip
    if any(spent.total for spent in method.tokens.values()):
        total = sum(spent.per_episode or 0 for spent in method.tokens.values())
        each = ", ".join(f"{name.replace('_', ' ')} {spent.per_episode or 0:,.0f}" for name, spent in method.tokens.items())
        tiles.append(("Tokens per episode", f"{total:,.0f}", each))
    if (cost := method.cost) and cost.usd:
        per_success = f", {_usd(cost.usd_per_success)} a success" if cost.usd_per_success is not None else ""
        tiles.append(("Cost", _usd(cost.usd), f"{_usd(cost.usd_per_episode or 0)} an episode{per_success}"))
    return tiles


def _milestones(share: Rate | None) -> str:
    return "" if share is None else f"{100 * share.mean:.0f} % of milestones done"


def _bars(rates: Mapping[str, Rate]) -> list[tuple[str, Rate, Markup]]:
    return [
        (visible(name), rate, svg.rate_bar(rate.mean, rate.low, rate.high, charts.rate_words(visible(name), rate)))
        for name, rate in rates.items()
    ]


def _pass_chart(pass_at_k: Mapping[int, Rate]) -> Markup:
    points = [(float(k), 100 * rate.mean) for k, rate in pass_at_k.items()]
    band = [(float(k), 100 * rate.low, 100 * rate.high) for k, rate in pass_at_k.items()]
    return charts.lines(
        "pass@k", [(0, "pass@k", points)], "Attempts k", "Tasks solved (%)", bands={"pass@k": band}, y_range=(0, 100), dots=True
    )


def _statuses(episodes: Sequence[Episode]) -> list[tuple[str, str, int, int | None, float | None]]:
    """(status, style, episodes, solved, mean steps) of each status that occurs. The last two are None for infra_error."""
    rows = []
    for place, status in enumerate(Status):
        of_status = [episode for episode in episodes if episode.status is status]
        solved = steps = None
        if status is not Status.INFRA_ERROR and of_status:
            solved, steps = sum(episode.success for episode in of_status), sum(episode.steps for episode in of_status) / len(of_status)
        if of_status:
            rows.append((status.value, f"s{place}", len(of_status), solved, steps))
    return rows


def _costs(method: Method, steps: int) -> list[tuple[str, list[str]]]:
    """(name, [total, per episode, per step]) of each cost."""
    rows = [
        (f"{kind.replace('_', ' ').capitalize()} tokens", [f"{value:,.0f}" for value in _three(spent)])
        for kind, spent in method.tokens.items()
    ]
    rows += [(f"{role.capitalize()}, seconds", [f"{value:,.2f}" for value in _three(spent)]) for role, spent in method.seconds.items()]
    if (cost := method.cost) and cost.usd:
        per_step = cost.usd / steps if steps else 0.0
        rows.append(("Cost", [_usd(value) for value in (cost.usd, cost.usd_per_episode or 0.0, per_step)]))
    return rows


def _three(spent: Spent) -> tuple[float, float, float]:
    return spent.total, spent.per_episode or 0.0, spent.per_step or 0.0


def _usd(value: float) -> str:
    """Formats with cents, or with two significant digits below ten cents."""
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${float(f'{value:.2g}'):.10f}".rstrip("0")


def _failing_words(failing: Sequence[FailingTask], tasks: int, several: bool) -> str:
    if not failing:
        return f"None: all {tasks} were solved at every attempt." if several else f"None: all {tasks} were solved."
    often = "were not solved at every attempt; those never solved come first" if several else "were not solved"
    left = f" The first {MOST_TASKS} are listed." if len(failing) > MOST_TASKS else ""
    return f"{len(failing)} of {count(tasks, 'task')} {often}.{left}"
