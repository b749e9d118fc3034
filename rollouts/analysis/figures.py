"""Computes the figures of an evaluation once, for `summary.json`, the tables, the CSV file and the pages."""

import collections
import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from mira_jax.trajectories.records import Policy, TokenCounts
from mira_jax.trajectories.summary import Cost, Evaluated, Intervals, Method, Planned, Rate, Spent, Summary
from rollouts.analysis import statistics
from rollouts.analysis.evaluation import Episode
from rollouts.analysis.failures import Failure

LEVEL = 0.95
"""Default confidence level of the intervals."""

COLUMNS = (
    "task", "template", "domain", "attempt", "status", "success", "score", "steps",
    "prompt_tokens", "response_tokens", "policy_seconds", "browser_seconds",
    "planner_prompt_tokens", "planner_response_tokens", "planner_seconds", "unanswered", "replans", "held_exits",
)  # fmt: skip
"""Columns of the table of episodes."""


def summarize(
    name: str,
    episodes: Sequence[Episode],
    lost: Sequence[Episode] = (),
    prices: tuple[float, float] | None = None,
    planner_prices: tuple[float, float] = (0.0, 0.0),
    level: float = LEVEL,
) -> Method:
    """Computes the figures of the method `name`.

    Args:
        episodes: labelled episodes. Episodes without an outcome are left out of all rates.
        lost: episodes given up after infrastructure errors, counted separately.
        prices: USD per million tokens of prompt and of response. Without them no cost is computed.
        planner_prices: those of the planner.
    """
    judged = [episode for episode in episodes if episode.judged]
    status = collections.Counter(episode.status.value for episode in [*episodes, *lost])
    failures = collections.Counter(episode.failure for episode in judged if episode.failure)
    policies = sorted({_evaluated(one.policy) for one in judged}, key=msgspec.structs.astuple)
    milestones = mean_progress(name, judged, level)
    return Method(
        success_rate=rate(name, judged, level),
        per_domain=_rates(name, judged, lambda episode: episode.domain, level),
        per_template=_rates(name, judged, lambda episode: episode.template, level),
        pass_at_k=pass_at(name, tries(judged).values(), level),
        status=dict(sorted(status.items())),
        infra_errors=len(lost) + sum(not episode.judged for episode in episodes),
        failures={failure.value: failures[failure] for failure in Failure},
        mean_steps=_mean(episode.steps for episode in judged),
        mean_score=_mean(episode.score for episode in judged),
        milestones=milestones[-1] if milestones else None,
        milestones_after_steps=milestones,
        seconds=_seconds(judged),
        tokens=_tokens(judged),
        cost=_cost(judged, prices, planner_prices) if prices else None,
        planned=_planned(judged),
        policies=policies,
        tasks=tries(judged),
    )


def _evaluated(policy: Policy) -> Evaluated:
    return Evaluated(
        name=policy.name,
        checkpoint=policy.checkpoint,
        temperature=policy.temperature,
        fingerprint=policy.fingerprint,
        planner=policy.planner,
    )


def gather(methods: Mapping[str, Method], episodes: Iterable[Episode], level: float = LEVEL) -> Summary:
    """Summarises `methods`, without comparisons. `episodes` are all episodes, from which the suite and split of the tasks are read."""
    kinds = {(episode.spec.suite, episode.spec.split) for episode in episodes}
    return Summary(
        suite=", ".join(sorted({suite for suite, _ in kinds})),
        split=", ".join(sorted({split for _, split in kinds})),
        intervals=Intervals(level=level, rate=statistics.RATE_INTERVAL, difference=statistics.DIFFERENCE_INTERVAL),
        methods=dict(methods),
        comparisons=[],
    )


def rate(name: str, judged: Iterable[Episode], level: float = LEVEL) -> Rate:
    """Success rate of the method `name`: the mean over tasks of the fraction of successful attempts. Without tasks: 0, interval [0, 1]."""
    counts = tries(judged).values()
    return _mean_of_tasks(name, [solved / attempts for attempts, solved in counts], sum(attempts for attempts, _ in counts), level)


