"""Measures a policy: collects one episode per held-out task, labels them, and writes the success rates.

    python -m rollouts.evaluate --config configs/demo/evaluate.yaml --out runs/demo/evaluation/mira

DIR/episodes holds the episodes, DIR/labelled the judged ones, DIR/summary.json the figures. Two policies that are
evaluated with the same suite, split, templates, episodes and seed get the same tasks, so that they can be paired.
"""

import collections
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mira_jax import commands, config
from mira_jax.errors import UserError
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.shards import ShardReader, now, write_atomically
from rollouts.analysis.statistics import rate
from rollouts.labels.outcome import is_labelled, label_folder
from rollouts.pool import LOST, RolloutConfig, collect, lost_episodes
from rollouts.suites import make_suite

CONFIG = "evaluate.yaml"


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(RolloutConfig):
    split: str = "test"
    episodes: int = 150


def main(settings: EvaluateConfig) -> int:
    if not settings.out:
        raise UserError("out: name the folder to write, for example --out runs/evaluation")
    folder = Path(settings.out)
    _same_evaluation(settings, folder)
    try:
        tally = collect(settings, folder / "episodes")
    finally:
        _forget_unless_begun(folder)
    lost = lost_episodes(folder / "episodes" / LOST)
    if len(lost) == tally.wanted:
        cause = lost[-1].error
        raise UserError(f"all {len(lost)} episodes were lost to infrastructure errors, the last one to: {cause}; mend it and run again")
    if not is_labelled(folder / "episodes", folder / "labelled"):
        suite = make_suite(settings.suite.name, **settings.suite.options)
        label_folder(folder / "episodes", folder / "labelled", suite, overwrite=True)
    summary = summarize(ShardReader(folder / "labelled"), lost)
    summary |= {"suite": settings.suite.name, "split": settings.split, "seed": settings.seed, "created": now()}
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode())
    print(table(summary))
    print(f"{folder / 'summary.json'}: {tally.steps} new steps at {tally.steps_per_second:.1f} steps/s")
    if lost:
        print(f"{len(lost)} of {tally.wanted} tasks are not in these rates: infrastructure errors; the same command tries them again")
    return 0


def summarize(episodes: Sequence[Trajectory], lost: Sequence[Trajectory] = ()) -> dict[str, Any]:
    """The figures of one evaluation.

    Args:
        episodes: labelled. Those without an outcome count in no rate.
        lost: given up after infrastructure errors; counted apart.
    """
    judged = [episode for episode in episodes if episode.outcome is not None]
    templates: dict[str, list[Trajectory]] = collections.defaultdict(list)
    for episode in judged:
        templates[episode.task.template].append(episode)
    status = collections.Counter(episode.status.value for episode in [*episodes, *lost])
    ends = [sum(episode.steps[-1].milestones) / len(episode.subgoals) for episode in judged if episode.steps and episode.subgoals]
    policies = {episode.policy for episode in judged}
    return {
        "success_rate": _rate(judged),
        "per_template": {name: _rate(templates[name]) for name in sorted(templates)},
        "status": dict(sorted(status.items())),
        "infra_errors": len(lost) + sum(episode.outcome is None for episode in episodes),
        "mean_steps": _mean(len(episode.steps) for episode in judged),
        "mean_score": _mean(episode.outcome.score for episode in judged if episode.outcome),
        "milestones": _mean(ends),
        "seconds_per_step": _seconds(judged),
        "policies": [{"name": policy.name, "checkpoint": policy.checkpoint, "temperature": policy.temperature} for policy in policies],
        "tasks": {task_key(episode): episode.success for episode in sorted(judged, key=lambda episode: (episode.attempt, episode.task.id))},
    }


def task_key(episode: Trajectory) -> str:
    """What pairs are made by: the task, and the attempt where there are several."""
    return episode.task.id + (f"#{episode.attempt}" if episode.attempt else "")


def table(summary: dict[str, Any]) -> str:
    """The rates as text, a template per line."""
    rows = [*summary["per_template"].items(), ("all", summary["success_rate"])]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  success   95 % interval      n"]
    lines += [
        f"{name:{width}}  {100 * r['mean']:5.1f} %   {100 * r['low']:5.1f} - {100 * r['high']:5.1f} %  {r['n']:5d}" for name, r in rows
    ]
    lines.append(", ".join(f"{count} {name}" for name, count in summary["status"].items()))
    return "\n".join(lines)


def _same_evaluation(settings: EvaluateConfig, folder: Path) -> None:
    """Refuses a folder that holds an evaluation of something else; notes what this one is of."""
    path = folder / CONFIG
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a folder; choose another out")
    if path.exists() and (folder / "episodes").is_dir():
        before = config.load(EvaluateConfig, path)
        changed = [name for name in ("suite", "split", "templates", "episodes", "attempts", "seed", "policy", "observation", "limits")
                   if _identity(getattr(before, name)) != _identity(getattr(settings, name))]  # fmt: skip
        if changed:
            raise UserError(f"{folder}: holds an evaluation with other settings ({', '.join(changed)}); choose another folder")
    elif folder.exists() and any(entry != path for entry in folder.iterdir()):
        raise UserError(f"{folder}: not empty, and no evaluation; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    config.save(settings, path)


def _forget_unless_begun(folder: Path) -> None:
    """Takes the note away again if no browser or endpoint was there to begin with."""
    if not (folder / "episodes").exists():
        (folder / CONFIG).unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _identity(value: Any) -> Any:
    """What of a setting makes it another evaluation: not where its endpoint listens."""
    tree = config.to_tree(value)
    return {key: item for key, item in tree.items() if key != "endpoint"} if isinstance(tree, dict) else tree


def _rate(episodes: Sequence[Trajectory]) -> dict[str, Any]:
    return dataclasses.asdict(rate(sum(episode.success for episode in episodes), len(episodes)))


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None


def _seconds(episodes: Sequence[Trajectory]) -> dict[str, float | None]:
    steps = [step for episode in episodes for step in episode.steps]
    return {"browser": _mean(step.seconds.browser for step in steps), "policy": _mean(step.seconds.policy for step in steps)}


if __name__ == "__main__":
    sys.exit(commands.run(main, EvaluateConfig, __doc__, flags=("out",)))
