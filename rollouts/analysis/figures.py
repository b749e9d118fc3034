"""The figures of one evaluation, worked out once: what `summary.json`, the table, the CSV and the page say."""

import collections
import csv
import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rollouts.analysis import statistics
from rollouts.analysis.evaluation import Episode

LEVEL = 0.95
"""Of the intervals."""

COLUMNS = (
    "task", "template", "domain", "attempt", "status", "success", "score", "steps",
    "prompt_tokens", "response_tokens", "policy_seconds", "browser_seconds",
)  # fmt: skip
"""Of the table of episodes."""


def summarize(
    episodes: Sequence[Episode], lost: Sequence[Episode] = (), prompt_price: float = 0.0, response_price: float = 0.0
) -> dict[str, Any]:
    """The figures as plain data.

    Args:
        episodes: labelled. Those without an outcome count in no rate.
        lost: given up after infrastructure errors; counted apart.
        prompt_price, response_price: USD per million tokens.
    """
    judged = [episode for episode in episodes if episode.judged]
    status = collections.Counter(episode.status.value for episode in [*episodes, *lost])
    policies = sorted({(episode.policy.name, episode.policy.checkpoint, episode.policy.temperature) for episode in judged})
    ordered = sorted(judged, key=lambda episode: (episode.attempt, episode.spec.id))
    return {
        "success_rate": _rate(judged),
        "per_domain": _rates(judged, lambda episode: episode.domain),
        "per_template": _rates(judged, lambda episode: episode.template),
        "pass_at_k": {str(k): dataclasses.asdict(rate) for k, rate in statistics.pass_at(list(tries(judged).values()), LEVEL).items()},
        "intervals": {"level": LEVEL, "rates": "Wilson", "pass_at_k": statistics.BOOTSTRAP},
        "status": dict(sorted(status.items())),
        "infra_errors": len(lost) + sum(not episode.judged for episode in episodes),
        "mean_steps": _mean(episode.steps for episode in judged),
        "mean_score": _mean(episode.score for episode in judged),
        "milestones": _mean(episode.progress[-1] for episode in judged if episode.progress),
        "seconds": _seconds(judged),
        "tokens": _tokens(judged),
        "cost": _cost(judged, prompt_price, response_price),
        "policies": [{"name": name, "checkpoint": checkpoint, "temperature": temperature} for name, checkpoint, temperature in policies],
        "tasks": {task_key(episode): episode.success for episode in ordered},
    }


def task_key(episode: Episode) -> str:
    """The task, and the attempt where there are several."""
    return episode.spec.id + (f"#{episode.attempt}" if episode.attempt else "")


def tries(judged: Iterable[Episode]) -> dict[str, tuple[int, int]]:
    """Task to (attempts, successes)."""
    counts: dict[str, tuple[int, int]] = {}
    for episode in judged:
        attempts, successes = counts.get(episode.task, (0, 0))
        counts[episode.task] = attempts + 1, successes + episode.success
    return counts


def table(summary: dict[str, Any]) -> str:
    """The rates as text: a line per domain where there are several, per template, and per k where there are several attempts."""
    groups = [summary["per_domain"]] if len(summary["per_domain"]) > 1 else []
    groups += [summary["per_template"], {"all": summary["success_rate"]}]
    if len(summary["pass_at_k"]) > 1:
        groups.append({f"pass@{k}": rate for k, rate in summary["pass_at_k"].items()})
    width = max(len(name) for group in groups for name in group)
    lines = [f"{'':{width}}  success   95 % interval      n"]
    for group in groups:
        lines += [
            f"{name:{width}}  {100 * r['mean']:5.1f} %   {100 * r['low']:5.1f} - {100 * r['high']:5.1f} %  {r['n']:5d}"
            for name, r in group.items()
        ]
    lines.append(", ".join(f"{count} {name}" for name, count in summary["status"].items()))
    return "\n".join(lines)


def episode_table(episodes: Iterable[Episode]) -> str:
    """CSV, a line per episode by task and attempt. Success and score are empty where there is no outcome.

    Names that a spreadsheet would take for a formula begin with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for episode in sorted(episodes, key=lambda episode: (episode.spec.id, episode.spec.seed, episode.attempt)):
        outcome = (int(episode.success), episode.score) if episode.judged else ("", "")
        tokens, seconds = episode.tokens, episode.seconds
        writer.writerow(
            (*map(_inert, (episode.spec.id, episode.template, episode.domain)), episode.attempt, episode.status.value, *outcome,
             episode.steps, tokens.prompt, tokens.response, round(seconds.policy, 3), round(seconds.browser, 3))
        )  # fmt: skip
    return text.getvalue()


def _inert(name: str) -> str:
    return "'" + name if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else name


def _rates(episodes: Sequence[Episode], group: Callable[[Episode], str]) -> dict[str, Any]:
    groups: dict[str, list[Episode]] = collections.defaultdict(list)
    for episode in episodes:
        groups[group(episode)].append(episode)
    return {name: _rate(groups[name]) for name in sorted(groups)}


def _rate(episodes: Sequence[Episode]) -> dict[str, Any]:
    return dataclasses.asdict(statistics.rate(sum(episode.success for episode in episodes), len(episodes), LEVEL))


def _seconds(episodes: Sequence[Episode]) -> dict[str, dict[str, float | None]]:
    """Role to wall-clock seconds."""
    steps = sum(episode.steps for episode in episodes)
    totals = {role: math.fsum(getattr(episode.seconds, role) for episode in episodes) for role in ("browser", "policy")}
    return {
        role: {"total": total, "per_episode": _share(total, len(episodes)), "per_step": _share(total, steps)}
        for role, total in totals.items()
    }


def _tokens(episodes: Sequence[Episode]) -> dict[str, dict[str, float | None]]:
    totals = {kind: sum(getattr(episode.tokens, kind) for episode in episodes) for kind in ("prompt", "response")}
    return {kind: {"total": total, "per_episode": _share(total, len(episodes))} for kind, total in totals.items()}


def _cost(episodes: Sequence[Episode], prompt_price: float, response_price: float) -> dict[str, float | None]:
    """In USD."""
    tokens = _tokens(episodes)
    total = (tokens["prompt"]["total"] * prompt_price + tokens["response"]["total"] * response_price) / 1e6
    solved = sum(episode.success for episode in episodes)
    return {
        "usd": total,
        "usd_per_episode": _share(total, len(episodes)),
        "usd_per_success": _share(total, solved),
        "prompt_price": prompt_price,
        "response_price": response_price,
    }


def _share(total: float, count: int) -> float | None:
    return total / count if count else None


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None