def tries(judged: Iterable[Episode]) -> dict[str, tuple[int, int]]:
    """Maps each task to (attempts, successes)."""
    counts: dict[str, tuple[int, int]] = {}
    for episode in judged:
        attempts, successes = counts.get(episode.task, (0, 0))
        counts[episode.task] = attempts + 1, successes + episode.success
    return counts


def pass_at(name: str, counts: Iterable[tuple[int, int]], level: float = LEVEL) -> dict[int, Rate]:
    """pass@k, averaged over tasks, for k = 1, 2, 4, ... and the largest number of attempts of a task. pass@1 is the success rate.

    A task with fewer than k attempts, because some were lost, is left out for that k.

    Args:
        counts: (attempts, successes) of each task, with at least one attempt each.
    """
    counts = list(counts)
    most = max((attempts for attempts, _ in counts), default=0)
    rates = {}
    for k in sorted({*(2**power for power in range(most.bit_length())), most} - {0}):
        enough = [(attempts, solved) for attempts, solved in counts if attempts >= k]
        estimates = [statistics.pass_at_k(attempts, solved, k) for attempts, solved in enough]
        rates[k] = _mean_of_tasks(name, estimates, sum(attempts for attempts, _ in enough), level)
    return rates


def mean_progress(name: str, judged: Iterable[Episode], level: float = LEVEL) -> list[Rate]:
    """Mean fraction of milestones reached after 0, 1, 2, ... steps. An episode that has ended keeps its last value. Empty if no episode
    has milestones."""
    curves: dict[str, list[tuple[float, ...]]] = {}
    for episode in judged:
        if episode.progress:
            curves.setdefault(episode.task, []).append(episode.progress)
    attempts = sum(map(len, curves.values()))
    longest = max((len(curve) for of_task in curves.values() for curve in of_task), default=0)
    rates = [Rate(method=name, mean=0.0, low=0.0, high=0.0, tasks=len(curves), attempts=attempts)] if curves else []
    for step in range(longest):
        shares = [math.fsum(curve[min(step, len(curve) - 1)] for curve in of_task) / len(of_task) for of_task in curves.values()]
        rates.append(_mean_of_tasks(name, shares, attempts, level))
    return rates


def table(summary: Summary) -> str:
    """Formats the success rates as text. Rates per domain and per k are listed if there are several; rates per template always."""
    (method,) = summary.methods.values()
    groups = [method.per_domain] if len(method.per_domain) > 1 else []
    groups += [method.per_template, {"all": method.success_rate}]
    if len(method.pass_at_k) > 1:
        groups.append({f"pass@{k}": rate for k, rate in method.pass_at_k.items()})
    width = max(len(name) for group in groups for name in group)
    lines = [f"{'':{width}}  success   {100 * summary.intervals.level:g} % interval   tasks  attempts"]
    for group in groups:
        lines += [
            f"{name:{width}}  {100 * one.mean:5.1f} %   {100 * one.low:5.1f} - {100 * one.high:5.1f} %  {one.tasks:5d}  {one.attempts:8d}"
            for name, one in group.items()
        ]
    lines.append(", ".join(f"{count} {name}" for name, count in method.status.items()))
    if method.planned is not None:
        lines.append(f"planner: {planner_words(method)}")
    return "\n".join(lines)


def planner_words(method: Method) -> str:
    """What the planner took and did, as text. "" without a planner."""
    if method.planned is None:
        return ""
    planned, tokens = method.planned, sum(spent.per_step or 0 for name, spent in method.tokens.items() if name.startswith("planner"))
    return (
        f"{method.seconds['planner'].per_step or 0:.2f} s and {tokens:,.0f} tokens a step; {planned.replans} re-planned, "
        f"{planned.held_exits} exits held back, {planned.unanswered} steps without a valid answer"
    )


