"""Compares two evaluations of the same tasks, task by task: wins, losses, ties, and whether chance could explain them.

    python -m rollouts.compare runs/demo/evaluations/sft runs/demo/evaluations/mira

The first is the baseline. A folder is what `python -m rollouts.evaluate` wrote, or labelled shards.
"""

import dataclasses
import json
import sys
from pathlib import Path

from mira_jax import commands
from mira_jax.errors import UserError
from mira_jax.files import write_atomically
from rollouts.analysis.episodes import visible
from rollouts.analysis.evaluation import EPISODES, Episode, Evaluation, read_episodes
from rollouts.analysis.pages import p_value
from rollouts.analysis.paired import Paired, PairedTask, compare_tasks
from rollouts.analysis.statistics import BOOTSTRAP, Rate
from rollouts.pool import LOST, lost_episodes


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    baseline: str = ""
    """The folder of an evaluation."""
    treatment: str = ""
    """Another, of the same tasks."""
    json: str | None = None
    """Also write everything here, every task of each list included."""
    level: float = 0.95
    """Of the intervals."""

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise UserError(f"level: {self.level} is not between 0 and 1")


def main(config: CompareConfig) -> int:
    if not config.baseline or not config.treatment:
        raise UserError("name two evaluations, the baseline first: python -m rollouts.compare runs/a runs/b")
    folders = config.baseline, config.treatment
    baseline, treatment = (Evaluation(folder, folder) for folder in folders)
    paired = compare_tasks(baseline, treatment, (_lost(folders[0]), _lost(folders[1])), config.level)
    print(text(paired))
    if config.json:
        tree = dataclasses.asdict(paired) | {"tasks": paired.tasks, "interval": BOOTSTRAP}
        write_atomically(Path(config.json), (json.dumps(tree, indent=1) + "\n").encode())
    return 0


def text(paired: Paired) -> str:
    width = max(len(paired.baseline), len(paired.treatment))
    level = f"{100 * paired.level:g} %"
    solved = sum(task.baseline == task.attempts for task in paired.ties)
    neither = sum(task.baseline == 0 for task in paired.ties)
    test = "McNemar" if all(task.attempts == 1 for task in (*paired.wins, *paired.losses, *paired.ties)) else "sign test"
    lines = [
        f"baseline   {paired.baseline:{width}}  {_rate(paired.baseline_rate)}",
        f"treatment  {paired.treatment:{width}}  {_rate(paired.treatment_rate)}",
        f"difference {100 * paired.difference:+.1f} points, {level} interval {100 * paired.low:+.1f} to {100 * paired.high:+.1f}, "
        "by the bootstrap over tasks",
        f"{paired.tasks} tasks: {len(paired.wins)} wins, {len(paired.losses)} losses, {len(paired.ties)} ties; "
        f"exact {test}, two-sided: p = {p_value(paired.p_value)}",
        *_tasks("wins", paired.wins),
        *_tasks("losses", paired.losses),
        f"ties: {solved} solved by both at every attempt, {neither} by neither; --json FILE lists them",
    ]
    if paired.left_out:
        lines.append(f"left out after infrastructure errors: {visible(', '.join(paired.left_out))}")
    return "\n".join(lines)


def _lost(folder: str) -> list[Episode]:
    path = Path(folder) / EPISODES / LOST
    return read_episodes(lost_episodes(path), path)


def _rate(rate: Rate) -> str:
    return f"{100 * rate.mean:5.1f} %   {100 * rate.low:5.1f} - {100 * rate.high:5.1f} %"


def _tasks(name: str, tasks: list[PairedTask]) -> list[str]:
    counts = [f" ({task.baseline} to {task.treatment} of {task.attempts})" if task.attempts > 1 else "" for task in tasks]
    return [f"{name}:", *(f"  {visible(task.task)}{count}" for task, count in zip(tasks, counts, strict=True))] if tasks else []


if __name__ == "__main__":
    sys.exit(commands.run(main, CompareConfig, __doc__, flags=("json",), positional=("baseline", "treatment")))