def episode_table(episodes: Iterable[Episode]) -> str:
    """CSV with one line per episode, ordered by task and attempt. Success and score are empty if there is no outcome.

    Names that a spreadsheet would read as a formula are prefixed with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for episode in sorted(episodes, key=lambda episode: (episode.spec.id, episode.spec.seed, episode.attempt)):
        outcome = (int(episode.success), episode.score) if episode.judged else ("", "")
        tokens, seconds = episode.tokens, episode.seconds
        writer.writerow(
            (*map(_escape_formula, (episode.spec.id, episode.template, episode.domain)), episode.attempt, episode.status.value, *outcome,
             episode.steps, tokens.prompt, tokens.response, round(seconds.policy, 3), round(seconds.browser, 3),
             episode.planner_tokens.prompt, episode.planner_tokens.response, round(seconds.planner, 3),
             episode.unanswered, episode.replans, episode.held_exits)
        )  # fmt: skip
    return text.getvalue()


def _escape_formula(name: str) -> str:
    return "'" + name if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else name


def _rates(name: str, episodes: Sequence[Episode], group: Callable[[Episode], str], level: float) -> dict[str, Rate]:
    groups: dict[str, list[Episode]] = collections.defaultdict(list)
    for episode in episodes:
        groups[group(episode)].append(episode)
    return {key: rate(name, groups[key], level) for key in sorted(groups)}


def _mean_of_tasks(name: str, values: Sequence[float], attempts: int, level: float) -> Rate:
    low, high = statistics.rate_interval(values, level) if values else (0.0, 1.0)
    mean = math.fsum(values) / len(values) if values else 0.0
    return Rate(method=name, mean=mean, low=min(mean, float(low)), high=max(mean, float(high)), tasks=len(values), attempts=attempts)


def _seconds(episodes: Sequence[Episode]) -> dict[str, Spent]:
    """Wall-clock seconds of each role."""
    roles = ("browser", "policy", *(["planner"] if _has_planner(episodes) else []))
    return {role: _spent(episodes, math.fsum(getattr(one.seconds, role) for one in episodes)) for role in roles}


def _tokens(episodes: Sequence[Episode]) -> dict[str, Spent]:
    spent = {kind: _spent(episodes, sum(getattr(one.tokens, kind) for one in episodes)) for kind in ("prompt", "response")}
    if _has_planner(episodes):
        for kind in ("prompt", "response"):
            spent[f"planner_{kind}"] = _spent(episodes, sum(getattr(one.planner_tokens, kind) for one in episodes))
    return spent


def _has_planner(episodes: Sequence[Episode]) -> bool:
    return any(episode.policy.planner for episode in episodes)


def _planned(episodes: Sequence[Episode]) -> Planned | None:
    if not _has_planner(episodes):
        return None
    return Planned(**{name: sum(getattr(episode, name) for episode in episodes) for name in ("unanswered", "replans", "held_exits")})


def _spent(episodes: Sequence[Episode], total: float) -> Spent:
    steps = sum(episode.steps for episode in episodes)
    return Spent(total=total, per_episode=_share(total, len(episodes)), per_step=_share(total, steps))


def _cost(episodes: Sequence[Episode], prices: tuple[float, float], planner_prices: tuple[float, float]) -> Cost:
    planner = sum(_usd(episode.planner_tokens, planner_prices) for episode in episodes)
    total = sum(_usd(episode.tokens, prices) for episode in episodes) + planner
    return Cost(
        usd=total,
        usd_per_episode=_share(total, len(episodes)),
        usd_per_success=_share(total, sum(episode.success for episode in episodes)),
        prompt_price=prices[0],
        response_price=prices[1],
        planner_usd=planner,
    )


def _usd(tokens: TokenCounts, prices: tuple[float, float]) -> float:
    return (tokens.prompt * prices[0] + tokens.response * prices[1]) / 1e6


def _share(total: float, count: int) -> float | None:
    return total / count if count else None


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None
